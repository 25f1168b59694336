"""The network against torchvision's modules; normalization that keeps the function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from stimkit.errors import WeightsError
from stimkit.network.layers import LAYERS, convolutions
from stimkit.network.sources import load_weights
from stimkit.network.vgg import VGG, calibration_images, rescale
from stimkit.network.weights import Weights

LAYERS_SEEN = ["conv1_1", "pool1", "conv2_2", "conv3_4", "conv4_2", "pool4", "conv5_1"]


@pytest.fixture(scope="module")
def pca() -> Weights:
    return load_weights("pca")


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def reference(source: Weights, image: torch.Tensor, pooling: str) -> dict[str, torch.Tensor]:
    """Feature maps of torchvision's own modules with these weights."""
    modules = make_layers(cfgs["E"], batch_norm=False).double()
    mean, std = (torch.tensor(one, dtype=torch.float64) for one in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (image - mean[:, None, None]) / std[:, None, None]
    outputs: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for layer in convolutions("vgg19"):
            module = modules[layer.torchvision_index]
            module.weight.copy_(torch.from_numpy(source.tensors[f"{layer.name}.weight"]))
            module.bias.copy_(torch.from_numpy(source.tensors[f"{layer.name}.bias"]))
        for index, module in enumerate(modules):
            module = nn.AvgPool2d(2) if isinstance(module, nn.MaxPool2d) and pooling == "average" else module
            x = module(x).clone()
            outputs[index] = x
    return {name: outputs[layer.torchvision_index + (0 if layer.is_pool else 1)] for name, layer in LAYERS.items()}


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_features_agree_with_torchvision(pca: Weights, image: torch.Tensor, pooling: str) -> None:
    network = VGG(pca, pooling=pooling, normalize="none", dtype=torch.float64)
    expected = reference(pca, image, pooling)
    for name, features in network.features(image, LAYERS_SEEN).items():
        assert torch.allclose(features, expected[name], rtol=1e-5, atol=1e-6), name


def test_relu_is_out_of_place_and_layers_are_rectified(pca: Weights, image: torch.Tensor) -> None:
    maps = VGG(pca).features(image.float(), ["conv1_1", "conv1_2"])
    assert maps["conv1_1"].min() == 0
    alone = VGG(pca).features(image.float(), ["conv1_1"])
    assert torch.equal(maps["conv1_1"], alone["conv1_1"])


def test_caffe_preprocessing_is_bgr_255_minus_mean(pca: Weights, image: torch.Tensor) -> None:
    caffe = Weights("x", pca.tensors, "caffe", pca.digest)
    first = VGG(caffe, normalize="none", dtype=torch.float64).features(image, ["conv1_1"])["conv1_1"]
    array = image.numpy()[:, ::-1] * 255 - np.array([103.939, 116.779, 123.68])[:, None, None]
    weight, bias = (torch.from_numpy(pca.tensors[f"conv1_1.{part}"]).double() for part in ("weight", "bias"))
    expected = nn.functional.relu(nn.functional.conv2d(torch.from_numpy(array.copy()), weight, bias, padding=1))
    assert torch.allclose(first, expected)


@pytest.mark.alternating
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_normalization_gives_unit_means_and_keeps_the_function(pca: Weights, image: torch.Tensor, pooling: str) -> None:
    rng = np.random.default_rng(1)
    uneven = {}
    for layer in convolutions("vgg19"):  # scale every filter at random, and undo nothing: means are no longer 1
        factor = rng.uniform(0.2, 5, layer.channels).astype(np.float32)
        uneven[f"{layer.name}.weight"] = pca.tensors[f"{layer.name}.weight"] * factor[:, None, None, None]
        uneven[f"{layer.name}.bias"] = pca.tensors[f"{layer.name}.bias"] * factor
    source = Weights("x", uneven, "torchvision", "", None)
    plain = VGG(source, pooling=pooling, normalize="none")
    scaled = VGG(source, pooling=pooling, normalize="filter")
    layers = ["conv1_2", "conv3_1"]
    means = scaled.features(calibration_images(), layers)
    before, after = (network.features(image.float(), layers) for network in (plain, scaled))
    for name in layers:
        assert torch.allclose(means[name].mean((0, 2, 3)), torch.ones(LAYERS[name].channels), atol=1e-3)
        scale = plain.features(calibration_images(), [name])[name].mean((0, 2, 3))
        assert torch.allclose(
            before[name], after[name] * scale[:, None, None], rtol=1e-3, atol=float(1e-5 * before[name].max())
        )


def test_layers_get_unit_means_and_filters_keep_their_proportions(pca: Weights, image: torch.Tensor) -> None:
    scales = np.random.default_rng(1)
    tensors = {key: value.copy() for key, value in pca.tensors.items()}
    for layer in convolutions("vgg19"):
        for part in ("weight", "bias"):
            tensors[f"{layer.name}.{part}"] *= np.float32(scales.uniform(0.2, 5))
    source = Weights("x", tensors, "torchvision", "", None)
    plain, scaled = VGG(source, normalize="none"), VGG(source, normalize="layer")
    layers = ["conv1_1", "conv2_2", "conv3_1"]
    means = scaled.features(calibration_images(), layers)
    before, after = (network.features(image.float(), layers) for network in (plain, scaled))
    for name in layers:
        assert float(means[name].mean()) == pytest.approx(1, rel=1e-4)
        ratio = before[name].sum() / after[name].sum()
        assert torch.allclose(before[name], ratio * after[name], rtol=1e-3, atol=float(1e-5 * before[name].max()))


def test_what_was_rescaled_is_left_as_it_is(pca: Weights) -> None:
    for by in ("layer", "filter", "none"):
        assert rescale(pca, "average", by) is pca
    assert rescale(pca, "max", "layer") is not pca


def test_a_network_without_any_response_is_refused(pca: Weights) -> None:
    tensors = {key: value.copy() for key, value in pca.tensors.items()}
    tensors["conv2_2.weight"][:], tensors["conv2_2.bias"][:] = 0, -1
    for by in ("layer", "filter"):
        with pytest.raises(WeightsError, match="conv2_2 does not respond to any of the images"):
            rescale(Weights("x", tensors, "torchvision", "", None), "average", by)


def test_a_silent_filter_keeps_its_scale(pca: Weights) -> None:
    tensors = {key: value.copy() for key, value in pca.tensors.items()}
    tensors["conv1_1.weight"][3], tensors["conv1_1.bias"][3] = 0, -1
    network = VGG(Weights("x", tensors, "torchvision", "", None), normalize="filter")
    features = network.features(calibration_images()[:1], ["conv2_1"])["conv2_1"]
    assert features.isfinite().all()


def test_embedded_weights_are_already_normalized_for_average_pooling(pca: Weights) -> None:
    maps = VGG(pca, normalize="none").features(calibration_images(), ["conv1_1", "conv4_2"])
    for features in maps.values():
        assert torch.allclose(features.mean((0, 2, 3)), torch.ones(features.shape[1]), atol=1e-4)

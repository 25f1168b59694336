"""LPIPS and DISTS equal the packages of their authors on the same filters."""

from __future__ import annotations

from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
import torchmetrics.functional.image.dists
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim
from torchvision.models import vgg16

from stimkit.errors import UsageError
from stimkit.images.pixels import FloatImage, resize, to_float
from stimkit.images.reading import read_source
from stimkit.measures.similarity import Similarity
from stimkit.measures.variances import measure_variances
from stimkit.network.layers import convolutions
from stimkit.network.sources import load_weights

WEIGHTS = load_weights("random:3", network="vgg16")
NAMES = ("chelsea", "coffee", "astronaut")
PAIRS = [(0, 1), (1, 2), (2, 2)]


@pytest.fixture(scope="module")
def images() -> list[FloatImage]:
    return [to_float(resize(read_source(f"skimage:{name}", Path()).pixels, (64, 64), "crop")) for name in NAMES]


@pytest.fixture(scope="module")
def similarity() -> Similarity:
    return Similarity(WEIGHTS, torch.device("cpu"))


def as_torchvision(**_: object) -> torch.nn.Module:
    """Torchvision's VGG16 with our filters; its classifier has no values, which nobody needs."""
    with torch.device("meta"):
        network: torch.nn.Module = vgg16(weights=None, init_weights=False)
    modules = dict(network.named_modules())
    modules["features"].to_empty(device="cpu")
    for layer in convolutions("vgg16"):
        module = modules[f"features.{layer.torchvision_index}"]
        assert isinstance(module, torch.nn.Conv2d) and module.bias is not None
        module.weight.data = torch.from_numpy(WEIGHTS.tensors[f"{layer.name}.weight"])
        module.bias.data = torch.from_numpy(WEIGHTS.tensors[f"{layer.name}.bias"])
    return network


def batches(images: list[FloatImage], pair: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    one, other = (torch.from_numpy(images[index])[None] for index in pair)
    return one, other


def test_lpips_is_that_of_its_authors(
    images: list[FloatImage], similarity: Similarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lpips.pretrained_networks.tv, "vgg16", as_torchvision)  # which would be downloaded
    theirs = lpips.LPIPS(net="vgg", verbose=False)
    for pair in PAIRS:
        with torch.no_grad():
            wanted = float(theirs(*batches(images, pair), normalize=True))
        found = similarity.compare(images[pair[0]], images[pair[1]])["lpips_content"]
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-7) and (found > 0.05) == (pair[0] != pair[1])


def test_dists_is_that_of_its_authors(
    images: list[FloatImage], similarity: Similarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchmetrics.functional.image.dists, "vgg16", as_torchvision)  # which would be downloaded
    theirs = torchmetrics.functional.image.dists.DISTSNetwork()
    for pair in PAIRS:
        with torch.no_grad():
            wanted = float(theirs(*batches(images, pair)))
        found = similarity.compare(images[pair[0]], images[pair[1]])["dists_content"]
        assert found == pytest.approx(wanted, abs=1e-6) and (found > 0.05) == (pair[0] != pair[1])


def test_images_too_small_for_five_scales_have_no_ms_ssim(images: list[FloatImage], similarity: Similarity) -> None:
    assert np.isnan(similarity.compare(images[0], images[1])["ms_ssim_content"])
    large = np.repeat(np.repeat(images[0], 3, 1), 3, 2)
    noisy = (large + 0.1 * np.random.default_rng(0).normal(size=large.shape)).clip(0, 1).astype(np.float32)
    found = similarity.compare(noisy, large)["ms_ssim_content"]
    wanted = ms_ssim(torch.from_numpy(noisy)[None], torch.from_numpy(large)[None], data_range=1.0)
    assert found == pytest.approx(float(wanted)) and 0.5 < found < 0.999


def test_other_networks_are_refused() -> None:
    with pytest.raises(UsageError, match="defined for VGG16"):
        Similarity(load_weights("pca"), torch.device("cpu"))


def test_variances_are_those_of_sums_that_are_written_out() -> None:
    maps = torch.rand(6, 44, 48, generator=torch.Generator().manual_seed(0))
    shares = {}
    for parts in (22, 12):
        rows, columns = (
            [(int(np.floor(i * side / parts)), int(np.ceil((i + 1) * side / parts))) for i in range(parts)]
            for side in maps.shape[1:]
        )
        largest = np.array([[maps[:, a:b, c:d].amax((1, 2)).numpy() for c, d in columns] for a, b in rows], float)
        shares[parts] = largest / largest.sum(2, keepdims=True)
    wanted = {
        "cnn_sparseness": shares[22].var(),
        "cnn_variability": np.median(shares[12].var((0, 1))),
    }
    assert measure_variances(maps) == pytest.approx(wanted, rel=1e-6)
    even = measure_variances(torch.ones(6, 40, 40))
    assert even == pytest.approx({"cnn_sparseness": 0.0, "cnn_variability": 0.0}, abs=1e-30)

"""Networks and formats of weights: VGG16, Keras, MatConvNet, random filters, what is known by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.io import savemat

import stimkit
from stimkit.errors import ProtocolError, WeightsError
from stimkit.network.layers import LAYERS, NETWORKS, NetworkName, convolutions
from stimkit.network.published import PUBLISHED, PublishedFile, files_called
from stimkit.network.sources import find_downloaded, load_weights, other_files
from stimkit.network.vgg import VGG, calibration_images
from stimkit.network.weights import Tensors, read_weights, save_weights, tensor_digest
from stimkit.records.methods import methods_paragraph
from tests.conftest import small_plan


def made_up(network: NetworkName) -> Tensors:
    return dict(load_weights("random:7", network=network).tensors)


@pytest.fixture(scope="module")
def small() -> Tensors:
    """A VGG16's tensors."""
    return made_up("vgg16")


def keras_file(tensors: Tensors, path: Path) -> Path:
    """As Keras 1 wrote it: groups of layers, in them a kernel (height, width, in, out) and a bias."""
    with h5py.File(path, "w") as file:
        for layer in convolutions("vgg16"):
            name = f"block{layer.name[4]}_conv{layer.name[6]}"
            group = file.create_group(name)
            group[f"{name}_W_1:0"] = tensors[f"{layer.name}.weight"].transpose(2, 3, 1, 0)
            group[f"{name}_b_1:0"] = tensors[f"{layer.name}.bias"]
    return path


def test_vgg16_has_13_of_the_layers_of_vgg19() -> None:
    assert len(convolutions("vgg16")) == 13 and len(convolutions("vgg19")) == 16
    assert NETWORKS["vgg19"].keys() - NETWORKS["vgg16"].keys() == {"conv3_4", "conv4_4", "conv5_4"}
    for name, layer in NETWORKS["vgg16"].items():
        assert (layer.channels, layer.stride) == (LAYERS[name].channels, LAYERS[name].stride)
    indices = [layer.torchvision_index for layer in convolutions("vgg16")]
    assert indices == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


@pytest.mark.slow
def test_a_vgg16_is_a_vgg19_whose_further_layers_are_the_identity(small: Tensors, tmp_path: Path) -> None:
    whole = dict(small)
    for name in ("conv3_4", "conv4_4", "conv5_4"):
        channels = LAYERS[name].channels
        whole[f"{name}.weight"] = np.zeros((channels, channels, 3, 3), np.float32)
        whole[f"{name}.weight"][range(channels), range(channels), 1, 1] = 1
        whole[f"{name}.bias"] = np.zeros(channels, np.float32)
    save_file(small, tmp_path / "16.safetensors", {"preprocessing": "caffe"})
    save_file(whole, tmp_path / "19.safetensors", {"preprocessing": "caffe"})
    losses = []
    for network in ("vgg16", "vgg19"):
        plan = small_plan(
            model={"weights": str(tmp_path / f"{network[3:]}.safetensors"), "network": network},
            layers={"content": ["conv4_2"], "style": {"one": ["conv3_3"], "two": ["conv1_1", "conv5_1"]}},
            synthesis={"max_evaluations": 3, "init": "content"},
        )
        run = stimkit.run(plan, tmp_path / network, device="cpu").path
        records = stimkit.open_run(run).records.values()
        assert {record.settings.network for record in records} == {network}
        losses.append([record.losses.file.total for record in records])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("prefix", ["features", "conv"])
def test_the_network_of_a_file_is_known_by_its_layers(prefix: str, small: Tensors, tmp_path: Path) -> None:
    named = {
        f"{layer.name if prefix == 'conv' else f'features.{layer.torchvision_index}'}.{part}": small[
            f"{layer.name}.{part}"
        ]
        for layer in convolutions("vgg16")
        for part in ("weight", "bias")
    }
    save_file(named, tmp_path / "w.safetensors")
    found = read_weights(tmp_path / "w.safetensors", preprocessing="caffe")
    assert found.network == "vgg16" and found.digest == tensor_digest(small)
    with pytest.raises(WeightsError, match=r'holds a VGG16, .* write network = "vgg16" in \[model\]'):
        read_weights(tmp_path / "w.safetensors", preprocessing="caffe", network="vgg19")
    save_weights(found, tmp_path / "again.safetensors")
    assert read_weights(tmp_path / "again.safetensors").network == "vgg16"


def test_names_of_two_kinds_are_refused(small: Tensors, tmp_path: Path) -> None:
    save_file({**small, "features.0.weight": small["conv1_1.weight"]}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="names of two kinds"):
        read_weights(tmp_path / "w.safetensors", preprocessing="caffe")


def test_layers_that_a_network_lacks_are_explained() -> None:
    with pytest.raises(ProtocolError, match=r'"conv3_4" is not a layer of VGG16 \(did you mean "conv3_3"\?\)'):
        small_plan(
            model={"network": "vgg16", "weights": "random:1"},
            layers={"style": {"one": ["conv1_1"], "two": ["conv3_4"]}},
        )
    problems = small_plan(model={"network": "vgg16"}).missing
    assert [
        'holds a VGG19, and the network is to be vgg16: write network = "vgg19"' in str(one) for one in problems
    ] == [True]


# --- formats -----------------------------------------------------------------------------------------------------


def test_kernels_of_keras_are_turned(small: Tensors, tmp_path: Path) -> None:
    path = keras_file(small, tmp_path / "vgg16.h5")
    found = read_weights(path, preprocessing="caffe")
    assert found.network == "vgg16" and found.digest == tensor_digest(small)
    with pytest.raises(WeightsError, match=r"networks of any training are kept, .* say what it takes"):
        read_weights(path)


def test_files_of_keras_cannot_point_elsewhere(small: Tensors, tmp_path: Path) -> None:
    keras_file(small, tmp_path / "other.h5")
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["block1_conv1"] = h5py.ExternalLink("other.h5", "/block1_conv1")
    with pytest.raises(WeightsError, match=r"conv1_1\.weight is missing"):
        read_weights(tmp_path / "links.h5", preprocessing="caffe")
    (tmp_path / "raw").write_bytes(bytes(64 * 4))
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("block1_conv1/b", (64,), "f4", external=[(str(tmp_path / "raw"), 0, 256)])
    with pytest.raises(WeightsError, match="is kept in another file"):
        read_weights(tmp_path / "raw.h5", preprocessing="caffe")


@pytest.mark.parametrize("suffix", [".h5", ".mat"])
def test_damaged_files(suffix: str, small: Tensors, tmp_path: Path) -> None:
    whole = keras_file(small, tmp_path / "whole.h5").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="is damaged or not"):
        read_weights(tmp_path / f"cut{suffix}", preprocessing="caffe")


@pytest.mark.parametrize("older", [False, True])
def test_channels_of_matconvnet_are_reversed(older: bool, small: Tensors, tmp_path: Path) -> None:
    layers = []
    for layer in convolutions("vgg16"):
        kernel = small[f"{layer.name}.weight"]
        kernel = (kernel[:, ::-1] if layer.name == "conv1_1" else kernel).transpose(2, 3, 1, 0)
        bias = small[f"{layer.name}.bias"][None]
        cell = np.empty((1, 2), object)
        cell[0, 0], cell[0, 1] = kernel, bias
        values = {"filters": kernel, "biases": bias} if older else {"weights": cell}
        layers += [{"name": layer.name, "type": "conv", **values}, {"name": f"relu{layer.name[4:]}", "type": "relu"}]
    savemat(tmp_path / "vgg.mat", {"layers": np.array(layers, object)[None]})
    assert read_weights(tmp_path / "vgg.mat", preprocessing="caffe").digest == tensor_digest(small)
    with pytest.raises(WeightsError, match="say what it takes"):
        read_weights(tmp_path / "vgg.mat")


def test_formats_that_are_not_read_say_what_to_do(tmp_path: Path) -> None:
    for name, advice in (("a.onnx", "safetensors"), ("a.caffemodel", "oxford"), ("a.pkl", "can run code")):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(WeightsError, match=advice):
            read_weights(tmp_path / name)


# --- names -------------------------------------------------------------------------------------------------------


def test_random_filters_are_the_same_everywhere() -> None:
    first, again, other = (load_weights(f"random:{seed}") for seed in (3, 3, 4))
    assert first.digest == again.digest == "d85ef3b4def1af8ce1dc93e7e3de51ac26f56a343b5f0682455b73fbba6927d4"
    assert first.digest != other.digest
    maps = VGG(first).features(calibration_images()[:2], ["conv3_1"])["conv3_1"]
    assert maps.isfinite().all() and 0.5 < float(maps.mean()) < 2
    for layer in convolutions("vgg19"):
        deviation = float(first.tensors[f"{layer.name}.weight"].std())
        assert deviation == pytest.approx((2 / (9 * layer.in_channels)) ** 0.5, rel=0.05)
    for spec in ("random:", "random:-1", "random:1.5", "random:99999999999999999999"):
        with pytest.raises(WeightsError, match="a whole number from 0 to 2"):
            load_weights(spec)


def test_a_published_file_is_known_wherever_it_is(
    small: Tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str, str]]
) -> None:
    monkeypatch.setenv("STIMKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    real = files_called("oxford", "vgg16")[0]
    path = keras_file(small, tmp_path / "keras" / "models" / real.filename)
    assert path in other_files()
    with pytest.raises(WeightsError, match=r"is not vgg16_weights.*\(md5 .* instead of 6d6bbae143d8"):
        find_downloaded(real)
    digest = "md5:" + hashlib.md5(path.read_bytes()).hexdigest()
    known = PublishedFile("mine", "vgg16", real.filename, digest, 0, "caffe", "trained by me", "CC0-1.0")
    found = find_downloaded(known)
    assert found is not None
    weights = read_weights(found)
    assert (weights.preprocessing, weights.description) == ("caffe", "trained by me (CC0-1.0)")
    assert weights.digest == tensor_digest(small)
    path.unlink()
    code, out, _ = command("weights", "list")
    assert code == 0 and "stimkit weights fetch oxford --network vgg16" in out


def test_digests_have_the_length_of_their_kind() -> None:
    for one in PUBLISHED:
        assert set(one.hexadecimal) <= set("0123456789abcdef")
        assert len(one.hexadecimal) in {"sha256": (64, 8), "md5": (32,)}[one.algorithm]
        assert one.url == "" or one.url.endswith(one.filename)
    assert len({one.digest for one in PUBLISHED}) == len(PUBLISHED)


def test_records_and_methods_name_the_network_in_words(tmp_path: Path) -> None:
    plan = small_plan(model={"weights": "random:1", "network": "vgg16"}, synthesis={"max_evaluations": 1})
    run = stimkit.open_run(stimkit.run(plan, tmp_path / "run", device="cpu").path)
    methods = methods_paragraph(plan, list(run.records.values()), run.environments)
    words = "an untrained VGG16 with random filters, seed 1"
    assert {record.weights_origin for record in run.records.values()} == {words}
    assert set(run.dataset["model"].values) == {"vgg16"} and set(run.dataset["weights_origin"].values) == {words}
    assert f"The network was VGG16 with average pooling and the weights random:1 ({words}; sha256" in methods

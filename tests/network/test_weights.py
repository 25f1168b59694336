"""Weights: names, files, hostile files, downloads; and filters fitted to photographs."""

from __future__ import annotations

import hashlib
import http.server
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch_file

from stimkit.cli.weights import DownloadBar
from stimkit.errors import WeightsError
from stimkit.network.fitting import fit_weights, read_images
from stimkit.network.layers import convolutions
from stimkit.network.published import PublishedFile
from stimkit.network.sources import EMBEDDED, fetch_weights, find_downloaded, load_weights
from stimkit.network.vgg import VGG, calibration_images
from stimkit.network.weights import Tensors, Weights, read_weights, save_weights, tensor_digest
from tests.conftest import small_plan


@pytest.fixture(scope="session")
def tensors() -> Tensors:
    """Seeded tensors of the right shapes."""
    rng = np.random.default_rng(0)
    result: Tensors = {}
    for layer in convolutions("vgg19"):
        shape = (layer.channels, layer.in_channels, 3, 3)
        result[f"{layer.name}.weight"] = rng.standard_normal(shape, dtype=np.float32) * 0.05
        result[f"{layer.name}.bias"] = rng.standard_normal(layer.channels, dtype=np.float32) * 0.05
    return result


def torchvision_state(tensors: Tensors) -> dict[str, torch.Tensor]:
    state = {"classifier.0.weight": torch.zeros(3, 2)}
    for layer in convolutions("vgg19"):
        for part in ("weight", "bias"):
            state[f"features.{layer.torchvision_index}.{part}"] = torch.from_numpy(tensors[f"{layer.name}.{part}"])
    return state


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_the_precision_of_safetensors(kind: torch.dtype, tensors: Tensors, tmp_path: Path) -> None:
    state = {name: torch.from_numpy(value).to(kind) for name, value in tensors.items()}
    save_torch_file(state, tmp_path / "a.safetensors", {"preprocessing": "caffe"})
    if kind == torch.float8_e4m3fn:
        with pytest.raises(WeightsError, match=r"values of type F8_E4M3; weights are read as F64, F32, F16, BF16"):
            read_weights(tmp_path / "a.safetensors")
        return
    found = read_weights(tmp_path / "a.safetensors")
    for name, value in state.items():
        assert np.array_equal(found.tensors[name], value.float().numpy())


def test_weights_are_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    (tmp_path / "b.pth").symlink_to("/dev/zero")
    for name in ("a.safetensors", "b.pth"):
        with pytest.raises(WeightsError, match="not a regular file"):
            read_weights(tmp_path / name)


@pytest.fixture(scope="session")
def torchvision_file(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg19-small.pth"
    torch.save(torchvision_state(tensors), path)
    return path


def test_embedded_weights_are_intact_and_known() -> None:
    found = load_weights("pca")
    assert found.preprocessing == "torchvision"
    assert found.digest == tensor_digest(found.tensors)
    assert EMBEDDED.stat().st_size < 21_000_000


def test_torchvision_names(torchvision_file: Path, tensors: Tensors) -> None:
    found = load_weights(str(torchvision_file), preprocessing="torchvision")
    assert found.preprocessing == "torchvision"
    assert found.digest == tensor_digest(tensors)
    assert all(np.array_equal(found.tensors[key], tensors[key]) for key in tensors)


def test_torchvision_names_do_not_say_what_a_network_takes(
    torchvision_file: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    """Conversions of Caffe's network have them, too; only a published file is known by its digest."""
    with pytest.raises(WeightsError, match=r'say what it takes: preprocessing = "torchvision" or "caffe"'):
        load_weights(str(torchvision_file))
    out = tmp_path / "w.safetensors"
    code, _, err = command("weights", "import", torchvision_file, "--out", out)
    assert code == 2 and "conversions of Caffe's network" in err and not out.exists()
    code, _, _ = command("weights", "import", torchvision_file, "--out", out, "--preprocessing", "caffe")
    assert code == 0 and load_weights(str(out)).preprocessing == "caffe"
    plan = small_plan(model={"weights": str(torchvision_file)})
    assert any("say what it takes" in str(problem) for problem in plan.missing)
    assert not small_plan(model={"weights": str(torchvision_file), "preprocessing": "caffe"}).missing


def test_gatys_names_mean_caffe_unless_told_otherwise(tensors: Tensors, tmp_path: Path) -> None:
    torch.save({key: torch.from_numpy(value) for key, value in tensors.items()}, tmp_path / "vgg_conv.pth")
    assert load_weights("vgg_conv.pth", base=tmp_path).preprocessing == "caffe"
    assert load_weights("vgg_conv.pth", base=tmp_path, preprocessing="torchvision").preprocessing == "torchvision"


def test_import_round_trip_keeps_digest_and_preprocessing(torchvision_file: Path, tmp_path: Path) -> None:
    first = read_weights(torchvision_file, preprocessing="caffe")
    save_weights(first, tmp_path / "w.safetensors")
    second = read_weights(tmp_path / "w.safetensors")
    assert (second.digest, second.preprocessing) == (first.digest, "caffe")


def broken(tensors: Tensors, tmp_path: Path, **changes: np.ndarray | None) -> Path:
    changed = {key: value for key, value in {**tensors, **changes}.items() if value is not None}
    save_file(changed, tmp_path / "broken.safetensors")
    return tmp_path / "broken.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv3_1.bias": None}, "does not hold a VGG19 or VGG16: conv3_1.bias is missing"),
        ({"conv1_1.weight": np.zeros((64, 3, 5, 5), np.float32)}, r"conv1_1.weight has shape \(64, 3, 5, 5\), not"),
        ({"conv5_4.bias": np.full(512, np.nan, np.float32)}, "conv5_4.bias has values that are not finite"),
    ],
)
def test_wrong_tensors_are_named(
    changes: dict[str, np.ndarray | None], message: str, tensors: Tensors, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        read_weights(broken(tensors, tmp_path, **changes))


def test_altered_file_is_noticed(tmp_path: Path) -> None:
    raw = load_file(EMBEDDED)
    raw["conv4_2.bias"] = raw["conv4_2.bias"] + np.float32(1e-3)
    with safe_open(EMBEDDED, framework="numpy") as file:
        metadata = file.metadata()
    save_file(raw, tmp_path / "altered.safetensors", metadata)
    with pytest.raises(WeightsError, match="is damaged: its tensors have sha256"):
        read_weights(tmp_path / "altered.safetensors")


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile(tmp_path / "harm")))
    torch.save({"conv1_1.weight": Hostile(tmp_path / "harm")}, tmp_path / "zipped.pth")
    for name in ("plain.pth", "zipped.pth"):
        with pytest.raises(WeightsError, match="could run code"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(("name", "data"), [("x.safetensors", b"\xff" * 64), ("x.pth", b"PK nonsense"), ("x.bin", b"")])
def test_files_that_are_no_weights(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=name):
        read_weights(tmp_path / name)


def test_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match='did you mean "imagenet"'):
        load_weights("imagnet", base=tmp_path)
    with pytest.raises(WeightsError, match="`stimkit weights fetch imagenet` downloads them once"):
        load_weights("imagenet")


# --- download ------------------------------------------------------------------------------------------------


@pytest.fixture
def remote(torchvision_file: Path) -> Iterator[PublishedFile]:
    """The small torchvision file on a loopback server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(torchvision_file.parent))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        data = torchvision_file.read_bytes()
        yield PublishedFile(
            name="imagenet-small",
            network="vgg19",
            filename=torchvision_file.name,
            digest="sha256:" + hashlib.sha256(data).hexdigest(),
            size=len(data),
            preprocessing="torchvision",
            origin="a test",
            licence="CC0-1.0",
            url=f"http://127.0.0.1:{server.server_port}/{torchvision_file.name}",
        )
        server.shutdown()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STIMKIT_CACHE", str(tmp_path / "cache"))
    for variable in ("TORCH_HOME", "KERAS_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable.removesuffix("_HOME").lower()))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path / "cache"


def test_download_is_checked_converted_and_kept(remote: PublishedFile, tensors: Tensors, empty_cache: Path) -> None:
    assert find_downloaded(remote) is None
    path = fetch_weights(remote)
    assert read_weights(path).digest == tensor_digest(tensors)
    assert [one.name for one in empty_cache.iterdir()] == [path.name]
    offline = replace(remote, url="http://127.0.0.1:9/" + remote.filename)
    assert fetch_weights(offline) == path


def test_download_shows_its_progress(remote: PublishedFile, empty_cache: Path) -> None:
    bar = DownloadBar()
    fetch_weights(remote, progress=bar)
    assert bar.total == remote.size
    assert bar.done == remote.size


def test_wrong_digest_keeps_nothing(remote: PublishedFile, empty_cache: Path) -> None:
    with pytest.raises(WeightsError, match="was damaged on its way or has changed"):
        fetch_weights(replace(remote, digest="sha256:" + "0" * 64))
    assert list(empty_cache.iterdir()) == []


def test_no_network_says_what_to_do(remote: PublishedFile, empty_cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be reached; on another machine, .* put it into"):
        fetch_weights(replace(remote, url="http://127.0.0.1:9/" + remote.filename))


@pytest.mark.parametrize("place", ["cache", "torch/hub/checkpoints"])
def test_a_file_put_there_by_hand_is_found(
    place: str, remote: PublishedFile, torchvision_file: Path, empty_cache: Path
) -> None:
    folder = empty_cache.parent / place
    folder.mkdir(parents=True)
    (folder / remote.filename).write_bytes(torchvision_file.read_bytes())
    found = find_downloaded(remote)
    assert found is not None and found.suffix == ".safetensors"
    (folder / remote.filename).write_bytes(b"something else")
    found.unlink()
    with pytest.raises(WeightsError, match=r"is not vgg19-small\.pth"):
        find_downloaded(remote)


# --- fitting -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def fitted() -> list[tuple[Weights, dict[str, np.ndarray]]]:
    images = read_images(["skimage:chelsea", "skimage:coffee"], Path())[:, :, ::4, ::4]
    return [fit_weights(images, "mine", patches=200) for _ in range(2)]


@pytest.mark.slow
def test_fit_gives_the_same_digest_again(fitted: list[tuple[Weights, dict[str, np.ndarray]]]) -> None:
    assert fitted[0][0].digest == fitted[1][0].digest
    assert fitted[0][0].digest != load_weights("pca").digest


@pytest.mark.slow
def test_fitted_weights_survive_their_file(fitted: list[tuple[Weights, dict[str, np.ndarray]]], tmp_path: Path) -> None:
    made, packed = fitted[0]
    save_weights(made, tmp_path / "mine.safetensors", packed)
    again = read_weights(tmp_path / "mine.safetensors")
    assert (again.digest, again.unit_mean_pooling) == (made.digest, "average")


@pytest.mark.slow
def test_fitted_filters_have_unit_mean_activation(fitted: list[tuple[Weights, dict[str, np.ndarray]]]) -> None:
    network = VGG(fitted[0][0], normalize="none")
    maps = network.features(calibration_images(), ["conv1_1", "conv2_2", "conv4_1"])
    for features in maps.values():
        assert torch.allclose(features.mean((0, 2, 3)), torch.ones(features.shape[1]), atol=1e-3)


# --- what labs have -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "features.module"])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict"])
def test_checkpoints_of_trainings(prefix: str, key: str | None, tensors: Tensors, tmp_path: Path) -> None:
    """As those of Stylized-ImageNet: in parallel, with epoch and optimizer beside the network."""
    state = torchvision_state(tensors)
    if prefix == "module.":
        state = {f"module.{name}": value for name, value in state.items()}
    else:
        state = {name.replace("features.", "features.module."): value for name, value in state.items()}
    torch.save(state if key is None else {"epoch": 3, key: state, "arch": "vgg19"}, tmp_path / "checkpoint.pth")
    found = read_weights(tmp_path / "checkpoint.pth", preprocessing="torchvision")
    assert found.digest == tensor_digest(tensors)
    with pytest.raises(WeightsError, match="say what it takes"):
        read_weights(tmp_path / "checkpoint.pth")


def test_classifiers_of_safetensors_are_not_read(tensors: Tensors, tmp_path: Path) -> None:
    state = {name: value.contiguous() for name, value in torchvision_state(tensors).items()}
    state |= {"pre_logits.fc1.weight": torch.zeros(2, 2).to(torch.float8_e4m3fn), "head.fc.bias": torch.zeros(3)}
    save_torch_file(state, tmp_path / "model.safetensors")
    found = read_weights(tmp_path / "model.safetensors", preprocessing="torchvision")
    assert found.digest == tensor_digest(tensors)


@pytest.mark.alternating
@pytest.mark.parametrize("by", ["layer", "filter"])
def test_weights_are_rescaled_over_images_of_a_lab(
    by: str, tensors: Tensors, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    source = tmp_path / "own.safetensors"
    save_weights(Weights("own", tensors, "torchvision", tensor_digest(tensors)), source)
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    out = tmp_path / "unit.safetensors"
    code, text, err = command("weights", "normalize", source, "--images", tmp_path, "--out", out, "--by", by)
    assert code == 0 and f"{by}s of unit mean over 2 images" in text, err
    made = read_weights(out)
    assert made.unit_mean_pooling == "average" and made.digest == tensor_digest(made.tensors) != tensor_digest(tensors)
    images = read_images([f"{number}.png" for number in range(2)], tmp_path)
    maps = VGG(made, normalize="none").features(images, ["conv1_1", "conv2_1"])
    for features in maps.values():
        means = features.mean((0, 2, 3))
        assert float(means.mean()) == pytest.approx(1, rel=1e-3)
        assert torch.allclose(means[means > 0.01], torch.ones(()), rtol=1e-3) == (by == "filter")
    code, _, err = command("weights", "normalize", source, "--images", tmp_path, "--out", out)
    assert code == 2 and "exists" in err
    other = ("--out", tmp_path / "x.safetensors", "--by", "image")
    assert command("weights", "normalize", source, "--images", tmp_path, *other)[0] == 2

"""Where weights come from: embedded, downloaded once, in the caches of other libraries, drawn at random, files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from stimkit.downloads import DownloadError, download
from stimkit.errors import StorageError, WeightsError, did_you_mean
from stimkit.files import cache_folder
from stimkit.network.classifiers import Classifier, find_classifier, read_classifier
from stimkit.network.layers import NetworkName, Preprocessing, convolutions
from stimkit.network.published import PUBLISHED, PublishedFile, digest_of_file, files_called
from stimkit.network.weights import Tensors, Weights, read_weights, save_weights, tensor_digest

EMBEDDED = Path(__file__).parent / "pca.safetensors"
RANDOM = "random:"
REMOTE_NAMES = tuple(dict.fromkeys(one.name for one in PUBLISHED if one.name))
NAMES = ("pca", *REMOTE_NAMES)


def has_a_name(spec: str) -> bool:
    """Whether weights are known by what a protocol calls them, so that nobody needs a file of them."""
    return spec in NAMES or spec.startswith(RANDOM)


def load_weights(
    spec: str, *, base: Path = Path(), preprocessing: str = "auto", network: NetworkName | None = None
) -> Weights:
    """Load weights by name (`pca`, `imagenet`, `oxford`, `random:SEED`) or from a file relative to `base`.

    `preprocessing` overrides what the file says. Raises `WeightsError` where the file is missing, damaged, of other
    names or shapes, of another network, of unknown preprocessing (see `read_weights`), or has not been fetched.
    """
    if spec.startswith(RANDOM):
        return random_weights(spec, network or "vgg19", "torchvision" if preprocessing == "auto" else preprocessing)
    path = locate_weights(spec, base, network or "vgg19")
    status = path.stat()
    name = spec if spec in NAMES else Path(spec).stem
    wanted = None if spec in REMOTE_NAMES else network
    return _read_cached(path, status.st_mtime_ns, status.st_size, name, preprocessing, wanted)


def locate_weights(spec: str, base: Path = Path(), network: NetworkName = "vgg19") -> Path:
    """Return the file that `spec` stands for. Raises `WeightsError` where there is none."""
    if spec == "pca":
        return EMBEDDED
    if spec in REMOTE_NAMES:
        first, *others = files_called(spec, network)
        found = next((path for path in map(find_downloaded, (first, *others)) if path), None)
        if found is None:
            raise WeightsError(
                f"the {spec} weights of {network} are not on this machine; `stimkit weights fetch {spec}"
                f"{'' if network == 'vgg19' else ' --network ' + network}` downloads them once"
                f" ({first.size / 1e6:.0f} MB), or put {first.filename} into the cache of `stimkit doctor`"
            )
        return found
    path = base / spec
    if "\0" in spec or not path.is_file():
        raise WeightsError(f'weights "{spec}": no file {os.path.abspath(path)}{did_you_mean(spec, NAMES)}')
    return path


def load_classifier(
    spec: str, *, base: Path = Path(), preprocessing: str = "auto", network: NetworkName | None = None
) -> Classifier:
    """Load a whole network with its classifier, as `load_weights` loads its convolutions.

    Raises `WeightsError` where these weights have no classifier, and where it has not been fetched.
    """
    weights = load_weights(spec, base=base, preprocessing=preprocessing, network=network)
    if spec == "pca" or spec.startswith(RANDOM):
        raise WeightsError(
            f"the weights {spec} have no classifier: only a network that was trained to recognize images has one, as"
            " imagenet or oxford"
        )
    path = _locate_classifier(spec, base, weights.network)
    status = path.stat()
    tensors = _read_classifier_cached(path, status.st_mtime_ns, status.st_size)
    if not tensors:
        raise WeightsError(f"{path} holds convolutions without a classifier, so that nothing is recognized with it")
    return Classifier(weights, tensors)


def _locate_classifier(spec: str, base: Path, network: NetworkName) -> Path:
    if spec not in REMOTE_NAMES:
        return locate_weights(spec, base, network)
    whole = [one for one in files_called(spec, network) if one.whole]
    found = next((path for path in map(find_downloaded, whole) if path), None)
    if found is None:
        option = "" if network == "vgg19" else f" --network {network}"
        raise WeightsError(
            f"the classifier of the {spec} weights of {network} is not on this machine; `stimkit weights fetch {spec}"
            f"{option} --classifier` downloads it once ({whole[0].size / 1e6:.0f} MB)"
        )
    return found


def random_weights(spec: str, network: NetworkName, preprocessing: str) -> Weights:
    """An untrained network: filters of He et al. (2015), uniform, without biases, the same to the bit everywhere.

    A control observer: what it shares with trained ones is the architecture (Ustyuzhaninov et al. 2017).
    Raises `WeightsError` where the seed is not a whole number from 0 to 2^53.
    """
    seed = spec.removeprefix(RANDOM)
    if not (seed.isascii() and seed.isdecimal() and int(seed) <= 2**53):
        raise WeightsError(f'weights "{spec}": write {RANDOM} and a whole number from 0 to 2^53, such as {RANDOM}1')
    if preprocessing not in ("torchvision", "caffe"):
        raise WeightsError(f'{spec}: unknown preprocessing "{preprocessing}"; it can be torchvision or caffe')
    tensors: Tensors = {}
    for number, layer in enumerate(convolutions(network)):
        shape = (layer.channels, layer.in_channels, 3, 3)
        words = np.random.Philox(key=[int(seed), number]).random_raw(int(np.prod(shape))) >> np.uint64(40)
        bound = (6 / (9 * layer.in_channels)) ** 0.5
        tensors[f"{layer.name}.weight"] = ((words * 2.0**-23 - 1) * bound).astype(np.float32).reshape(shape)
        tensors[f"{layer.name}.bias"] = np.zeros(layer.channels, np.float32)
    words_of_it = f"an untrained {network.upper()} with random filters, seed {int(seed)}"
    kind = cast(Preprocessing, preprocessing)
    return Weights(spec, tensors, kind, tensor_digest(tensors), description=words_of_it, network=network)


def find_downloaded(published: PublishedFile) -> Path | None:
    """Find published weights: converted in the cache, or the original there or where another library keeps it.

    Raises `WeightsError` where the file that is there is not the published one.
    """
    found = find_copy(published)
    return found if found is None or found == _converted(published) else _convert(published, found)


def find_copy(published: PublishedFile) -> Path | None:
    """Where published weights are on this machine, converted or not; their digest is not looked at."""
    try:
        return next((path for path in (_converted(published), *places(published)) if path.is_file()), None)
    except StorageError:  # without a home folder nothing was downloaded
        return None


def _converted(published: PublishedFile) -> Path:
    return cache_folder() / f"{published.name}-{published.hexadecimal[:8]}.safetensors"


def places(published: PublishedFile) -> Iterator[Path]:
    """Where a published file may be: stimkit's cache, and those of PyTorch, Keras and Hugging Face."""
    yield cache_folder() / published.filename
    suffix = Path(published.filename).suffix
    if suffix == ".safetensors":
        yield from sorted(_hugging_face().glob(f"models--timm--{published.network}.*/snapshots/*/{published.filename}"))
    if suffix == ".pth":
        yield _cache_of("TORCH_HOME", "torch") / "hub" / "checkpoints" / published.filename
    if suffix == ".h5":
        yield _keras() / published.filename


def other_files() -> list[Path]:
    """Files of VGG networks in the caches of PyTorch, Keras and Hugging Face, by their names."""
    patterns = [
        (_cache_of("TORCH_HOME", "torch") / "hub" / "checkpoints", "vgg1[69]-*.pth"),
        (_keras(), "vgg1[69]_weights_tf_*.h5"),
        (_hugging_face(), "models--timm--vgg1[69].*/snapshots/*/model.safetensors"),
    ]
    return sorted(path for folder, pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _keras() -> Path:
    return Path(os.environ.get("KERAS_HOME") or Path(os.path.expanduser("~/.keras"))) / "models"


def _hugging_face() -> Path:
    return Path(os.environ.get("HF_HUB_CACHE") or _cache_of("HF_HOME", "huggingface") / "hub")


def _cache_of(variable: str, name: str) -> Path:
    """The cache of another library: where its variable says, or in the user's caches."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return Path(os.environ.get(variable) or caches / name)


def fetch_weights(published: PublishedFile, progress: Any = False) -> Path:
    """Download weights once into the cache, check their digest, and keep the convolutions as safetensors.

    `progress` is what `pooch.HTTPDownloader` takes. Raises `WeightsError` where the download fails or
    the digest is wrong; nothing is kept then.
    """
    found = find_downloaded(published)
    if found is not None:
        return found
    folder = cache_folder()
    try:
        original = download(published.url, published.digest, folder / published.filename, progress)
    except DownloadError as error:
        raise WeightsError(f"{error}; on another machine, download it and put it into {folder}") from error
    converted = _convert(published, original)
    original.unlink()
    return converted


def _convert(published: PublishedFile, original: Path) -> Path:
    actual = digest_of_file(original, published.algorithm)
    if actual != published.hexadecimal:
        raise WeightsError(
            f"{original} is not {published.filename} ({published.algorithm} {actual[:12]}… instead of"
            f" {published.hexadecimal[:12]}…); delete it"
        )
    weights = read_weights(
        original, name=published.name, preprocessing=published.preprocessing, network=published.network
    )
    described = replace(weights, description=published.description)
    save_weights(described, _converted(published), classifier=find_classifier(original)[0])
    return _converted(published)


@lru_cache(maxsize=1)
def _read_classifier_cached(path: Path, _mtime_ns: int, _size: int) -> Tensors:
    return read_classifier(path)


@lru_cache(maxsize=2)
def _read_cached(
    path: Path, _mtime_ns: int, _size: int, name: str, preprocessing: str, network: NetworkName | None
) -> Weights:
    return read_weights(path, name=name, preprocessing=preprocessing, network=network)

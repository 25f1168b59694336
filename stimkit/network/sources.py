"""Where weights come from: `pca` (embedded), `imagenet` (downloaded once, kept in the user's cache), files."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from stimkit.errors import StorageError, WeightsError, did_you_mean
from stimkit.files import cache_folder
from stimkit.network.layers import Preprocessing
from stimkit.network.weights import TORCHVISION_FILE, Weights, read_weights, save_weights


@dataclass(frozen=True)
class RemoteWeights:
    """A file of weights on the web, with the digest that it must have."""

    name: str
    url: str
    sha256: str
    size: int
    preprocessing: Preprocessing
    description: str

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]


IMAGENET = RemoteWeights(
    name="imagenet",
    url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    sha256=TORCHVISION_FILE,
    size=574_673_361,
    preprocessing="torchvision",
    description="torchvision VGG19_Weights.IMAGENET1K_V1, trained on ImageNet-1k object recognition",
)


EMBEDDED = Path(__file__).parent / "pca.safetensors"


def known_names() -> tuple[str, ...]:
    return ("pca", IMAGENET.name)


def load_weights(spec: str, *, base: Path = Path(), preprocessing: str = "auto") -> Weights:
    """Load weights by name (`pca`, `imagenet`) or from a file relative to `base`.

    `preprocessing` overrides what the file says. Raises `WeightsError` where the file is missing, damaged, of other
    names or shapes, of unknown preprocessing (see `read_weights`), or where `imagenet` has not been fetched.
    """
    path, name = locate_weights(spec, base), spec if spec in known_names() else Path(spec).stem
    status = path.stat()
    return _read_cached(path, status.st_mtime_ns, status.st_size, name, preprocessing)


def locate_weights(spec: str, base: Path = Path()) -> Path:
    """Return the file that `spec` stands for. Raises `WeightsError` where there is none."""
    if spec == "pca":
        return EMBEDDED
    if spec == IMAGENET.name:
        found = find_remote(IMAGENET)
        if found is None:
            raise WeightsError(
                f"the imagenet weights are not on this machine; `stimkit weights fetch imagenet` downloads them once"
                f" ({IMAGENET.size / 1e6:.0f} MB), or put {IMAGENET.filename} into the cache of `stimkit doctor`"
            )
        return found
    path = base / spec
    if "\0" in spec or not path.is_file():
        raise WeightsError(f'weights "{spec}": no file {os.path.abspath(path)}{did_you_mean(spec, known_names())}')
    return path


def find_remote(remote: RemoteWeights) -> Path | None:
    """Find downloaded weights: converted in the cache, or the original file there or in torch's hub cache."""
    try:
        own = cache_folder()
    except StorageError:  # without a home folder nothing was downloaded
        return None
    torch_home = Path(os.environ.get("TORCH_HOME") or os.path.expanduser("~/.cache/torch"))
    converted = own / f"{remote.name}-{remote.sha256[:8]}.safetensors"
    if converted.is_file():
        return converted
    for folder in (own, torch_home / "hub" / "checkpoints"):
        original = folder / remote.filename
        if original.is_file():
            return _convert(remote, original, converted)
    return None


def fetch_weights(remote: RemoteWeights, progress: Any = False) -> Path:
    """Download weights once into the cache, check their digest, and keep the convolutions as safetensors.

    `progress` is what `pooch.HTTPDownloader` takes. Raises `WeightsError` where the download fails or
    the digest is wrong; nothing is kept then.
    """
    import pooch

    found = find_remote(remote)
    if found is not None:
        return found
    folder = cache_folder()
    try:
        original = pooch.retrieve(
            remote.url,
            known_hash=f"sha256:{remote.sha256}",
            fname=remote.filename,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=progress, timeout=60),
        )
    except ValueError as error:
        raise WeightsError(f"{remote.url} was damaged on its way or has changed: {error}") from error
    except OSError as error:  # requests' errors are OSErrors, too
        raise WeightsError(
            f"{remote.url} could not be downloaded ({error}); on another machine, download it and put it into {folder}"
        ) from error
    converted = _convert(remote, Path(original), folder / f"{remote.name}-{remote.sha256[:8]}.safetensors")
    Path(original).unlink()
    return converted


def _convert(remote: RemoteWeights, original: Path, converted: Path) -> Path:
    with original.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != remote.sha256:
        raise WeightsError(
            f"{original} is not {remote.filename} (sha256 {actual[:12]}… instead of {remote.sha256[:12]}…); delete it"
        )
    weights = read_weights(original, name=remote.name, preprocessing=remote.preprocessing)
    save_weights(replace(weights, description=remote.description), converted)
    return converted


@lru_cache(maxsize=2)
def _read_cached(path: Path, _mtime_ns: int, _size: int, name: str, preprocessing: str) -> Weights:
    return read_weights(path, name=name, preprocessing=preprocessing)

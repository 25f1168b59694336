"""jsPsych and its plugins as the npm registry has them, by digest."""

from __future__ import annotations

import base64
import hashlib
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from stimkit.downloads import DownloadError, download
from stimkit.errors import StimkitError, UsageError
from stimkit.files import cache_folder, read_file

REGISTRY = "https://registry.npmjs.org"
MAX_MEMBER = 10_000_000  # bytes


@dataclass(frozen=True)
class Package:
    """A package of the npm registry, and which of its files a page loads."""

    name: str
    version: str
    sha512: str
    """Base64, as the registry's `dist.integrity` has it."""
    files: Mapping[str, str]
    """Names in the export, by those in the package."""

    @property
    def tarball(self) -> str:
        """The file that `npm pack` makes."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def url(self) -> str:
        return f"{REGISTRY}/{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


def _plugin(name: str, version: str, sha512: str) -> Package:
    return Package(f"@jspsych/{name}", version, sha512, {"package/dist/index.browser.min.js": f"{name}.js"})


JSPSYCH_PACKAGES = (
    Package(
        "jspsych",
        "8.3.0",
        "UrwSVG14v8oRX6WFQ1L6uuGT0G7KgRDSH48iKIVIQI+yMRGAlvg+tEUNFKe/1xZxgk3kZiZ5xP0AnpPqPj1zkg==",
        {"package/dist/index.browser.min.js": "jspsych.js", "package/css/jspsych.css": "jspsych.css"},
    ),
    _plugin(
        "plugin-preload", "2.1.0",
        "tQUViQQNK5RXc+sYjNyV1NKl8gt9Wl+sZ55kpW1eEn9I84WCSBtjPDthr7WxGMZeK+E/ybYucWMVcIwlncaHAg==",
    ),
    _plugin(
        "plugin-instructions", "2.1.0",
        "jg3bepI9axwenGMNGunmcnnsXn4V2xMhVrzfHUGkA7AP/TQLdS8aeNqwhq3SVy6EXPX8X+r/sr2GKHrXeViRFA==",
    ),
    _plugin(
        "plugin-html-keyboard-response", "2.2.0",
        "xuNbZH4QNuERMIg2+tHZ0KDpn/TZFXjmUa23zSl2iEmNGp1DNMhOZGlzR4lyavcFeq5qudpr3ZS4AlrlMS0Gdg==",
    ),
    _plugin(
        "plugin-html-button-response", "2.1.0",
        "AhJPePA8s/ount+QYtqfgMtEkz7g+j+bnhQ9XqxfsnK2f5MdnlakYtpjxW9YgFx9y0Gs7yb7OZk1+omcKlzaEQ==",
    ),
    _plugin(
        "plugin-virtual-chinrest", "3.1.0",
        "5PQfCRruwosOliqaltjpYltIo1teypByz6Fa0RBFxj4vKeMTl3WUM2A0ogeBcV4pLDgMFbJTrBLLgtlOsPLHpQ==",
    ),
)  # fmt: skip


def load_library(folder: str | Path | None = None) -> dict[str, bytes]:
    """The files that the experiment's page loads, and a note on their origin, by name.

    They come from the tarballs of `npm pack` in a folder, or are downloaded once from the npm registry into the user's
    cache; either way their SHA-512 is checked. Raises `UsageError` where a tarball is missing or another one.
    """
    found: dict[str, bytes] = {}
    for package in JSPSYCH_PACKAGES:
        data = _downloaded(package) if folder is None else _local(package, Path(folder))
        with tarfile.open(fileobj=BytesIO(data), mode="r:gz") as archive:
            for inside, name in package.files.items():
                member = archive.extractfile(inside)
                if member is None:
                    raise UsageError(f"{package.tarball} has no file {inside}")
                found[name] = member.read(MAX_MEMBER)
    lines = [f"- {package.name} {package.version}, MIT licence, {package.url}" for package in JSPSYCH_PACKAGES]
    found["ORIGIN.md"] = ("These files are parts of (https://www.jspsych.org):\n\n" + "\n".join(lines) + "\n").encode()
    return found


def npm_command() -> str:
    """The command that puts all tarballs into the working folder."""
    return "npm pack " + " ".join(f"{package.name}@{package.version}" for package in JSPSYCH_PACKAGES)


def _local(package: Package, folder: Path) -> bytes:
    path = folder / package.tarball
    try:
        data = read_file(path)
    except OSError:
        raise UsageError(f"{path} is not there; make it in {folder} with: {npm_command()}") from None
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != package.sha512:
        raise UsageError(f"{path} is not {package.name} {package.version} of the npm registry")
    return data


def _downloaded(package: Package) -> bytes:
    digest = "sha512:" + base64.b64decode(package.sha512).hex()
    try:
        return read_file(download(package.url, digest, cache_folder() / package.tarball))
    except (DownloadError, OSError) as error:
        raise StimkitError(
            f"{error}; or make the files elsewhere with `{npm_command()}` and give their folder with --jspsych"
        ) from error

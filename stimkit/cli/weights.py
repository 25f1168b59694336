"""The `stimkit weights` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stimkit.cli.terminal import err, say
from stimkit.errors import UsageError, WeightsError
from stimkit.files import json_text
from stimkit.images.reading import image_files
from stimkit.network.sources import IMAGENET, fetch_weights, find_remote, load_weights, locate_weights
from stimkit.network.weights import Weights, save_weights

weights_app = typer.Typer(
    help="List, fetch, import, fit and inspect network weights.", no_args_is_help=True, rich_markup_mode=None
)

Source = Annotated[str, typer.Argument(metavar="WEIGHTS", help="pca, imagenet, or a file.", show_default=False)]
Preprocesses = Annotated[str, typer.Option(help="What the network takes: auto, torchvision or caffe.")]
Out = Annotated[Path, typer.Option(help="File to write (.safetensors).", show_default=False)]


@weights_app.command("list")
def list_weights() -> None:
    """List the weights that have names, and whether they are on this machine."""
    found = find_remote(IMAGENET)
    size = IMAGENET.size / 1e6
    where = str(found) if found else f"not here; `stimkit weights fetch imagenet` downloads it once ({size:.0f} MB)"
    say(f"pca       embedded; {load_weights('pca').description}")
    say(f"imagenet  {where}; {IMAGENET.description}")


@weights_app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="imagenet")],
) -> None:
    """Download weights once into the user's cache, with progress and digest check."""
    if name != IMAGENET.name:
        raise UsageError(f'"{name}" cannot be fetched; only imagenet can (pca is embedded)')
    path = fetch_weights(IMAGENET, progress=DownloadBar())
    say(f"{name} is at {path}")


@weights_app.command("import")
def import_weights(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="State dict (.pth, .pt) or .safetensors.")],
    out: Out,
    preprocessing: Preprocesses = "auto",
) -> None:
    """Convert a VGG19 state dict (torchvision's or Gatys' names) to safetensors."""
    weights = _load(str(source), preprocessing)
    save_weights(weights, _new_file(out))
    say(f"wrote {out}: {weights.preprocessing} preprocessing, sha256 {weights.digest}")


@weights_app.command()
def normalize(
    source: Source,
    out: Out,
    images: Annotated[Path, typer.Option(help="Folder of images, such as those of the laboratory.")],
    by: Annotated[str, typer.Option(help="What gets a unit mean over them: layer or filter.")] = "filter",
    pooling: Annotated[str, typer.Option(help="average or max.")] = "average",
    preprocessing: Preprocesses = "auto",
) -> None:
    """Rescale weights to unit mean activation over images of your own; protocols then use them as they are.

    Example: stimkit weights normalize imagenet --images photographs --out imagenet-unit.safetensors
    """
    from stimkit.network.fitting import normalize_to_file

    if by not in ("layer", "filter") or pooling not in ("average", "max"):
        raise UsageError(f'--by is layer or filter, and --pooling is average or max, not "{by}" and "{pooling}"')
    names = _image_names(images)
    weights = normalize_to_file(_load(source, preprocessing), names, images, _new_file(out), by=by, pooling=pooling)
    say(f"wrote {out}: {by}s of unit mean over {len(names)} images, {pooling} pooling, sha256 {weights.digest}")


@weights_app.command()
def fit(
    out: Out,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images to fit to; default: the photographs that pca was fitted to.")
    ] = None,
) -> None:
    """Fit weights of the pca kind to your own images (about a minute on two cores)."""
    from stimkit.network.fitting import DEFAULT_IMAGES, fit_to_file

    names = DEFAULT_IMAGES if images is None else _image_names(images)
    weights = fit_to_file(names, images or Path(), _new_file(out), lambda layer: say(f"  {layer}", err=True))
    say(f"wrote {out}: fitted to {len(names)} images, sha256 {weights.digest}")


def _load(source: str, preprocessing: str) -> Weights:
    if preprocessing not in ("auto", "torchvision", "caffe"):
        raise UsageError(f'preprocessing must be auto, torchvision or caffe (got "{preprocessing}")')
    return load_weights(source, preprocessing=preprocessing)


def _image_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    names = [path.relative_to(folder).as_posix() for path in image_files(folder)]
    if len(names) < 2:
        raise UsageError(f"{folder} has {len(names)} images; give at least 2, better a dozen or more")
    return names


@weights_app.command()
def inspect(
    source: Source,
    preprocessing: Preprocesses = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what weights are: origin, preprocessing, digest, shapes."""
    weights = _load(source, preprocessing)
    facts: dict[str, Any] = {
        "name": weights.name,
        "file": str(locate_weights(source)),
        "description": weights.description,
        "preprocessing": weights.preprocessing,
        "unit_mean_pooling": weights.unit_mean_pooling,
        "sha256": weights.digest,
        "parameters": sum(tensor.size for tensor in weights.tensors.values()),
    }
    if as_json:
        say(json_text(facts, ascii_only=True))
        return
    for key, value in facts.items():
        say(f"{key:<18} {value if value not in (None, '') else '-'}")


def _new_file(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: the file must be named .safetensors")
    if path.exists():
        raise WeightsError(f"{path} exists already; give another name or delete it")
    return path


class DownloadBar:
    """A progress bar in the form that pooch asks for."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        self._bar = Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), console=err)
        self._task = self._bar.add_task("download", total=None)
        self._bar.start()

    @property
    def total(self) -> float | None:
        return self._bar.tasks[0].total

    @total.setter
    def total(self, value: float) -> None:
        self._bar.update(self._task, total=value)

    @property
    def done(self) -> float:
        return self._bar.tasks[0].completed

    def update(self, count: int) -> None:
        self._bar.advance(self._task, count)

    def reset(self) -> None:
        self._bar.update(self._task, completed=0)

    def close(self) -> None:
        self._bar.stop()

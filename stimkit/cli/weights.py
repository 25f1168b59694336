"""The `stimkit weights` commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stimkit.cli.terminal import err, say
from stimkit.errors import UsageError, WeightsError
from stimkit.files import json_text
from stimkit.images.reading import image_files
from stimkit.network.classifiers import find_classifier
from stimkit.network.layers import NETWORKS, NetworkName
from stimkit.network.published import files_called
from stimkit.network.sources import (
    NAMES,
    RANDOM,
    REMOTE_NAMES,
    fetch_weights,
    find_copy,
    load_weights,
    locate_weights,
    other_files,
)
from stimkit.network.weights import Weights, save_weights

weights_app = typer.Typer(
    help="List, fetch, import, fit and inspect network weights.", no_args_is_help=True, rich_markup_mode=None
)

Source = Annotated[
    str, typer.Argument(metavar="WEIGHTS", help="pca, imagenet, oxford, random:SEED, or a file.", show_default=False)
]
Preprocesses = Annotated[str, typer.Option(help="What the network takes: auto, torchvision or caffe.")]
Network = Annotated[str, typer.Option(help="vgg19 or vgg16, which some names stand for.")]
Out = Annotated[Path, typer.Option(help="File to write (.safetensors).", show_default=False)]


@weights_app.command("list")
def list_weights() -> None:
    """List the weights that have names, whether they are on this machine, and files of other libraries."""
    say(f"{'pca':<16} embedded; {load_weights('pca').description}")
    say(f"{'random:SEED':<16} an untrained network with random filters, the same for a seed everywhere")
    for name in REMOTE_NAMES:
        for network in NETWORKS:
            first, *others = files_called(name, network)
            found = next((path for path in map(find_copy, (first, *others)) if path), None)
            option = "" if network == "vgg19" else f" --network {network}"
            where = (
                found or f"not here; `stimkit weights fetch {name}{option}` downloads it ({first.size / 1e6:.0f} MB)"
            )
            say(f"{name + ' ' + network:<16} {where}; {first.description}")
    for path in other_files():
        say(f"{'file':<16} {path}")


@weights_app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="imagenet or oxford")],
    network: Network = "vgg19",
    classifier: Annotated[
        bool, typer.Option("--classifier", help="With the classifier, which `[recognition]` needs (imagenet has it).")
    ] = False,
) -> None:
    """Download weights once into the user's cache, with progress and digest check."""
    if name not in REMOTE_NAMES:
        raise UsageError(f'"{name}" cannot be fetched; only {" and ".join(REMOTE_NAMES)} can (pca is embedded)')
    files = files_called(name, _network(network))
    chosen = next(one for one in files if one.url and (one.whole or not classifier))
    path = fetch_weights(chosen, progress=DownloadBar())
    say(f"{name} is at {path}")


@weights_app.command("import")
def import_weights(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="State dict (.pth, .pt), .safetensors, .h5 or .mat.")],
    out: Out,
    preprocessing: Preprocesses = "auto",
) -> None:
    """Convert a VGG19 or VGG16 of torchvision, timm, Caffe, Keras or MatConvNet to safetensors."""
    weights = _load(str(source), preprocessing)
    classifier, objection = find_classifier(source)
    save_weights(weights, _new_file(out), classifier=classifier)
    kept = f", classifier of {len(classifier['fc8.bias'])} classes" if classifier else ""
    say(f"wrote {out}: {weights.preprocessing} preprocessing, sha256 {weights.digest}{kept}")
    if objection:
        say(f"note: without a classifier; {objection}", err=True)


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


def _network(name: str) -> NetworkName:
    found = next((one for one in NETWORKS if one == name), None)
    if found is None:
        raise UsageError(f'--network is {" or ".join(NETWORKS)}, not "{name}"')
    return found


def _load(source: str, preprocessing: str, network: NetworkName | None = None) -> Weights:
    if preprocessing not in ("auto", "torchvision", "caffe"):
        raise UsageError(f'preprocessing must be auto, torchvision or caffe (got "{preprocessing}")')
    return load_weights(source, preprocessing=preprocessing, network=network)


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
    network: Network = "vgg19",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what weights are: origin, preprocessing, digest, shapes."""
    kind = _network(network) if source in NAMES or source.startswith(RANDOM) else None
    weights = _load(source, preprocessing, kind)
    facts: dict[str, Any] = {
        "name": weights.name,
        "file": None if source.startswith(RANDOM) else str(locate_weights(source, network=kind or "vgg19")),
        "network": weights.network,
        "origin": weights.description or "not known",
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

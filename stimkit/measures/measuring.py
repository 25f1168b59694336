"""Measure finished stimuli, by groups of measures, into tables of the run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from stimkit.auditing.verification import OnCount
from stimkit.columns import BASIC, MEASURES, SSIM_CONTENT, Column
from stimkit.documents.progress import OnPhase, show_phases
from stimkit.errors import UsageError, check_choice
from stimkit.images.pixels import FloatImage, Pixels, to_float
from stimkit.images.png import Shown, to_network_image, to_shown
from stimkit.images.statistics import measure_image, measure_similarity
from stimkit.measures.observers import Observers
from stimkit.measures.orientations import ORIENTATION_COLUMNS, measure_orientations
from stimkit.measures.phog import PHOG_COLUMNS, measure_phog
from stimkit.measures.similarity import SIMILARITY_COLUMNS, Similarity
from stimkit.measures.variances import VARIANCE_COLUMNS, VARIANCE_LAYER, measure_variances
from stimkit.network.sources import load_weights
from stimkit.network.vgg import VGG
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.protocol.mixes import Spaced
from stimkit.protocol.settings import ModelSettings
from stimkit.runfolder.measuring import enter_measurements
from stimkit.runfolder.run import AnyRun, Run, read_run
from stimkit.stimuli.networks import Networks
from stimkit.stimuli.preparation import picture
from stimkit.synthesis.devices import choose_device, network_arithmetic
from stimkit.version import __version__

LIKE_PEOPLE = ModelSettings(weights="imagenet", network="vgg16")
"""The network that LPIPS and DISTS were fitted with."""


@dataclass(frozen=True)
class Seen:
    """A finished stimulus."""

    cell: Cell
    shown: Shown
    """What an observer sees, (height, width, 3)."""
    image: FloatImage
    """The same for networks, (3, height, width)."""


@dataclass(frozen=True)
class MeasureGroup:
    """Measures that are taken together."""

    columns: tuple[Column, ...]
    measure: Callable[[Seen], dict[str, float]]
    threads: bool = False
    """Whether several stimuli are measured at the same time, each by one thread."""
    made: Mapping[str, Any] | None = None
    """By what, beside stimkit."""


@dataclass(frozen=True)
class Bench:
    """What measures need beside the stimulus."""

    run: Run
    inputs: InputSource
    device: torch.device
    model: ModelSettings

    def content(self, cell: Cell) -> Pixels | None:
        """The content image of a cell in its size; None where it has none, or one that only its network can mix."""
        if cell.content is None or isinstance(cell.content_mix, Spaced):
            return None
        return picture(cell, "content", self.inputs)


def _statistics(bench: Bench) -> MeasureGroup:
    columns = (*(measure for measure in MEASURES if measure.name not in BASIC), SSIM_CONTENT)

    def measure(seen: Seen) -> dict[str, float]:
        content = bench.content(seen.cell)
        similar = None if content is None else measure_similarity(seen.shown, content)
        return measure_image(seen.shown) | {SSIM_CONTENT.name: np.nan if similar is None else similar}

    return MeasureGroup(columns, measure, threads=True)


def _similarity(bench: Bench) -> MeasureGroup:
    weights = load_weights(bench.model.weights, preprocessing=bench.model.preprocessing, network=bench.model.network)
    similarity = Similarity(weights, bench.device)
    made = {
        "weights": Path(bench.model.weights).name,
        "weights_sha256": weights.digest,
        "torchmetrics": version("torchmetrics"),
    }

    def measure(seen: Seen) -> dict[str, float]:
        content = bench.content(seen.cell)
        if content is None:
            return dict.fromkeys((column.name for column in SIMILARITY_COLUMNS), np.nan)
        with network_arithmetic("float32"):
            return similarity.compare(seen.image, to_float(content))

    return MeasureGroup(SIMILARITY_COLUMNS, measure, made=made)


def _variances(bench: Bench) -> MeasureGroup:
    networks = Networks(bench.inputs, bench.device)

    @torch.no_grad()
    def measure(seen: Seen) -> dict[str, float]:
        network: VGG = networks.reference(seen.cell.settings)
        with network_arithmetic("float32"):
            batch = torch.from_numpy(seen.image[None]).to(bench.device, network.dtype)
            return measure_variances(network.features(batch, [VARIANCE_LAYER])[VARIANCE_LAYER][0])

    return MeasureGroup(VARIANCE_COLUMNS, measure)


def _observers(bench: Bench) -> MeasureGroup:
    observers = Observers(bench.run, bench.inputs, bench.device)
    return MeasureGroup(
        observers.columns,
        lambda seen: observers.measure(seen.cell, seen.image),
        made={"weights_sha256": observers.digests},
    )


GROUPS: dict[str, Callable[[Bench], MeasureGroup]] = {
    "statistics": _statistics,
    "orientation": lambda bench: MeasureGroup(ORIENTATION_COLUMNS, lambda seen: measure_orientations(seen.shown), True),
    "phog": lambda bench: MeasureGroup(PHOG_COLUMNS, lambda seen: measure_phog(seen.shown), True),
    "variances": _variances,
    "similarity": _similarity,
    "observers": _observers,
}
"""Measures by the names of their tables."""


def measure_stimuli(
    run: AnyRun,
    groups: Sequence[str],
    *,
    model: ModelSettings | None = None,
    inputs: Sequence[str | Path] = (),
    device: str = "auto",
    on_progress: OnPhase | None = None,
    progress: bool | None = None,
) -> Run:
    """Measure the finished stimuli of a run folder, into columns of its manifest; return it as it is then.

    >>> run = stimkit.measure_stimuli("runs/quickstart", ["phog"])
    >>> list(run.dataset["phog_complexity"].dims), run.dataset["phog_complexity"].attrs["units"]
    (['stimulus'], '1')

    Groups are `statistics` (those of the audit, with the similarity to the content image), `orientation` (entropies of
    edges, energy by orientation), `phog` (self-similarity, complexity, anisotropy), `variances` (of the network's
    responses), `similarity` (MS-SSIM, LPIPS, DISTS) and `observers` (losses by the networks of `[observers]`);
    docs/how-to/measures.md has the formulas. `model` is the VGG16 of LPIPS and DISTS. Each group is a table of its own
    in RUN/measurements and replaces an earlier one. Stimuli that `[accept] measured` has a rule about are judged again.

    Raises `UsageError` for a group that does not exist, or needs what is not there, `WeightsError` and `ImageError`
    where weights and images are not found, `RunFolderError` where a stimulus cannot be read.
    """
    if not groups:
        raise UsageError(f"name what is measured: {', '.join(GROUPS)}")
    for name in groups:
        check_choice(name, GROUPS, "a group of measures")
    run = read_run(run)
    run.check_readable()
    cells = [
        run.plan.by_id[record.stimulus_id].as_recorded(record.attempt, record.alpha)
        for record in run.records.values()
        if record.status != "failed"
    ]
    if not cells:
        raise UsageError(f"{run.path} has no stimulus")
    bench = Bench(run, run.inputs(inputs), choose_device(device), model or LIKE_PEOPLE)
    made = {name: GROUPS[name](bench) for name in dict.fromkeys(groups)}  # before anything is measured
    with show_phases(on_progress, progress) as tell:
        for name, group in made.items():
            values = dict(_measure(run, cells, group, tell and partial(tell, name)))
            origin = {"by": f"stimkit measure {__version__}", **(group.made or {})}
            run = enter_measurements(run, name, group.columns, values, origin)
    return run


def model_of(weights: str, preprocessing: str) -> ModelSettings:
    """The VGG16 of these weights. Raises `UsageError` for a preprocessing that does not exist."""
    try:
        return ModelSettings(weights=weights, network="vgg16", preprocessing=preprocessing)  # type: ignore[arg-type]
    except ValidationError:
        raise UsageError(f'preprocessing is auto, torchvision or caffe, not "{preprocessing}"') from None


def _measure(
    run: Run, cells: Sequence[Cell], group: MeasureGroup, on_count: OnCount | None
) -> Iterator[tuple[str, Mapping[str, float]]]:
    names = [column.name for column in group.columns]

    def of(cell: Cell) -> dict[str, float]:
        found = group.measure(_see(run, cell))
        return {name: float(found[name]) for name in names}

    with ThreadPoolExecutor(os.cpu_count() if group.threads else 1) as pool:
        for done, (cell, values) in enumerate(zip(cells, pool.map(of, cells), strict=True), 1):
            yield cell.id, values
            if on_count:
                on_count(done, len(cells))


def _see(run: Run, cell: Cell) -> Seen:
    values, encoding = run.image(cell.id), cell.settings.encoding
    return Seen(cell, to_shown(values, encoding), to_network_image(values, encoding))

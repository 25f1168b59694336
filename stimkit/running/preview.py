"""Ratios without guessing: a few stimuli at a reduced size, from all style to all content."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stimkit.documents.progress import OnPhase, show_progress
from stimkit.errors import UsageError
from stimkit.images.pixels import Pixels
from stimkit.images.png import to_picture
from stimkit.network.layers import deepest
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.controls import PLAIN
from stimkit.planning.inputs import PlanInputs
from stimkit.planning.summary import paper_to_mean
from stimkit.protocol.settings import Settings
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.stimulus import Made
from stimkit.synthesis.devices import choose_device
from stimkit.synthesis.minimization import OnProgress

SIDE, EVALUATIONS, PAIRS = 80, 40, 2  # with embedded filters 43 s on two cores, with one pair of trained ones 23 s
STEPS = tuple(0.75 * step for step in range(-3, 4))  # decades around the ratio at which both terms weigh the same
KEPT = 0.15  # part of content and of style that a suggested ratio keeps at least
_GAP, _LINE, _MARGIN = 4, 18, 12
_APERTURE = ("aperture", "aperture_diameter", "aperture_ramp", "aperture_sigma")  # in degrees of the full size


@dataclass(frozen=True)
class RatioLook:
    """What a ratio keeps of content and style, from 0 to 1 between the extremes; the mean over pairs of images."""

    ratio: float
    """α / β at the size of the protocol."""
    content_kept: float
    style_kept: float


@dataclass(frozen=True)
class Preview:
    """Stimuli from all style to all content."""

    picture: Pixels
    """A row for each pair of images, ratios across."""
    looks: tuple[RatioLook, ...]
    lowest: float
    """The range of ratios that keep `KEPT` of content and of style at least, at the size of the protocol."""
    highest: float


def preview(
    plan: Plan,
    *,
    side: int = SIDE,
    evaluations: int = EVALUATIONS,
    device: str = "auto",
    on_progress: OnProgress | None = None,
    progress: bool | None = None,
) -> Preview:
    """Look at a plan's images over a range of ratios, for its weights, layers, size and convention of losses.

    >>> found = stimkit.preview(stimkit.plan("protocols/quickstart.toml"), side=32, evaluations=5)
    >>> len(found.looks), found.lowest < found.highest
    (9, True)

    The first and the last pair of a content and a style image are synthesized for 7 ratios and for both extremes, in a
    size whose shorter side is `side` px (or what the deepest layer needs) and with so many `evaluations`. Ratios are
    those of the protocol's size: under the paper's formulas, a content loss grows with the number of positions. Raises
    `UsageError` where no cell has a content and a style image, `ProtocolError` where inputs are missing, `DeviceError`
    for a device that is not there.
    """
    plan.check_complete()
    pairs = _pairs(plan, side, evaluations)
    assembly = Assembly(PlanInputs(plan), choose_device(device))
    full = replace(pairs[0], settings=plan.main_cells[0].settings)
    # By how much a ratio is larger at the reduced size, for the same balance: means do not grow with positions.
    factor = 1.0 if full.settings.loss == "mean" else paper_to_mean(full) / paper_to_mean(pairs[0])
    middle = _balance(assembly, pairs)
    ratios = [0.0, *(middle * 10**step for step in STEPS), math.inf]
    cells = [_at(pair, ratio) for pair in pairs for ratio in ratios]
    with show_progress(on_progress, progress, _as_evaluations) as tell:
        made = assembly.make(cells, tell)
    rows = [made[start : start + len(ratios)] for start in range(0, len(made), len(ratios))]
    kept = np.mean([_kept(row) for row in rows], axis=0)
    shown = [ratio / factor for ratio in ratios]
    looks = tuple(RatioLook(ratio, *map(float, parts)) for ratio, parts in zip(shown, kept, strict=True))
    lowest, highest = _range(looks[1:-1])
    return Preview(_draw(rows, shown), looks, lowest, highest)


def _as_evaluations(show: OnPhase) -> OnProgress:
    return lambda one: show("evaluations", one.evaluation, one.max_evaluations)


def _pairs(plan: Plan, side: int, evaluations: int) -> list[Cell]:
    """The first cell of the design with two images, and the last of other ones, in a smaller size."""
    cells = [cell for cell in plan.main_cells if cell.content and cell.style]
    if not cells:
        raise UsageError("a preview is about ratios, and no cell has a content and a style image")
    found = {(cell.content, cell.style): cell for cell in (cells[-1], cells[0])}
    settings = cells[0].settings
    stride = deepest(name for cell in found.values() for name in cell.layers).stride
    scale = max(side, 2 * stride) / min(settings.size)
    size = (max(stride, round(scale * settings.height)), max(stride, round(scale * settings.width)))
    plain = PLAIN | {name: Settings.model_fields[name].default for name in _APERTURE}
    small = settings.model_copy(update={**plain, "size": size, "max_evaluations": evaluations, "rtol": 0.0})
    return [replace(cell, settings=small) for cell in reversed(found.values())][:PAIRS]


def _balance(assembly: Assembly, pairs: Sequence[Cell]) -> float:
    """The ratio at which content and style of the initial images weigh the same: the geometric mean over pairs."""
    starts = [replace(cell, settings=cell.settings.model_copy(update={"max_evaluations": 0})) for cell in pairs]
    initial = [one.synthesis.initial for one in assembly.make(starts)]
    return float(np.exp(np.mean([np.log(one.style / one.content) for one in initial])))


def _at(cell: Cell, ratio: float) -> Cell:
    return replace(cell, alpha=1.0, beta=0.0) if math.isinf(ratio) else replace(cell, alpha=ratio, beta=1.0)


def _kept(row: Sequence[Made]) -> list[tuple[float, float]]:
    """What each ratio keeps of content and style: losses of the files between those of the extremes, in logarithms."""
    content = np.log([one.stimulus.measured.content for one in row])
    style = np.log([one.stimulus.measured.style for one in row])
    parts = _between(content, content[0], content[-1]), _between(style, style[-1], style[0])
    return list(zip(*parts, strict=True))


def _between(values: NDArray[np.float64], none: float, whole: float) -> NDArray[np.float64]:
    """Where values are between two ends, from 0 to 1; nowhere where the ends are the same."""
    return np.clip((none - values) / (none - whole), 0, 1) if none != whole else np.zeros_like(values)


def _range(looks: Sequence[RatioLook]) -> tuple[float, float]:
    """Where content begins to be kept, and where style ends to be, between neighbouring ratios in logarithms."""
    ratios = np.log([look.ratio for look in looks])
    content = np.maximum.accumulate([look.content_kept for look in looks])
    style = np.maximum.accumulate([look.style_kept for look in reversed(looks)])
    low = np.interp(KEPT, content, ratios)
    high = np.interp(KEPT, style, ratios[::-1])
    return float(np.exp(min(low, high))), float(np.exp(max(low, high)))


def _draw(rows: Sequence[Sequence[Made]], ratios: Sequence[float]) -> Pixels:
    height, width = rows[0][0].stimulus.shown.shape[:2]
    size = (2 * _MARGIN + len(ratios) * (width + _GAP), 2 * _MARGIN + _LINE + len(rows) * (height + _GAP))
    sheet = Image.new("RGB", size, (250, 250, 248))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for column, ratio in enumerate(ratios):
        label = "all content" if math.isinf(ratio) else "all style" if ratio == 0 else f"{ratio:.2g}"
        x = _MARGIN + column * (width + _GAP)
        draw.text((x, _MARGIN), label, fill=(30, 30, 30), font=font)
        for number, row in enumerate(rows):
            made = row[column]
            picture = to_picture(made.stimulus.values, made.cell.settings.encoding)
            sheet.paste(picture, (x, _MARGIN + _LINE + number * (height + _GAP)))
    return np.asarray(sheet)

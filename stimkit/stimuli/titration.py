"""Titration: the ratio of each cell at which a statistic or a loss of its stimulus has a given value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stimkit.images.reading import fit
from stimkit.images.statistics import image_measures, similarity
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import Inputs
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.stimulus import Stimulus, finish
from stimkit.synthesis.minimization import OnProgress
from stimkit.synthesis.synthesis import Synthesis, synthesize_batch


@dataclass
class _Bracket:
    """What is known of one cell: differences from the value wanted, at logarithms of ratios."""

    low: float
    high: float
    at_low: float = math.nan
    at_high: float = math.nan
    best: tuple[float, float] = (math.inf, math.nan)
    """Smallest difference, and where."""

    def learn(self, place: float, difference: float) -> None:
        if abs(difference) < self.best[0]:
            self.best = (abs(difference), place)
        if place == self.low:
            self.at_low = difference
        elif place == self.high:
            self.at_high = difference
        elif (difference > 0) == (self.at_low > 0):
            self.low, self.at_low = place, difference
        else:
            self.high, self.at_high = place, difference

    @property
    def open(self) -> bool:
        """Whether the value lies between the ends."""
        return self.at_low * self.at_high < 0

    def next(self, run: int) -> float:
        """Where to look: by turns in the middle, and where the value is on a straight line, off the ends."""
        share = 0.5 if run % 2 else self.at_low / (self.at_low - self.at_high)
        return self.low + min(max(share, 0.1), 0.9) * (self.high - self.low)


def titrate(
    cells: Sequence[Cell], assembly: Assembly, inputs: Inputs, on_progress: OnProgress | None = None
) -> list[Cell]:
    """Cells of equal settings at the ratios where the values that they ask for are reached, or come closest.

    Both ends of the range are tried, then up to `titrate_runs` ratios between them; a cell that is within its
    tolerance is left out of the further runs.
    """
    settings = cells[0].settings
    lowest, highest = math.log10(settings.titrate_lowest), math.log10(settings.titrate_highest)
    brackets = {cell.id: _Bracket(lowest, highest) for cell in cells}

    def look(places: dict[str, float]) -> None:
        batch = [replace(cell, alpha=_ratio(places[cell.id])) for cell in cells if cell.id in places]
        assembled = assembly.batch(batch)
        results = synthesize_batch(assembled, on_progress)
        for cell, one, stimulus in zip(batch, results, finish(results, assembled), strict=True):
            value = titrated_value(cell, one, stimulus, inputs)
            brackets[cell.id].learn(places[cell.id], value - settings.titrate_value)

    look(dict.fromkeys(brackets, lowest))
    look(dict.fromkeys(brackets, highest))
    for run in range(settings.titrate_runs):
        left = {
            one: bracket.next(run)
            for one, bracket in brackets.items()
            if bracket.open and bracket.best[0] > settings.titrate_tolerance
        }
        if not left:
            break
        look(left)
    found = {one: bracket.best[1] for one, bracket in brackets.items()}
    return [replace(cell, alpha=_ratio(found[cell.id])) if math.isfinite(found[cell.id]) else cell for cell in cells]


def _ratio(place: float) -> float:
    """The ratio of a logarithm, with six digits, so that it is the same number in every table."""
    return float(f"{10**place:.6g}")


def titrated_value(cell: Cell, synthesis: Synthesis, stimulus: Stimulus, inputs: Inputs) -> float:
    """The variable that a cell is titrated by, of a stimulus; NaN where it has none."""
    name, settings = cell.settings.titrate, cell.settings
    if name == "ssim_content":
        assert cell.content is not None
        content = fit(inputs.image("content", cell.content), settings.size, settings.fit)
        found = similarity(stimulus.shown, content)
        return math.nan if found is None else found
    if name.startswith("relative_"):
        term = name.split("_")[1]
        before: float = getattr(synthesis.initial, term)
        return float(getattr(stimulus.measured, term)) / before if before else math.nan
    if stimulus.inside is not None and name in ("mean_luminance", "rms_contrast"):
        return stimulus.inside.mean if name == "mean_luminance" else stimulus.inside.contrast
    return image_measures(stimulus.shown)[name]

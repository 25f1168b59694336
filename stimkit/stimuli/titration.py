"""Titration: the ratio of each cell at which a statistic or a loss of its stimulus has a given value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stimkit.images.statistics import measure_image, measure_similarity
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.preparation import picture
from stimkit.stimuli.stimulus import Made
from stimkit.synthesis.minimization import OnProgress


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
        """Where to look: bisection and regula falsi in turn, kept a tenth of the range away from both ends."""
        share = 0.5 if run % 2 else self.at_low / (self.at_low - self.at_high)
        return self.low + min(max(share, 0.1), 0.9) * (self.high - self.low)


def titrate(cells: Sequence[Cell], assembly: Assembly, on_progress: OnProgress | None = None) -> list[Made]:
    """Make cells of equal settings at the ratios where the values that they ask for are reached, or come closest.

    Both ends of the range are tried, then up to `titrate_runs` ratios between them; a cell that is within its
    tolerance is left out of the further runs. At last all are made together at the ratios that were found.
    """
    settings = cells[0].settings
    lowest, highest = math.log10(settings.titrate_lowest), math.log10(settings.titrate_highest)
    brackets = {cell.id: _Bracket(lowest, highest) for cell in cells}

    def look(places: dict[str, float]) -> None:
        chosen = [_at_ratio(cell, places[cell.id]) for cell in cells if cell.id in places]
        for made in assembly.make(chosen, on_progress):
            brackets[made.cell.id].learn(places[made.cell.id], _miss(made, assembly.inputs))

    look(dict.fromkeys(brackets, lowest))
    look(dict.fromkeys(brackets, highest))
    for run in range(settings.titrate_runs):
        left = {
            stimulus_id: bracket.next(run)
            for stimulus_id, bracket in brackets.items()
            if bracket.open and bracket.best[0] > settings.titrate_tolerance
        }
        if not left:
            break
        look(left)
    places = {stimulus_id: bracket.best[1] for stimulus_id, bracket in brackets.items()}
    found = [_at_ratio(cell, places[cell.id]) if math.isfinite(places[cell.id]) else cell for cell in cells]
    return [replace(made, titrate_error=_miss(made, assembly.inputs)) for made in assembly.make(found, on_progress)]


def _at_ratio(cell: Cell, place: float) -> Cell:
    """A cell at the ratio of a logarithm, with six digits, so that it is the same number in every table."""
    return replace(cell, alpha=float(f"{10**place:.6g}"))


def _miss(made: Made, inputs: InputSource) -> float:
    """How far a stimulus is from the value that its cell asks for."""
    return titrated_value(made, inputs) - made.cell.settings.titrate_value


def titrated_value(made: Made, inputs: InputSource) -> float:
    """Measure the variable that a cell is titrated by, of its stimulus; NaN where it has none."""
    cell, stimulus = made.cell, made.stimulus
    name = cell.settings.titrate
    if name == "ssim_content":
        assert cell.content is not None
        content = picture(cell, "content", inputs)
        similar = measure_similarity(stimulus.shown, content)
        return math.nan if similar is None else similar
    if name == "cue_balance":
        return math.nan if made.recognition is None else made.recognition.balance
    if name.startswith("relative_"):
        term = name.removeprefix("relative_").removesuffix("_loss")
        before: float = getattr(made.synthesis.initial, term)
        return float(getattr(stimulus.measured, term)) / before if before else math.nan
    if stimulus.inside is not None and name in ("mean_luminance", "rms_contrast"):
        return stimulus.inside.mean if name == "mean_luminance" else stimulus.inside.contrast
    return measure_image(stimulus.shown)[name]

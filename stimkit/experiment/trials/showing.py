"""Trials as they are shown: the places of their stimuli, balanced, and their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from stimkit.experiment.trials.forms import Form
from stimkit.experiment.trials.sequence import Impossible, arrange
from stimkit.experiment.trials.units import TrialUnit

PRACTICE = "practice"
ATTEMPTS = 20  # at an order of all blocks; one block's order may leave none for the next


@dataclass(frozen=True)
class ShownTrial:
    """A trial of one participant."""

    unit: TrialUnit
    kind: str
    places: tuple[int, ...]
    """Rows of its stimuli, from left to right, or in the order of positions."""
    answer: str
    repetition: int = 1
    block: int = 0
    label: str = PRACTICE
    position: int = 0
    """Which of several positions a single stimulus has."""
    start: int = 0
    """Which step of its series an adjustment starts at."""


Placed = tuple[tuple[int, ...], int]
"""The rows of a trial's stimuli in the order of their places, and the position of a single one."""


class PlaceChooser:
    """Chooses the places of the stimuli of trials, as their form arranges them: of pairs which is on the left, of
    triplets where the odd one is. Single stimuli have one of `positions`, chosen in the same way.

    Each participant has each place equally often, within one. As far as that allows, each trial has them equally often
    over its showings, first within the order of blocks that the participant has, then over all; what is equal is
    decided by chance.
    """

    def __init__(self, how: str, form: Form, positions: int = 1) -> None:
        self._how, self._form, self._positions = how, form, positions
        self._counts: Counter[tuple[object, ...]] = Counter()

    def choose(
        self, units: Sequence[TrialUnit], kind: str, participant: int, order: int, generator: np.random.Generator
    ) -> list[Placed]:
        """Rows of the stimuli of different trials, from left to right; `order`: the participant's order of blocks."""
        single = not units or len(units[0].rows) == 1
        options = self._positions if single else self._form.options
        if self._how == "fixed" or options == 1 or not units:
            return [(unit.rows, 0) for unit in units]
        if self._how == "random":
            chosen = [int(generator.integers(options)) for _ in units]
        else:
            chosen = self._balanced(units, options, kind, participant, order, generator)
        if single:
            return [(unit.rows, place) for unit, place in zip(units, chosen, strict=True)]
        return [(self._form.arrange(unit.rows, place, generator), 0) for unit, place in zip(units, chosen, strict=True)]

    def _balanced(
        self,
        units: Sequence[TrialUnit],
        options: int,
        kind: str,
        participant: int,
        order: int,
        generator: np.random.Generator,
    ) -> list[int]:
        """The places of least use: an assignment of trials to slots, of which each place has as many as it can get."""
        counts, places = self._counts, range(options)
        had = [counts[kind, participant, place] for place in places]
        whole, rest = divmod(sum(had) + len(units), options)
        due = [place for place in places for _ in range(max(0, whole - had[place]))]
        extra = [place for place in places if had[place] <= whole] if rest else []
        within, over = (
            np.array([[counts[(*key, unit.rows, place)] for place in places] for unit in units], float)
            for key in ((kind, order), (kind,))
        )
        cost = within * (1 + len(units)) * (1 + over.max()) + over
        cost += generator.random(cost.shape) / (1 + len(units))
        slots = np.concatenate([cost[:, due] - cost.max() * (1 + len(units)) - 1, cost[:, extra]], axis=1)
        column = linear_sum_assignment(slots)[1]
        chosen = [int([*due, *extra][one]) for one in column]
        for unit, place in zip(units, chosen, strict=True):
            counts.update([(kind, order, unit.rows, place), (kind, unit.rows, place), (kind, participant, place)])
        return chosen


def order_trials(
    blocks: Sequence[tuple[str, Sequence[ShownTrial]]],
    catch: Sequence[ShownTrial],
    runs: Mapping[str, int],
    generator: np.random.Generator,
) -> list[ShownTrial]:
    """Trials of blocks in an order that keeps rules about neighbours, with catch trials spread over all of them.

    Raises `Impossible` where no such order was found.
    """
    for _ in range(ATTEMPTS - 1):
        with suppress(Impossible):
            return _in_order(blocks, catch, runs, generator)
    return _in_order(blocks, catch, runs, generator)


def _in_order(
    blocks: Sequence[tuple[str, Sequence[ShownTrial]]],
    catch: Sequence[ShownTrial],
    runs: Mapping[str, int],
    generator: np.random.Generator,
) -> list[ShownTrial]:
    total, start = sum(len(trials) for _, trials in blocks), 0
    parts = [range(one * total // len(catch), (one + 1) * total // len(catch)) for one in range(len(catch))]
    targets = [int(generator.integers(part.start, max(part.stop, part.start + 1))) for part in parts]
    shown: list[ShownTrial] = []
    for number, (label, trials) in enumerate(blocks, start=1):
        here = [one for one, target in enumerate(targets) if start <= target < start + len(trials)]
        inside = [replace(one, block=number, label=label) for one in (*trials, *(catch[one] for one in here))]
        zones = {
            len(trials) + nth: _zone(parts[one], start, len(trials), nth, len(inside)) for nth, one in enumerate(here)
        }
        shown += [inside[one] for one in _arranged_block(inside, zones, runs, generator, shown)]
        start += len(trials)
    return shown


def _zone(part: range, start: int, size: int, nth: int, whole: int) -> range:
    """Places in a block, of `size` trials and catch trials, that belong to a part of the experiment."""
    first = min(max(part.start - start, 0), size) + nth
    last = min(max(part.stop - start, 0), size) + nth
    return range(min(first, whole - 1), min(max(last, first + 1), whole))


def _arranged_block(
    inside: Sequence[ShownTrial],
    zones: Mapping[int, range],
    runs: Mapping[str, int],
    generator: np.random.Generator,
    before: Sequence[ShownTrial],
) -> list[int]:
    levels, earlier = [one.unit.levels for one in inside], [measured.unit.levels for measured in before]
    try:
        return arrange(levels, runs, generator, before=earlier, zones=zones)
    except Impossible:
        if not zones:
            raise
    return arrange(levels, runs, generator, before=earlier)

"""Trials as they are shown: the places of their stimuli, balanced, and their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from stimkit.experiment.trials.design import SHOWN
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
    """Rows of its stimuli, from left to right."""
    answer: str
    repetition: int = 1
    block: int = 0
    label: str = PRACTICE


class PlaceChooser:
    """Chooses the places of a trial's stimuli: of a pair which is on the left, of a triplet where the odd one is.

    Balanced for each trial over its showings, within and across the orders of blocks, then for each participant; what
    is equal is decided by chance.
    """

    def __init__(self, positions: str) -> None:
        self._positions = positions
        self._counts: Counter[tuple[object, ...]] = Counter()

    def choose(
        self, unit: TrialUnit, kind: str, participant: int, order: int, generator: np.random.Generator
    ) -> tuple[int, ...]:
        """Rows of the stimuli from left to right; `order` says which order of blocks the participant has."""
        if self._positions == "fixed" or len(unit.rows) == 1:
            return unit.rows
        options = list(range(len(unit.rows)))
        if self._positions == "random":
            chosen = int(generator.integers(len(options)))
        else:
            by_chance = [int(one) for one in generator.permutation(len(options))]
            keys = ((kind, unit.rows, order), (kind, unit.rows), (kind, participant))
            chosen = min(by_chance, key=lambda option: [self._counts[(*key, option)] for key in keys])
            self._counts.update((*key, chosen) for key in keys)
        return _arranged(unit.rows, chosen, generator)


def _arranged(rows: tuple[int, ...], place: int, generator: np.random.Generator) -> tuple[int, ...]:
    """Put the last of the stimuli at a place; of a triplet, the others in either order."""
    *others, last = rows
    if len(rows) == SHOWN["triplet"] and generator.integers(2):
        others = others[::-1]
    return (*others[:place], last, *others[place:])


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

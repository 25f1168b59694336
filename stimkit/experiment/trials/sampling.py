"""Which of the possible trials a participant gets, in balance."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from stimkit.experiment.trials.units import TrialUnit


class Sampler:
    """Draws trials so that factor levels are about equally frequent for a participant, and stimuli for all of them."""

    def __init__(self, units: Sequence[TrialUnit], factors: Sequence[str], stimuli: int) -> None:
        self._rows = np.array([unit.rows for unit in units])
        self._levels = [_codes([unit.levels[name] for unit in units]) for name in factors]
        self._used = np.zeros(stimuli, int)

    def draw(self, among: Sequence[int], count: int, generator: np.random.Generator) -> list[int]:
        """Choose `count` of the units `among`, none twice: those whose levels, then stimuli, were used least.

        What is equal is decided by chance.
        """
        left = generator.permutation(np.asarray(among))
        rows = self._rows[left]
        levels = [codes[left] for codes in self._levels]
        burden, taken = np.zeros(len(left)), np.zeros(len(left), bool)  # of levels, which grows with each choice
        chosen = []
        for _ in range(min(count, len(left))):
            whole = burden * (1 + self._used.max(initial=0)) * rows.shape[1] + self._used[rows].sum(1)
            best = int(np.argmin(np.where(taken, np.inf, whole)))
            chosen.append(int(left[best]))
            taken[best] = True
            self._used[rows[best]] += 1
            for codes in levels:
                burden += codes == codes[best]
        return chosen


def _codes(levels: Sequence[frozenset[str]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    known: dict[frozenset[str], int] = {}
    return np.array([known.setdefault(level, len(known)) for level in levels], np.int64)


def deal(
    units: Sequence[TrialUnit], factors: Sequence[str], hands: int, generator: np.random.Generator
) -> list[list[int]]:
    """Distribute units over hands of about equal size, so that each has about as many of each kind.

    One by one, in random order but with units of the same levels (replicates aside) together, each goes to the hand
    that has the fewest of its levels together, then of two of them, then of each; what is equal is decided by chance.
    """
    kinds = [[(name, unit.levels[name]) for name in factors if name != "replicate"] for unit in units]
    together: dict[Hashable, list[int]] = defaultdict(list)
    for index in generator.permutation(len(units)):
        together[tuple(kinds[index])].append(int(index))
    dealt: list[list[int]] = [[] for _ in range(hands)]
    counts: list[Counter[Hashable]] = [Counter() for _ in range(hands)]
    groups = list(together.values())
    for one in (unit for group in generator.permutation(len(groups)) for unit in groups[group]):
        smallest = min(map(len, dealt))
        open_hands = [hand for hand in generator.permutation(hands) if len(dealt[hand]) == smallest]
        parts = (tuple(kinds[one]),), tuple(itertools.combinations(kinds[one], 2)), tuple(kinds[one])
        best = min(open_hands, key=lambda hand: [sum(counts[hand][part] for part in some) for some in parts])
        dealt[best].append(one)
        counts[best].update(itertools.chain(*parts))
    return dealt

"""Random orders of trials that keep rules about neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from stimkit.errors import UsageError

TrialLevels = Mapping[str, frozenset[str]]
"""What a trial shows, by factor: one level, or those of all its stimuli."""
SWEEPS = 300
STARTS = 10


class Impossible(UsageError):
    """No order keeps the rules; the factor of the one that cannot be kept, and why."""

    def __init__(self, factor: str, reason: str) -> None:
        super().__init__(reason)
        self.factor = factor


def arrange(
    trials: Sequence[TrialLevels],
    runs: Mapping[str, int],
    generator: np.random.Generator,
    before: Sequence[TrialLevels] = (),
    zones: Mapping[int, range] = {},
) -> list[int]:
    """A random order of trials in which no more than `runs[factor]` in a row share a level of the factor.

    Trials that come `before` count as neighbours of the first; trials with `zones` stay at places within them. From a
    random order, trials of runs that are too long are exchanged with random others as long as that makes no rule worse;
    if that ends nowhere it begins anew. Raises `Impossible` where a level is too frequent for any order, or where none
    was found.
    """
    for factor, longest in runs.items():
        _check_frequencies(trials, factor, longest)
    search = _Search(trials, runs, before, zones)
    for _ in range(STARTS):
        order = _start(len(trials), zones, generator)
        if search.improve(order, generator):
            return order
    factor = next(iter(runs), "")
    raise Impossible(factor, f"no order of {len(trials)} trials was found that keeps the rules on {', '.join(runs)}")


def _start(count: int, zones: Mapping[int, range], generator: np.random.Generator) -> list[int]:
    """A random order in which trials with zones are within them, as far as there is room."""
    order = dict.fromkeys(range(count), -1)
    for trial, zone in zones.items():
        free = [place for place in zone if order[place] < 0] or [place for place in order if order[place] < 0]
        order[int(generator.choice(free))] = trial
    others = iter([int(one) for one in generator.permutation(count) if int(one) not in zones])
    return [trial if trial >= 0 else next(others) for trial in order.values()]


def keeps_rules(trials: Sequence[TrialLevels], runs: Mapping[str, int]) -> bool:
    """Whether an order of trials keeps the rules of `arrange`."""
    return not _Search(trials, runs, (), {}).broken(range(len(trials)))


def _check_frequencies(trials: Sequence[TrialLevels], factor: str, longest: int) -> None:
    counts = Counter(level for trial in trials for level in trial[factor] if level)
    for level, count in counts.most_common(1):
        others = len(trials) - count
        if count > longest * (others + 1):
            raise Impossible(
                factor,
                f'{count} of {len(trials)} trials of a block have {factor} "{level}", so there are more than {longest}'
                f" in a row in any order",
            )


class _Search:
    """Local search among orders; a rule is broken by a window of trials that all share a level."""

    def __init__(
        self,
        trials: Sequence[TrialLevels],
        runs: Mapping[str, int],
        before: Sequence[TrialLevels],
        zones: Mapping[int, range],
    ) -> None:
        self.zones = zones
        context = max(runs.values(), default=0)
        self.before = list(before[-context:]) if context else []
        self.rules = [(_bits([*self.before, *trials], factor), longest) for factor, longest in runs.items()]

    def improve(self, order: list[int], generator: np.random.Generator) -> bool:
        """Exchange trials of an order, in place, until no rule is broken; False if that is not reached."""
        count, lead = len(order), len(self.before)
        for _ in range(SWEEPS):
            broken = self.broken(order)
            if not broken:
                return True
            for start, stop in broken:
                place = int(generator.integers(max(start, lead), stop)) - lead
                other = int(generator.integers(count))
                if not (self._may(order[place], other) and self._may(order[other], place)):
                    continue
                worse = self._near(order, place, other)
                order[place], order[other] = order[other], order[place]
                if self._near(order, place, other) > worse:
                    order[place], order[other] = order[other], order[place]
        return False

    def _may(self, trial: int, place: int) -> bool:
        return trial not in self.zones or place in self.zones[trial]

    def _shared(self, order: Sequence[int], bits: list[int], start: int, length: int) -> bool:
        lead, shared = len(self.before), -1
        for place in range(start, start + length):
            shared &= bits[place if place < lead else lead + order[place - lead]]
        return shared != 0

    def broken(self, order: Sequence[int]) -> list[tuple[int, int]]:
        """Windows, as places with those before, that break a rule."""
        total = len(order) + len(self.before)
        return [
            (start, start + longest + 1)
            for bits, longest in self.rules
            for start in range(total - longest)
            if self._shared(order, bits, start, longest + 1)
        ]

    def _near(self, order: Sequence[int], *places: int) -> int:
        """How many windows around places break a rule."""
        total, lead, broken = len(order) + len(self.before), len(self.before), 0
        for bits, longest in self.rules:
            starts = {
                start
                for place in places
                for start in range(max(0, place + lead - longest), min(place + lead, total - longest - 1) + 1)
            }
            broken += sum(self._shared(order, bits, start, longest + 1) for start in starts)
        return broken


def _bits(trials: Sequence[TrialLevels], factor: str) -> list[int]:
    """The levels of each trial as bits of a number; an empty level counts as none."""
    known: dict[str, int] = {}
    return [
        sum(1 << known.setdefault(level, len(known)) for level in sorted(trial[factor]) if level) for trial in trials
    ]

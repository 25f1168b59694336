"""The trials that a design allows, by its form: single stimuli, pairs, triplets, series, samples with candidates."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from stimkit.experiment.trials.design import Trial, TrialDesign

MAX_UNITS = 1_000_000  # more than any experiment asks for; a design of more lacks a rule
LevelRows = Sequence[Mapping[str, str]]
UnitRows = tuple[int, ...]
Units = Iterator[tuple[UnitRows, UnitRows]]
"""Stimuli of a trial, and those of the series that its participant moves along."""


@dataclass(frozen=True)
class TrialUnit:
    """Stimuli that can make a trial, by their index in the table, in the order that its form asks for."""

    rows: UnitRows
    levels: Mapping[str, frozenset[str]]
    """By column, what they show."""
    series: UnitRows = ()
    """What is moved along, in its order."""

    def level(self, factor: str) -> str | None:
        """The level that all stimuli share; None where they differ."""
        levels = self.levels[factor]
        return next(iter(levels)) if len(levels) == 1 else None


def make_units(
    labels: Mapping[int, Mapping[str, str]],
    factors: Sequence[str],
    columns: Sequence[str],
    design: TrialDesign,
    section: str,
) -> list[TrialUnit]:
    """All trials that a design allows, of stimuli whose levels are given by their index.

    `factors` are those of the run, `columns` those in which trials can differ (with attributes and marks). `differ`,
    `free`, `along`, `match` and `distract` are keys of `[trial]`, of which the first two may be others in the
    `section` of catch and practice trials. All factors that none of these keys names, or that do not follow from what
    they name, are equal within a trial.

    - pair: two stimuli that differ in every factor of `differ`; 2afc: of which the second has the higher level `along`
    - triplet: two stimuli that are equal in `differ` and an odd one that differs from them in each of these; the two
      are the same stimulus where no factor is free; abx: the same, one of the two is the sample
    - similarity: three stimuli that all differ in every factor of `differ`
    - mlds-triad, mlds-quad: three or four stimuli of ascending levels `along`
    - match: a sample, one that is equal to it in `match` and differs in `distract`, and one the other way round
    - adaptive: the lowest level of a series (2afc: with the highest), in whose place other levels are shown
    - adjust: a sample, and the stimuli that differ from it in nothing but their level `along`

    Raises `ProtocolError` at the `section` that selects the stimuli, where the rules allow no trial or too many.
    """
    trial = design.trial
    if along := trial.along:
        labels = {row: levels for row, levels in labels.items() if is_number(levels[along])}
    index, table = list(labels), list(labels.values())
    differ, free = rules_of(design, section)
    named = (*differ, *free, *trial.match, *trial.distract, *((along,) if along else ()))
    equal = [factor for factor in factors if factor not in named]
    leading = (*differ, *((along,) if along else ()))
    equal = [one for one in equal if not _follows(table, one, leading)]
    found: list[TrialUnit] = []
    generate = partial(_staircases, trial.form) if design.adaptive else _GENERATORS[trial.form]
    for rows, series in generate(table, equal, trial.model_copy(update={"differ": differ, "free": free})):
        found.append(
            TrialUnit(
                tuple(index[row] for row in rows),
                {name: frozenset(table[row][name] for row in rows) for name in columns},
                tuple(index[row] for row in series),
            )
        )
        if len(found) > MAX_UNITS:
            raise design.error(f"allows more than {MAX_UNITS:,} trials; choose fewer stimuli", section)
    if not found:
        words = f"that differs in {', '.join(differ)}" if differ else "by the rules of [trial]"
        what = f"{len(labels)} stimuli are selected, and they make no {trial.form} {words}"
        if section != "stimuli" and differ == design.trial.differ and differ:
            what += f"; [{section}] may have differ and free of its own"
        none = f"no stimulus of a series {along} is selected" if along else "no stimulus is selected"
        raise design.error(what if labels else none, section)
    return found


def is_number(level: str) -> bool:
    """Whether a level is a place in a series."""
    try:
        float(level)
    except ValueError:
        return False
    return True


def rules_of(design: TrialDesign, section: str) -> tuple[Sequence[str], Sequence[str]]:
    """In which factors the stimuli of the trials of a section differ, and in which they may."""
    own = {"practice": design.practice, "catch": design.catch}.get(section)
    if own is None or not (own.differ or own.free):
        return design.trial.differ, design.trial.free
    return own.differ or design.trial.differ, own.free


def _follows(table: LevelRows, factor: str, differ: Sequence[str]) -> bool:
    """Whether a factor's level is given by those of `differ`, so that it cannot be equal where these are not."""
    if not differ:
        return False
    seen: dict[tuple[Any, ...], Any] = {}
    given = all(seen.setdefault(tuple(row[name] for name in differ), row[factor]) == row[factor] for row in table)
    return given and len(set(seen.values())) > 1


def _singles(table: LevelRows, _equal: Sequence[str], _rules: Trial) -> Units:
    return (((row,), ()) for row in range(len(table)))


def _groups(table: LevelRows, names: Sequence[str], among: Sequence[int] | None = None) -> list[list[int]]:
    """Stimuli that share their levels of some factors."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row in range(len(table)) if among is None else among:
        groups[tuple(table[row][name] for name in names)].append(row)
    return list(groups.values())


def _differ(table: LevelRows, names: Sequence[str], *rows: int) -> bool:
    """Whether stimuli all differ in each of some factors."""
    return all(len({table[row][name] for row in rows}) == len(rows) for name in names)


def _pairs(table: LevelRows, equal: Sequence[str], rules: Trial) -> Units:
    for group in _groups(table, equal):
        for pair in itertools.combinations(group, 2):
            if _differ(table, rules.differ, *pair):
                yield pair, ()


def _triplets(table: LevelRows, equal: Sequence[str], rules: Trial) -> Units:
    for group in _groups(table, equal):
        for same in _groups(table, rules.differ, group):
            others = [row for row in group if all(table[row][name] != table[same[0]][name] for name in rules.differ)]
            two = itertools.combinations(same, 2) if rules.free else ((row, row) for row in same)
            yield from (((first, second, odd), ()) for first, second in two for odd in others)


def _abx(table: LevelRows, equal: Sequence[str], rules: Trial) -> Units:
    for (first, second, odd), _ in _triplets(table, equal, rules):
        yield (first, odd, second), ()
        if first != second:
            yield (second, odd, first), ()


def _similarities(table: LevelRows, equal: Sequence[str], rules: Trial) -> Units:
    for group in _groups(table, equal):
        for three in itertools.combinations(group, 3):
            if _differ(table, rules.differ, *three):
                yield three, ()


def _ascending(count: int, table: LevelRows, equal: Sequence[str], rules: Trial) -> Units:
    """So many stimuli of ascending levels along a series."""
    assert rules.along is not None
    for group in _groups(table, equal):
        at = {row: float(table[row][rules.along]) for row in group}
        for some in itertools.combinations(sorted(group, key=at.__getitem__), count):
            if all(at[one] < at[other] for one, other in itertools.pairwise(some)):
                yield some, ()


def _matches(table: LevelRows, equal: Sequence[str], rules: Trial) -> Units:
    for group in _groups(table, equal):
        for sample in group:
            alike = [row for row in group if not any(_differ(table, [name], row, sample) for name in rules.match)]
            targets = [row for row in alike if row != sample and _differ(table, rules.distract, row, sample)]
            others = [
                row
                for row in group
                if _differ(table, rules.match, row, sample)
                and not any(_differ(table, [name], row, sample) for name in rules.distract)
            ]
            yield from (((sample, target, other), ()) for target in targets for other in others)


def _staircases(form: str, table: LevelRows, equal: Sequence[str], rules: Trial) -> Units:
    for (first,), series in _adjustments(table, equal, rules):
        if first == series[0]:
            yield ((first, series[-1]), series[1:]) if form == "2afc" else ((first,), series)


def _adjustments(table: LevelRows, equal: Sequence[str], rules: Trial) -> Units:
    assert rules.along is not None
    for group in _groups(table, equal):
        series = tuple(sorted(group, key=lambda row: float(table[row][rules.along or ""])))
        if len(series) > 2 and _differ(table, [rules.along], *series):
            yield from (((row,), series) for row in series)


_GENERATORS: dict[str, Callable[[LevelRows, Sequence[str], Trial], Units]] = {
    "single": _singles,
    "pair": _pairs,
    "2afc": partial(_ascending, 2),
    "triplet": _triplets,
    "similarity": _similarities,
    "abx": _abx,
    "match": _matches,
    "mlds-triad": partial(_ascending, 3),
    "mlds-quad": partial(_ascending, 4),
    "adjust": _adjustments,
}

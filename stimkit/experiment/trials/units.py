"""The trials that a design allows: single stimuli, pairs, or triplets with an odd one."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stimkit.experiment.trials.design import TrialDesign

MAX_UNITS = 1_000_000  # more than any experiment asks for; a design of more lacks a rule
LevelRows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class TrialUnit:
    """Stimuli that can make a trial, by their index in the table; the odd one of a triplet is the last."""

    rows: tuple[int, ...]
    levels: Mapping[str, frozenset[str]]
    """By column, what they show."""

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

    `factors` are those of the run, `columns` those in which trials can differ (with attributes and marks). The
    stimuli of a pair differ in every factor of `differ` and are equal in all others that are not `free`, which are keys
    of `[trial]`, and of the `section` of catch and practice trials where these differ in something else; two of
    a triplet are equal in `differ` and the odd one differs from them in each of these: the two are the same stimulus
    where no factor is free. Raises `ProtocolError` at the `section` that selects the stimuli, where the rules allow no
    trial or too many.
    """
    index, table = list(labels), list(labels.values())
    differ, free = rules_of(design, section)
    equal = [factor for factor in factors if factor not in (*differ, *free)]
    equal = [one for one in equal if not _follows(table, one, differ)]
    found: list[TrialUnit] = []
    for rows in _GENERATORS[design.trial.form](table, equal, differ, bool(free)):
        found.append(
            TrialUnit(
                tuple(index[row] for row in rows),
                {name: frozenset(table[row][name] for row in rows) for name in columns},
            )
        )
        if len(found) > MAX_UNITS:
            raise design.error(f"allows more than {MAX_UNITS:,} trials; choose fewer stimuli", section)
    if not found:
        rules = f"that differs in {', '.join(differ)}" if differ else "by the rules of [trial]"
        what = f"{len(labels)} stimuli are selected, and they make no {design.trial.form} {rules}"
        if section != "stimuli" and differ == design.trial.differ and differ:
            what += f"; [{section}] may have differ and free of its own"
        raise design.error(what if labels else "no stimulus is selected", section)
    return found


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


def _singles(table: LevelRows, *_: object) -> Iterator[tuple[int]]:
    return ((row,) for row in range(len(table)))


def _groups(table: LevelRows, names: Sequence[str]) -> list[list[int]]:
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row, values in enumerate(table):
        groups[tuple(values[name] for name in names)].append(row)
    return list(groups.values())


def _pairs(table: LevelRows, equal: Sequence[str], differ: Sequence[str], _free: bool) -> Iterator[tuple[int, int]]:
    for group in _groups(table, equal):
        for first, second in itertools.combinations(group, 2):
            if all(table[first][name] != table[second][name] for name in differ):
                yield first, second


def _triplets(
    table: LevelRows, equal: Sequence[str], differ: Sequence[str], free: bool
) -> Iterator[tuple[int, int, int]]:
    for group in _groups(table, equal):
        alike = _groups([table[row] for row in group], differ)
        for same in alike:
            rows = [group[index] for index in same]
            others = [row for row in group if all(table[row][name] != table[rows[0]][name] for name in differ)]
            two = itertools.combinations(rows, 2) if free else ((row, row) for row in rows)
            yield from ((first, second, odd) for first, second in two for odd in others)


_GENERATORS: dict[str, Callable[..., Iterator[tuple[int, ...]]]] = {
    "single": _singles,
    "pair": _pairs,
    "triplet": _triplets,
}

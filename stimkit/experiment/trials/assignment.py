"""Which trials a participant may get, and in which order of blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.material import Material
from stimkit.experiment.trials.sampling import deal
from stimkit.experiment.trials.units import TrialUnit

Square = tuple[tuple[int, ...], ...]


def latin(n: int) -> Square:
    """The cyclic Latin square: n orders in which each condition stands once at each place."""
    return tuple(tuple((row + column) % n for column in range(n)) for row in range(n))


def williams(n: int) -> Square:
    """The design of Williams (1949): a Latin square in which each condition follows each other one equally often.

    n orders where n is even, 2 n (the square and its mirror image) where it is odd: then each condition stands twice
    at each place and follows each other one twice.

    Source: Williams, E. J. (1949). Experimental designs balanced for the estimation of residual effects of treatments.
    Australian Journal of Scientific Research A, 2, 149-168.
    """
    first = [0]
    low, high = 1, n - 1
    while len(first) < n:
        first.append(low if len(first) % 2 else high)
        low, high = (low + 1, high) if len(first) % 2 == 0 else (low, high - 1)
    rows = tuple(tuple((one + row) % n for one in first) for row in range(n))
    return rows if n % 2 == 0 or n == 1 else rows + tuple(row[::-1] for row in rows)


SQUARES = {"latin": latin, "williams": williams}


@dataclass(frozen=True)
class ParticipantGroup:
    """Participants who get trials of the same conditions."""

    label: str
    units: tuple[int, ...]
    blocks: tuple[str, ...]
    """Labels of their blocks."""
    orders: Square | None
    """Orders of these, used in rotation; None where each participant has a random one."""


class Assignment:
    """Participants to groups and orders of blocks, in rotation. Raises `ProtocolError` where a design allows none."""

    def __init__(self, design: TrialDesign, known: Material, generator: np.random.Generator) -> None:
        self._design, self._known, self._generator = design, known, generator
        self._units = known.main
        square = design.assign.latin
        self._one_level(design.assign.between, "assign", "between")
        self._one_level((square.items, square.conditions) if square else (), "assign", "latin")
        self._one_level(design.blocks.by, "blocks", "by")
        self.groups = tuple(self._groups())
        for group in self.groups:
            self._check_counts(group)

    @property
    def cycle(self) -> int:
        """Participants after which groups and orders of blocks are balanced."""
        return len(self.groups) * math.lcm(*(len(group.orders or (1,)) for group in self.groups))

    def group(self, participant: int) -> ParticipantGroup:
        return self.groups[participant % len(self.groups)]

    def allowed(self, participant: int, units: Sequence[TrialUnit]) -> list[TrialUnit]:
        """Those of further trials that a participant may get: of levels of their group, or without such a level.

        With a Latin square, items of it are in their condition only.
        """
        square, between = self._design.assign.latin, self._design.assign.between
        mine = [self._units[one] for one in self.group(participant).units]
        own = [{"", mine[0].level(name)} for name in between]
        pair = (square.items, square.conditions) if square else ()
        known, seen = ({tuple(map(one.level, pair)) for one in some} for some in (self._units, mine))
        items = {item for item, *_ in known} if square else set()
        return [
            unit
            for unit in units
            if all(unit.level(name) in levels for name, levels in zip(between, own, strict=True))
            and (not square or unit.level(square.items) not in items or tuple(map(unit.level, pair)) in seen)
        ]

    def order(self, participant: int) -> int:
        """Which of the orders of blocks a participant has; 0 where they are random."""
        return participant // len(self.groups) % len(self.group(participant).orders or (1,))

    def blocks(
        self, participant: int, trials: Sequence[TrialUnit], generator: np.random.Generator
    ) -> list[tuple[str, list[int]]]:
        """Labels of the blocks in their order, and which of the trials are in each."""
        group = self.group(participant)
        if self._design.blocks.by:
            members: dict[str, list[int]] = {label: [] for label in group.blocks}
            for index, unit in enumerate(trials):
                members[_labelled(unit, self._design.blocks.by)].append(index)
        else:
            hands = deal(trials, self._known.factors, len(group.blocks), generator)
            members = dict(zip(group.blocks, hands, strict=True))
        orders = group.orders or (tuple(int(one) for one in generator.permutation(len(group.blocks))),)
        order = orders[self.order(participant)]
        return [(group.blocks[one], members[group.blocks[one]]) for one in order if members[group.blocks[one]]]

    def _groups(self) -> list[ParticipantGroup]:
        between, square = self._design.assign.between, self._design.assign.latin
        by_levels: dict[str, list[int]] = {}
        for index, unit in enumerate(self._units):
            by_levels.setdefault(_labelled(unit, between), []).append(index)
        rows = {label: self._rows(mine) if square else [mine] for label, mine in by_levels.items()}
        groups = []
        for row in range(max(map(len, rows.values()))):
            for label, parts in rows.items():
                if row >= len(parts) or not parts[row]:
                    raise self._design.error("leaves a group of participants without trials", "assign")
                groups.append(
                    self._group("_".join(filter(None, (label, f"row{row + 1}" if square else ""))), parts[row])
                )
        return groups

    def _group(self, label: str, mine: Sequence[int]) -> ParticipantGroup:
        blocks = self._design.blocks
        if blocks.by:
            own = {_labelled(self._units[one], blocks.by) for one in mine}
            every = dict.fromkeys(_labelled(unit, blocks.by) for unit in self._units)  # the same order for all groups
            labels = tuple(one for one in every if one in own)
        else:
            labels = tuple(f"block{number + 1}" for number in range(blocks.count or 1))
        if blocks.order == "fixed":
            return ParticipantGroup(label, tuple(mine), labels, (tuple(range(len(labels))),))
        square = SQUARES.get(blocks.order)
        return ParticipantGroup(label, tuple(mine), labels, square(len(labels)) if square else None)

    def _rows(self, among: Sequence[int]) -> list[list[int]]:
        """Units by the rows of a Latin square: each item in one condition.

        Items with the same attributes take conditions in turn, so that these are balanced within every row.
        """
        square = self._design.assign.latin
        assert square is not None
        units = [self._units[one] for one in among]
        conditions = list(dict.fromkeys(unit.level(square.conditions) for unit in units))
        if len(conditions) < 2:
            raise self._design.error(f"{square.conditions} has one level", "assign", "latin", "conditions")
        alike = {unit.level(square.items): self._attributes(unit) for unit in units}
        by_chance = list(alike)
        items = sorted(
            (by_chance[one] for one in self._generator.permutation(len(by_chance))), key=lambda one: alike[one]
        )
        place = {item: index % len(conditions) for index, item in enumerate(items)}
        return [
            [
                one
                for one, unit in zip(among, units, strict=True)
                if unit.level(square.conditions) == conditions[order[place[unit.level(square.items)]]]
            ]
            for order in latin(len(conditions))
        ]

    def _attributes(self, unit: TrialUnit) -> tuple[str, ...]:
        names = self._known.columns[len(self._known.factors) :]
        return tuple(str(unit.level(name)) for name in names)

    def _check_counts(self, group: ParticipantGroup) -> None:
        design, possible = self._design, len(group.units)
        of_group = f" for group {group.label}" if group.label else ""
        if design.trial.count and design.trial.count > possible:
            raise design.error(f"only {possible} trials are possible{of_group}", "trial", "count")
        shown = (design.trial.count or possible) * design.trial.repetitions
        if design.blocks.count and design.blocks.count > shown:
            raise design.error(f"there are only {shown} trials{of_group}", "blocks", "count")

    def _one_level(self, names: Sequence[str], *path: str) -> None:
        for name in names:
            if any(unit.level(name) is None for unit in self._units):
                raise self._design.error(f"the stimuli of a trial differ in {name}", *path)


def _labelled(unit: TrialUnit, names: Sequence[str]) -> str:
    """Levels that all stimuli of a trial share, in words that no program takes for a number."""
    return "_".join(f"{name}-{unit.level(name)}" for name in names)

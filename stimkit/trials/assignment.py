"""Which trials a participant may get, and in which order of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from stimkit.trials.design import TrialDesign
from stimkit.trials.sampling import deal
from stimkit.trials.squares import latin, williams
from stimkit.trials.units import Unit

SQUARES = {"latin": latin, "williams": williams}


@dataclass(frozen=True)
class Group:
    """Participants who get trials of the same conditions."""

    label: str
    units: tuple[int, ...]


class Assignment:
    """Participants to groups and orders of blocks, in rotation. Raises `ProtocolError` where a design allows none."""

    def __init__(self, design: TrialDesign, units: Sequence[Unit], factors: Sequence[str]) -> None:
        self._design, self._units, self._factors = design, units, factors
        square = design.assign.latin
        self._one_level(design.assign.between, "assign", "between")
        self._one_level((square.items, square.conditions) if square else (), "assign", "latin")
        self._one_level(design.blocks.by, "blocks", "by")
        self.groups = tuple(self._groups())

    @cached_property
    def orders(self) -> int:
        """After how many participants of a group the orders of blocks are balanced; 1 where there is no square."""
        square = SQUARES.get(self._design.blocks.order)
        return len(square(len(self._labels))) if square else 1

    @property
    def cycle(self) -> int:
        """Participants after which groups and orders of blocks are balanced."""
        return len(self.groups) * self.orders

    def group(self, participant: int) -> Group:
        return self.groups[participant % len(self.groups)]

    def blocks(
        self, participant: int, trials: Sequence[Unit], generator: np.random.Generator
    ) -> list[tuple[str, list[int]]]:
        """Labels of the blocks in their order, and which of the trials are in each."""
        members: dict[str, list[int]] = {label: [] for label in self._labels}
        if self._design.blocks.by:
            for index, unit in enumerate(trials):
                members[self._label(unit)].append(index)
        else:
            hands = deal(trials, self._factors, len(self._labels), generator)
            members = dict(zip(self._labels, hands, strict=True))
        order = self._order(participant // len(self.groups), generator)
        return [(label, members[label]) for label in order if members[label]]

    def _order(self, row: int, generator: np.random.Generator) -> list[str]:
        count, kind = len(self._labels), self._design.blocks.order
        if kind == "random":
            return [self._labels[int(one)] for one in generator.permutation(count)]
        if kind == "fixed":
            return list(self._labels)
        square = SQUARES[kind](count)
        return [self._labels[place] for place in square[row % len(square)]]

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        if self._design.blocks.by:
            return tuple(dict.fromkeys(map(self._label, self._units)))
        return tuple(f"block{one + 1}" for one in range(self._design.blocks.count or 1))

    def _label(self, unit: Unit) -> str:
        return _labelled(unit, self._design.blocks.by)

    def _one_level(self, names: Sequence[str], *path: str) -> None:
        for name in names:
            if any(unit.level(name) is None for unit in self._units):
                raise self._design.error(f"the stimuli of a trial differ in {name}", *path)

    def _groups(self) -> list[Group]:
        between, square = self._design.assign.between, self._design.assign.latin
        rows = self._rows() if square else [(tuple(range(len(self._units))), "")]
        combinations = list(dict.fromkeys(_labelled(unit, between) for unit in self._units))
        groups = []
        for in_row, row in rows:
            for label in combinations:
                mine = tuple(one for one in in_row if _labelled(self._units[one], between) == label)
                groups.append(Group("_".join(filter(None, (label, row))), mine))
        if any(not group.units for group in groups):
            raise self._design.error("leaves a group of participants without trials", "assign")
        return groups

    def _rows(self) -> list[tuple[tuple[int, ...], str]]:
        """The units of each row of a Latin square of items and conditions."""
        square = self._design.assign.latin
        assert square is not None
        items = list(dict.fromkeys(unit.level(square.items) for unit in self._units))
        conditions = list(dict.fromkeys(unit.level(square.conditions) for unit in self._units))
        if len(conditions) < 2:
            raise self._design.error(f"{square.conditions} has one level", "assign", "latin", "conditions")
        place = {item: index % len(conditions) for index, item in enumerate(items)}
        found = []
        for row, order in enumerate(latin(len(conditions))):
            given = {item: conditions[order[place[item]]] for item in items}
            mine = (
                one
                for one, unit in enumerate(self._units)
                if unit.level(square.conditions) == given[unit.level(square.items)]
            )
            found.append((tuple(mine), f"row{row + 1}"))
        return found


def _labelled(unit: Unit, names: Sequence[str]) -> str:
    """Levels that all stimuli of a trial share, in words that no program takes for a number."""
    return "_".join(f"{name}-{unit.level(name)}" for name in names)

"""Designs: which combinations of levels become cells.

Factors are crossed, or linked, or come as the rows of a table; conditions include and exclude combinations, and
images may be sampled so that every one is used about equally often.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stimkit.errors import Problem, ProtocolError
from stimkit.protocol.labels import label, label_attribute, label_level
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.sections import Sample

PointLevels = Mapping[str, Any]
WrittenCondition = Mapping[str, frozenset[str]]
MAX_COMBINATIONS = 2_000_000  # a million takes a minute and 3 GB to plan
SampledLevels = tuple[Any, ...]  # levels of the factors that are sampled
FactorGroup = tuple[tuple[str, ...], list[SampledLevels]]  # factors that vary together, and their joint levels


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of levels."""

    varying: PointLevels
    """Levels of what has several in the design."""
    constant: PointLevels
    """Levels of everything else: one table for all points, since designs have up to a million of them."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What follows from the levels: attributes of the images, and marks."""

    def level(self, name: str) -> Any:
        """The level of a factor or setting."""
        return self.varying[name] if name in self.varying else self.constant[name]

    def value(self, name: str) -> str:
        """Label of a factor's level, or an attribute as it is."""
        return self.attributes[name] if name in self.attributes else label(self.level(name))


@dataclass(frozen=True)
class Combinations:
    """What is left of the combinations of a design."""

    points: list[Point]
    crossed: int
    """How many there are of all levels."""
    excluded: int
    """How many of them the conditions leave out."""
    not_sampled: int
    """How many of the others are not in the sample."""


def cross_levels(protocol: Protocol, factors: Sequence[str]) -> Combinations:
    """The combinations of a design over these factors, the slowest first.

    Raises `ProtocolError` where there are too many or none is left, or a stratum has too few to sample from.
    """
    attributes = _Attributes(protocol)
    found = crossed = [replace(point, attributes=attributes(point)) for point in _crossed(protocol, factors)]
    conditions = {
        section: [_written(one, attributes.names) for one in getattr(protocol, section)]
        for section in ("include", "exclude")
    }
    for section, given in conditions.items():
        for index, condition in enumerate(given):
            if not any(_meets(point, condition) for point in found):
                raise _problem(protocol, section, "no combination of levels meets it", index)
    if protocol.include:
        found = [point for point in found if any(_meets(point, condition) for condition in conditions["include"])]
    found = [point for point in found if not any(_meets(point, condition) for condition in conditions["exclude"])]
    if not found:
        raise _problem(protocol, "exclude" if protocol.exclude else "include", "no combination of levels is left")
    points = found if protocol.sample is None else _sampled(found, protocol, protocol.sample)
    return Combinations(points, len(crossed), len(crossed) - len(found), len(found) - len(points))


def _crossed(protocol: Protocol, factors: Sequence[str]) -> Iterator[Point]:
    groups = _groups(protocol, factors)
    count = math.prod(len(rows) for _, rows in groups)
    if count > MAX_COMBINATIONS:
        raise _problem(
            protocol, "factors", f"have {count:,} combinations; a design has at most {MAX_COMBINATIONS:,}: make several"
        )
    constant = {
        name: level for names, rows in groups if len(rows) == 1 for name, level in zip(names, rows[0], strict=True)
    }
    varying = [(names, rows) for names, rows in groups if len(rows) > 1]
    names = [name for names, _ in varying for name in names]
    for rows in itertools.product(*(rows for _, rows in varying)):
        yield Point(dict(zip(names, itertools.chain.from_iterable(rows), strict=True)), constant)


def _groups(protocol: Protocol, factors: Sequence[str]) -> list[FactorGroup]:
    """Factors that vary together, at the place of the first of them."""
    together: dict[str, FactorGroup] = {}
    for names in protocol.design.zip:
        together |= dict.fromkeys(names, (names, list(zip(*(protocol.levels(name) for name in names), strict=True))))
    if rows := protocol.table:
        names = tuple(rows[0])
        together |= dict.fromkeys(names, (names, [tuple(row[name] for name in names) for row in rows]))
    groups: list[FactorGroup] = []
    for factor in factors:
        group = together.get(factor, ((factor,), [(level,) for level in protocol.levels(factor)]))
        if group not in groups:
            groups.append(group)
    return groups


class _Attributes:
    """What follows from the levels of a point."""

    def __init__(self, protocol: Protocol) -> None:
        self._images = protocol.images.attributes
        self._names = {
            kind: tuple(dict.fromkeys(name for values in images.values() for name in values))
            for kind, images in self._images.items()
        }
        self._marks = protocol.design.marks
        self.names = {*self._marks, *(name for names in self._names.values() for name in names)}

    def __call__(self, bare: Point) -> dict[str, str]:
        found: dict[str, str] = {}
        for kind, names in self._names.items():
            known = self._images[kind].get(bare.level(kind) or "", {})
            found |= {name: known.get(name, "") for name in names}
        point = replace(bare, attributes=found) if self._marks else bare
        marks = {mark: label(point.value(first) == point.value(other)) for mark, (first, other) in self._marks.items()}
        return found | marks


def _written(condition: Mapping[str, tuple[Any, ...]], attributes: Container[str]) -> WrittenCondition:
    """A condition with the values of factors and attributes as points have them."""
    return {
        name: frozenset(label_attribute(one) if name in attributes else label_level(name, one) for one in values)
        for name, values in condition.items()
    }


def _meets(point: Point, condition: WrittenCondition) -> bool:
    return all(point.value(name) in values for name, values in condition.items())


# --- balanced sampling -----------------------------------------------------------------------------------------


def _sampled(found: Sequence[Point], protocol: Protocol, sample: Sample) -> list[Point]:
    def unit(point: Point) -> SampledLevels:
        return tuple(point.level(name) for name in sample.balance)

    strata: dict[tuple[str, ...], dict[SampledLevels, None]] = {}
    for point in found:
        strata.setdefault(tuple(point.value(name) for name in sample.per), {})[unit(point)] = None
    for stratum, units in strata.items():
        if len(units) < sample.count:
            where = ", ".join(f"{name} {value}" for name, value in zip(sample.per, stratum, strict=True))
            message = f"{sample.count} of each were asked for, but {where or 'the design'} has {len(units)}"
            raise _problem(protocol, "sample", message)
    chosen = set(sample_evenly([list(units) for units in strata.values()], sample.count, sample.seed))
    return [point for point in found if unit(point) in chosen]


def sample_evenly(strata: Sequence[Sequence[SampledLevels]], count: int, seed: int) -> Iterator[SampledLevels]:
    """Choose `count` units of every stratum so that each level of each of their factors is used about equally often.

    At first, one unit after the other is taken whose levels were used least; then single units are exchanged within
    their stratum as long as that makes the use more even. Ties are broken by digests of the seed and the unit, which
    are the same everywhere.
    """
    use = _Use(strata, count)
    order = _shuffle(seed)
    strata = [sorted(units, key=order) for units in strata]
    chosen: list[dict[SampledLevels, None]] = [{} for _ in strata]
    for turn in range(count):
        for index in sorted(range(len(strata)), key=lambda index: order((turn, index))):
            left = (unit for unit in strata[index] if unit not in chosen[index])
            best = min(left, key=use.cost)
            chosen[index][best] = None
            use.change(best, 1)
    while any([use.exchange(units, mine) for units, mine in zip(strata, chosen, strict=True)]):
        pass
    return itertools.chain.from_iterable(chosen)


class _Use:
    """How often every level is used, in units of how often it should be."""

    def __init__(self, strata: Sequence[Sequence[SampledLevels]], count: int) -> None:
        levels = [set(column) for column in zip(*itertools.chain.from_iterable(strata), strict=True)]
        self._share = [len(level) / (count * len(strata)) for level in levels]
        self._counts: list[Counter[Any]] = [Counter() for _ in levels]

    def cost(self, unit: SampledLevels) -> float:
        """By how much the sum of squared uses grows with one more use of the unit."""
        parts = zip(unit, self._counts, self._share, strict=True)
        return sum((2 * counts[level] + 1) * share for level, counts, share in parts)

    def change(self, unit: SampledLevels, by: int) -> None:
        for level, counts in zip(unit, self._counts, strict=True):
            counts[level] += by

    def exchange(self, units: Sequence[SampledLevels], chosen: dict[SampledLevels, None]) -> bool:
        """Exchange chosen units for others where that makes the use more even; say whether one was."""
        changed = False
        for mine in list(chosen):
            self.change(mine, -1)
            best = min((unit for unit in units if unit == mine or unit not in chosen), key=self.cost)
            if self.cost(best) < self.cost(mine) - 1e-9:
                del chosen[mine]
                chosen[best], changed = None, True
            else:
                best = mine
            self.change(best, 1)
        return changed


def _shuffle(seed: int) -> Callable[[Any], bytes]:
    return lambda value: hashlib.sha256(f"{seed};{value}".encode()).digest()


def _problem(protocol: Protocol, key: str, message: str, *index: int) -> ProtocolError:
    where = "".join(f"[{one}]" for one in index)
    return ProtocolError([Problem(f"{key}{where}", message, protocol.line(key, *index))], protocol.file)

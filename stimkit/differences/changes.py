"""How two protocols or runs differ: cells that came, went or changed, by which keys, and stimuli made otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stimkit.errors import UsageError
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.crossing import plan as make_plan
from stimkit.planning.recognition import cue_digest
from stimkit.protocol.mixes import AnyMixture, Spaced, write_mixture
from stimkit.protocol.protocol import Protocol
from stimkit.records.schema import Record
from stimkit.runfolder.run import Run, read_run

ONLY_NAMES = ("content", "style", "mask")
"""Keys of which the pixels are compared, not what they are called."""


@dataclass(frozen=True)
class Compared:
    """One of the two: a plan, and the run that it is of."""

    name: str
    plan: Plan
    run: Run | None

    def record(self, cell: Cell) -> Record | None:
        """The record of a cell; None where it is not complete, or there is no run."""
        return self.run.records.get(cell.id) if self.run else None


@dataclass(frozen=True)
class Change:
    """Two cells at the same place in the design that are different stimuli, or one that was made otherwise."""

    before: Cell
    after: Cell
    keys: Mapping[str, tuple[Any, Any]]
    """What differs, with its values."""


@dataclass(frozen=True)
class Difference:
    """How B differs from A."""

    sides: tuple[Compared, Compared]
    protocol: Mapping[str, tuple[Any, Any]]
    """Keys of the protocols, written out with all defaults, whose values differ; None for a key that is not there."""
    came: tuple[Cell, ...]
    went: tuple[Cell, ...]
    changed: tuple[Change, ...]
    """Cells of the same levels with other ids."""
    remade: tuple[Change, ...]
    """Cells with the same id whose stimuli are not the same pixels, or not of the same status."""
    same: int
    """Cells that are in both, and not remade."""

    @property
    def differ(self) -> bool:
        """Whether there is any difference in cells or stimuli."""
        return bool(self.came or self.went or self.changed or self.remade)

    def values(self) -> dict[str, Any]:
        """The difference as JSON values."""
        return {
            "a": self.sides[0].name,
            "b": self.sides[1].name,
            "protocol": {key: list(values) for key, values in self.protocol.items()},
            "same": self.same,
            "came": [{"stimulus_id": cell.id, "role": cell.role, **cell.levels} for cell in self.came],
            "went": [{"stimulus_id": cell.id, "role": cell.role, **cell.levels} for cell in self.went],
            "changed": [_values_of(change) for change in self.changed],
            "remade": [_values_of(change) for change in self.remade],
        }


def _values_of(change: Change) -> dict[str, Any]:
    keys = {key: list(values) for key, values in change.keys.items()}
    return {"a": change.before.id, "b": change.after.id, **change.after.levels, "keys": keys}


def diff(a: str | Path | Plan | Run, b: str | Path | Plan | Run) -> Difference:
    """Compare two protocols or runs; run folders and protocol files may be mixed.

    >>> found = stimkit.diff("protocols/quickstart.toml", "runs/quickstart")
    >>> found.same, found.differ
    (8, False)

    Cells are the same when their ids are: everything that determines their pixels is. Cells of other ids at the same
    place in the design, with the same levels of all factors that both have, are changed; what is left came or went. Of
    two runs, stimuli of the same cells are compared by their pixels. Raises `UsageError` for what is neither, and
    `ProtocolError` and `RunFolderError` as reading them does.
    """
    one, other = _side(a), _side(b)
    return _compare(one, other)


def _side(given: str | Path | Plan | Run) -> Compared:
    if isinstance(given, Plan):
        return Compared(given.protocol.name, given, None)
    if isinstance(given, Run):
        return Compared(str(given.path), given.plan, given)
    path = Path(given)
    if path.is_dir():
        run = read_run(path)
        return Compared(str(path), run.plan, run)
    if not path.is_file():
        raise UsageError(f"{path} is neither a protocol file nor a run folder")
    return Compared(str(path), make_plan(Protocol.load(path)), None)


def _compare(one: Compared, other: Compared) -> Difference:
    before = [cell for cell in one.plan.cells if cell.id not in other.plan.by_id]
    after = [cell for cell in other.plan.cells if cell.id not in one.plan.by_id]
    pairs = _paired(before, after)
    changed = [
        Change(old, new, dict(_unequal(_determinants(one.plan, old), _determinants(other.plan, new))))
        for old, new in pairs
    ]
    paired = {cell.id for pair in pairs for cell in pair}
    both = [cell for cell in one.plan.cells if cell.id in other.plan.by_id]
    remade = [
        Change(cell, other.plan.by_id[cell.id], keys)
        for cell in both
        if (keys := _made_otherwise(one.record(cell), other.record(cell)))
    ]
    return Difference(
        sides=(one, other),
        protocol=dict(_unequal(_flat(_written(one.plan)), _flat(_written(other.plan)))),
        came=tuple(cell for cell in after if cell.id not in paired),
        went=tuple(cell for cell in before if cell.id not in paired),
        changed=tuple(changed),
        remade=tuple(remade),
        same=len(both) - len(remade),
    )


def _paired(before: Sequence[Cell], after: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Cells of the same levels of the factors that both sides have, where there is only one of each."""
    factors = {name for cell in before for name in cell.levels} & {name for cell in after for name in cell.levels}

    def place(cell: Cell) -> tuple[Any, ...]:
        return cell.role, tuple(sorted((name, cell.levels.get(name)) for name in factors))

    found: dict[Any, tuple[list[Cell], list[Cell]]] = {}
    for side, cells in enumerate((before, after)):
        for cell in cells:
            found.setdefault(place(cell), ([], []))[side].append(cell)
    return [(old[0], new[0]) for old, new in found.values() if len(old) == len(new) == 1]


def _determinants(plan: Plan, cell: Cell) -> dict[str, Any]:
    """What determines the pixels of a cell."""
    settings = cell.settings.model_dump(mode="json", exclude={"weights"})
    source = plan.weights[cell.settings.source]
    images = {
        kind: ";".join(plan.input(kind, name).pixel_sha256[:12] for name in cell.images(kind)) or None
        for kind in ONLY_NAMES
    }
    pools = {
        f"{kind}_pool": ", ".join(sorted(one.pixel_sha256[:12] for one in plan.inputs if one.kind == kind))
        for kind in cell.settings.pools
    }
    cues = {"recognition": cue_digest(plan, cell)[:12]} if cell.settings.titrate == "cue_balance" else {}
    mixes = {f"{kind}_mix": _mixture(cell.mixture(kind)) for kind in ("content", "style")}
    regions = "; ".join(f"{one.mask}: {_mixture(one.mixture) or one.style}" for one in cell.style_map)
    return {
        **images,
        **mixes,
        "style_map": regions or None,
        **pools,
        **cues,
        "content_layers": _layers(cell.content_layers),
        "style_layers": _layers(cell.style_layers),
        "alpha": cell.alpha,
        "beta": cell.beta,
        "replicate": cell.replicate,
        "seed": plan.protocol.seed,
        "seeds": plan.protocol.seeds,
        "weights": source.digest[:12],
        **settings,
    }


def _mixture(mixture: AnyMixture | None) -> str | None:
    """A mixture in words."""
    if isinstance(mixture, Spaced):
        of = f"step {mixture.number} of {mixture.steps} of {'a closed' if mixture.closed else 'an open'} series"
        return f"{of} by distance, {mixture.path}, of {', '.join(mixture.parts)}"
    return f"{write_mixture(mixture)} ({mixture.path})" if mixture else None


def _layers(layers: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {weight:.3g}" for name, weight in layers)


def _made_otherwise(before: Record | None, after: Record | None) -> dict[str, tuple[Any, Any]]:
    """How the stimuli of one cell in two runs differ."""
    if before is None or after is None:
        return {}
    pairs = {
        "pixels": (before.pixel_sha256 and before.pixel_sha256[:12], after.pixel_sha256 and after.pixel_sha256[:12]),
        "status": (before.status, after.status),
        "attempt": (before.attempt, after.attempt),
    }
    found = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    totals = (before.losses.file.total, after.losses.file.total)
    return {**found, "total loss": totals} if found else {}


def _written(plan: Plan) -> dict[str, Any]:
    """A protocol with every default."""
    return plan.protocol.model_dump(mode="json", by_alias=True, exclude={"schema_version"})


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested tables as one, with their keys joined by dots."""
    if not isinstance(value, dict):
        return {path: value}
    return {name: one for key, inner in value.items() for name, one in _flat(inner, f"{path}.{key}".strip(".")).items()}


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for key in dict.fromkeys((*one, *other)):
        first, second = one.get(key), other.get(key)
        if first != second and not (_is_nan(first) and _is_nan(second)):
            yield key, (first, second)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)

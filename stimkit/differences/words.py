"""How two protocols or runs differ, in lines of words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stimkit.differences.changes import Change, Difference
from stimkit.planning.cells import Cell

SHOWN_KEYS, SHOWN_CELLS = 12, 5


def describe_difference(found: Difference) -> Iterator[str]:
    """Keys of the protocol, changed cells by what changed, what came and went, then how many of each."""
    for key, (one, other) in list(found.protocol.items())[:SHOWN_KEYS]:
        yield f"protocol  {key}: {short_value(one)} → {short_value(other)}"
    if len(found.protocol) > SHOWN_KEYS:
        yield f"          and {len(found.protocol) - SHOWN_KEYS} other keys"
    for words, changes in (("changed", found.changed), ("remade", found.remade)):
        yield from _by_keys(words, changes)
    for words, cells in (("came", found.came), ("went", found.went)):
        for cell in cells[:SHOWN_CELLS]:
            yield f"{words:<8}  {cell.id}  {cell_words(cell)}"
        if len(cells) > SHOWN_CELLS:
            yield f"          and {len(cells) - SHOWN_CELLS} more"
    yield counts_in_words(found)


def counts_in_words(found: Difference) -> str:
    """How many cells are as before, and how many are not."""
    counts = f"{len(found.changed):,} changed, {len(found.remade):,} made otherwise"
    return f"{found.same:,} cells as before, {counts}, {len(found.came):,} came, {len(found.went):,} went"


def _by_keys(words: str, changes: Sequence[Change]) -> Iterator[str]:
    groups: dict[str, list[str]] = {}
    for change in changes:
        pairs = {key: pair for key, pair in change.keys.items() if key != "total loss"}
        groups.setdefault(
            ", ".join(f"{key} {short_value(a)} → {short_value(b)}" for key, (a, b) in pairs.items()), []
        ).append(change.after.id)
    for keys, ids in list(groups.items())[:SHOWN_KEYS]:
        more = " …" if len(ids) > SHOWN_CELLS else ""
        yield f"{words:<8}  {len(ids)} × {keys}: {', '.join(ids[:SHOWN_CELLS])}{more}"
    if len(groups) > SHOWN_KEYS:
        yield f"          and {len(groups) - SHOWN_KEYS} other kinds"


def short_value(value: Any) -> str:
    """A value in text; a dash for none."""
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def cell_words(cell: Cell) -> str:
    """A cell by its role and levels."""
    role = "" if cell.role == "main" else f"{cell.role.replace('_', ' ')} of "
    return role + ", ".join(f"{name} {level}" for name, level in cell.levels.items() if level)

"""Levels as they stand in tables and file names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def label_level(name: str, level: Any) -> str:
    """The label of a factor's level as a protocol may write it: one side stands for a square."""
    is_side = name == "size" and isinstance(level, int) and not isinstance(level, bool)
    return label((level, level) if is_side else level)


def label_attribute(value: Any) -> str:
    """The value of an attribute or mark as a protocol may write it; texts are taken as they are."""
    return value if isinstance(value, str) else label(value)


def label(level: Any) -> str:
    """Write a level for tables and file names: letters, digits, hyphens and dots."""
    if level is None:
        return ""
    if isinstance(level, bool):
        return "yes" if level else "no"
    if isinstance(level, float):
        return format(level, ".6g").replace("+", "")
    if isinstance(level, tuple | list):
        return "x".join(map(label, level))
    text = Path(level).stem if isinstance(level, str) and "." in level else str(level)
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)

"""Levels as they stand in tables and file names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

from stimkit.protocol.settings import Settings

RATIOS = ("ratio", "alpha", "beta")


def label_level(name: str, level: Any) -> str:
    """The label of a factor's level as a protocol may write it.

    One side stands for a square, and a whole number of a factor of numbers is a number.
    """
    if isinstance(level, int) and not isinstance(level, bool):
        if name == "size":
            return label((level, level))
        kind = Settings.model_fields[name].annotation if name in Settings.model_fields else float
        if name in RATIOS or float in (kind, *get_args(kind)):
            return label(float(level))
    return label(level)


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

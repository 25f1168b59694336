"""Levels as they stand in tables and file names."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

MAX_CELL = 1000


def label_level(name: str, level: Any) -> str:
    """The label of a factor's level as a protocol may write it: one side stands for a square."""
    is_side = name == "size" and isinstance(level, int) and not isinstance(level, bool)
    return label((level, level) if is_side else level)


def label_attribute(value: Any) -> str:
    """The value of an attribute or mark as a protocol may write it; texts are taken as they are."""
    return value if isinstance(value, str) else label(value)


def cell_objection(text: str) -> str:
    """Say why a text cannot stand in a table that spreadsheets open; empty where it can."""
    if len(text) > MAX_CELL:
        return f"has more than {MAX_CELL} characters"
    if re.match(r"[=@]|[+-](?![\d.])", text):
        return f"begins with {text[0]}, which spreadsheets take for a formula"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text):
        return "has control characters, or characters that cannot be seen"
    return ""


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

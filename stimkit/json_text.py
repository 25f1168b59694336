"""JSON as every reader knows it, which has no numbers that are not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def json_text(value: Any, indent: int | None = 1, *, ascii_only: bool = False) -> str:
    """Write a value as JSON: infinity as the text "inf", as in tables; NaN as null. NumPy's numbers are numbers."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file for people and programs."""
    path.write_text(json_text(value) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else format(value, "g")
    return value

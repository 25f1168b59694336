"""Plans of one cell, on which what happens to a stimulus is seen."""

from __future__ import annotations

from typing import Any

from stimkit.planning.cells import Plan
from tests.conftest import small_plan

ONE = {"style_layers": ["two"], "ratio": [1e-5]}


def colour_plan(colour: str, **synthesis: Any) -> Plan:
    return small_plan(factors=ONE, synthesis={"colour": colour, **synthesis})

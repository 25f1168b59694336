"""Conditions on the manifest, such as `style == "swirl" and ratio < 1e-5`."""

from __future__ import annotations

import ast

import pandas as pd

from stimkit.errors import UsageError

_METHODS = {"str", "contains", "startswith", "endswith", "isin", "isna", "notna", "between"}
_NOT_IN_CONDITIONS = (ast.Lambda, ast.comprehension, ast.Subscript, ast.NamedExpr, ast.JoinedStr, ast.Starred)


def select(stimuli: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows of a table that a condition holds for, as `style == "swirl"`.

    It consists of columns, constants, comparisons, arithmetic, `and`, `or`, `not`, `in` and the methods in `_METHODS`:
    conditions come with files of others, and nothing else may be run by them. Raises `UsageError` where it cannot be
    evaluated.
    """
    try:
        for node in ast.walk(ast.parse(where, mode="eval")):
            is_other = isinstance(node, ast.Attribute) and node.attr not in _METHODS
            is_power = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift)
            if isinstance(node, _NOT_IN_CONDITIONS) or is_other or is_power:
                raise ValueError(f"{ast.unparse(node)} is not possible in a condition")
            if isinstance(node, ast.Compare):
                _check_kinds(node, stimuli)
        holds = stimuli.eval(where, engine="python")
        if not isinstance(holds, pd.Series) or holds.dtype != bool or not holds.index.equals(stimuli.index):
            raise ValueError("it is not a condition")
        return stimuli[holds]
    except Exception as error:  # pandas raises whatever the expression raises
        raise UsageError(f"the condition {where!r} cannot be evaluated on the manifest: {error}") from None


def names_in(where: str) -> set[str]:
    """The columns that a condition of `select` names."""
    try:
        return {node.id for node in ast.walk(ast.parse(where, mode="eval")) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"the condition {where!r} cannot be read: {error}") from None


def _check_kinds(comparison: ast.Compare, stimuli: pd.DataFrame) -> None:
    """A number is never equal to a text, which a condition should not find out by what it selects."""
    sides = [comparison.left, *comparison.comparators]
    constants = [
        one for side in sides for one in (getattr(side, "elts", None) or [side]) if isinstance(one, ast.Constant)
    ]
    for name in (side.id for side in sides if isinstance(side, ast.Name) and side.id in stimuli):
        kind = stimuli[name].dtype.kind
        for value in (constant.value for constant in constants):
            if isinstance(value, str) and kind in "iufb":
                raise ValueError(f"{name} holds {'truth values' if kind == 'b' else 'numbers'}, not {value!r}")
            if isinstance(value, int | float) and kind == "O":
                hint = ', as in "yes"' if isinstance(value, bool) else f', as in "{value}"'
                raise ValueError(f"{name} holds texts, not {value!r}{hint}")

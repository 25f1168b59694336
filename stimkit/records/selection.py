"""Conditions on the manifest, such as `style == "swirl" and ratio < 1e-5`."""

from __future__ import annotations

import ast

import pandas as pd

from stimkit.errors import UsageError

_METHODS = {"str", "contains", "startswith", "endswith", "isin", "isna", "notna", "between"}
MAX_CONDITION = 10_000  # characters
_NOT_IN_CONDITIONS = (ast.Lambda, ast.comprehension, ast.Subscript, ast.NamedExpr, ast.JoinedStr, ast.Starred)


def select(stimuli: pd.DataFrame, where: str) -> pd.DataFrame:
    """The rows of a table that a condition holds for, as `style == "swirl"`.

    It consists of columns, constants, comparisons, arithmetic with numbers, `and`, `or`, `not`, `in` and the methods in
    `_METHODS`, of which `contains` looks for a text as it is: conditions come with files of others, and nothing else
    may be run by them, nor anything that takes long. Raises `UsageError` where it cannot be evaluated.
    """
    try:
        tree = _parsed(where)
        for node in ast.walk(tree):
            is_other = isinstance(node, ast.Attribute) and node.attr not in _METHODS
            is_power = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift)
            if isinstance(node, _NOT_IN_CONDITIONS) or is_other or is_power:
                raise ValueError(f"{ast.unparse(node)} is not possible in a condition")
            if isinstance(node, ast.BinOp) and any(_is_text(part) for part in ast.walk(node)):
                raise ValueError(f"{ast.unparse(node)[:60]} calculates with a text")
            if isinstance(node, ast.Compare):
                _check_kinds(node, stimuli)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "contains":
                if len(node.args) != 1 or node.keywords:
                    raise ValueError("contains looks for one text")
                node.keywords = [ast.keyword("regex", ast.Constant(value=False))]  # expressions can take for ever
        holds = stimuli.eval(ast.unparse(tree), engine="python")
        if not isinstance(holds, pd.Series) or holds.dtype != bool or not holds.index.equals(stimuli.index):
            raise ValueError("it is not a condition")
        return stimuli[holds]
    except Exception as error:  # pandas raises whatever the expression raises
        raise UsageError(f"the condition {where[:200]!r} cannot be evaluated on the manifest: {error}") from None


def names_in(where: str) -> set[str]:
    """The columns that a condition of `select` names."""
    try:
        return {node.id for node in ast.walk(_parsed(where)) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"the condition {where[:200]!r} cannot be read: {error}") from None


def _parsed(where: str) -> ast.Expression:
    if len(where) > MAX_CONDITION:
        raise ValueError(f"it has {len(where):,} characters, more than {MAX_CONDITION:,}")
    return ast.parse(where, mode="eval")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


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

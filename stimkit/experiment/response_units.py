"""Units of answers: times in seconds, right and wrong as 1 and 0, whatever program wrote them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from stimkit.errors import UsageError

UNITS = {"s": 1, "ms": 1000}
"""Units that times may have, and how many of them a second has."""
RECORDED = "_recorded"  # what the name of a column ends with that has values as they were recorded
UNIT_COLUMN = "recorded_time_unit"
_TIME = re.compile(r"(.*[._])?rt|(reaction|response)_?time|time_elapsed|.*\.(started|stopped)", re.IGNORECASE)
_MILLISECONDS = re.compile(r"(?P<name>(.*[._])?rt|(reaction|response)_?time)_ms", re.IGNORECASE)
_JSPSYCH = ({"trial_index", "time_elapsed"}, {"trial_index", "trial_type"})
_PSYCHOPY = re.compile(r"psychopyVersion|expName|frameRate|.*\.this(N|RepN|TrialN|Index)")
_RIGHT = {"true": 1, "yes": 1, "correct": 1, "1": 1, "false": 0, "no": 0, "incorrect": 0, "0": 0}


def with_units(table: pd.DataFrame, file: str, times: str | None = None) -> pd.DataFrame:
    """Return a table of answers with times in seconds and `correct` as 0, 1 or missing; what was recorded stays beside.

    jsPsych records milliseconds and PsychoPy seconds; `times` says what another program recorded, "s" or "ms".
    Raises `UsageError` where it is needed and not given.
    """
    found = table.copy()
    if UNIT_COLUMN not in table:  # else it was joined before
        numbers = [str(name) for name in table if pd.api.types.is_numeric_dtype(table[name])]
        for column in numbers:
            if (match := _MILLISECONDS.fullmatch(column)) and match["name"] not in table:
                found[match["name"]] = table[column] / UNITS["ms"]
                found[UNIT_COLUMN] = "ms"
        measured = [name for name in numbers if _TIME.fullmatch(name)]
        unit = times or _program_unit(table) or ""
        if measured and not unit:
            raise UsageError(
                f"{file}: is {measured[0]} in seconds or in milliseconds? The file is not one of jsPsych or PsychoPy:"
                " say --times s or --times ms"
            )
        for name in measured:
            found[f"{name}{RECORDED}"] = table[name]
            found[name] = table[name] / UNITS[unit]
        if measured:
            found[UNIT_COLUMN] = unit
    if "correct" in table and (right := _right(table["correct"])) is not None:
        if not pd.api.types.is_numeric_dtype(table["correct"]) or pd.api.types.is_bool_dtype(table["correct"]):
            found[f"correct{RECORDED}"] = table["correct"]
        found["correct"] = right
    return found


def is_of_psychopy(names: Iterable[str]) -> bool:
    """Whether columns are those of a file that PsychoPy wrote."""
    return any(map(_PSYCHOPY.fullmatch, names))


def _program_unit(table: pd.DataFrame) -> str | None:
    """The unit of times of the program that wrote a table, where its columns tell which one that was."""
    names = set(map(str, table.columns))
    if any(columns <= names for columns in _JSPSYCH):
        return "ms"
    return "s" if is_of_psychopy(names) else None


def _right(values: pd.Series) -> pd.Series | None:
    """Right and wrong as 1 and 0; None where values are something else."""
    given = values.dropna()
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return values.astype("Int64") if given.isin([0, 1]).all() else None
    words = given.astype(str).str.strip().str.lower()
    if not words[words != ""].isin(_RIGHT).all():
        return None
    return values.astype("string").str.strip().str.lower().map(_RIGHT).astype("Int64")


def unit_of(name: str, table: pd.DataFrame) -> str:
    """The unit of a column of joined answers; empty where it has none."""
    if UNIT_COLUMN not in table:
        return ""
    if name.endswith(RECORDED) and _TIME.fullmatch(name.removesuffix(RECORDED)):
        units = set(map(str, table[UNIT_COLUMN].dropna()))
        return units.pop() if len(units) == 1 else ""
    return "ms" if _MILLISECONDS.fullmatch(name) else "s" if _TIME.fullmatch(name) else ""


def implausible(table: pd.DataFrame) -> str:
    """What is odd about reaction times in seconds; empty where nothing is."""
    if "rt" not in table or not pd.api.types.is_numeric_dtype(table["rt"]) or table["rt"].isna().all():
        return ""
    median = table["rt"].median()
    return "" if 0.05 <= median <= 60 else f"half of the reaction times are below {median:.3g} s: is their unit right?"

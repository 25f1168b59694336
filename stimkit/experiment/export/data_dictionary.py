"""The data dictionary: what every column of an exported table is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from stimkit.experiment.export.stimulus_set import StimulusSet
from stimkit.records.schema import COLUMNS

_MANIFEST = {column.name: column for column in COLUMNS}
_OWN = {
    "stim_file": "file of the stimulus, relative to the folder of the export",
    "participant": "participant that the trial is for",
    "group": "levels of the factors that differ between participants, and row of the Latin square",
    "block": "number of the block, from 1; 0 is practice",
    "block_label": "which block it is",
    "trial": "number of the trial, from 1",
    "kind": "main, practice or catch",
    "repetition": "which showing of the trial to the participant, from 1",
    "answer": "the right answer, where there is one",
    "answer_index": "its place among the choices, from 1",
    "position": "name of the place of the stimulus",
    "x_deg": "degrees of visual angle right of fixation",
    "y_deg": "degrees of visual angle above fixation",
}
MAX_LEVELS = 50
FIELDS = ("table", "column", "type", "units", "description", "levels")


def describe_columns(stimuli: StimulusSet, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row for each column of the tables: name, type, units, description and, where they are few, its levels."""
    rows = [row for name, table in tables.items() for row in _rows(stimuli, name, table)]
    return pd.DataFrame(rows, columns=list(FIELDS))


def _rows(stimuli: StimulusSet, table: str, columns: pd.DataFrame) -> Iterator[dict[str, str]]:
    for name in columns.columns:
        base = _base(str(name))
        known = _MANIFEST.get(base)
        is_level = base in (*stimuli.factors, *stimuli.attributes)
        values = columns[name]
        yield {
            "table": table,
            "column": str(name),
            "type": _type(values),
            "units": "" if known is None or is_level else known.units,
            "description": _described(stimuli, base) + _place(str(name), base),
            "levels": ";".join(levels_of(values)) if is_level and values.nunique() <= MAX_LEVELS else "",
        }


def levels_of(values: pd.Series) -> list[str]:
    """The different values of a column that are there, in text."""
    return [str(value) for value in values.unique() if not pd.isna(value) and value != ""]


def _base(name: str) -> str:
    """A column's name without the place of the stimulus in its trial."""
    base, _, place = name.rpartition("_")
    return base if place in ("1", "2", "3") and name not in _MANIFEST else name


def _place(name: str, base: str) -> str:
    return f" (stimulus {name[-1]} of the trial, from the left)" if name != base else ""


def _described(stimuli: StimulusSet, name: str) -> str:
    if name in stimuli.factors:
        return f"factor: {_MANIFEST[name].long_name}" if name in _MANIFEST else "factor of the design"
    if name in stimuli.attributes:
        return "attribute of the images, or mark of the design"
    return _MANIFEST[name].long_name if name in _MANIFEST else _OWN.get(name, "")


def _type(values: pd.Series) -> str:
    if values.dtype == bool:
        return "logical"
    if pd.api.types.is_integer_dtype(values):
        return "integer"
    return "number" if pd.api.types.is_float_dtype(values) else "text"

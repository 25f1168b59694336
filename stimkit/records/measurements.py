"""What was measured of finished files after they were made: tables beside the records.

A table is `NAME.csv`, a row for each stimulus with the digest of the file that was measured, and `NAME.json`, which
says what its columns are and how they were measured. Values of a file that is not the stimulus any more do not count.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stimkit.columns import Column
from stimkit.documents.schemas import Schema
from stimkit.errors import RunFolderError, UsageError
from stimkit.files import json_text, parse_json
from stimkit.records.schema import COLUMN_OF, Record

MEASUREMENTS = Schema("table of measurements", 1, {})
OWN_TABLES = ("statistics", "orientation", "phog", "variances", "similarity", "observers", "distances")
"""Names of tables that stimkit measures itself."""
TABLE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_COLUMN = r"^[a-z][A-Za-z0-9_]{0,99}$"
_KEYS = ("stimulus_id", "file_sha256")


class _Words(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    units: str
    long_name: str


class _Form(BaseModel):
    """The JSON file of a table."""

    model_config = ConfigDict(strict=True, extra="forbid")
    schema_: int = Field(alias="schema")
    columns: dict[str, _Words] = Field(min_length=1, max_length=1000)
    made: dict[str, Any]


@dataclass(frozen=True)
class Measurements:
    """One table."""

    name: str
    columns: tuple[Column, ...]
    values: Mapping[str, Mapping[str, float]]
    """By stimulus id and column; NaN where there is none."""
    files: Mapping[str, str]
    """Digests of the files that were measured, by stimulus id."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """How they were measured: versions, weights, options."""

    def of(self, record: Record) -> dict[Column, float]:
        """The values of a stimulus, as long as its file is the one that was measured."""
        if record.file_sha256 is None or self.files.get(record.stimulus_id) != record.file_sha256:
            return {}
        values, designed = self.values[record.stimulus_id], {*record.levels, *record.attributes}
        return {column: values[column.name] for column in self.columns if column.name not in designed}

    def to_files(self) -> dict[str, bytes]:
        """The two files of the table by their names."""
        rows = [
            {"stimulus_id": stimulus_id, "file_sha256": self.files[stimulus_id], **values}
            for stimulus_id, values in self.values.items()
        ]
        frame = pd.DataFrame(rows, columns=[*_KEYS, *(column.name for column in self.columns)])
        words = {column.name: {"units": column.units, "long_name": column.long_name} for column in self.columns}
        document = {"schema": MEASUREMENTS.current, "columns": words, "made": dict(self.made)}
        return {
            f"{self.name}.csv": frame.to_csv(index=False, lineterminator="\n").encode(),
            f"{self.name}.json": (json_text(document, indent=1, ascii_only=True) + "\n").encode(),
        }


def read_measurements(name: str, table: bytes, words: bytes) -> Measurements:
    """Read a table from its two files. Raises `RunFolderError` where they do not have the form of one."""
    try:
        form = _Form.model_validate(MEASUREMENTS.read(parse_json(words), f"{name}.json"))
        columns = tuple(Column(key, one.units, one.long_name) for key, one in form.columns.items())
        if wrong := [column.name for column in columns if not re.fullmatch(_COLUMN, column.name)]:
            raise ValueError(f"{wrong[0]!r} is not a name of a column")
        if taken := [column.name for column in columns if is_taken(column.name)]:
            raise ValueError(f"the manifest has a column {taken[0]!r} of its own")
        frame = pd.read_csv(io.BytesIO(table), dtype=str, keep_default_na=False)
        names = [column.name for column in columns]
        if list(frame.columns) != [*_KEYS, *names]:
            raise ValueError(f"its columns are {', '.join(map(str, frame.columns[:8]))}, not those of {name}.json")
        if frame["stimulus_id"].duplicated().any():
            raise ValueError("a stimulus is there twice")
        rows = {row[0]: dict(zip(names, map(_number, row[2:]), strict=True)) for row in frame.itertuples(index=False)}
    except ValidationError as error:
        first = error.errors()[0]
        raise RunFolderError(f"{name}.json: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise RunFolderError(f"{name} is not a table of measurements: {error}") from None
    files = dict(zip(frame["stimulus_id"], frame["file_sha256"], strict=True))
    return Measurements(name, columns, rows, files, form.made)


def _number(text: str) -> float:
    """A number as it was written, to the last digit; NaN where there is none."""
    value = float(text or "nan")
    return value if math.isfinite(value) else math.nan


def is_taken(name: str) -> bool:
    """Whether a column of the manifest has a name that no measurement can have."""
    return name in COLUMN_OF or name.startswith(("content_distance_", "style_distance_"))


def with_measurements(record: Record, tables: Iterable[Measurements]) -> Record:
    """A record with what tables say of its file."""
    values = {column: value for table in tables for column, value in table.of(record).items()}
    return record.with_measured(values) if values else record


def gather_measurements(
    name: str,
    columns: Iterable[Column],
    values: Mapping[str, Mapping[str, float]],
    records: Mapping[str, Record],
    *,
    made: Mapping[str, Any],
    others: Iterable[Measurements],
) -> Measurements:
    """Put a table together of values by stimulus id, in place of an earlier one of its name.

    Raises `UsageError` where a column has a name that the manifest, or another table, has already.
    """
    columns = tuple(columns)
    taken = {column.name: other.name for other in others if other.name != name for column in other.columns}
    designed = {one for record in records.values() for one in (*record.levels, *record.attributes)}
    for column in columns:
        if is_taken(column.name) or column.name in designed:
            raise UsageError(f'the manifest has a column "{column.name}" already')
        if column.name in taken:
            raise UsageError(f'the measurements "{taken[column.name]}" have a column "{column.name}" already')
    files = {stimulus_id: records[stimulus_id].file_sha256 or "" for stimulus_id in values}
    return Measurements(name, columns, values, files, made)

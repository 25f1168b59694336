"""Files of responses: tables as PsychoPy, jsPsych, spreadsheets and others write them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stimkit.errors import UsageError

ID_COLUMN = re.compile(r"stimulus_id(_\d+)?")
_FILE = re.compile(r"stim_file(_\d+)?")
_ID_IN_NAME = re.compile(r"(?:^|[/_-])(s[0-9a-f]{10})(?:_image)?\.png$")
_LABELS = ("participant", "session")
_NO_VALUE = {"", "null", "NaN", "None", "n/a", "NA"}
_EXACT = 2**53  # whole numbers beyond are identifiers


def read_all(paths: Sequence[Path]) -> tuple[list[pd.DataFrame], dict[Path, str]]:
    """The tables in files of responses, and the sha256 of the files.

    Tables know their files by name, or by path where names are the same.
    """
    distinct = len({path.name for path in paths}) == len(paths)
    known: dict[str, Path] = {}
    tables = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
        twin = known.setdefault(hashlib.sha256(data).hexdigest(), path)
        if twin is not path:
            raise UsageError(f"{path} has the same contents as {twin}; give each file once")
        tables.append(_read(path, data).assign(response_file=path.name if distinct else path.as_posix()))
    return tables, {path: digest for digest, path in known.items()}


def _read(path: Path, data: bytes) -> pd.DataFrame:
    """The table in a file of responses, with a column `stimulus_id` for every stimulus of a trial."""
    try:
        if path.suffix.lower() == ".xlsx":
            rows = _sheet(data)
        elif path.suffix.lower() == ".json":
            rows = _json(_text(data))
        else:
            rows = _separated(_text(data))
    except (ValueError, RecursionError, csv.Error, pd.errors.ParserError) as error:
        raise UsageError(f"{path} is not a table: {error}") from error
    for name in [name for name in rows.columns if _FILE.fullmatch(name)]:
        place = name.removeprefix("stim_file")
        if f"stimulus_id{place}" not in rows:
            files = rows[name].astype("string")
            rows[f"stimulus_id{place}"] = files.str.extract(_ID_IN_NAME, expand=False).fillna(files)
    if not any(ID_COLUMN.fullmatch(name) for name in rows.columns):
        raise UsageError(f"{path} has no column stimulus_id or stim_file, but {', '.join(map(str, rows.columns[:8]))}")
    return rows


def _json(text: str) -> pd.DataFrame:
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is not a list of objects")
    flat = [
        {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in row.items()}
        for row in rows
    ]
    found = pd.DataFrame(flat)
    words = [name for name in found if name in _LABELS or found[name].map(lambda one: isinstance(one, str)).any()]
    return found.assign(**{str(name): _typed(found[name].astype("string"), name in _LABELS) for name in words})


def _text(data: bytes) -> str:
    """UTF-8, UTF-16 with its mark, or what Western versions of Windows write."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _sheet(data: bytes) -> pd.DataFrame:
    """The first sheet of an Excel file."""
    try:
        rows = pd.read_excel(io.BytesIO(data), dtype="string", keep_default_na=False)
    except Exception as error:  # a damaged file raises whatever its parts are
        raise ValueError(f"it is not an Excel file: {error}") from error
    return _typed_columns(rows.rename(columns=str))


def _separated(text: str) -> pd.DataFrame:
    """A table with commas, tabs, or the semicolons that spreadsheets write where numbers have decimal commas."""
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    width = len(rows[0]) if rows else 0
    for number, row in enumerate(rows, 1):
        if any(row[width:]):  # which would move what follows it into other columns
            raise ValueError(f"row {number} has more values than there are columns")
    plain = io.StringIO()
    csv.writer(plain).writerows(row[:width] for row in rows)
    found = pd.read_csv(io.StringIO(plain.getvalue()), dtype="string", keep_default_na=False, index_col=False)
    points = any(found[name].str.fullmatch(r"[+-]?\d+\.\d+").any() for name in found.columns)
    return _typed_columns(found, decimal_commas=separator == ";" and not points)


def _typed_columns(rows: pd.DataFrame, *, decimal_commas: bool = False) -> pd.DataFrame:
    found = {}
    for name in (name for name in rows.columns if not name.startswith("Unnamed: ")):
        values = rows[name]
        if decimal_commas and values.str.fullmatch(r"([+-]?\d+(,\d+)?)?").all():
            values = values.str.replace(",", ".")
        found[name] = _typed(values, name in _LABELS)
    return pd.DataFrame(found)


def _typed(values: Any, is_label: bool) -> Any:
    """A column of text as numbers or truth values, where all that it has are such and none is a label like 007."""
    given = values.mask(values.isin(_NO_VALUE))
    if is_label or given.str.match(r"[+-]?0\d").any():
        return given
    if set(given.dropna().str.lower()) <= {"true", "false"} and given.notna().any():
        return given.str.lower().map({"true": True, "false": False})
    try:
        numbers = pd.to_numeric(given)
    except ValueError:
        return given
    whole = given.str.fullmatch(r"[+-]?\d+").fillna(False).astype(bool)
    return given if (numbers[whole].abs() > _EXACT).any() else numbers

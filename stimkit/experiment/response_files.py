"""Files of responses: tables as PsychoPy, jsPsych, spreadsheets and others write them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stimkit.errors import UsageError
from stimkit.experiment.response_units import is_of_psychopy, with_units
from stimkit.files import read_file

ID_COLUMN = re.compile(r"stimulus_id(_\d+)?")
_FILE = re.compile(r"stim_file(_\d+)?")
_ID_IN_NAME = re.compile(r"(?:^|[/_-])(s[0-9a-f]{10})(?:_image)?\.png$")
_ID = re.compile(r"s[0-9a-f]{10}")
_LABEL = re.compile(r"(.*_)?(id|pid|participant|subject|observer|session|group|run|code|name)", re.IGNORECASE)
"""Columns whose values are names, also where they look like numbers (007, 1E5) or like nothing (NA)."""
_NO_VALUE = {"", "null", "NaN", "None", "n/a", "NA"}
_EXACT = 2**53  # from which on whole numbers are identifiers: not every one of them is a number of double precision
MAX_COLUMNS = 10_000
MAX_CELLS, MAX_SHEET = 20_000_000, 1_000_000_000  # of an Excel file: cells, and bytes when it is unpacked
csv.field_size_limit(16_000_000)  # characters of a cell: recordings stand in some (the limit of Python is 131,072)


def read_all(paths: Sequence[Path], times: str | None = None) -> tuple[list[pd.DataFrame], dict[Path, str]]:
    """The tables in files of responses, in units of their own (see `response_units`), and the sha256 of the files.

    Tables know their files by name, or by path where names are the same.
    """
    distinct = len({path.name for path in paths}) == len(paths)
    known: dict[str, Path] = {}
    tables = []
    for path in paths:
        try:
            data = read_file(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
        twin = known.setdefault(hashlib.sha256(data).hexdigest(), path)
        if twin is not path:
            raise UsageError(f"{path} has the same contents as {twin}; give each file once")
        table = _read(path, data).rename(columns={"response_file": "recorded_response_file"})
        table = with_units(table, str(path), times)
        tables.append(table.assign(response_file=path.name if distinct else path.as_posix()))
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
    columns = dict.fromkeys(key for row in rows for key in row)
    _check_width(len(columns))
    return pd.DataFrame({name: _typed_json([row.get(name) for row in rows], str(name)) for name in columns})


def _typed_json(values: list[Any], name: str) -> Any:
    """A column of JSON values; lists and objects stay JSON."""
    given = [json.dumps(value) if isinstance(value, list | dict) else value for value in values]
    column = pd.Series(given, dtype=object)
    there = [value for value in given if value is not None]
    if there and all(isinstance(value, bool) for value in there):
        return column.astype("boolean")
    is_exact = all(abs(value) < _EXACT for value in there if isinstance(value, int))
    if _LABEL.fullmatch(name) or not is_exact or any(isinstance(value, str) for value in there):
        return _typed(column.astype("string"), name)
    return pd.to_numeric(column)


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
    import openpyxl  # which few need

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_SHEET:
            raise ValueError(f"its parts have {size:,} bytes, more than {MAX_SHEET:,}")
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # which files may say wrongly
        header, *rows = list(_sheet_rows(sheet.iter_rows(values_only=True))) or [[]]
    except ValueError:
        raise
    except Exception as error:  # a damaged file raises whatever its parts are
        raise ValueError(f"it is not an Excel file: {error}") from error
    return _typed_columns(_part(header, [[*row, *[""] * (len(header) - len(row))][: len(header)] for row in rows]))


def _sheet_rows(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[str]]:
    """Rows in text, without the empty ones; a file may have its cells anywhere among 17 billion."""
    cells = 0
    for row in rows:
        text = ["" if value is None else str(_whole(value)) for value in row]
        cells += len(text) + 1
        if cells > MAX_CELLS:
            raise ValueError(f"it has more than {MAX_CELLS:,} cells")
        if any(text):
            yield text


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _separated(text: str) -> pd.DataFrame:
    """A table with commas, tabs, or the semicolons that spreadsheets write where numbers have decimal commas.

    Blank lines, comments and the `sep=;` of spreadsheets may come before the header. A header that comes again begins a
    part with columns of its own, as in files that were put together from those of several participants.
    """
    separator = _separator(text)
    parts: list[tuple[list[str], list[list[str]]]] = []
    for number, row in _records(text, separator):
        if not parts or _is_header(row):
            if parts or not _is_preamble(row):
                parts.append(([name.strip() for name in row], []))
            continue
        header, rows = parts[-1]
        if any(row[len(header) :]):  # which would move what follows it into other columns
            raise ValueError(f"row {number} has more values than there are columns")
        rows.append([*row, *[""] * (len(header) - len(row))][: len(header)])
    if not parts:
        raise ValueError("it is empty")
    found = pd.concat([_part(header, rows) for header, rows in parts], ignore_index=True)
    if is_of_psychopy(found.columns):
        found = found.replace("None", "")  # as it writes an empty cell; its exports have no such name
    commas = separator == ";" and not any(found[name].str.fullmatch(r"[+-]?\d+\.\d+").any() for name in found.columns)
    return _typed_columns(found, decimal_commas=commas)


def _part(header: list[str], rows: list[list[str]]) -> pd.DataFrame:
    _check_width(len(header))
    plain = io.StringIO()
    csv.writer(plain).writerows([header, *rows])
    return pd.read_csv(io.StringIO(plain.getvalue()), dtype="string", keep_default_na=False, index_col=False)


def _check_width(columns: int) -> None:
    if columns > MAX_COLUMNS:
        raise ValueError(f"it has {columns:,} columns, more than {MAX_COLUMNS:,}")


def _separator(text: str) -> str:
    """The separator that the text says, or that gives its first line with names the most columns."""
    if said := re.match(r"\s*\"?sep=(.)\"?\s*\n", text):
        return said.group(1)
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("# "))
    header = next(lines, "")
    return max(",;\t", key=lambda separator: len(next(csv.reader([header], delimiter=separator), [])))


def _is_header(row: list[str]) -> bool:
    return any(ID_COLUMN.fullmatch(name.strip()) or _FILE.fullmatch(name.strip()) for name in row)


def _is_preamble(row: list[str]) -> bool:
    """Whether what comes before the header says nothing: blank, a comment, or which separator there is."""
    return not any(row) or row[0].startswith("# ") or (row[0].startswith("sep=") and not any(row[1:]))


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows and the lines that they begin in. Raises `ValueError` where a quote swallows what comes after it."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    words = "an answer that begins with a quote must have it doubled, and the cell in quotes"
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"line {number} to {reader.line_num}: {error}; {words}") from None
        if row is None:
            return
        for line in (line for cell in row for line in cell.splitlines()[1:]):
            if any(_ID.fullmatch(part) or _ID_IN_NAME.search(part) for part in line.split(separator)):
                raise ValueError(f"line {number} to {reader.line_num}: one cell holds whole rows; {words}")
        yield number, row


def _typed_columns(rows: pd.DataFrame, *, decimal_commas: bool = False) -> pd.DataFrame:
    found = {}
    for name in (name for name in rows.columns if not name.startswith("Unnamed: ")):
        values = rows[name]
        if decimal_commas and values.str.fullmatch(r"([+-]?\d+(,\d+)?)?").all():
            values = values.str.replace(",", ".")
        found[name] = _typed(values, name)
    return pd.DataFrame(found)


def _typed(values: Any, name: str) -> Any:
    """A column of text as numbers or truth values, where all that it has are such and none is a label like 007."""
    if ID_COLUMN.fullmatch(name) or _FILE.fullmatch(name):
        values = values.str.strip()
    if _LABEL.fullmatch(name):
        return values.mask(values == "")
    given = values.mask(values.isin(_NO_VALUE))
    if given.str.match(r"[+-]?0\d").any():
        return given
    if set(given.dropna().str.lower()) <= {"true", "false"} and given.notna().any():
        return given.str.lower().map({"true": True, "false": False}).astype("boolean")
    try:
        numbers = pd.to_numeric(given)
    except ValueError:
        return given
    whole = given.str.fullmatch(r"[+-]?\d+").fillna(False).astype(bool)
    return given if (numbers[whole].abs() >= _EXACT).any() else numbers

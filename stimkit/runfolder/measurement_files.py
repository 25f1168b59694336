"""The tables of measurements in a run folder, as long as they are those that were committed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stimkit.errors import RunFolderError
from stimkit.files import read_file
from stimkit.records.measurements import TABLE_NAME, Measurements, read_measurements
from stimkit.runfolder.journal import Journal, file_digest
from stimkit.runfolder.layout import MEASUREMENTS_FOLDER

MAX_TABLE = 500_000_000  # bytes
_SUFFIXES = (".csv", ".json")


def read_tables(
    folder: Path, read_journal: Callable[[], Journal | None]
) -> tuple[dict[str, Measurements], dict[str, str]]:
    """The tables of a run folder by name; and why others are not to be used, by their files.

    Those are tables that cannot be read, that are not the ones that were committed, or that are gone.
    """
    journal = _journal(folder, read_journal)
    committed = {name for name in journal.digests if name.startswith(f"{MEASUREMENTS_FOLDER}/") and journal.last(name)}
    there = {path.name for path in (folder / MEASUREMENTS_FOLDER).glob("*.*") if path.suffix in _SUFFIXES}
    stems = {Path(name).stem for name in (*committed, *there)}
    found: dict[str, Measurements] = {}
    damaged: dict[str, str] = {}
    for stem in sorted(stems):
        parts: list[bytes] = []
        for name in (f"{MEASUREMENTS_FOLDER}/{stem}{suffix}" for suffix in _SUFFIXES):
            try:
                parts.append(read_file(folder / name, MAX_TABLE))
                if journal.digests and (objection := journal.objection(name, file_digest(parts[-1]))):
                    damaged[name] = objection
            except OSError as error:
                damaged[name] = f"cannot be read: {error.strerror or error}"
        if any(Path(name).stem == stem for name in damaged):
            continue
        try:
            if not TABLE_NAME.fullmatch(stem):
                raise RunFolderError(f"{stem!r} is not a name of such a table")
            table = read_measurements(stem, *parts)
            known = {column.name: other for other, one in found.items() for column in one.columns}
            if twice := next((column.name for column in table.columns if column.name in known), ""):
                raise RunFolderError(f"the measurements {known[twice]!r} have a column {twice!r} already")
            found[stem] = table
        except RunFolderError as error:
            damaged[f"{MEASUREMENTS_FOLDER}/{stem}.csv"] = str(error)
    return found, damaged


def _journal(folder: Path, read_journal: Callable[[], Journal | None]) -> Journal:
    """What was committed; nothing, where the journal is damaged, which is a finding of its own."""
    try:
        return read_journal() or Journal()
    except RunFolderError:
        return Journal()

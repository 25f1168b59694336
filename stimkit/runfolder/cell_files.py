"""The files of cells in a run folder, read one by one."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimkit.errors import RunFolderError
from stimkit.files import parse_json, read_file
from stimkit.records.schema import Record, read_record

MAX_RECORD = 64_000_000  # bytes; most have 5,000


class CellFiles:
    """Stimuli, traces and records below a folder; a cell is complete when it has a record."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record_path(self, stimulus_id: str) -> Path:
        """Where the record of a cell is."""
        return self.path / "records" / f"{stimulus_id}.json"

    def completed(self, among: Iterable[str] | None = None) -> set[str]:
        """Ids of the cells that have a record; restricted to `among` (the folder is not listed then).

        An empty file, as a crash of the machine can leave it, is no record.
        """
        if among is not None:
            return {stimulus_id for stimulus_id in among if _has_contents(self.record_path(stimulus_id))}
        return {path.stem for path in (self.path / "records").glob("s*.json") if _has_contents(path)}

    def record_files(self) -> list[tuple[str, bytes]]:
        """Names and contents of the files of all records, as a journal begins with them. Raises `OSError`."""
        paths = sorted((self.path / "records").glob("s*.json"))
        return [(f"records/{path.name}", read_file(path)) for path in paths]

    def has_empty_record(self, stimulus_id: str) -> bool:
        """Whether the record of a cell is there, but empty."""
        path = self.record_path(stimulus_id)
        return path.is_file() and not _has_contents(path)

    def record(self, stimulus_id: str) -> Record:
        """Read the record of one cell. Raises `RunFolderError`."""
        return self.record_of(stimulus_id, self.record_bytes(stimulus_id))

    def record_bytes(self, stimulus_id: str) -> bytes:
        """Read the file of the record of one cell. Raises `RunFolderError`."""
        path = self.record_path(stimulus_id)
        try:
            return read_file(path, MAX_RECORD)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error

    def record_of(self, stimulus_id: str, data: bytes) -> Record:
        """The record that a file holds. Raises `RunFolderError`."""
        path = self.record_path(stimulus_id)
        try:
            document = parse_json(data)
        except ValueError as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error
        record = read_record(document, str(path))
        if record.stimulus_id != stimulus_id:
            raise RunFolderError(f"{path} is the record of {record.stimulus_id}")
        return record

    def lacks_files(self, record: Record) -> bool:
        """Whether the stimulus or the trace of a complete cell is missing or empty."""
        there = _has_contents(self.trace_path(record.stimulus_id))
        return not there or (record.status != "failed" and not _has_contents(self.path / "stimuli" / record.filename))

    def trace(self, stimulus_id: str) -> NDArray[Any]:
        """Read content, style and total loss over evaluations, (evaluations, 3)."""
        path = self.trace_path(stimulus_id)
        try:
            trace = np.load(io.BytesIO(read_file(path)), allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, TokenError, MemoryError) as error:
            # NumPy parses headers as Python, and makes room for what they promise.
            raise RunFolderError(
                f"{path} cannot be read: {next(iter(str(error).splitlines()), 'too large')}"
            ) from error
        if not isinstance(trace, np.ndarray) or trace.dtype != np.float32 or trace.ndim != 2 or trace.shape[1] != 3:
            raise RunFolderError(f"{path} is not a trace: float32 values of shape (evaluations, 3) are expected")
        return trace

    def trace_path(self, stimulus_id: str) -> Path:
        """Where the trace of a cell is."""
        return self.path / "traces" / f"{stimulus_id}.npy"


def _has_contents(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0

"""What a session says of itself while it writes a folder, for those who watch: a hidden file, gone at its end."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from stimkit.errors import StorageError
from stimkit.files import read_file, remove, write_atomically

_PREFIX = ".progress-"
NOTE_SECONDS = 2.0  # notes
MAX_NOTE = 10_000  # bytes
STALE_AFTER = 120.0  # seconds: a session that was killed leaves its last note
_Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class ProgressNote:
    """How far a session is."""

    done: int
    """Complete cells of those that it makes."""
    total: int
    share: _Share
    """Cells' worth of work that was done in batches that are under way."""
    evaluation: int | None
    """Of the first of these batches."""
    max_evaluations: int | None
    relative_loss: float | None
    """Mean over its cells of total loss / initial total loss."""
    seconds_left: float | None


@contextmanager
def writing_notes(folder: Path) -> Iterator[Callable[[ProgressNote], None]]:
    """Yield what keeps the last note of this session in a folder; a folder that takes none is written all the same."""
    path = folder / f"{_PREFIX}{socket.gethostname()}-{os.getpid()}.json"
    for old in folder.glob(f"{_PREFIX}*.json"):  # of sessions that were killed
        with suppress(OSError, StorageError):
            if time.time() - old.stat().st_mtime > STALE_AFTER:
                remove(old)
    last = -NOTE_SECONDS

    def tell(note: ProgressNote) -> None:
        nonlocal last
        if time.monotonic() - last >= NOTE_SECONDS:
            last = time.monotonic()
            try:
                write_atomically(path, json.dumps(asdict(note)).encode())
            except OSError:
                return

    try:
        yield tell
    finally:
        with suppress(OSError, StorageError):
            remove(path)


def read_notes(folder: Path) -> list[ProgressNote]:
    """The notes of sessions that write a folder now; what is stale or damaged is left out."""
    found = []
    for path in sorted(folder.glob(f"{_PREFIX}*.json")):
        try:
            if time.time() - path.stat().st_mtime < STALE_AFTER:
                found.append(_NOTE.validate_json(read_file(path, MAX_NOTE)))
        except (OSError, ValidationError):
            continue
    return found


_NOTE = TypeAdapter(ProgressNote)

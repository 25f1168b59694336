"""The writer of a folder: one process at a time, known by name to the others."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stimkit.atomic import storage_errors, write_atomically
from stimkit.errors import RunFolderError, StorageError

LOCK, HOLDER = ".lock", ".lock-holder.json"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises `RunFolderError` naming the holder if there is another."""
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(f"{folder} is being written by {_describe(holder)}; wait for it or stop it") from None
    except OSError as error:
        raise StorageError(f"{folder} cannot be locked for writing: {error.strerror or error}") from error
    try:
        with storage_errors(folder):
            write_atomically(holder, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def current_writer(folder: Path) -> str | None:
    """Who is writing a folder, if somebody is."""
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _describe(folder / HOLDER)
    except OSError:  # a folder that cannot be written has no writer
        return None
    lock.release()
    return None


def _describe(holder: Path) -> str:
    try:
        who = json.loads(holder.read_bytes())
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"

"""Who writes a folder: one process the whole of it, or several a part each, known by name to the others."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from stimkit.errors import RunFolderError, StorageError
from stimkit.files import parse_json, read_file, storage_errors, write_atomically

LOCK_FILE = ".lock"
LOCK_PATIENCE = 60.0  # seconds to wait for those who hold a lock for a moment
PROBED = 1.0  # seconds to wait for those who only look whether a lock is held


@contextmanager
def write_alone(folder: Path) -> Iterator[None]:
    """Be the only writer of a folder. Raises `RunFolderError` naming who writes it, or a part of it, now."""
    with _held(folder, LOCK_FILE):
        if others := [_describe(folder, name) for name in _parts(folder) if _is_held(folder, name)]:
            raise RunFolderError(f"{folder} is being written by {' and '.join(others)}; wait for it or stop it")
        yield


@contextmanager
def write_part(folder: Path, part: str) -> Iterator[None]:
    """Be the only writer of a part of a folder. Raises `RunFolderError` naming who writes it now."""
    with _held(folder, f"{LOCK_FILE}-{part}"):
        yield


@contextmanager
def wait_for_turn(folder: Path, what: str = "") -> Iterator[None]:
    """Hold the lock of a folder, or of something in it, for a moment, after others who do so.

    Raises `RunFolderError` where that takes too long: somebody writes the whole folder then.
    """
    with _held(folder, f"{LOCK_FILE}.{what}" if what else LOCK_FILE, LOCK_PATIENCE):
        yield


@contextmanager
def hold_commit(folder: Path) -> Iterator[None]:
    """Keep others from committing a cell meanwhile, workers that a driver has lost included. Raises `StorageError`."""
    try:
        with FileLock(folder / f"{LOCK_FILE}.commit", timeout=LOCK_PATIENCE):
            yield
    except Timeout as error:
        raise StorageError(f"{folder} is locked for longer than a commit takes: {error}") from error
    except OSError as error:
        raise StorageError(f"{error.filename or folder} cannot be locked: {error.strerror or error}") from error


def current_writers(folder: Path) -> str:
    """Who is writing a folder and its parts; empty where no process is."""
    return " and ".join(_describe(folder, name) for name in (LOCK_FILE, *_parts(folder)) if _is_held(folder, name))


def _parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(f"{LOCK_FILE}-*") if path.suffix != ".json")


@contextmanager
def _held(folder: Path, name: str, patience: float = PROBED) -> Iterator[None]:
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise RunFolderError(
            f"{folder} is being written by {_describe(folder, name)}; wait for it or stop it"
        ) from None
    except OSError as error:
        raise StorageError(f"{folder} cannot be locked for writing: {error.strerror or error}") from error
    holder = _holder(folder, name)
    try:
        with storage_errors(folder):
            write_atomically(holder, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _is_held(folder: Path, name: str) -> bool:
    if not (folder / name).exists():  # looking makes none
        return False
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a folder that cannot be written has no writer
        return False
    lock.release()
    return False


def _holder(folder: Path, name: str) -> Path:
    return folder / f"{name}-holder.json"


def _describe(folder: Path, name: str) -> str:
    part = f" (part {name.removeprefix(f'{LOCK_FILE}-')})" if name.startswith(f"{LOCK_FILE}-") else ""
    try:
        who = parse_json(read_file(_holder(folder, name)))
        return f"process {who['pid']} on {who['host']}{part}"
    except (OSError, ValueError, KeyError, TypeError):
        return f"another process{part}"

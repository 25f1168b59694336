"""Files: written so that a reader sees the old one or the whole new one; JSON as every reader knows it."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from stimkit.errors import StorageError, UsageError

MAX_BYTES = 2**31
"""The largest file that is read whole into memory."""


def read_file(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a regular file whole: pipes and devices are refused, since folders come from others.

    Raises `OSError` as the system does, and for a file of another kind or of more than `limit` bytes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError:
        raise OSError(errno.EINVAL, "no file has a NUL in its name", str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with open(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes, the most that is read of such a file", str(path))
    return data


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by way of a temporary one in the same folder: write, fsync, rename, fsync the folder.

    Raises `OSError` as the system does; the temporary file is removed then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def check_writable(folder: Path) -> None:
    """Raise `StorageError` where a folder cannot be written, before hours of work are done for it."""
    with storage_errors(folder):
        write_atomically(probe := folder / f".probe-{secrets.token_hex(4)}.tmp", b"")
        probe.unlink()


def check_new(folder: Path) -> None:
    """Raise `UsageError` where a folder is there already and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder; give another --out")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Fill a new folder that is there only when it is complete: under another name until then, which it yields.

    Raises `UsageError` where the folder is there and not empty, `StorageError` where it cannot be written.
    """
    check_new(folder)
    building = folder.with_name(f".{folder.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with storage_errors(folder):
        building.mkdir(parents=True)
        try:
            yield building
            os.replace(building, folder)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        _sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there, so that it stays removed after a power loss."""
    if path.exists():
        path.unlink()
        _sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of files and folders that they were writing; nobody else may write here."""
    for path in folder.glob(".*.tmp"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power loss, where the system offers that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Say plainly what the operating system means."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"the disk of {path} is full; complete stimuli are intact: make room and run the same command again"
            ) from error
        raise StorageError(f"{error.filename or path} cannot be written: {error.strerror or error}") from error


def parse_json(text: str | bytes) -> Any:
    """Parse JSON that every reader understands alike.

    Raises `ValueError` where a key is there twice, a number is not one of double precision or of 64 bits, or values are
    nested too deep.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite_float, parse_int=_whole
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'it has the key "{next(name for name in names if names.count(name) > 1)}" twice')
    return found


def _refuse(word: str) -> float:
    raise ValueError(f"{word[:20]} is not a number of JSON")


def _finite_float(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(digits)


def _whole(digits: str) -> int:
    return int(digits) if len(digits) <= 20 and abs(int(digits)) < 2**64 else int(_refuse(digits))


def json_text(value: Any, indent: int | None = 1, *, ascii_only: bool = False) -> str:
    """Write a value as JSON: infinity as the text "inf", as in tables; NaN as null. NumPy's numbers are numbers."""
    return json.dumps(json_values(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def write_json(path: Path, value: Any) -> None:
    """Write a value as a JSON file for people and programs."""
    path.write_text(json_text(value) + "\n", encoding="utf-8")


def json_values(value: Any) -> Any:
    """Return a value as JSON has it: infinity as the text "inf", NaN as null, NumPy's numbers as numbers."""
    if isinstance(value, dict):
        return {key: json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else format(value, "g")
    return value


def cache_folder() -> Path:
    """Folder of downloaded weights: `STIMKIT_CACHE`, or the user's cache folder. Raises `StorageError` without one."""
    override = os.environ.get("STIMKIT_CACHE")
    try:
        return Path(override) if override else user_cache_path("stimkit")
    except RuntimeError:
        raise StorageError("there is no home folder; say in STIMKIT_CACHE where downloads are kept") from None


EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every file in the archives that stimkit writes, so that equal contents give equal archives."""

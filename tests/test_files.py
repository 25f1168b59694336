"""Files of others: what is read, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stimkit.errors import StorageError
from stimkit.files import cache_folder, parse_json, read_file


def test_regular_files_are_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_file(tmp_path / "a") == read_file(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_file(tmp_path / "a", 4)


def test_pipes_devices_folders_and_impossible_names_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            read_file(path)
    with pytest.raises(OSError, match="NUL"):
        read_file(tmp_path / "a\0b")
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")


def test_json_is_read_as_it_is_defined() -> None:
    assert parse_json(b'{"a": [1, -2.5e3, null, true, "x"]}') == {"a": [1, -2500.0, None, True, "x"]}
    assert parse_json(str(2**64 - 1)) == 2**64 - 1
    for text in ("-Infinity", "1e400", str(2**64), "-" + "9" * 5000, '{"a": 1, "b": 2, "a": 3}', "[" * 99_999):
        with pytest.raises(ValueError, match=r"number|twice|deep"):
            parse_json(text)


def test_without_a_home_the_folder_of_downloads_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == Path(os.environ["STIMKIT_CACHE"])
    for name in ("STIMKIT_CACHE", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # of whom the system knows nothing
    with pytest.raises(StorageError, match="STIMKIT_CACHE"):
        cache_folder()

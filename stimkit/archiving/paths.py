"""A copy of a run folder without paths of the machine that it was made on.

Images and weights are known by their digests, so that a path says nothing but where they were. Where a protocol names
absolute paths, the copy has their last part instead (for the root of the images, `inputs`), in the protocol, the
resolved protocol and the records; its journal begins anew with the files as they are then. Nothing else differs: ids do
not depend on paths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from stimkit.documents.toml import parse_toml
from stimkit.errors import RunFolderError
from stimkit.files import parse_json, read_file, write_atomically
from stimkit.planning.resolved import Resolved
from stimkit.runfolder.derived import rebuild
from stimkit.runfolder.journal import begin_journal
from stimkit.runfolder.layout import INPUTS
from stimkit.runfolder.run import read_run
from stimkit.runfolder.store import RunStore, json_bytes

NOT_FILES = ("attributes", "licence", "groups", "follow_links")  # keys of [images]
MAX_NAMED = 1  # folders of a relative path from run to protocol that may stay, as in ../../protocols


def shorten_paths(folder: Path) -> tuple[str, ...]:
    """Take the paths out of a run folder, which is a copy; return those that were there.

    Raises `RunFolderError` where the protocol holds a path in a way that it cannot be taken out of.
    """
    store = RunStore.open(folder)
    lock = parse_json(read_file(store.lock_file))  # as it is, of whatever schema
    text = read_file(folder / "protocol.toml").decode()
    protocol = parse_toml(text, "protocol.toml")
    names = short_names(dict.fromkeys((*_paths(_places(protocol)), *_paths(_places_of_lock(lock)))))
    names |= dict.fromkeys(
        _paths([one.get("images", {}).get("root", "") for one in (protocol, lock["protocol"])]), INPUTS
    )
    origin = lock.get("origin") or ""
    tells_origin = len([part for part in PurePosixPath(origin).parts if part != ".."]) > MAX_NAMED
    if not names and not tells_origin:
        return ()
    for path, name in names.items():
        for written in (path, json.dumps(path, ensure_ascii=False)[1:-1]):
            for quote in ('"', "'"):
                text = text.replace(f"{quote}{written}{quote}", f"{quote}{name}{quote}")
    if left := [*_paths(_places(parse_toml(text, "protocol.toml")))]:
        raise RunFolderError(f"protocol.toml holds the path {left[0]} in a form that an archive cannot be made without")
    write_atomically(folder / "protocol.toml", text.encode())
    _rewrite(store, {**lock, "origin": None} if tells_origin else lock, names, text)
    rebuild(read_run(folder))
    return (*names, *([origin] if tells_origin else []))


def _places(protocol: Mapping[str, Any]) -> list[Any]:
    """The parts of a protocol that name files."""
    images = {key: one for key, one in protocol.get("images", {}).items() if key not in NOT_FILES}
    seen = protocol.get("recognition") or {}
    sections = (protocol.get("model", {}), protocol.get("factors", {}), seen, *protocol.get("observers", {}).values())
    weights = [section.get("weights") for section in sections]
    curation, table = protocol.get("accept", {}).get("curation"), protocol.get("design", {}).get("table")
    files = [one for value in (curation, table) for one in (value if isinstance(value, list) else [value])]
    named = [one for one in files if isinstance(one, str)]  # which is written out in a lock
    return [images, weights, seen.get("categories"), named, *map(_places, protocol.get("variants", {}).values())]


def _places_of_lock(lock: Resolved) -> list[Any]:
    seen = lock.get("recognition") or {}
    specs = [one["spec"] for one in (*lock["inputs"], *lock["weights"])]
    return [_places(lock["protocol"]), specs, seen.get("spec"), seen.get("categories")]


def _rewrite(store: RunStore, lock: Resolved, names: Mapping[str, str], text: str) -> None:
    """Write the resolved protocol and the records with other names, and the journal of what is there then."""
    folder, known = store.path, store.journal()
    keys = ("protocol", "inputs", "weights", "recognition")
    renamed = {key: _renamed(lock[key], names) for key in keys if key in lock}
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_atomically(store.lock_file, json_bytes({**lock, **renamed, "protocol_sha256": digest}))
    for path in sorted((folder / "records").glob("s*.json")):
        record = parse_json(read_file(path))
        if record["weights"] in names:
            write_atomically(path, json_bytes({**record, "weights": names[record["weights"]]}))
    if known is not None:
        there = [name for name in known.digests if (folder / name).is_file()]
        begin_journal(folder, [(name, read_file(folder / name)) for name in there])


def _paths(value: Any) -> Iterator[str]:
    """All texts among values that are absolute paths, of any system."""
    if isinstance(value, str):
        if len(value) > 1 and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _paths(one)


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """The last part of each path, with a number where several have the same."""
    names: dict[str, str] = {}
    for path in paths:
        kind = PureWindowsPath if "\\" in path else PurePosixPath
        last = kind(path).name or "root"
        count = sum(name == last or name.endswith(f"-{last}") for name in names.values())
        names[path] = f"{count + 1}-{last}" if count else last
    return names


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, dict):
        return {key: _renamed(one, names) for key, one in value.items()}
    return [_renamed(one, names) for one in value] if isinstance(value, list) else value

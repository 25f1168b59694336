"""The run folder: one protocol, its stimuli and records, committed one by one.

    RUN/  protocol.toml  protocol.lock.json  environment.json  journal.csv
          stimuli/<readable name>_<id>.png   traces/<id>.npy   records/<id>.json
          measurements/<name>.csv and .json                                          (of finished files, on request)
          manifest.csv  losses.csv  manifest.nc  contact_sheet.png  controls.png     (derived; rebuilt from the records)

A record is written last and is the proof that its cell is complete. Its digest is in the journal before it is written.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stimkit.errors import RunFolderError, StorageError, UsageError
from stimkit.files import parse_json, read_file, remove, remove_unfinished, storage_errors, write_atomically
from stimkit.planning.cells import Plan
from stimkit.planning.resolved import Resolved, changed_since, read_resolved, rescaled_otherwise, resolve
from stimkit.records.measurements import Measurements
from stimkit.records.schema import Record
from stimkit.runfolder import locks
from stimkit.runfolder.cell_files import CellFiles
from stimkit.runfolder.journal import (
    JOURNAL,
    Journal,
    begin_journal,
    extend_journal,
    file_digest,
    read_journal,
    take_out,
)
from stimkit.runfolder.layout import BEGUN, FOLDERS, INPUTS, MEASUREMENTS_FOLDER
from stimkit.runfolder.measurement_files import read_tables

RESERVE_BYTES = 50_000_000  # free disk that must stay beside the stimuli


def environment_id(environment: Mapping[str, Any]) -> str:
    """What records call an environment: a digest of its contents."""
    return "e" + hashlib.sha256(json_bytes(environment)).hexdigest()[:8]


class RunStore(CellFiles):
    """A run folder on disk."""

    @classmethod
    def open(cls, path: str | Path) -> RunStore:
        """Open an existing run folder. Raises `RunFolderError` where it is none."""
        store = cls(Path(path))
        if not store.lock_file.is_file():
            raise RunFolderError(f"{path} is not a run folder (it has no {store.lock_file.name})")
        return store

    @classmethod
    def create(cls, path: str | Path, plan: Plan) -> RunStore:
        """Make a run folder for a plan, or continue one; nothing in it changes yet.

        A folder may be continued with the same protocol, or with one that only adds cells. Raises
        `RunFolderError` for a folder of another protocol or one with other files in it, `StorageError`
        where it cannot be written.
        """
        store = cls(Path(path))
        if store.path.exists():
            store._check_ours(plan)
        with storage_errors(store.path):
            for folder in FOLDERS:
                (store.path / folder).mkdir(parents=True, exist_ok=True)
        return store

    def _check_ours(self, plan: Plan) -> None:
        if not self.lock_file.is_file():
            if not self.path.is_dir() or not all(BEGUN.fullmatch(path.name) for path in self.path.iterdir()):
                raise RunFolderError(f"{self.path} exists and is not a run folder; give another --out, or an empty one")
            return
        lock = self.lock_contents()
        known = set(lock["cells"])
        foreign = known - plan.by_id.keys()
        if foreign:
            raise RunFolderError(
                f"{self.path} holds another protocol: {len(foreign)} of its {len(known)} cells are not in this one"
                f"{''.join(f'; {words}' for words in changed_since(lock, plan)[:3])};"
                " give another --out (adding levels to a protocol is possible, changing or removing them is not)"
            )
        if words := rescaled_otherwise(lock, plan):
            raise RunFolderError(f"{self.path} holds stimuli of another network: {words}; give another --out")

    def describe(self, plan: Plan) -> None:
        """Write the protocol and the resolved protocol, which makes the folder a run folder.

        Raises `RunFolderError` where it has become the folder of another protocol meanwhile.
        """
        is_new = not self.lock_file.is_file()
        if not is_new:
            self._check_ours(plan)
        self.write("protocol.toml", plan.protocol.text.encode())
        lock = json_bytes({**resolve(plan), "origin": self._relative(plan.protocol.base)})
        with storage_errors(self.path), self.committing():
            if is_new or self.journal() is None:
                begin_journal(self.path, self.record_files())
            if is_new or read_file(self.lock_file) != lock:
                extend_journal(self.path, self.lock_file.name, lock)
                write_atomically(self.lock_file, lock)

    def journal(self) -> Journal | None:
        """What was committed to the folder; None for one that stimkit made before it kept a journal.

        Raises `RunFolderError` where the journal is not as it was written.
        """
        is_there = (self.path / JOURNAL).exists()
        if not self.lock_file.is_file() or not (is_there or self.lock_contents()["journal"]):
            return None
        journal = read_journal(self.path)
        if journal.damage:
            raise RunFolderError(
                f"{self.path / JOURNAL} is not as it was written ({journal.damage}): restore it from a copy of the"
                " folder, or make the run anew in another one"
            )
        return journal

    def add_environment(self, environment: Mapping[str, Any]) -> str:
        """Write an environment beside those of earlier cells; return the id that records give it.

        Several processes may do so at the same time.
        """
        env_id = environment_id(environment)
        with storage_errors(self.path), locks.wait_for_turn(self.path, "environment"):
            environments = self.environments()
            if env_id not in environments:
                self.write("environment.json", json_bytes({**environments, env_id: environment}))
        return env_id

    def _relative(self, base: Path) -> str | None:
        """Way from the run folder to a folder, which a move of both keeps; None across drives."""
        try:
            return Path(os.path.relpath(base.resolve(), self.path.resolve())).as_posix()
        except ValueError:
            return None

    def input_folders(self, given: Iterable[str | Path] = ()) -> list[Path]:
        """Folders that may hold inputs: that of the run folder itself, where there is one, then those given.

        Raises `UsageError` where one that is given is not a folder.
        """
        folders = [Path(folder) for folder in given]
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(f"{folder}, where inputs are to be looked for, is not a folder")
        own = self.path / INPUTS
        return [own, *folders] if own.is_dir() else folders

    def keep_inputs(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write copies of inputs into the run folder."""
        with storage_errors(self.path):
            (self.path / INPUTS).mkdir(exist_ok=True)
        kept = self.journal() or Journal()
        for name, data in files:
            with storage_errors(self.path), self.committing():
                if kept.objection(path := f"{INPUTS}/{name}", file_digest(data)):
                    extend_journal(self.path, path, data)
                write_atomically(self.path / path, data)

    def environments(self) -> dict[str, Any]:
        """Return every environment that cells were made in, by the id in their records."""
        try:
            environments = parse_json(read_file(self.path / "environment.json"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / 'environment.json'} cannot be read: {error}") from error
        if not isinstance(environments, dict):
            raise RunFolderError(f"{self.path / 'environment.json'} does not hold environments")
        return environments

    def measurements(self) -> tuple[dict[str, Measurements], dict[str, str]]:
        """Tables of what was measured of the stimuli, by name; and why others are not to be used, by their files."""
        return read_tables(self.path, self.journal)

    def write_measurements(self, table: Measurements) -> None:
        """Write a table of measurements, in place of one of its name."""
        with storage_errors(self.path):
            (self.path / MEASUREMENTS_FOLDER).mkdir(exist_ok=True)
            with self.committing():
                if self.journal() is None:
                    begin_journal(self.path, [*self.record_files(), (self.lock_file.name, read_file(self.lock_file))])
                for name, data in table.to_files().items():
                    extend_journal(self.path, f"{MEASUREMENTS_FOLDER}/{name}", data)
                    write_atomically(self.path / MEASUREMENTS_FOLDER / name, data)

    def remove_measurements(self, name: str) -> None:
        """Take a table of measurements out of the folder, if it is there."""
        with storage_errors(self.path), self.committing():
            known = self.journal() or Journal()
            for file in (f"{MEASUREMENTS_FOLDER}/{name}{suffix}" for suffix in (".csv", ".json")):
                if known.last(file):
                    take_out(self.path, file)
                remove(self.path / file)

    @property
    def lock_file(self) -> Path:
        return self.path / "protocol.lock.json"

    def lock_contents(self) -> Resolved:
        """Read the resolved protocol: settings, digests, cell ids. Raises `RunFolderError`."""
        return read_resolved(self.lock_file)

    def writing_part(self, part: str) -> AbstractContextManager[None]:
        """Be the only writer of a part of the cells, while others write theirs.

        Raises `RunFolderError` naming the holder if somebody else writes the part, or the whole folder.
        """
        return locks.write_part(self.path, part)

    def committing(self) -> AbstractContextManager[None]:
        """Let no other process commit a cell meanwhile."""
        return locks.hold_commit(self.path)

    def in_turn(self) -> AbstractContextManager[None]:
        """Hold the folder's lock briefly, waiting for others; nobody else can begin or write the folder meanwhile."""
        return locks.wait_for_turn(self.path)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer of this folder. Raises `RunFolderError` naming the holder if there is another."""
        with locks.write_alone(self.path):
            with storage_errors(self.path):
                for folder in (".", *FOLDERS):
                    remove_unfinished(self.path / folder)
            yield

    def check_space(self, needed: float) -> None:
        """Raise `StorageError` if the disk has no room for that many bytes more."""
        free = shutil.disk_usage(self.path).free
        if free < needed + RESERVE_BYTES:
            raise StorageError(
                f"{self.path} has {free / 1e6:,.0f} MB free, but about"
                f" {(needed + RESERVE_BYTES) / 1e6:,.0f} MB are needed"
            )

    def commit(self, record: Record, png: bytes, trace: np.ndarray[Any, Any]) -> None:
        """Write a cell: stimulus and trace, then the record that makes it complete.

        A cell that was complete before is not until its new record is there.
        """
        buffer = io.BytesIO()
        np.save(buffer, trace, allow_pickle=False)
        with storage_errors(self.path):
            remove(self.record_path(record.stimulus_id))
            stimulus = self.path / "stimuli" / record.filename
            if record.status == "failed":
                remove(stimulus)
            else:
                write_atomically(stimulus, png)
            write_atomically(self.trace_path(record.stimulus_id), buffer.getvalue())
            self._write_record(record)

    def rewrite(self, record: Record) -> None:
        """Write the record of a complete cell anew; its trace stays, its stimulus may get another name."""
        before = self.path / "stimuli" / Path(self.record(record.stimulus_id).filename).name
        with storage_errors(self.path), self.committing():
            if before.name != record.filename and before.is_file():
                before.replace(self.path / "stimuli" / record.filename)
            self._write_record(record)

    def _write_record(self, record: Record) -> None:
        path, data = self.record_path(record.stimulus_id), json_bytes(record.flat())
        extend_journal(self.path, f"records/{path.name}", data)
        write_atomically(path, data)

    def text(self, name: str) -> str:
        """Read a text file of the run folder. Raises `RunFolderError`."""
        try:
            return read_file(self.path / name).decode()
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / name} cannot be read: {error}") from error

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the run folder, other than those of a cell."""
        with storage_errors(self.path):
            write_atomically(self.path / name, data)


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()

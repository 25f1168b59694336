"""Verify a run folder: files against their digests, records against the lock, tables against the records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stimkit.auditing.table_agreement import csv_agrees, netcdf_agrees
from stimkit.errors import ImageError, RunFolderError, UsageError
from stimkit.images.pixels import pixel_digest
from stimkit.images.png import decode_values, values_digest
from stimkit.images.reading import decode_image
from stimkit.network.weights import read_weights
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.resolved import plan_of
from stimkit.records import migrations
from stimkit.records.record import Record, judged, request, trace_digest
from stimkit.records.tables import dataset, losses_csv, manifest_csv, netcdf_bytes
from stimkit.runfolder.store import CLUTTER, CONTROLS_SHEET, DERIVED, FOLDERS, INPUTS, RunStore, environment_id

KINDS = {
    "lock_altered": "the resolved protocol does not describe its own cells",
    "protocol_altered": "protocol.toml is not the one that the run was made with",
    "environment_damaged": "environment.json cannot be read, or is not as it was written",
    "record_damaged": "a record cannot be read",
    "record_altered": "a record says something else than the resolved protocol, or contradicts itself",
    "stimulus_missing": "a complete cell has no stimulus file; running the protocol again makes it again",
    "stimulus_altered": "a stimulus is not the file that was committed",
    "stimulus_swapped": "a stimulus file holds another cell's stimulus",
    "trace_missing": "a complete cell has no trace; running the protocol again makes it again",
    "trace_altered": "a trace is not the one that was committed",
    "input_altered": "a kept input is not the one that the run was made from",
    "extra_file": "a file that no cell accounts for",
    "table_missing": "a derived table is not there; running the protocol again rebuilds it",
    "table_altered": "a derived table differs from the records; running the protocol again rebuilds it",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was committed."""

    kind: str
    """One of `KINDS`."""
    path: str
    """The file, relative to the run folder."""
    detail: str
    stimulus_id: str = ""


@dataclass(frozen=True)
class Verification:
    """What `verify` found."""

    planned: int
    complete: int
    findings: tuple[Finding, ...]


OnProgress = Callable[[int, int], None]


def verify(path: str | Path, on_progress: OnProgress | None = None) -> Verification:
    """Check a run folder against itself; nothing outside of it is needed, nothing in it is changed.

    `on_progress` is called with cells checked and cells in all. Raises `RunFolderError` where the folder
    is no run folder or its lock cannot be read.
    """
    check = _Check(RunStore.open(path))
    findings = [*check.protocol(), *check.records(), *check.cells(on_progress)]
    findings += [*check.inputs(), *check.extra_files(), *check.tables()]
    order = list(KINDS)
    findings.sort(key=lambda finding: (order.index(finding.kind), finding.path))
    return Verification(len(check.planned), len(check.sound), tuple(findings))


class _Check:
    """One verification; each method yields what it finds."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._lock = store.lock_contents()
        self.planned: list[str] = list(self._lock["cells"])
        self.sound: dict[str, Record] = {}  # records that can be read
        self._damaged: dict[str, str] = {}
        for stimulus_id in sorted(store.completed()):
            try:
                self.sound[stimulus_id] = store.record(stimulus_id)
            except RunFolderError as error:
                self._damaged[stimulus_id] = str(error)

    @cached_property
    def _plan(self) -> Plan | str:
        """The plan of the lock, or why there is none."""
        try:
            return plan_of(self._lock)
        except RunFolderError as error:
            return str(error)

    def protocol(self) -> Iterator[Finding]:
        if isinstance(self._plan, str):
            yield Finding("lock_altered", self._store.lock_file.name, self._plan)
        try:
            text = (self._store.path / "protocol.toml").read_bytes()
        except OSError as error:
            yield Finding("protocol_altered", "protocol.toml", f"cannot be read: {error.strerror or error}")
            return
        if hashlib.sha256(text).hexdigest() != self._lock["protocol_sha256"]:
            yield Finding("protocol_altered", "protocol.toml", "its digest is not the one in the lock")

    def records(self) -> Iterator[Finding]:
        for stimulus_id, reason in self._damaged.items():
            yield Finding("record_damaged", f"records/{stimulus_id}.json", reason, stimulus_id)
        try:
            environments = self._store.environments()
        except RunFolderError as error:
            yield Finding("environment_damaged", "environment.json", str(error))
            environments = {record["env_id"]: {} for record in self.sound.values()}
        else:
            for env_id in (one for one, environment in environments.items() if one != environment_id(environment)):
                yield Finding("environment_damaged", "environment.json", f"{env_id} is not the digest of its contents")
        for stimulus_id, record in self.sound.items():
            for detail in self._contradictions(stimulus_id, record, environments):
                yield Finding("record_altered", f"records/{stimulus_id}.json", detail, stimulus_id)

    def _contradictions(self, stimulus_id: str, record: Record, environments: Mapping[str, Any]) -> Iterator[str]:
        if record["stimulus_id"] != stimulus_id:
            yield f"it is the record of {record['stimulus_id']}"
            return
        if record["env_id"] not in environments:
            yield f"its environment {record['env_id']} is not in environment.json"
        if isinstance(self._plan, str) or stimulus_id not in self._plan.by_id:
            return
        for key, expected in self._follows(record, self._plan).items():
            if record.get(key) != expected:
                yield f"{key} is {_brief(record.get(key))}, the resolved protocol and the rest say {_brief(expected)}"

    @staticmethod
    def _follows(record: Record, plan: Plan) -> Record:
        """What a record must say, by the resolved protocol and by the rest of itself."""
        first = plan.by_id[record["stimulus_id"]]
        cells = [first.as_recorded({**record, "attempt": 1 + number}) for number in range(len(record["attempts"]))]
        last = cells[-1]
        attempts = [{**one, "seed": cell.seed} for one, cell in zip(record["attempts"], cells, strict=True)]
        return {
            "filename": last.filename,
            "attempts": [*attempts[:-1], {key: record[key] for key in migrations.ATTEMPT_KEYS}],
            "losses": {stage: _of_layers(losses, last) for stage, losses in record["losses"].items()},
            "height_px": last.settings.height,
            "width_px": last.settings.width,
            **request(last, plan),
            **({} if record["status"] == "failed" else judged(record, plan)),
        }

    def cells(self, on_progress: OnProgress | None) -> Iterator[Finding]:
        """Stimuli and traces; decoding runs on all cores."""
        owners = {record.get("file_sha256"): stimulus_id for stimulus_id, record in self.sound.items()}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(lambda record: [*self._stimulus(record, owners), *self._trace(record)], self._known())
            for done, found in enumerate(results, 1):
                yield from found
                if on_progress is not None:
                    on_progress(done, len(self.sound))

    def _known(self) -> Iterable[Record]:
        return (record for stimulus_id, record in self.sound.items() if stimulus_id in self.planned)

    def _stimulus(self, record: Record, owners: Mapping[Any, str]) -> Iterator[Finding]:
        stimulus_id, path = record["stimulus_id"], f"stimuli/{Path(str(record.get('filename'))).name}"
        if record.get("status") == "failed":
            return
        try:
            data = (self._store.path / path).read_bytes()
        except OSError as error:
            yield Finding("stimulus_missing", path, error.strerror or str(error), stimulus_id)
            return
        digest = hashlib.sha256(data).hexdigest()
        if digest != record.get("file_sha256"):
            if digest in owners:
                yield Finding("stimulus_swapped", path, f"it is the stimulus of {owners[digest]}", stimulus_id)
            else:
                yield Finding("stimulus_altered", path, self._how_altered(data, path, record), stimulus_id)
            return
        try:
            same = values_digest(decode_values(data, path)) == record.get("pixel_sha256")
        except ImageError as error:
            yield Finding("stimulus_altered", path, str(error), stimulus_id)
            return
        if not same:
            detail = "pixel_sha256 is not that of its stimulus, whose file is unchanged"
            yield Finding("record_altered", f"records/{stimulus_id}.json", detail, stimulus_id)

    def _how_altered(self, data: bytes, path: str, record: Record) -> str:
        try:
            same = values_digest(decode_values(data, path)) == record.get("pixel_sha256")
        except ImageError as error:
            return str(error)
        return "its bytes differ, its pixels are unchanged" if same else "its pixels differ"

    def _trace(self, record: Record) -> Iterator[Finding]:
        stimulus_id = record["stimulus_id"]
        path = f"traces/{stimulus_id}.npy"
        if not (self._store.path / path).is_file():
            yield Finding("trace_missing", path, "no such file", stimulus_id)
            return
        try:
            same = trace_digest(self._store.trace(stimulus_id)) == record.get("trace_sha256")
        except RunFolderError as error:
            yield Finding("trace_altered", path, str(error), stimulus_id)
            return
        if not same:
            yield Finding("trace_altered", path, "its values differ", stimulus_id)

    def inputs(self) -> Iterator[Finding]:
        """Copies of inputs that the run folder keeps under the names that stimkit gives them."""
        if isinstance(self._plan, str):
            return
        images = {f"{one.kind}-{one.name}.png": one.pixel_sha256 for one in self._plan.inputs}
        networks = {f"weights-{one.digest[:12]}.safetensors": one.digest for one in self._plan.weights.values()}
        for name, digest in {**images, **networks}.items():
            path = self._store.path / INPUTS / name
            if not path.is_file():
                continue
            try:
                found = (
                    read_weights(path).digest
                    if name in networks
                    else pixel_digest(decode_image(path.read_bytes(), name))
                )
                detail = "" if found == digest else "its digest is another one"
            except (OSError, UsageError) as error:
                detail = str(error)
            if detail:
                yield Finding("input_altered", f"{INPUTS}/{name}", detail)

    def extra_files(self) -> Iterator[Finding]:
        complete = self.sound.keys() | self._damaged.keys()
        expected: dict[str, set[Any]] = {
            "stimuli": {record.get("filename") for record in self.sound.values()},
            "traces": {f"{stimulus_id}.npy" for stimulus_id in complete},
            "records": {f"{stimulus_id}.json" for stimulus_id in self.planned},
        }
        for folder in FOLDERS:
            for path in sorted((self._store.path / folder).glob("*")):
                if path.name not in expected[folder] and not CLUTTER.fullmatch(path.name):
                    yield Finding("extra_file", f"{folder}/{path.name}", "no cell of the protocol accounts for it")

    def tables(self) -> Iterator[Finding]:
        """The derived tables, made again from the records that can be read."""
        records = [self.sound[stimulus_id] for stimulus_id in self.planned if stimulus_id in self.sound]
        if not records:
            return
        controls = any(record["role"] != "main" for record in records)
        for name in (*DERIVED, CONTROLS_SHEET) if controls else DERIVED:
            path = self._store.path / name
            if not path.is_file():
                yield Finding("table_missing", name, "no such file")
            elif not self._agrees(name, path, records):
                yield Finding("table_altered", name, "it differs from the records")

    def _agrees(self, name: str, path: Path, records: list[Record]) -> bool:
        """Whether a table holds the values of the records; one of an earlier stimkit may lack later columns."""
        try:
            data = path.read_bytes()
            if name == "manifest.csv":
                return csv_agrees(data, manifest_csv(records))
            if name == "losses.csv":
                return csv_agrees(data, losses_csv(records))
            if name == "manifest.nc":
                return netcdf_agrees(data, netcdf_bytes(dataset(self._store, records)))
            decode_image(data, name)  # a sheet is a picture; whether it is that of the stimuli, a look tells
        except (OSError, ImageError, RuntimeError, ValueError, KeyError, TypeError, RunFolderError):
            return False
        return True


def _of_layers(losses: Record, cell: Cell) -> Record:
    """Losses of a stage for the layers of a cell, and of terms that it has."""
    layers = {
        f"{term}_layers": {name: losses[f"{term}_layers"].get(name) for name, _ in getattr(cell, f"{term}_layers")}
        for term in ("content", "style")
    }
    absent = {term: None for term in ("content", "style") if getattr(cell, term) is None}
    return {**losses, **layers, **absent}


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."

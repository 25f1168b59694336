"""One read of a run folder: everything that it says, as values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import xarray as xr
from numpy.typing import NDArray

from stimkit.documents.notebooks import html_of, html_picture
from stimkit.errors import RunFolderError, did_you_mean
from stimkit.files import read_file
from stimkit.images.png import Values, decode_values
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import FoundInputs
from stimkit.planning.resolved import Resolved, plan_from_resolved
from stimkit.records.dataset import to_dataset, to_grid
from stimkit.records.measurements import Measurements, with_measurements
from stimkit.records.schema import Record
from stimkit.runfolder.journal import Journal, file_digest
from stimkit.runfolder.layout import SHEET
from stimkit.runfolder.locks import current_writers
from stimkit.runfolder.plots import RunPlots
from stimkit.runfolder.store import RunStore


@dataclass(frozen=True)
class Run:
    """What a run folder said when it was read. Stimuli and traces are read when they are asked for."""

    store: RunStore = field(repr=False)
    resolved: Resolved = field(repr=False)
    """The resolved protocol: every default and every digest."""
    records: Mapping[str, Record] = field(repr=False)
    """The records of the planned cells that are complete, by stimulus id, in the order of the plan."""
    strays: Mapping[str, Record] = field(repr=False)
    """Records of cells that the plan does not have."""
    damaged: Mapping[str, str] = field(repr=False)
    """Why records cannot be read, by stimulus id."""
    file_digests: Mapping[str, str] = field(repr=False)
    """The sha256 of the files of the records that can be read, by stimulus id."""
    measurements: Mapping[str, Measurements] = field(repr=False)
    """What was measured of finished stimuli, by the names of the tables; records have the values."""
    damaged_measurements: Mapping[str, str] = field(repr=False)
    """Why tables of measurements cannot be read, by their files."""

    def __repr__(self) -> str:
        counts = Counter(record.status for record in self.records.values())
        words = ", ".join(f"{count:,} {status}" for status, count in counts.items())
        return f"<Run {self.path}: {len(self.records):,} of {len(self.planned):,} cells{f', {words}' if words else ''}>"

    def _repr_html_(self) -> str:
        sheet = self.path / SHEET
        picture = html_picture(read_file(sheet), f"all stimuli of {self.path.name}") if sheet.is_file() else ""
        return html_of(repr(self)[1:-1], picture)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.store.path

    @property
    def planned(self) -> tuple[str, ...]:
        """Ids of the cells, in the order of the plan."""
        return tuple(self.resolved["cells"])

    @property
    def pending(self) -> tuple[str, ...]:
        """Ids of the cells that have no record."""
        return tuple(
            stimulus_id
            for stimulus_id in self.planned
            if stimulus_id not in self.records and stimulus_id not in self.damaged
        )

    @cached_property
    def plan(self) -> Plan:
        """The plan of the run. Raises `RunFolderError` where the resolved protocol does not describe its own cells."""
        origin = self.path / (self.resolved.get("origin") or ".")
        return plan_from_resolved(self.resolved, base=origin)

    @cached_property
    def journal(self) -> Journal | None:
        """What was committed to the folder: see `RunStore.journal`. Raises `RunFolderError` where that is damaged."""
        return self.store.journal()

    @cached_property
    def altered(self) -> dict[str, str]:
        """Why records that can be read are not those that were committed, by stimulus id; none by a damaged journal."""
        try:
            journal = self.journal
        except RunFolderError:
            journal = None
        if journal is None:
            return {}
        objections = {
            stimulus_id: journal.objection(f"records/{stimulus_id}.json", digest)
            for stimulus_id, digest in self.file_digests.items()
        }
        return {stimulus_id: objection for stimulus_id, objection in objections.items() if objection}

    @cached_property
    def environments(self) -> dict[str, Any]:
        """The environments that cells were made in, by the id in their records. Raises `RunFolderError`."""
        return self.store.environments()

    def inputs(self, folders: Sequence[str | Path] = ()) -> FoundInputs:
        """The inputs of the plan, by digest: at their original places, in the run folder, or in `folders`."""
        return FoundInputs(self.plan, self.store.input_folders(folders))

    def filename(self, record: Record) -> str:
        """The name of a stimulus's file: that of the plan where there is one, whatever the record says."""
        try:
            return self.plan.by_id[record.stimulus_id].filename
        except (RunFolderError, KeyError):
            return record.filename

    def check_readable(self) -> None:
        """Raise `RunFolderError` where a record cannot be read."""
        for reason in self.damaged.values():
            raise RunFolderError(reason)

    def trace(self, stimulus_id: str) -> NDArray[Any]:
        """Read content, style and total loss over the evaluations of a cell: (evaluations, 3)."""
        return self.store.trace(stimulus_id)

    def image(self, stimulus_id: str) -> Values:
        """Read one stimulus: (height, width, 3) RGB values of 8 or 16 bits, as the file holds them.

        Raises `RunFolderError` where there is none, or the file is not the one that its record is about.
        """
        if stimulus_id not in self.records:
            raise RunFolderError(f"{self.path} has no stimulus {stimulus_id}{did_you_mean(stimulus_id, self.records)}")
        path = self.path / "stimuli" / self.records[stimulus_id].filename
        try:
            data = read_file(path)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error
        if file_digest(data) != self.records[stimulus_id].file_sha256:
            raise RunFolderError(f"{path} is not the stimulus that its record is about; see stimkit verify")
        return decode_values(data, path.name)

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The manifest, one entry a stimulus along the dimension `stimulus`. Raises `RunFolderError`."""
        self.check_readable()
        return self.build_dataset({stimulus_id: self.trace(stimulus_id) for stimulus_id in self.records})

    def build_dataset(self, traces: Mapping[str, NDArray[Any]]) -> xr.Dataset:
        """Build the manifest from the records that can be read, and their traces by id."""
        attributes = {
            "title": self.resolved["protocol"]["name"],
            "protocol": self.store.text("protocol.toml"),
            "protocol_lock": json.dumps(self.resolved),
            "environment": self.store.text("environment.json"),
        }
        return to_dataset(list(self.records.values()), traces, attributes)

    @property
    def plot(self) -> RunPlots:
        """Figures with matplotlib: `run.plot.grid()`, `.traces()`, `.losses()`, `.statistic(name)`, `.map()`."""
        self.check_readable()
        named = {
            one: record.model_copy(update={"filename": self.filename(record)}) for one, record in self.records.items()
        }
        return RunPlots(self.path, named, self.trace)

    def to_grid(self) -> xr.Dataset:
        """The manifest with one dimension for each factor that has several levels."""
        return to_grid(self.dataset)


AnyRun = str | Path | Run


def read_run(path: AnyRun) -> Run:
    """Read a run folder; a run that was read already is returned as it is.

    Records that cannot be read are in `Run.damaged`. Raises `RunFolderError` where the folder is not a run folder, or
    its resolved protocol cannot be read.
    """
    if isinstance(path, Run):
        return path
    store = RunStore.open(path)
    return _read_records(store, store.lock_contents())


def read_records(path: str | Path) -> Run:
    """Read the records of a run folder whose resolved protocol cannot be read, as if it planned these cells alone."""
    store = RunStore.open(path)
    return _read_records(store, {"cells": sorted(store.completed())})


def _read_records(store: RunStore, resolved: Resolved) -> Run:
    complete = store.completed()
    read: dict[str, Record] = {}
    damaged: dict[str, str] = {}
    file_digests: dict[str, str] = {}
    planned = dict.fromkeys(resolved["cells"])
    for stimulus_id in (
        *(stimulus_id for stimulus_id in planned if stimulus_id in complete),
        *sorted(complete - planned.keys()),
    ):
        try:
            data = store.record_bytes(stimulus_id)
            read[stimulus_id] = store.record_of(stimulus_id, data)
            file_digests[stimulus_id] = file_digest(data)
        except RunFolderError as error:
            damaged[stimulus_id] = str(error)
    tables, damaged_tables = store.measurements()
    read = {stimulus_id: with_measurements(record, tables.values()) for stimulus_id, record in read.items()}
    records = {stimulus_id: record for stimulus_id, record in read.items() if stimulus_id in planned}
    strays = {stimulus_id: record for stimulus_id, record in read.items() if stimulus_id not in planned}
    return Run(store, resolved, records, strays, damaged, file_digests, tables, damaged_tables)


def open_run(path: str | Path) -> Run:
    """Open a run folder that has stimuli.

    >>> run = stimkit.open_run("runs/quickstart")
    >>> run.dataset["loss_total"].dims
    ('stimulus', 'stage')

    Raises `RunFolderError` where the folder is not a run folder, has no complete cell yet, or a record cannot be read.
    """
    run = read_run(path)
    run.check_readable()
    if not run.records:
        raise RunFolderError(f"{path} has no complete stimulus yet")
    return run


@dataclass(frozen=True)
class RunState:
    """How far a run is: ids of its cells, in the order of the plan."""

    planned: int
    done: tuple[str, ...]
    rejected: tuple[str, ...]
    failed: tuple[str, ...]
    pending: tuple[str, ...]
    writer: str | None
    """Who is writing the folder now."""


def summarize_state(run: Run, cells: Sequence[str] | None = None) -> RunState:
    """Say which cells of a run, by default all that it plans, are in which state, and who is writing.

    Raises `RunFolderError` where a record cannot be read.
    """
    run.check_readable()
    planned = run.planned if cells is None else tuple(cells)
    known = {**run.records, **run.strays}
    statuses = {stimulus_id: known[stimulus_id].status for stimulus_id in planned if stimulus_id in known}
    by_status = {
        status: tuple(stimulus_id for stimulus_id, found in statuses.items() if found == status)
        for status in ("accepted", "rejected", "failed")
    }
    return RunState(
        planned=len(planned),
        done=by_status["accepted"],
        rejected=by_status["rejected"],
        failed=by_status["failed"],
        pending=tuple(stimulus_id for stimulus_id in planned if stimulus_id not in statuses),
        writer=current_writers(run.path) or None,
    )

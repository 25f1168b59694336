"""Verify a run folder: files against their digests, records against the resolved protocol, tables against records."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stimkit.auditing.evidence import read_evidence
from stimkit.auditing.findings import Finding, rank
from stimkit.auditing.table_agreement import check_measurements, csv_agrees, netcdf_agrees
from stimkit.errors import ImageError, LaterVersionError, RunFolderError, UsageError
from stimkit.files import read_file
from stimkit.images.pixels import pixel_digest
from stimkit.images.reading import decode_image
from stimkit.network.weights import read_weights
from stimkit.planning.cells import Cell
from stimkit.records.dataset import netcdf_bytes
from stimkit.records.record import distances_of, judge, requested_values
from stimkit.records.schema import Record
from stimkit.records.stages import StageLosses
from stimkit.records.tables import CSV_TABLES, table_names
from stimkit.runfolder.journal import JOURNAL, Journal, file_digest
from stimkit.runfolder.layout import CLUTTER, CONTROLS_SHEET, FOLDERS, INPUTS, MEASUREMENTS_FOLDER, OWN_FILES, SHEET
from stimkit.runfolder.run import AnyRun, Run, read_records, read_run
from stimkit.runfolder.store import environment_id

OnCount = Callable[[int, int], None]
Traces = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Verification:
    """What `verify` found."""

    planned: int
    complete: int
    findings: tuple[Finding, ...]
    """The gravest first."""

    @property
    def errors(self) -> int:
        """How many findings say that the folder is not as it was committed; others are about files beside it."""
        return sum(finding.severity == "error" for finding in self.findings)


def verify(run: AnyRun, on_progress: OnCount | None = None) -> Verification:
    """Check a run folder against itself; nothing outside of it is needed, nothing in it is changed.

    >>> stimkit.verify("runs/quickstart").findings
    ()

    Where the resolved protocol cannot be read, everything else is checked but for the tables. `on_progress` is called
    with cells checked and cells in all. Raises `RunFolderError` where the folder is not a run folder, or of a later
    version.
    """
    findings: list[Finding] = []
    try:
        run = read_run(run)
        findings += check_protocol(run)
    except LaterVersionError:
        raise
    except RunFolderError as error:
        if isinstance(run, Run):
            raise
        run = read_records(run)
        findings.append(_finding("lock_altered", run.store.lock_file.name, str(error)))
    is_planned = "protocol" in run.resolved
    findings += check_records(run)
    traces: dict[str, NDArray[Any]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        evidence = pool.map(partial(read_evidence, run, owners=file_owners(run)), run.records.values())
        for done, found in enumerate(evidence, 1):
            findings += found.findings
            if found.trace is not None:
                traces[found.record.stimulus_id] = found.trace
            if on_progress is not None:
                on_progress(done, len(run.records))
    findings += [*check_folder(run), *check_sheets(run), *(check_tables(run, traces) if is_planned else ())]
    return Verification(len(run.planned), len(run.records) + len(run.strays), tuple(rank(findings)))


def file_owners(run: Run) -> dict[str | None, str]:
    """Ids of stimuli by the digests of their files."""
    return {record.file_sha256: record.stimulus_id for record in run.records.values()}


def _finding(name: str, path: str, detail: str, stimulus_id: str = "", severity: str = "error") -> Finding:
    return Finding(name, severity, stimulus_id, detail, path=path)


def check_protocol(run: Run) -> Iterator[Finding]:
    """Check the protocol against its digest in the resolved protocol, that one against its cells and the journal."""
    lock = run.store.lock_file.name
    try:
        _ = run.plan
    except RunFolderError as error:
        yield _finding("lock_altered", lock, str(error))
    try:
        journal = run.journal
    except RunFolderError as error:
        yield _finding("journal_damaged", JOURNAL, str(error))
    else:
        if journal and (objection := journal.objection(lock, file_digest(read_file(run.path / lock)))):
            yield _finding("lock_altered", lock, objection)
    try:
        text = read_file(run.path / "protocol.toml")
    except OSError as error:
        yield _finding("protocol_altered", "protocol.toml", f"cannot be read: {error.strerror or error}")
        return
    if hashlib.sha256(text).hexdigest() != run.resolved["protocol_sha256"]:
        yield _finding("protocol_altered", "protocol.toml", "its digest is not the one in the lock")


def check_records(run: Run) -> Iterator[Finding]:
    """Check every record against the resolved protocol, the environments, and itself."""
    for stimulus_id, reason in run.damaged.items():
        yield _finding("record_damaged", f"records/{stimulus_id}.json", reason, stimulus_id)
    for stimulus_id, objection in run.altered.items():
        yield _finding("record_altered", f"records/{stimulus_id}.json", objection, stimulus_id)
    known = {**run.records, **run.strays}
    try:
        environments = set(run.environments)
    except RunFolderError as error:
        yield _finding("environment_damaged", "environment.json", str(error))
        environments = {record.env_id for record in known.values()}
    else:
        for env_id, environment in run.environments.items():
            if env_id != environment_id(environment):
                yield _finding("environment_damaged", "environment.json", f"{env_id} is not the digest of its contents")
    for stimulus_id, record in known.items():
        for detail in _contradictions(run, stimulus_id, record, environments):
            yield _finding("record_altered", f"records/{stimulus_id}.json", detail, stimulus_id)


def _contradictions(run: Run, stimulus_id: str, record: Record, environments: set[str]) -> Iterator[str]:
    if record.env_id not in environments:
        yield f"its environment {record.env_id} is not in environment.json"
    try:
        expected = _expected(record, run)
    except (RunFolderError, KeyError):  # no plan, or none that has the cell
        return
    flat = record.flat()
    for key, value in expected.items():
        if flat.get(key) != value:
            yield f"{key} is {_brief(flat.get(key))}, the resolved protocol and the rest say {_brief(value)}"


def _expected(record: Record, run: Run) -> dict[str, Any]:
    """What a record must say, by the resolved protocol and by the rest of itself."""
    cell = run.plan.by_id[record.stimulus_id]
    cells = cell.as_recorded(1, record.alpha).attempts(len(record.attempts))
    last = cells[-1]
    flat = record.flat()
    attempts = [{**attempt, "seed": cell.seed} for attempt, cell in zip(flat["attempts"], cells, strict=True)]
    judged = record if record.status == "failed" else judge(record, run.plan)
    return {
        "attempts": [*attempts[:-1], {key: flat[key] for key in attempts[-1]}],
        "losses": {stage: _of_layers(losses, last) for stage, losses in record.losses.stages().items()},
        "distances": distances_of(last, _finite_ones(record)),
        **requested_values(last, run.plan),
        "status": judged.status,
        "status_reason": judged.status_reason,
    }


def _finite_ones(record: Record) -> dict[str, dict[str, dict[str, float]]]:
    """The distances of a record that are known."""
    return {
        kind: {name: {layer: loss for layer, loss in layers.items() if loss is not None} for name, layers in of.items()}
        for kind, of in record.distances.items()
    }


def _of_layers(losses: StageLosses, cell: Cell) -> dict[str, Any]:
    """Losses of a stage for the layers of a cell, and of terms that it has."""
    return {
        "content": losses.content if cell.content is not None else None,
        "style": losses.style if cell.style is not None else None,
        "total": losses.total,
        "content_layers": {name: losses.content_layers.get(name) for name, _ in cell.content_layers},
        "style_layers": {name: losses.style_layers.get(name) for name, _ in cell.style_layers},
    }


def check_folder(run: Run) -> Iterator[Finding]:
    """Check the copies of inputs that a run folder keeps, and that every file in it has an owner."""
    yield from _check_inputs(run)
    yield from check_measurements(run)
    yield from _check_links(run.path)
    known = {**run.records, **run.strays}
    begun = {run.plan.by_id[stimulus_id].filename for stimulus_id in run.pending} if _has_plan(run) else set()
    expected: dict[str, set[str]] = {
        "stimuli": {record.filename for record in known.values()} | begun,
        "traces": {f"{stimulus_id}.npy" for stimulus_id in (*known, *run.damaged, *run.pending)},
        "records": {f"{stimulus_id}.json" for stimulus_id in run.planned},
    }
    for folder in FOLDERS:
        for path in sorted((run.path / folder).glob("*")):
            if path.name not in expected[folder] and not CLUTTER.fullmatch(path.name):
                yield _finding("extra_file", f"{folder}/{path.name}", "no cell of the protocol accounts for it")
    for path in sorted(run.path.iterdir()):
        if not OWN_FILES.fullmatch(path.name) and not CLUTTER.fullmatch(path.name):
            yield _finding("extra_file", path.name, "it is not of the run", severity="notice")


def _has_plan(run: Run) -> bool:
    try:
        return bool(run.plan)
    except RunFolderError:
        return False


def _check_links(folder: Path) -> Iterator[Finding]:
    """Find the files of a run folder, and of the folders in it, that something outside of it can change."""
    place = folder.resolve()
    for path in sorted(
        path for part in (".", *FOLDERS, INPUTS, MEASUREMENTS_FOLDER) for path in (folder / part).glob("*")
    ):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            if not path.resolve().is_relative_to(place):
                yield _finding("linked", name, f"it is a link to {os.readlink(path)}")
        elif path.is_file() and path.stat().st_nlink > 1:
            yield _finding("linked", name, "it is a hard link: the same file has another name")


def _check_inputs(run: Run) -> Iterator[Finding]:
    try:
        plan = run.plan
    except RunFolderError:
        return
    with suppress(RunFolderError):  # a damaged journal, which is a finding of its own
        journal = run.journal or Journal()
        for name in (name for name in journal.digests if name.startswith(f"{INPUTS}/") and journal.last(name)):
            if not (run.path / name).is_file():
                yield _finding("input_missing", name, "no such file")
    images = {f"{image.kind}-{image.name}.png": image.pixel_sha256 for image in plan.inputs}
    networks = {f"weights-{source.digest[:12]}.safetensors": source.digest for source in plan.weights.values()}
    for name, digest in {**images, **networks}.items():
        path = run.path / INPUTS / name
        if not path.is_file():
            continue
        try:
            found = read_weights(path).digest if name in networks else pixel_digest(decode_image(read_file(path), name))
            detail = "" if found == digest else "its digest is another one"
        except (OSError, UsageError) as error:
            detail = str(error)
        if detail:
            yield _finding("input_altered", f"{INPUTS}/{name}", detail)


def check_tables(run: Run, traces: Traces) -> Iterator[Finding]:
    """Check the derived tables against the records that can be read, and their traces."""
    for name in table_names(run.records.values()) if run.records else ():
        path = run.path / name
        if not path.is_file():
            yield _finding("table_missing", name, "no such file")
        elif not _agrees(name, path, run, traces):
            yield _finding("table_altered", name, "it differs from the records")


def check_sheets(run: Run) -> Iterator[Finding]:
    """Check that contact sheets are pictures; whether they are those of the stimuli, a look tells."""
    controls = any(record.role != "main" for record in run.records.values())
    for name in (SHEET, CONTROLS_SHEET) if controls else (SHEET,) if run.records else ():
        path = run.path / name
        if not path.is_file():
            yield _finding("table_missing", name, "no such file")
            continue
        try:
            decode_image(read_file(path), name)
        except (OSError, ImageError) as error:
            yield _finding("table_altered", name, str(error))


def _agrees(name: str, path: Path, run: Run, traces: Traces) -> bool:
    """Whether a table holds the values of the records; one of an earlier stimkit may lack later columns."""
    records = list(run.records.values())
    try:
        data = read_file(path)
        if name in CSV_TABLES:
            return csv_agrees(data, CSV_TABLES[name](records), records)
        return netcdf_agrees(data, netcdf_bytes(run.build_dataset(traces)), records)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, RunFolderError):
        return False


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."

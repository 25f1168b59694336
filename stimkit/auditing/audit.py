"""Audit a run: is every stimulus what the manifest says, did it converge, does a nuisance follow a factor?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stimkit.auditing.effects import effects
from stimkit.auditing.findings import Finding, ranked
from stimkit.auditing.losses import inconsistent, losses_again
from stimkit.auditing.remeasurement import Remeasurement
from stimkit.auditing.rules import confounds, of_stimuli, outliers
from stimkit.auditing.verification import verify
from stimkit.columns import BASIC, CONFOUNDS
from stimkit.errors import ImageError, RunFolderError, WeightsError
from stimkit.files import storage_errors, write_atomically
from stimkit.images.pixels import Pixels, resize
from stimkit.images.statistics import measure_files
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import FoundInputs, Inputs
from stimkit.planning.resolved import plan_of
from stimkit.records.record import Record
from stimkit.records.tables import attribute_names, csv_bytes, factor_names, table
from stimkit.runfolder.store import RunStore
from stimkit.synthesis.devices import choose_device

STATISTIC_TOLERANCE = 1e-9
AUDIT_SCHEMA = 1
FOLDER = "audit"  # in the run folder
Rows = dict[str, dict[str, Any]]  # numbers about a stimulus, by its id
OnCount = Callable[[int, int], None]
OnPhase = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    planned: int
    complete: int
    findings: tuple[Finding, ...]
    """The gravest first."""
    stimuli: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row a stimulus: manifest, image statistics, losses computed again, percentiles among unrelated images."""
    effects: pd.DataFrame = field(default_factory=pd.DataFrame)
    """How much variance of each variable every factor explains, as `stimkit.auditing.effects.effects` gives it."""

    @property
    def failed(self) -> bool:
        """Whether anything exceeds a limit of the protocol, or is not what the records say."""
        return any(finding.severity == "error" for finding in self.findings)


def audit(
    run: str | Path,
    *,
    inputs: Sequence[str | Path] = (),
    device: str = "auto",
    losses: bool = True,
    on_phase: OnPhase | None = None,
) -> Audit:
    """Audit a run folder; nothing in it is changed.

    Files are verified; image statistics and (with `losses`) the losses of all files and initial images are computed
    again, for which input images and weights are found as `regenerate` finds them. `on_phase` is called with a
    phase, what is done of it, and how much there is. Raises `RunFolderError` where the folder is no run folder or
    its lock cannot be read, `DeviceError` for a device that is not there.
    """
    report = on_phase or (lambda phase, done, total: None)
    place, store = choose_device(device), RunStore.open(run)
    checked = verify(run, partial(report, "verifying files"))
    found = [Finding(one.kind, "error", one.stimulus_id, one.detail, path=one.path) for one in checked.findings]
    try:
        plan = plan_of(store.lock_contents(), base=store.origin())
    except RunFolderError:  # which is among the findings: without the lock, a record means nothing
        return Audit(checked.planned, checked.complete, tuple(ranked(found)))
    found += _pending(plan, store)
    damaged = {finding.stimulus_id for finding in found}
    records = [record for record in store.readable(plan.by_id) if record["stimulus_id"] not in damaged]
    if not records:
        return Audit(checked.planned, checked.complete, tuple(ranked(found)))
    for record in records:
        cell = plan.by_id[record["stimulus_id"]].as_recorded(record)
        found += inconsistent(record, cell, store.trace(cell.id))
    made = {
        store.path / "stimuli" / plan.by_id[record["stimulus_id"]].filename: record
        for record in records
        if record["status"] != "failed"
    }
    source = FoundInputs(plan, store.input_folders(inputs))
    statistics, wrong = _statistics(made, plan, source, partial(report, "image statistics"))
    found += wrong
    again: Rows = {}
    if losses:
        missing = _missing(plan, source)
        remeasurement = Remeasurement(plan, source, place, without=missing)
        again, wrong = _losses(made, store, remeasurement, missing, partial(report, "losses again"))
        found += wrong
    stimuli = _table(store, records, statistics, again)
    factors = factor_names(records)
    design = stimuli[stimuli["role"] == "main"]
    found += of_stimuli(stimuli, plan.protocol.audit)
    found += outliers(design[design["status"] != "failed"], plan.protocol.audit, factors)
    report("effects of factors", 0, 1)
    accepted = design[design["status"] == "accepted"]
    explained = explain(accepted, factors, CONFOUNDS, attribute_names(records))
    report("effects of factors", 1, 1)
    found += confounds(explained, plan.protocol.audit.confounds)
    return Audit(checked.planned, checked.complete, tuple(ranked(found)), stimuli, explained)


def _pending(plan: Plan, store: RunStore) -> list[Finding]:
    complete = store.completed()
    words = "the cell has no complete stimulus; run the protocol again"
    return [Finding("pending", "warning", cell.id, words) for cell in plan.cells if cell.id not in complete]


def _statistics(
    made: Mapping[Path, Record], plan: Plan, inputs: Inputs, on_count: OnCount
) -> tuple[Rows, list[Finding]]:
    """Statistics of the stimuli by id, and those that are not what their records say."""
    encodings = [plan.by_id[record["stimulus_id"]].settings.encoding for record in made.values()]
    measured = measure_files(list(made), _references(plan, list(made.values()), inputs), on_count, encodings)
    rows = {record["stimulus_id"]: row for record, row in zip(made.values(), measured, strict=True)}
    wrong = [one for record in made.values() for one in _statistic_mismatch(record, rows[record["stimulus_id"]])]
    return rows, wrong


InputKey = tuple[str, str]  # kind and name


def _missing(plan: Plan, inputs: Inputs) -> dict[InputKey, str]:
    """The images of a plan that are not to be found, and what is said of them."""
    missing: dict[InputKey, str] = {}
    for one in plan.inputs:
        try:
            inputs.image(one.kind, one.name)
        except ImageError as error:
            missing[one.kind, one.name] = str(error)
    return missing


def _inputs_of(record: Record, plan: Plan) -> set[InputKey]:
    """The images that the losses of a stimulus need."""
    cell = plan.by_id[record["stimulus_id"]]
    used = [plan.input(kind, name) for kind in ("content", "style", "mask") if (name := getattr(cell, kind))]
    return {(one.kind, one.name) for one in used}


def _losses(
    made: Mapping[Path, Record],
    store: RunStore,
    again: Remeasurement,
    missing: Mapping[InputKey, str],
    on_count: OnCount,
) -> tuple[Rows, list[Finding]]:
    """Losses of the stimuli, computed again, by id; and those that are not what their records say.

    Stimuli of `missing` images are left out, which is said.
    """
    rows: Rows = {}
    findings = [Finding("losses_not_checked", "warning", "", problem) for problem in missing.values()]
    known = {path: record for path, record in made.items() if not missing.keys() & _inputs_of(record, again.plan)}
    try:
        for stimulus_id, row, wrong in losses_again(known, store.trace, again, on_count):
            rows[stimulus_id] = row
            findings += wrong
    except (ImageError, WeightsError) as error:
        findings.append(Finding("losses_not_checked", "warning", "", str(error)))
    return rows, findings


def _references(plan: Plan, records: Sequence[Record], inputs: Inputs) -> list[Pixels | None]:
    """For each stimulus its content image in the stimulus's size, where there is one and it is found."""
    known: dict[tuple[Any, ...], Pixels | None] = {}

    def reference(name: str | None, size: tuple[int, int], how: str) -> Pixels | None:
        key = (name, size, how)
        if name is not None and key not in known:
            try:
                known[key] = resize(inputs.image("content", name), size, how)
            except ImageError:  # the audit of the losses says so
                known[key] = None
        return known.get(key)

    cells = [plan.by_id[record["stimulus_id"]] for record in records]
    return [reference(cell.content, cell.settings.size, cell.settings.fit) for cell in cells]


def _statistic_mismatch(record: Record, found: Mapping[str, Any]) -> Iterator[Finding]:
    for name in BASIC:
        error = abs(record[name] - found[name])
        if not error <= STATISTIC_TOLERANCE:
            detail = f"{name} is {found[name]:.6g}, recorded is {record[name]:.6g}"
            yield Finding(
                "statistic_mismatch", "error", record["stimulus_id"], detail, float(error), STATISTIC_TOLERANCE
            )


def _table(store: RunStore, records: Sequence[Record], *measured: Rows) -> pd.DataFrame:
    """The manifest with what was measured, and with what follows from records and traces."""
    frame = table(records)
    for rows in filter(None, measured):
        further = pd.DataFrame.from_dict(rows, orient="index").rename_axis("stimulus_id").reset_index()
        known = [name for name in further if name in frame and name != "stimulus_id"]
        frame = frame.merge(further.drop(columns=known), on="stimulus_id", how="left")
    frame["clipped"] = frame["clip_low_frac"] + frame["clip_high_frac"]
    frame["loss_increase"] = frame["loss_total_file"] / frame["loss_total_optimized"] - 1
    frame["still_falling"] = [_falling(store, record) for record in records]
    for term in ("content", "style", "total"):
        with np.errstate(divide="ignore", invalid="ignore"):
            frame[f"log_loss_{term}"] = np.log10(pd.to_numeric(frame[f"loss_{term}_file"]).to_numpy(float))
    return frame


def _falling(store: RunStore, record: Record) -> float:
    """Relative decrease of the lowest total loss over the last `window` evaluations."""
    totals = store.trace(record["stimulus_id"])[:, 2]
    totals = totals[np.isfinite(totals)]
    if len(totals) < 2:
        return float("nan")
    lowest = np.minimum.accumulate(totals)
    before = lowest[max(0, len(lowest) - 1 - record["window"])]
    return float(1 - lowest[-1] / before) if before > 0 else 0.0


def explain(
    stimuli: pd.DataFrame, factors: Iterable[str], variables: Iterable[str], attributes: Sequence[str] = ()
) -> pd.DataFrame:
    """Effects of all factors but the replicate, and of attributes, on those variables that the table has."""
    design = [name for name in factors if name != "replicate"]
    return effects(stimuli, design, [name for name in variables if name in stimuli], attributes)


def save(found: Audit, folder: Path) -> Path:
    """Write findings.csv, stimuli.csv, effects.csv and audit.json into a folder, and return it."""
    findings = pd.DataFrame([asdict(one) for one in found.findings], columns=[one.name for one in fields(Finding)])
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in (("findings", findings), ("stimuli", found.stimuli), ("effects", found.effects)):
            write_atomically(folder / f"{name}.csv", csv_bytes(frame))
        write_atomically(folder / "audit.json", (json.dumps(as_json(found), indent=1) + "\n").encode())
    return folder


def as_json(found: Audit) -> dict[str, Any]:
    """An audit as JSON values; what is not a number there is null."""
    return {
        "schema": AUDIT_SCHEMA,
        "planned": found.planned,
        "complete": found.complete,
        "failed": found.failed,
        "findings": [_plain(asdict(one)) for one in found.findings],
        "effects": [_plain(row) for row in found.effects.to_dict("records")],
        "stimuli": [_plain(row) for row in found.stimuli.to_dict("records")],
    }


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """JSON values of a row: numbers as they are, null for what is not finite."""
    values = {str(name): value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in values.items()}

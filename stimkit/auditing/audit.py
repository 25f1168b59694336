"""Audit a run: is every stimulus what the manifest says, did it converge, does a nuisance variable follow a factor?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimkit.auditing.evidence import Evidence, Portray, find_twins, read_evidence
from stimkit.auditing.findings import Finding, rank
from stimkit.auditing.losses import LossCheck, check_sums, shown_to_networks, still_falling
from stimkit.auditing.recognition import Cues, RecognitionCheck, count_cues, find_unrecognized
from stimkit.auditing.rules import judge_set, judge_stimuli
from stimkit.auditing.verification import (
    OnCount,
    check_folder,
    check_protocol,
    check_records,
    check_sheets,
    check_tables,
    file_owners,
    verify,
)
from stimkit.columns import BASIC, CONFOUNDS, SSIM_CONTENT
from stimkit.documents.notebooks import html_of, html_rows
from stimkit.documents.progress import OnPhase, show_phases
from stimkit.effects.variance import explain
from stimkit.errors import ImageError, RunFolderError
from stimkit.images.likeness import small_copy
from stimkit.images.pixels import Pixels
from stimkit.images.png import to_shown
from stimkit.images.statistics import measure_image, measure_similarity
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.records.schema import COLUMN_OF, Record
from stimkit.records.stages import TERMS
from stimkit.records.tables import attribute_names, described_columns, factor_names, to_table
from stimkit.runfolder.run import AnyRun, Run, read_run
from stimkit.stimuli.preparation import picture
from stimkit.synthesis.devices import choose_device

STATISTIC_TOLERANCE = 1e-9
CHUNK = 64  # stimuli whose pixels are in memory at a time: 100 MB at 512 px in 16 bits
RowsById = dict[str, dict[str, Any]]  # numbers about a stimulus, by its id


@dataclass(frozen=True)
class Audit:
    """What an audit found."""

    planned: int
    complete: int
    findings: tuple[Finding, ...]
    """The gravest first."""
    stimuli: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row a stimulus: manifest, image statistics, losses again, percentiles among unrelated images."""
    effects: pd.DataFrame = field(default_factory=pd.DataFrame)
    """How much variance of each variable every factor explains: see `stimkit.effects.variance.explain_variance`."""
    images: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What a classifier takes the images of the protocol for."""
    cues: Cues | None = None
    """How often stimuli of two cues are taken for one of them."""

    def __repr__(self) -> str:
        counts = Counter(finding.severity for finding in self.findings)
        words = ", ".join(f"{count} {severity}{'s' * (count > 1)}" for severity, count in counts.items())
        return f"<Audit of {self.complete:,} of {self.planned:,} stimuli: {words or 'nothing to object to'}>"

    def _repr_html_(self) -> str:
        rows = [(one.severity, one.name, one.stimulus_id, one.detail) for one in self.findings]
        return html_of(repr(self)[1:-1], html_rows(("", "finding", "stimulus", ""), rows) if rows else "")

    @property
    def failed(self) -> bool:
        """Whether anything exceeds a limit of the protocol, or is not what the records say."""
        return any(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True)
class Examination:
    """An audit, with what else was read of the stimuli on the way."""

    audit: Audit
    traces: Mapping[str, NDArray[Any]]
    """Those that can be read, by stimulus id."""
    portraits: Mapping[str, str]
    """What a report shows of each stimulus, by stimulus id."""


def audit(
    run: AnyRun,
    *,
    inputs: Sequence[str | Path] = (),
    device: str = "auto",
    losses: bool = True,
    on_phase: OnPhase | None = None,
    progress: bool | None = None,
) -> Audit:
    """Audit a run folder; nothing in it is changed.

    >>> found = stimkit.audit("runs/quickstart")
    >>> found.failed, found.complete
    (False, 8)

    Files are verified; image statistics and (with `losses`) the losses of all files and initial images are computed
    again, for which inputs are found as `regenerate` finds them. `on_phase` is called with a phase, what is done of it,
    and how much there is; without it, `progress` says whether bars are shown, by default in notebooks. Raises
    `RunFolderError` where it is not a run folder or its resolved protocol cannot be read, `DeviceError` for a device.
    """
    with show_phases(on_phase, progress) as tell:
        return examine(run, inputs=inputs, device=device, losses=losses, on_phase=tell).audit


def examine(
    run: AnyRun,
    *,
    inputs: Sequence[str | Path] = (),
    device: str = "auto",
    losses: bool = True,
    on_phase: OnPhase | None = None,
    portray: Portray | None = None,
) -> Examination:
    """Audit a run in one pass over its stimuli; `portray` makes the picture of each that a report shows."""
    tell = on_phase or (lambda phase, done, total: None)
    place = choose_device(device)
    run = read_run(run)
    try:
        plan = run.plan
    except RunFolderError:  # which is among the findings: without the resolved protocol, a record means nothing
        checked = verify(run, partial(tell, "stimuli"))
        return Examination(Audit(checked.planned, checked.complete, checked.findings), {}, {})
    # Sheets come before the stimuli for speed: once the memory of a large picture was freed, glibc keeps that of
    # smaller ones, instead of asking the system for every array (a report of 64 stimuli: 2.6 s instead of 3.1).
    findings = [*check_protocol(run), *check_records(run), *_pending(run), *check_sheets(run)]
    source = run.inputs(inputs)
    check = LossCheck(plan, source, place) if losses else None
    seen = _Pass(run, source, {finding.stimulus_id for finding in findings}, check, portray)
    recognition = RecognitionCheck(plan, source, place, again=losses)
    findings += seen.look_at_all(partial(tell, "stimuli"), recognition)
    findings += [*(check.problems if check else ()), *recognition.problems]
    findings += [*check_folder(run), *check_tables(run, seen.traces), *find_twins(run, seen.copies)]
    complete = len(run.records) + len(run.strays)
    damaged = {finding.stimulus_id for finding in findings if finding.severity == "error" and finding.path}
    records = [record for record in run.records.values() if record.stimulus_id not in damaged]
    if not records:
        return Examination(Audit(len(run.planned), complete, tuple(rank(findings))), seen.traces, seen.portraits)
    stimuli = _table(records, seen)
    tell("effects of factors", 0, 1)
    factors, limits = factor_names(records), plan.protocol.audit
    design = stimuli[stimuli["role"] == "main"]
    accepted = design[design["status"] == "accepted"]
    # Observers do not see how long a stimulus took; it is looked at only where the protocol has a limit for it.
    variables = [name for name in CONFOUNDS if name != "wall_time_s" or name in limits.confounds]
    variables += [name for name in described_columns(records) if name not in {*COLUMN_OF, *variables}]
    effects = explain(accepted, factors, variables, attribute_names(records))
    findings += [*judge_stimuli(stimuli, limits), *judge_set(design, effects, plan.protocol, factors)]
    images = recognition.look_at_inputs()
    findings += find_unrecognized(images, plan)
    tell("effects of factors", 1, 1)
    cues = count_cues(records, plan)
    found = Audit(len(run.planned), complete, tuple(rank(findings)), stimuli, effects, images, cues)
    return Examination(found, seen.traces, seen.portraits)


def _pending(run: Run) -> list[Finding]:
    words = "the cell has no complete stimulus; run the protocol again"
    return [Finding("pending", "warning", stimulus_id, words) for stimulus_id in run.pending]


class _Pass:
    """One pass over the stimuli of a run: each file is read and decoded once, whatever is asked of it."""

    def __init__(
        self, run: Run, inputs: InputSource, suspect: set[str], check: LossCheck | None, portray: Portray | None
    ) -> None:
        self._run, self._suspect, self._check, self._portray = run, suspect, check, portray
        self._references = _References(inputs)
        self.traces: dict[str, NDArray[Any]] = {}
        self.portraits: dict[str, str] = {}
        self.copies: dict[str, NDArray[np.float32]] = {}
        self.statistics: RowsById = {}
        self.losses: RowsById = {}

    def look_at_all(self, on_count: OnCount, recognition: RecognitionCheck) -> list[Finding]:
        """Look at every stimulus, and return what is found."""
        owners = file_owners(self._run)
        findings: list[Finding] = []
        done, total = 0, len(self._run.records)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for cells in _chunks(self._run):
                records = [self._run.records[cell.id] for cell in cells]
                references = [self._references.of(cell) for cell in cells]
                sound: list[tuple[Cell, Evidence]] = []
                looks = pool.map(partial(self._look, owners=owners), records, references)
                for cell, (evidence, statistics, portrait) in zip(cells, looks, strict=True):
                    findings += self._take(cell, evidence, statistics, portrait)
                    if statistics is not None:
                        sound.append((cell, evidence))
                        findings += recognition.check(evidence.record, shown_to_networks(evidence))
                    done += 1
                    on_count(done, total)
                if self._check is not None:
                    rows, wrong = self._check.measure(sound)
                    self.losses |= rows
                    findings += wrong
        return findings

    def _look(
        self, record: Record, reference: Pixels | None, *, owners: Mapping[str | None, str]
    ) -> tuple[Evidence, dict[str, float] | None, str | None]:
        """What is asked of one stimulus: its files, its statistics where it is sound, and its portrait."""
        evidence = read_evidence(self._run, record, owners)
        portrait = self._portray(evidence) if self._portray else None
        is_sound = not evidence.findings and record.stimulus_id not in self._suspect
        if evidence.values is None or not is_sound:
            return evidence, None, portrait
        image = to_shown(evidence.values, record.settings.encoding)
        self.copies[record.stimulus_id] = small_copy(image)
        similar = None if reference is None or reference.shape != image.shape else measure_similarity(image, reference)
        statistics = {**measure_image(image), SSIM_CONTENT.name: float("nan") if similar is None else similar}
        return evidence, statistics, portrait

    def _take(
        self, cell: Cell, evidence: Evidence, statistics: dict[str, float] | None, portrait: str | None
    ) -> Iterator[Finding]:
        """Keep what was seen of a stimulus, and say what is wrong with it."""
        if evidence.trace is not None:
            self.traces[cell.id] = evidence.trace
        if portrait is not None:
            self.portraits[cell.id] = portrait
        yield from evidence.findings
        if evidence.findings or cell.id in self._suspect:
            return
        if evidence.trace is not None:
            yield from check_sums(evidence.record, cell, evidence.trace)
        if statistics is not None:
            self.statistics[cell.id] = statistics
            yield from _statistic_mismatch(evidence.record, statistics)


def _chunks(run: Run) -> Iterator[list[Cell]]:
    """Complete cells as they were recorded, in the order in which losses are measured best: by settings and images."""
    cells = [
        run.plan.by_id[stimulus_id].as_recorded(record.attempt, record.alpha)
        for stimulus_id, record in run.records.items()
    ]
    order = {settings: index for index, settings in enumerate(dict.fromkeys(cell.settings for cell in cells))}
    cells.sort(key=lambda cell: (order[cell.settings], cell.content or "", cell.style or ""))
    return (cells[start : start + CHUNK] for start in range(0, len(cells), CHUNK))


class _References:
    """The content image of each stimulus in the stimulus's size, where there is one and it is found."""

    def __init__(self, inputs: InputSource) -> None:
        self._inputs = inputs
        self._known: dict[tuple[Any, ...], Pixels | None] = {}

    def of(self, cell: Cell) -> Pixels | None:
        key = (cell.content, cell.settings.size, cell.settings.fit)
        if cell.content is not None and key not in self._known:
            try:
                self._known[key] = picture(cell, "content", self._inputs)
            except ImageError:  # the check of the losses says so
                self._known[key] = None
        return self._known.get(key)


def _statistic_mismatch(record: Record, measured: Mapping[str, float]) -> Iterator[Finding]:
    for name in BASIC:
        recorded = record.statistics[name]
        error = abs(recorded - measured[name]) if recorded is not None else np.inf
        if not error <= STATISTIC_TOLERANCE:
            detail = f"{name} is {measured[name]:.6g}, recorded is {recorded:.6g}"
            yield Finding("statistic_mismatch", "error", record.stimulus_id, detail, float(error), STATISTIC_TOLERANCE)


def _table(records: Sequence[Record], seen: _Pass) -> pd.DataFrame:
    """The manifest with what was measured, and with what follows from records and traces."""
    frame = to_table(records)
    for rows in filter(None, (seen.statistics, seen.losses)):
        further = pd.DataFrame.from_dict(rows, orient="index").rename_axis("stimulus_id").reset_index()
        known = [name for name in further if name in frame and name != "stimulus_id"]
        frame = frame.merge(further.drop(columns=known), on="stimulus_id", how="left")
    frame["clipped"] = frame["clip_low_frac"] + frame["clip_high_frac"]
    frame["loss_increase"] = frame["loss_total_file"] / frame["loss_total_optimized"] - 1
    frame["still_falling"] = [still_falling(record, seen.traces[record.stimulus_id]) for record in records]
    for term in TERMS:
        with np.errstate(divide="ignore", invalid="ignore"):
            frame[f"log_loss_{term}"] = np.log10(pd.to_numeric(frame[f"loss_{term}_file"]).to_numpy(float))
    return frame

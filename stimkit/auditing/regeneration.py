"""Make stimuli of a run again, from what the run folder saved, and say how equal they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stimkit.documents.progress import OnPhase, show_progress
from stimkit.errors import RunFolderError, UsageError, did_you_mean
from stimkit.files import check_new, read_file, storage_errors, write_atomically
from stimkit.images.png import Values, decode_values, to_shown, values_digest
from stimkit.images.statistics import measure_similarity
from stimkit.planning.cells import Cell
from stimkit.records.schema import Record
from stimkit.records.selection import select
from stimkit.records.tables import csv_bytes, to_table
from stimkit.runfolder.run import AnyRun, read_run
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.stimulus import Stimulus
from stimkit.synthesis.devices import check_precision, choose_device, determinism
from stimkit.synthesis.environment import describe_environment

TIERS = ("identical_file", "identical_pixels", "pixels_within", "losses_within", "differs")
"""From most to least equal: the same bytes, the same pixels, pixels within tolerance, losses within tolerance."""


@dataclass(frozen=True)
class Tolerances:
    """When stimuli that are not identical still count as equal."""

    pixel: int = 2
    """Largest difference of an 8-bit value."""
    loss: float = 0.01
    """Relative difference of the total loss of the file."""


@dataclass(frozen=True)
class Comparison:
    """One stimulus made again beside the one of record."""

    stimulus_id: str
    filename: str
    tier: str
    max_difference: int | None
    """Largest difference of a value of the file; None where the stimulus of record is not there any more."""
    changed_fraction: float | None
    """Part of the values that differ."""
    ssim: float | None
    """Structural similarity (Wang et al. 2004) over the colour channels."""
    loss_recorded: float | None
    loss_again: float
    batch: str
    """recorded: computed in the company that the record names; alone: by itself."""
    environment_differs: tuple[str, ...]
    """What of the recorded environment is different now."""


OnCompared = Callable[[Comparison, int, int], None]


def regenerate(
    run: AnyRun,
    out: str | Path,
    *,
    cells: Sequence[str] = (),
    where: str | None = None,
    inputs: Sequence[str | Path] = (),
    device: str = "auto",
    alone: bool = False,
    tolerances: Tolerances = Tolerances(),
    on_compared: OnCompared | None = None,
    progress: bool | None = None,
) -> list[Comparison]:
    """Make cells of a run again, in deterministic mode, and compare them with the stimuli of record.

    >>> [comparison.tier for comparison in stimkit.regenerate("runs/quickstart", "again", where='style == "swirl"')]
    ['identical_file', 'identical_file', 'identical_file', 'identical_file']

    `cells` are stimulus ids and `where` a condition on columns of the manifest, such as
    `style == "swirl" and ratio < 1e-5`; without either, all complete cells. Images and weights are found by
    digest: at their original places, in RUN/inputs, or in the folders `inputs`. By default every batch is
    computed with the company that it had, which bit-identity needs; `alone` computes each cell by itself.
    `progress` says whether a bar is shown, by default in notebooks where there is no `on_compared`.
    The new stimuli and `comparison.csv` are written to `out`, which must not exist or be empty.

    Raises `RunFolderError`, `ImageError`, `WeightsError`, `DeviceError` or `UsageError`.
    """
    target = Path(out)
    check_new(target)
    run = read_run(run)
    run.check_readable()
    plan, records = run.plan, run.records
    wanted = _chosen(records, cells, where)
    place = choose_device(device)
    for precision in {plan.by_id[stimulus_id].settings.precision for stimulus_id in wanted}:
        check_precision(precision, place)
    assembly = Assembly(run.inputs(inputs), place)
    environment = describe_environment(place, deterministic=True)
    comparisons: list[Comparison] = []
    with storage_errors(target):
        (target / "stimuli").mkdir(parents=True, exist_ok=True)
    with (
        storage_errors(target),
        determinism(True),
        show_progress(on_compared, progress, _as_stimuli) as tell,
    ):
        for batch, kind in _batches(wanted, records, plan.by_id, alone=alone):
            for made in assembly.make(batch):
                record = records[made.cell.id]
                if made.cell.id not in wanted or made.cell.attempt != record.attempt:
                    continue
                write_atomically(target / "stimuli" / made.cell.filename, made.stimulus.png)
                changed = _differences(run.environments.get(record.env_id, {}), environment)
                recorded = run.path / "stimuli" / made.cell.filename
                comparisons.append(_compare(recorded, record, made.stimulus, tolerances, kind, changed))
                if tell is not None:
                    tell(comparisons[-1], len(comparisons), len(wanted))
        write_atomically(target / "comparison.csv", comparison_csv(comparisons))
    return comparisons


def _as_stimuli(show: OnPhase) -> OnCompared:
    return lambda _, done, total: show("stimuli", done, total)


def comparison_csv(comparisons: Sequence[Comparison]) -> bytes:
    """One row a stimulus."""
    frame = pd.DataFrame([dataclasses.asdict(comparison) for comparison in comparisons])
    frame["environment_differs"] = frame["environment_differs"].map("; ".join)
    return csv_bytes(frame)


def _chosen(records: Mapping[str, Record], cells: Sequence[str], where: str | None) -> list[str]:
    """Ids of the complete cells that are asked for, in the order of the plan."""
    complete = [stimulus_id for stimulus_id, record in records.items() if record.status != "failed"]
    for cell in cells:
        if cell not in complete:
            raise RunFolderError(f"the run has no complete stimulus {cell}{did_you_mean(cell, complete)}")
    chosen = [stimulus_id for stimulus_id in complete if not cells or stimulus_id in cells]
    if where is not None:
        chosen = list(select(to_table([records[stimulus_id] for stimulus_id in chosen]), where)["stimulus_id"])
    if not chosen:
        raise UsageError("no complete stimulus is asked for")
    return chosen


def _batches(
    wanted: Sequence[str], records: Mapping[str, Record], cells: Mapping[str, Cell], *, alone: bool
) -> Iterator[tuple[list[Cell], str]]:
    """The batches to compute. One whose company is not complete any more is computed cell by cell."""
    companies: dict[str, dict[int, Cell]] = {}  # by batch and place in it
    for stimulus_id, record in records.items():
        for number, attempt in enumerate(record.attempts, 1):
            company = companies.setdefault(attempt.batch_id, {})
            company[attempt.batch_slot] = cells[stimulus_id].as_recorded(number, record.alpha)
    for batch_id in dict.fromkeys(records[stimulus_id].batch_id for stimulus_id in wanted):
        mine = [stimulus_id for stimulus_id in wanted if records[stimulus_id].batch_id == batch_id]
        company = companies.get(batch_id, {})
        together = {(cell.id, cell.attempt) for cell in company.values()}
        complete = len(company) == records[mine[0]].batch_size
        if not alone and complete and together >= {(one, records[one].attempt) for one in mine}:
            yield [company[slot] for slot in sorted(company)], "recorded"
        else:
            yield from (([cells[one].as_recorded(records[one].attempt, records[one].alpha)], "alone") for one in mine)


def _compare(
    path: Path,
    record: Record,
    stimulus: Stimulus,
    tolerances: Tolerances,
    kind: str,
    changed: tuple[str, ...],
) -> Comparison:
    try:
        before: Values | None = decode_values(read_file(path), path.name)
    except (OSError, UsageError):
        before = None
    if before is not None and values_digest(before) != record.pixel_sha256:
        before = None  # which is not the stimulus of record
    difference = None if before is None else np.abs(before.astype(int) - stimulus.values)
    step = 257 if stimulus.values.dtype == np.uint16 else 1  # of 8 bits
    recorded = record.losses.file.total
    close = recorded is not None and abs(stimulus.measured.total - recorded) <= tolerances.loss * abs(recorded)
    reached = {
        "identical_file": stimulus.file_sha256 == record.file_sha256,
        "identical_pixels": values_digest(stimulus.values) == record.pixel_sha256,
        "pixels_within": difference is not None and difference.max() <= tolerances.pixel * step,
        "losses_within": close,
        "differs": True,
    }
    return Comparison(
        stimulus_id=record.stimulus_id,
        filename=path.name,
        tier=next(tier for tier in TIERS if reached[tier]),
        max_difference=None if difference is None else int(difference.max()),
        changed_fraction=None if difference is None else float((difference > 0).mean()),
        ssim=None if before is None else measure_similarity(to_shown(before, record.settings.encoding), stimulus.shown),
        loss_recorded=recorded,
        loss_again=stimulus.measured.total,
        batch=kind,
        environment_differs=changed,
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> tuple[str, ...]:
    """What differs between two environments, as `packages.torch: 2.11.0 → 2.12.0`."""
    found: list[str] = []
    for key in before.keys() | now.keys():
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}: {one} → {other}")
    return tuple(sorted(found))

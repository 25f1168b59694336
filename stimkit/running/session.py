"""One process's turn at a run folder: what all runs have in common, here, in shards, and on clusters."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from stimkit.planning import cost
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.inputs import PlanInputs, input_files
from stimkit.records.schema import Record
from stimkit.runfolder.derived import rebuild
from stimkit.runfolder.notes import writing_notes
from stimkit.runfolder.run import read_run
from stimkit.runfolder.store import RunStore
from stimkit.running.batching import shard_cells
from stimkit.running.events import EventCounter, OnEvent, RunSummary, noting
from stimkit.running.late_recognition import LateRecognition
from stimkit.running.pending import Pending, Task, find_pending


@dataclass(frozen=True)
class RunOptions:
    """How a plan is carried out; nothing of it is a part of what is made."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    batch_size: int | None = None
    """Cells that are optimized together; by default as many as the device takes."""
    retry_failed: bool = False
    """Whether cells that failed are tried again."""
    deterministic: bool = False
    """Whether the same batches on the same machine give the same bits; docs/explanation/speed.md says what it costs."""
    keep_inputs: bool = False
    """Whether images and weights are copied into the run folder."""


@dataclass(frozen=True)
class Session:
    """What is to be done in a run folder that this process writes."""

    plan: Plan
    store: RunStore
    tasks: tuple[Task, ...]
    counter: EventCounter
    options: RunOptions


def carry_out(
    plan: Plan,
    out: str | Path,
    options: RunOptions,
    on_event: OnEvent | None,
    make: Callable[[Session], str],
    *,
    shard: tuple[int, int] | None = None,
) -> RunSummary:
    """Make the pending cells of a plan, or of one of several shards of it, in a run folder; say what was done.

    `make` makes them, and says on what it did. Whatever ends it, complete cells are kept; tables are written at the
    end, but not by shards. Raises `ProtocolError` where inputs are missing, `RunFolderError` for a folder that is not
    this plan's or that another process writes, `StorageError` where it cannot be written.
    """
    began = time.perf_counter()
    plan.check_complete()
    store = RunStore.create(out, plan)
    cells = plan.cells if shard is None else shard_cells(plan, *shard)
    with store.writing() if shard is None else store.writing_part("{}-of-{}".format(*shard)):
        pending = _begin(store, plan, cells, options, in_turn=shard is not None)
        before = len(cells) - len(pending.tasks)
        records: list[Record] = []
        try:
            with writing_notes(store.path) as note:
                counter = EventCounter(len(cells), before, noting(on_event, note))
                if pending.lost:
                    counter.emit(note=f"{len(pending.lost)} cells are made again: a file of theirs is missing or empty")
                device = make(Session(plan, store, pending.tasks, counter, options))
        finally:
            if shard is None:
                records = rebuild(read_run(store.path))
    if shard is not None:
        records = [store.record(stimulus_id) for stimulus_id in store.completed(cell.id for cell in cells)]
    return summarize_run(
        store.path, len(cells), records, made=counter.made, before=before, seconds=time.perf_counter() - began,
        device=device, has_tables=shard is None,
    )  # fmt: skip


def _begin(store: RunStore, plan: Plan, cells: Iterable[Cell], options: RunOptions, *, in_turn: bool) -> Pending:
    """Write what a run folder says of its plan, judge what is complete; return what is to be done about some cells.

    `in_turn`: others write their parts of the folder at the same time.
    """
    look = LateRecognition(plan, store, options.device).look if plan.recognition else None
    pending = find_pending(store, plan, tuple(cells), retry_failed=options.retry_failed, look=look)
    store.check_space(sum(cost.stimulus_bytes(task.cell.settings) for task in pending.tasks))
    with store.in_turn() if in_turn else nullcontext():
        store.describe(plan)
    if options.keep_inputs:
        store.keep_inputs((file.name, file.read()) for file in input_files(plan, PlanInputs(plan)))
    for record in pending.judged:
        store.rewrite(record)
    return pending


def summarize_run(
    path: Path,
    planned: int,
    records: Iterable[Record],
    *,
    made: int = 0,
    before: int = 0,
    seconds: float = 0.0,
    device: str = "",
    has_tables: bool = True,
) -> RunSummary:
    """Say what a run did to some planned cells, and what became of them by their records."""
    records = list(records)
    return RunSummary(
        path=path,
        planned=planned,
        made=made,
        done_before=before,
        rejected=tuple(record.stimulus_id for record in records if record.status == "rejected"),
        failed=tuple(record.stimulus_id for record in records if record.status == "failed"),
        pending=planned - len(records),
        stop_reasons=dict(Counter(record.stop_reason for record in records if record.evaluations)),
        seconds=seconds,
        device=device,
        has_tables=has_tables,
    )

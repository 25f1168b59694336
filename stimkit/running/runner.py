"""Run a plan in this process: all of it, or one shard of several; then the tables."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from stimkit.errors import UsageError
from stimkit.planning import cost
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.inputs import PlanInputs, input_files
from stimkit.planning.resolved import plan_of
from stimkit.records.record import Attempt, Record
from stimkit.runfolder import derived
from stimkit.runfolder.store import RunStore
from stimkit.running.batching import groups
from stimkit.running.events import Counter, OnEvent, RunSummary
from stimkit.running.maker import Maker
from stimkit.running.pending import judge_again, pending_cells
from stimkit.synthesis.devices import check_precision, choose_device, determinism
from stimkit.synthesis.environment import describe_environment, device_name

SHARD_UNIT = 16  # cells of a group that stay together in a shard, where there are enough of them


def run(
    plan: Plan,
    out: str | Path,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    retry_failed: bool = False,
    deterministic: bool = False,
    keep_inputs: bool = False,
    on_event: OnEvent | None = None,
) -> RunSummary:
    """Make every pending cell of a plan in the run folder `out`, then its tables and contact sheet.

    Cells that the folder already holds are left alone, but judged by the rules of `[accept]` as they are now.
    `deterministic`: the same batches on the same machine give the same bits, see docs/speed.md for what it costs.
    `keep_inputs`: copy images and weights into the run folder. Raises `ProtocolError` where inputs are missing,
    `DeviceError` for a device that is not there, `RunFolderError` for a folder that is not this plan's,
    `StorageError` where it cannot be written. Whatever ends the run early, also an exception raised by
    `on_event`, complete cells are kept and tables written.
    """
    began = time.perf_counter()
    where = checked_device(plan, device)
    store = RunStore.create(out, plan)
    with store.writing():
        pending, attempts = begin(store, plan, plan.cells, retry_failed=retry_failed, keep_inputs=keep_inputs)
        before = len(plan.cells) - len(pending)
        counter = Counter(len(plan.cells), before, on_event)
        try:
            _make(plan, store, where, pending, attempts, batch_size, deterministic, counter)
        finally:
            records = derived.rebuild(store, plan)
    return summary(store, plan, records, counter.made, before, began, f"{where} ({device_name(where)})")


def run_shard(
    plan: Plan,
    out: str | Path,
    shard: tuple[int, int],
    *,
    device: str = "auto",
    batch_size: int | None = None,
    retry_failed: bool = False,
    deterministic: bool = False,
    on_event: OnEvent | None = None,
) -> RunSummary:
    """Make the pending cells of one of several shards, `(number from 1, of how many)`, beside those who make others.

    Which cells are in a shard follows from the plan alone. No tables are made: `collect` does that. Raises what `run`
    does, `RunFolderError` where the same shard is being made already, and `UsageError` for a shard that there is not.
    """
    number, count = shard
    if not 1 <= number <= count:
        raise UsageError(f"there is no shard {number} of {count}; give 1/{count} to {count}/{count}")
    began = time.perf_counter()
    where = checked_device(plan, device)
    store = RunStore.create(out, plan)
    cells = shard_cells(plan, number, count)
    with store.writing_part(f"{number}-of-{count}"):
        pending, attempts = begin(store, plan, cells, retry_failed=retry_failed, in_turn=True)
        before = len(cells) - len(pending)
        counter = Counter(len(cells), before, on_event)
        _make(plan, store, where, pending, attempts, batch_size, deterministic, counter)
    records = [store.record(cell.id) for cell in cells if store.completed([cell.id])]
    return summary(store, plan, records, counter.made, before, began, f"{where} ({device_name(where)})", cells)


def collect(out: str | Path) -> RunSummary:
    """Make the tables and contact sheets of a run folder, such as one that shards were made in.

    Raises `RunFolderError` for a folder that is no run, or that somebody is writing.
    """
    began = time.perf_counter()
    store = RunStore.open(out)
    plan = plan_of(store.lock_contents(), base=store.origin())
    with store.writing():
        records = derived.rebuild(store, plan)
    return summary(store, plan, records, 0, len(records), began, "")


def shard_cells(plan: Plan, number: int, count: int) -> list[Cell]:
    """The cells of a shard: of each group of cells that can share a batch, every `count`-th unit of neighbours."""
    chosen, unit_number = [], 0
    for group in groups(plan.cells).values():
        unit = min(SHARD_UNIT, max(1, -(-len(group) // (4 * count))))
        for start in range(0, len(group), unit):
            if unit_number % count == number - 1:
                chosen += group[start : start + unit]
            unit_number += 1
    return chosen


def checked_device(plan: Plan, device: str) -> torch.device:
    """The device by name, if it can do what a plan asks for.

    Raises `DeviceError` where it is not there or cannot, `ProtocolError` where inputs of the plan are missing.
    """
    plan.check_complete()
    where = choose_device(device)
    for precision in {cell.settings.precision for cell in plan.cells}:
        check_precision(precision, where)
    return where


def begin(
    store: RunStore,
    plan: Plan,
    cells: Sequence[Cell],
    *,
    retry_failed: bool = False,
    keep_inputs: bool = False,
    in_turn: bool = False,
) -> tuple[list[Cell], dict[str, list[Attempt]]]:
    """Write what a run folder says of its plan, judge what is complete; return what is to be made of some cells.

    `in_turn`: others write their parts of the folder at the same time.
    """
    judged_anew = judge_again(store, plan, cells)
    pending, attempts = pending_cells(store, plan, cells, retry_failed=retry_failed, judged_anew=judged_anew)
    store.check_space(sum(cost.stimulus_bytes(cell.settings) for cell in pending))
    with store.in_turn() if in_turn else nullcontext():
        store.describe(plan)
    if keep_inputs:
        store.keep_inputs(input_files(plan, PlanInputs(plan)))
    for record in judged_anew.values():
        store.rewrite(record)
    return pending, attempts


def _make(
    plan: Plan,
    store: RunStore,
    where: torch.device,
    pending: Sequence[Cell],
    attempts: dict[str, list[Attempt]],
    batch_size: int | None,
    deterministic: bool,
    counter: Counter,
) -> None:
    env_id = store.add_environment(describe_environment(where, deterministic=deterministic))
    maker = Maker(plan, store, PlanInputs(plan), where, env_id, batch_size=batch_size, on_news=counter)
    with determinism(deterministic):
        maker.make(pending, attempts)


def summary(
    store: RunStore,
    plan: Plan,
    records: Sequence[Record],
    made: int,
    before: int,
    began: float,
    device: str,
    cells: Sequence[Cell] | None = None,
) -> RunSummary:
    """Say what a run did to some of the cells of a plan, and what became of them."""
    planned = len(plan.cells if cells is None else cells)
    return RunSummary(
        path=store.path,
        planned=planned,
        made=made,
        done_before=before,
        rejected=tuple(record["stimulus_id"] for record in records if record["status"] == "rejected"),
        failed=tuple(record["stimulus_id"] for record in records if record["status"] == "failed"),
        pending=planned - len(records),
        stop_reasons=_count(record["stop_reason"] for record in records if record["evaluations"]),
        seconds=time.perf_counter() - began,
        device=device,
        has_tables=cells is None,
    )


def _count(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts

"""Run a plan in this process: all of it, or one shard of several; then the tables."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from stimkit.errors import UsageError
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.runfolder.derived import rebuild
from stimkit.runfolder.run import read_run
from stimkit.running.events import OnEvent, RunSummary, shown_run
from stimkit.running.maker import Maker
from stimkit.running.session import RunOptions, Session, carry_out, summarize_run
from stimkit.synthesis.devices import check_precision, choose_device, determinism
from stimkit.synthesis.environment import describe_environment, device_name


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
    progress: bool | None = None,
) -> RunSummary:
    """Make every pending cell of a plan in the run folder `out`, then its tables and contact sheet.

    >>> summary = stimkit.run(stimkit.plan("protocols/quickstart.toml"), "runs/quickstart")
    >>> summary.made, summary.failed
    (8, ())

    Cells that the folder already holds are left alone, but judged by the rules of `[accept]` as they are now.
    The options are those of `RunOptions`. Raises `ProtocolError` where inputs are missing, `DeviceError` for a device
    that is not there, `RunFolderError` for a folder that is not this plan's, `StorageError` where it cannot be written.
    Whatever ends the run early, also an exception raised by `on_event`, complete cells are kept and tables written.
    `progress` says whether a bar is shown, by default in notebooks where there is no `on_event`.
    """
    options = RunOptions(device, batch_size, retry_failed, deterministic, keep_inputs)
    with shown_run(on_event, progress) as tell:
        return run_here(plan, out, options, tell)


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
    progress: bool | None = None,
) -> RunSummary:
    """Make the pending cells of one of several shards, `(number from 1, of how many)`, beside those who make others.

    >>> plan = stimkit.plan("protocols/quickstart.toml")
    >>> for number in (1, 2):
    ...     summary = stimkit.run_shard(plan, "runs/in-shards", (number, 2))
    >>> stimkit.collect("runs/in-shards").pending
    0

    Which cells are in a shard follows from the plan alone. No tables are made: `collect` does that. Raises what `run`
    does, `RunFolderError` where the same shard is being made already, and `UsageError` for a shard that does not exist.
    """
    options = RunOptions(device, batch_size, retry_failed, deterministic)
    with shown_run(on_event, progress) as tell:
        return run_here(plan, out, options, tell, shard=shard)


def run_here(
    plan: Plan,
    out: str | Path,
    options: RunOptions,
    on_event: OnEvent | None = None,
    *,
    shard: tuple[int, int] | None = None,
) -> RunSummary:
    """Make a plan, or a shard of it, in this process; see `run` and `run_shard`."""
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise UsageError(f"there is no shard {shard[0]} of {shard[1]}; give 1/{shard[1]} to {shard[1]}/{shard[1]}")
    device = checked_device(plan, options.device)
    return carry_out(plan, out, options, on_event, lambda session: _make(session, device), shard=shard)


def _make(session: Session, device: torch.device) -> str:
    store, options = session.store, session.options
    env_id = store.add_environment(describe_environment(device, deterministic=options.deterministic))
    maker = Maker(session.plan, store, PlanInputs(session.plan), device, env_id)
    with determinism(options.deterministic):
        maker.tell_dominance(session.tasks, session.counter)
        maker.make(session.tasks, session.counter, batch_size=options.batch_size)
    return f"{device} ({device_name(device)})"


def collect(out: str | Path) -> RunSummary:
    """Make the tables and contact sheets of a run folder, such as one that shards were made in.

    >>> stimkit.collect("runs/quickstart").has_tables
    True

    Raises `RunFolderError` for a folder that is not a run folder, or that another process writes.
    """
    began = time.perf_counter()
    store = read_run(out).store
    with store.writing():
        found = read_run(out)
        records = rebuild(found)
    seconds = time.perf_counter() - began
    return summarize_run(found.path, len(found.planned), records, before=len(records), seconds=seconds)


def checked_device(plan: Plan, name: str) -> torch.device:
    """Choose the device of that name. Raises `DeviceError` where it cannot do what the cells of a plan ask for."""
    device = choose_device(name)
    for precision in {cell.settings.precision for cell in plan.cells}:
        check_precision(precision, device)
    return device

"""Run a plan: batches of pending cells, optimized, measured, committed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from stimkit import __version__, cost, derived
from stimkit.batch import Assembly
from stimkit.cells import Cell, Plan
from stimkit.environment import describe_environment, device_name
from stimkit.errors import DeviceError
from stimkit.inputs import PlanInputs, input_files
from stimkit.layers import deepest
from stimkit.precision import check_precision, choose_device, determinism
from stimkit.record import DEGREES, Attempt, Execution, Record, judged, make_record, request
from stimkit.search import Progress
from stimkit.settings import Settings
from stimkit.stimulus import Stimulus, finish
from stimkit.store import RunStore
from stimkit.synthesis import Synthesis, synthesize_batch
from stimkit.titration import titrate, titrated_value

MAX_BATCH = {"cpu": 16, "cuda": 256, "mps": 32}
CPU_BATCH_PIXELS = 256 * 256  # beyond this a larger batch does not make better use of a CPU
MEMORY_SHARE = 0.6  # of the free memory that a batch may take


@dataclass(frozen=True)
class Event:
    """What happened in a run: a cell was committed, or a batch moved on."""

    done: int
    total: int
    record: Record | None = None
    progress: Progress | None = None
    batch_size: int = 0

    @property
    def share(self) -> float:
        """How many cells' worth of work the current batch has done."""
        if self.progress is None:
            return 0.0
        return self.batch_size * self.progress.evaluation / self.progress.max_evaluations


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class RunSummary:
    """What a run did and what the folder holds now."""

    path: Path
    planned: int
    made: int
    done_before: int
    rejected: tuple[str, ...]
    failed: tuple[str, ...]
    stop_reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "cpu"


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
    plan.check_complete()
    where = choose_device(device)
    for precision in {cell.settings.precision for cell in plan.cells}:
        check_precision(precision, where)
    store = RunStore.create(out, plan)
    began = time.perf_counter()
    with store.writing():
        judged_anew = _judge_again(store, plan)
        pending, attempts = _pending(store, plan, judged_anew, retry_failed=retry_failed)
        store.check_space(sum(cost.stimulus_bytes(cell.settings) for cell in pending))
        env_id = store.describe(plan, describe_environment(where, deterministic=deterministic))
        if keep_inputs:
            store.keep_inputs(input_files(plan, PlanInputs(plan)))
        worker = _Worker(plan, store, where, env_id, batch_size, on_event, attempts, len(plan.cells) - len(pending))
        try:
            for record in judged_anew.values():
                store.rewrite(record)
            with determinism(deterministic):
                worker.run(pending)
        finally:
            records = derived.rebuild(store, plan)
    return RunSummary(
        path=store.path,
        planned=len(plan.cells),
        made=worker.made,
        done_before=len(plan.cells) - len(pending),
        rejected=tuple(record["stimulus_id"] for record in records if record["status"] == "rejected"),
        failed=tuple(record["stimulus_id"] for record in records if record["status"] == "failed"),
        stop_reasons=_count(record["stop_reason"] for record in records),
        seconds=time.perf_counter() - began,
        device=f"{where} ({device_name(where)})",
    )


def _judge_again(store: RunStore, plan: Plan) -> dict[str, Record]:
    """Records of complete stimuli whose status is another one by the rules as they are now."""
    changed = {}
    for stimulus_id in store.completed() & plan.by_id.keys():
        record = store.record(stimulus_id)
        # What the id does not depend on may be another now: attributes, pixels per degree, whose control it is.
        cell = plan.by_id[stimulus_id].as_recorded(record)
        status = {**request(cell, plan), **dict(zip(DEGREES, cell.settings.degrees or (None, None), strict=True))}
        status["filename"] = cell.filename
        if record["status"] != "failed":
            status |= judged({**record, **status}, plan)
        if any(record[key] != value for key, value in status.items()):
            *earlier, last = record["attempts"]
            anew = {**record, **status}
            attempts = [*earlier, {**last, "status_reason": anew["status_reason"]}]
            changed[stimulus_id] = {**anew, "attempts": attempts}
    return changed


def _pending(
    store: RunStore, plan: Plan, judged_anew: Mapping[str, Record], *, retry_failed: bool
) -> tuple[list[Cell], dict[str, list[Attempt]]]:
    """The cells to make, each at its next attempt, and the attempts before that.

    A complete cell is made again where its stimulus is not accepted and tries are left.
    """
    pending, attempts = [], {}
    complete = store.completed()
    for cell in plan.cells:
        if cell.id not in complete:
            pending.append(cell)
            continue
        record = judged_anew.get(cell.id) or store.record(cell.id)
        tried = len(record["attempts"])
        if record["status"] != "accepted" and tried <= plan.protocol.accept.retries:
            pending.append(cell.at_attempt(tried + 1))
            attempts[cell.id] = record["attempts"]
        elif retry_failed and record["status"] == "failed":
            pending.append(cell)
    return pending, attempts


def _count(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


Kind = tuple[Settings, str, bool]


def groups(cells: Iterable[Cell]) -> dict[Kind, list[Cell]]:
    """Cells that can share a batch (same settings, same deepest layer, all with or all without a mask), in order."""
    found: dict[Kind, list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.settings, deepest(cell.layers).name, cell.mask is not None), []).append(cell)
    return found


def choose_batch_size(settings: Settings, deepest_layer: str, device: torch.device) -> int:
    """Largest batch that the memory model says fits the device, and that it makes good use of."""
    limit = MAX_BATCH[device.type]
    if device.type == "cpu":
        return max(1, min(limit, CPU_BATCH_PIXELS // (settings.height * settings.width)))
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 4e9
    return max(1, min(limit, int(MEMORY_SHARE * free / cost.cell_bytes(deepest_layer, settings))))


class _Worker:
    """Networks, targets and images of one run on one device; each is made once and reused."""

    def __init__(
        self,
        plan: Plan,
        store: RunStore,
        device: torch.device,
        env_id: str,
        batch_size: int | None,
        on_event: OnEvent | None,
        attempts: dict[str, list[Attempt]],
        done: int,
    ) -> None:
        self._plan, self._store, self._device, self._env_id = plan, store, device, env_id
        self._batch_size, self._on_event, self._done = batch_size, on_event, done
        self._attempts = attempts  # those before the next one, of cells that were tried already
        self._inputs = PlanInputs(plan)
        self._assembly = Assembly(self._inputs, device)
        self.made = 0

    def run(self, cells: Sequence[Cell]) -> None:
        try:
            for (settings, last, _), group in groups(cells).items():
                self._run_group(group, self._batch_size or choose_batch_size(settings, last, self._device))
        except torch.AcceleratorError as error:
            raise DeviceError(
                f"{self._device} failed: {str(error).splitlines()[0]}; complete cells are kept, run again to go on"
            ) from error

    def _run_group(self, pending: list[Cell], size: int) -> None:
        """Run cells in batches; where the device has too little memory for one, in smaller ones from then on.

        Cells that are not accepted and have tries left join the next batch.
        """
        while pending:
            batch = pending[:size]
            again = self._tried(batch)
            if again is not None:
                pending = [*again, *pending[len(batch) :]]
            elif len(batch) > 1:
                size = (len(batch) + 1) // 2
            else:
                height, width = batch[0].settings.size
                raise DeviceError(
                    f"{self._device} has too little memory for one cell of {height} × {width} px;"
                    " use a smaller size or --device cpu"
                )

    def _tried(self, batch: list[Cell]) -> list[Cell] | None:
        """Run a batch and return the cells to try again; None if the device has too little memory for it."""
        try:
            return self._run_batch(batch)
        except torch.OutOfMemoryError:
            pass
        torch.cuda.empty_cache()  # only now: the exception held on to the tensors
        return None

    def _run_batch(self, batch: list[Cell]) -> list[Cell]:
        if batch[0].settings.titrate != "none":
            batch = titrate(batch, self._assembly, self._inputs, self._report(len(batch)))
        assembled = self._assembly.batch(batch)
        began = time.perf_counter()
        results = synthesize_batch(assembled, self._report(len(batch)))
        self._remember_rate(batch, results, time.perf_counter() - began)
        digests = [hashlib.sha256(one.float().cpu().numpy().tobytes()).hexdigest() for one in assembled.initial]
        return self._commit(batch, results, finish(results, assembled), digests)

    def _commit(
        self,
        batch: list[Cell],
        results: Sequence[Synthesis],
        stimuli: Sequence[Stimulus],
        digests: list[str],
    ) -> list[Cell]:
        """Commit the cells of a batch, but for those to try again, which are returned at their next attempt."""
        again = []
        names = "".join(cell.id if cell.attempt == 1 else f"{cell.id}.{cell.attempt}" for cell in batch)
        batch_id = "b" + hashlib.sha256(names.encode()).hexdigest()[:8]
        for slot, (cell, synthesis, stimulus) in enumerate(zip(batch, results, stimuli, strict=True)):
            execution = Execution(
                str(self._device), batch_id, len(batch), slot, __version__, torch.__version__, self._env_id
            )
            earlier = self._attempts.pop(cell.id, [])
            missed = None
            if cell.settings.titrate != "none":
                missed = titrated_value(cell, synthesis, stimulus, self._inputs) - cell.settings.titrate_value
            record = make_record(cell, self._plan, synthesis, stimulus, digests[slot], execution, earlier, missed)
            if record["status"] != "accepted" and cell.attempt <= self._plan.protocol.accept.retries:
                self._attempts[cell.id] = record["attempts"]
                again.append(cell.at_attempt(cell.attempt + 1))
                continue
            self._store.commit(record, stimulus.png, synthesis.trace)
            self._done, self.made = self._done + 1, self.made + 1
            self._emit(Event(self._done, len(self._plan.cells), record=record, batch_size=len(batch)))
        return again

    def _report(self, size: int) -> Callable[[Progress], None]:
        return lambda progress: self._emit(Event(self._done, len(self._plan.cells), progress=progress, batch_size=size))

    def _emit(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def _remember_rate(self, batch: list[Cell], results: Sequence[Synthesis], seconds: float) -> None:
        settings = batch[0].settings
        flops = sum(
            one.evaluations * cost.evaluation_flops(cell.layers, [name for name, _ in cell.style_layers], settings.size)
            for cell, one in zip(batch, results, strict=True)
        )
        if seconds > 1:
            cost.remember_rate(self._device.type, settings.precision, flops / seconds)

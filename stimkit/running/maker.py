"""Make cells on one device: batches that are assembled, optimized, measured and committed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch

from stimkit import __version__
from stimkit.errors import DeviceError
from stimkit.network.layers import deepest
from stimkit.planning import cost
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.inputs import Inputs
from stimkit.protocol.settings import Settings
from stimkit.records.record import Attempt, Execution, Record, make_record
from stimkit.runfolder.store import RunStore
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.stimulus import Stimulus, finish
from stimkit.stimuli.titration import titrate, titrated_value
from stimkit.synthesis.minimization import Progress
from stimkit.synthesis.synthesis import Synthesis, synthesize_batch

MAX_BATCH = {"cpu": 16, "cuda": 256, "mps": 32}
CPU_BATCH_PIXELS = 256 * 256  # beyond this a larger batch does not make better use of a CPU
MAX_ELEMENTS = 2**31 - 1  # of a feature map: convolutions on GPUs count them in 32 bits
MEMORY_SHARE = 0.6  # of the free memory that a batch may take


@dataclass(frozen=True)
class Committed:
    """A cell was committed."""

    record: Record


@dataclass(frozen=True)
class Running:
    """A batch moved on."""

    progress: Progress
    batch_size: int

    @property
    def share(self) -> float:
        """How many cells' worth of work the batch has done."""
        return self.batch_size * self.progress.evaluation / self.progress.max_evaluations


News = Committed | Running


Kind = tuple[Settings, str, bool]


def groups(cells: Iterable[Cell]) -> dict[Kind, list[Cell]]:
    """Cells that can share a batch (same settings, same deepest layer, all with or all without a mask), in order."""
    found: dict[Kind, list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.settings, deepest(cell.layers).name, cell.mask is not None), []).append(cell)
    return found


def choose_batch_size(settings: Settings, deepest_layer: str, device: torch.device) -> int:
    """Largest batch that the memory model says fits the device, and that it makes good use of."""
    limit = min(MAX_BATCH[device.type], MAX_ELEMENTS // (64 * settings.height * settings.width))
    if device.type == "cpu":
        return max(1, min(limit, CPU_BATCH_PIXELS // (settings.height * settings.width)))
    free = 4e9
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps for reuse counts as taken
        free = torch.cuda.mem_get_info(device)[0]
    return max(1, min(limit, int(MEMORY_SHARE * free / cost.cell_bytes(deepest_layer, settings))))


class Maker:
    """Makes cells of a plan on one device; networks, targets and images are made once and reused."""

    def __init__(
        self,
        plan: Plan,
        store: RunStore,
        inputs: Inputs,
        device: torch.device,
        env_id: str,
        *,
        batch_size: int | None = None,
        on_news: Callable[[News], None] = lambda news: None,
    ) -> None:
        self._plan, self._store, self._device, self._env_id = plan, store, device, env_id
        self.batch_size, self.on_news = batch_size, on_news
        self._attempts: dict[str, list[Attempt]] = {}  # those before the next one, of cells that were tried already
        self._replaced: set[str] = set()  # cells that were complete before and are made again
        self._inputs = inputs
        self._assembly = Assembly(inputs, device)

    def make(self, cells: Sequence[Cell], attempts: Mapping[str, list[Attempt]] = {}) -> None:
        """Make cells and commit them; `attempts` are those before, of cells that are tried again.

        Raises `DeviceError` where the device fails or has too little memory for a single cell.
        """
        self._attempts = dict(attempts)
        self._replaced = self._store.completed(cell.id for cell in cells)
        try:
            for (settings, last, _), group in groups(cells).items():
                self._run_group(group, self.batch_size or choose_batch_size(settings, last, self._device))
        except torch.AcceleratorError as error:
            raise DeviceError(
                f"{self._device} failed: {str(error).splitlines()[0]}; complete cells are kept, run again to go on"
            ) from error

    def _run_group(self, pending: list[Cell], size: int) -> None:
        """Run cells in batches; where the device has too little memory for one, in smaller ones from then on.

        Cells that are not accepted and have tries left join the next batch.
        """
        while pending:
            batch = [cell for cell in pending[:size] if self._to_do(cell)]
            again = self._tried(batch) if batch else []
            if again is not None:
                pending = [*again, *pending[size:]]
            elif len(batch) > 1:
                size = (len(batch) + 1) // 2
            else:
                height, width = batch[0].settings.size
                raise DeviceError(
                    f"{self._device} has too little memory for one cell of {height} × {width} px;"
                    " use a smaller size or --device cpu"
                )

    def _to_do(self, cell: Cell) -> bool:
        """Whether a cell is still to be made, or another process has committed it meanwhile."""
        return cell.id in self._replaced or not self._store.completed([cell.id])

    def _tried(self, batch: list[Cell]) -> list[Cell] | None:
        """Run a batch and return the cells to try again; None if the device has too little memory for it."""
        try:
            return self._run_batch(batch)
        except torch.OutOfMemoryError:
            pass
        with suppress(RuntimeError):  # raised where a recording was under way; batches get smaller all the same
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
            with self._store.committing():
                if self._to_do(cell):
                    self._store.commit(record, stimulus.png, synthesis.trace)
            self.on_news(Committed(record))
        return again

    def _report(self, size: int) -> Callable[[Progress], None]:
        return lambda progress: self.on_news(Running(progress, size))

    def _remember_rate(self, batch: list[Cell], results: Sequence[Synthesis], seconds: float) -> None:
        settings = batch[0].settings
        flops = sum(
            one.evaluations * cost.evaluation_flops(cell.layers, [name for name, _ in cell.style_layers], settings.size)
            for cell, one in zip(batch, results, strict=True)
        )
        if seconds > 1:
            cost.remember_rate(self._device.type, settings.precision, flops / seconds)

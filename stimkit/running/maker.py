"""Make cells on one device: batches that are assembled, optimized, measured and committed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch

from stimkit.errors import DeviceError
from stimkit.planning import cost
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.inputs import Inputs
from stimkit.records.record import Attempt, Execution, make_record
from stimkit.runfolder.store import RunStore
from stimkit.running.batching import choose_batch_size, groups
from stimkit.running.events import Committed, News, Running
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.stimulus import Made
from stimkit.stimuli.titration import titrate
from stimkit.synthesis.minimization import Progress
from stimkit.version import __version__


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
        report = self._report(len(batch))
        titrated = batch[0].settings.titrate != "none"
        made = titrate(batch, self._assembly, report) if titrated else self._assembly.make(batch, report)
        self._remember_rate(made)
        return self._commit(made)

    def _commit(self, batch: Sequence[Made]) -> list[Cell]:
        """Commit the cells of a batch, but for those to try again, which are returned at their next attempt."""
        again = []
        cells = [made.cell for made in batch]
        names = "".join(cell.id if cell.attempt == 1 else f"{cell.id}.{cell.attempt}" for cell in cells)
        batch_id = "b" + hashlib.sha256(names.encode()).hexdigest()[:8]
        for slot, made in enumerate(batch):
            cell = made.cell
            execution = Execution(
                str(self._device), batch_id, len(batch), slot, __version__, torch.__version__, self._env_id
            )
            record = make_record(made, self._plan, execution, self._attempts.pop(cell.id, []))
            if record["status"] != "accepted" and cell.attempt <= self._plan.protocol.accept.retries:
                self._attempts[cell.id] = record["attempts"]
                again.append(cell.at_attempt(cell.attempt + 1))
                continue
            with self._store.committing():
                if self._to_do(cell):
                    self._store.commit(record, made.stimulus.png, made.synthesis.trace)
            self.on_news(Committed(record))
        return again

    def _report(self, size: int) -> Callable[[Progress], None]:
        return lambda progress: self.on_news(Running(progress, size))

    def _remember_rate(self, batch: Sequence[Made]) -> None:
        settings = batch[0].cell.settings
        flops = sum(
            made.synthesis.evaluations
            * cost.evaluation_flops(made.cell.layers, [name for name, _ in made.cell.style_layers], settings.size)
            for made in batch
        )
        seconds = sum(made.synthesis.seconds for made in batch)
        if seconds > 1:
            cost.remember_rate(self._device.type, settings.precision, flops / seconds)

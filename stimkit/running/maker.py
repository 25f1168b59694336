"""Make cells on one device: batches that are assembled, optimized, measured and committed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch

from stimkit.errors import DeviceError
from stimkit.planning import cost
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import InputSource
from stimkit.records.record import Execution, make_record
from stimkit.runfolder.store import RunStore
from stimkit.running.batching import choose_batch_size, group_cells
from stimkit.running.events import Committed, News, Outcome, Running, Told
from stimkit.running.pending import Task
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.recognition import recognizer_of
from stimkit.stimuli.stimulus import Made
from stimkit.stimuli.titration import titrate
from stimkit.synthesis.minimization import Progress
from stimkit.version import __version__

MOST_LOOKED_AT = 20  # cells whose losses are looked at before a run, each in the time of an evaluation
OnNews = Callable[[News], None]


class Maker:
    """Makes cells of a plan on one device; networks, targets and images are made once and reused."""

    def __init__(self, plan: Plan, store: RunStore, inputs: InputSource, device: torch.device, env_id: str) -> None:
        self._plan, self._store, self._device, self._env_id = plan, store, device, env_id
        recognizer = recognizer_of(plan, device)
        self._assembly = Assembly(inputs, device, recognizer.recognize if recognizer else None)

    def tell_dominance(self, tasks: Sequence[Task], on_news: OnNews) -> None:
        """Say which losses are those of one layer or filter, before hours are spent on them."""
        cells = [task.cell for task in tasks]
        styles = {
            (cell.style, cell.mask, cell.style_layers, cell.settings): cell
            for cell in cells
            if cell.style and cell.beta > 0
        }
        contents = {
            (cell.content, cell.content_layers, cell.settings): cell
            for cell in cells
            if cell.content and cell.alpha > 0
        }
        chosen = {cell.id: cell for cell in (*styles.values(), *contents.values())}
        found = (words for cell in list(chosen.values())[:MOST_LOOKED_AT] for words in self._assembly.dominance(cell))
        with suppress(torch.OutOfMemoryError):  # which is told when the cells are made
            for words in dict.fromkeys(found):
                on_news(Told(f"note: {words}"))

    def make(self, tasks: Sequence[Task], on_news: OnNews, *, batch_size: int | None = None) -> None:
        """Make cells and commit them, in batches of a size, or as large as the device takes them.

        Raises `DeviceError` where the device fails or has too little memory for a single cell.
        """
        task_of = {task.cell.id: task for task in tasks}
        try:
            for (settings, last, *_), cells in group_cells(task.cell for task in tasks).items():
                size = batch_size or choose_batch_size(settings, last, self._device)
                self._make_group([task_of[cell.id] for cell in cells], size, on_news)
        except torch.AcceleratorError as error:
            raise DeviceError(
                f"{self._device} failed: {str(error).splitlines()[0]}; complete cells are kept, run again to go on"
            ) from error

    def _make_group(self, pending: list[Task], size: int, on_news: OnNews) -> None:
        """Make cells in batches; where the device has too little memory for one, in smaller ones from then on.

        Cells that are not accepted and have tries left join the next batch.
        """
        while pending:
            batch = [task for task in pending[:size] if self._is_open(task)]
            again = self._try_batch(batch, on_news) if batch else []
            if again is not None:
                pending = [*again, *pending[size:]]
            elif len(batch) > 1:
                size = (len(batch) + 1) // 2
            else:
                height, width = batch[0].cell.settings.size
                raise DeviceError(
                    f"{self._device} has too little memory for one cell of {height} × {width} px;"
                    " use a smaller size or --device cpu"
                )

    def _is_open(self, task: Task) -> bool:
        """Whether a cell is still to be made; another process may have committed it, or made it again, meanwhile."""
        if not self._store.completed([task.cell.id]):
            return True
        record = self._store.record(task.cell.id)
        return task.replaces == (record.attempt, record.file_sha256)

    def _try_batch(self, batch: list[Task], on_news: OnNews) -> list[Task] | None:
        """Make a batch and return the cells to try again; None if the device has too little memory for it."""
        try:
            return self._make_batch(batch, on_news)
        except torch.OutOfMemoryError:
            pass
        with suppress(RuntimeError):  # raised where a recording was under way; batches get smaller all the same
            torch.cuda.empty_cache()  # only now: the exception held on to the tensors
        return None

    def _make_batch(self, batch: list[Task], on_news: OnNews) -> list[Task]:
        def report(progress: Progress) -> None:
            on_news(Running(progress, len(batch)))

        cells = [task.cell for task in batch]
        titrated = cells[0].settings.titrate != "none"
        made = titrate(cells, self._assembly, report) if titrated else self._assembly.make(cells, report)
        self._remember_rate(made)
        return self._commit(batch, made, on_news)

    def _commit(self, batch: Sequence[Task], made: Sequence[Made], on_news: OnNews) -> list[Task]:
        """Commit the cells of a batch, but for those to try again, which are returned at their next attempt."""
        again = []
        names = "".join(one.cell.id if one.cell.attempt == 1 else f"{one.cell.id}.{one.cell.attempt}" for one in made)
        batch_id = "b" + hashlib.sha256(names.encode()).hexdigest()[:8]
        for slot, (task, one) in enumerate(zip(batch, made, strict=True)):
            cell = one.cell
            execution = Execution(
                str(self._device), batch_id, len(batch), slot, __version__, torch.__version__, self._env_id
            )
            record = make_record(one, self._plan, execution, task.earlier)
            if record.status != "accepted" and cell.attempt <= self._plan.protocol.accept.retries:
                again.append(replace(task, cell=cell.at_attempt(cell.attempt + 1), earlier=record.attempts))
                continue
            with self._store.committing():
                if self._is_open(task):
                    self._store.commit(record, one.stimulus.png, one.synthesis.trace)
                else:
                    record = self._store.record(cell.id)
            on_news(Committed(Outcome.of(record)))
        return again

    def _remember_rate(self, batch: Sequence[Made]) -> None:
        settings = batch[0].cell.settings
        flops = sum(
            made.synthesis.work
            * cost.evaluation_flops(
                made.cell.layers, [name for name, _ in made.cell.style_layers], settings.size, settings.network
            )
            for made in batch
        )
        seconds = sum(made.synthesis.seconds for made in batch)
        if seconds > 1:
            cost.remember_rate(self._device.type, settings, torch.get_num_threads(), flops / seconds)

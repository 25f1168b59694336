"""How far a command is: bars on a terminal, lines in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from stimkit.cli.terminal import err, visible
from stimkit.documents.progress import OnPhase, phase_bars

if TYPE_CHECKING:
    from stimkit.runfolder.notes import ProgressNote
    from stimkit.running.events import Clock, Event, OnEvent

MAX_RUNNING = 2  # batches whose state is shown
LINE_EVERY = 30.0  # seconds between lines of a run where there is no terminal


def duration(seconds: float) -> str:
    """Write a time span in words: 42 s, 3 min 10 s, 5 h 20 min."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def run_display(device: str, total: int) -> Iterator[OnEvent]:
    """Yield a callback for `run`: a live display on a terminal, a line a cell elsewhere."""
    from stimkit.running.events import Clock

    clock = Clock()
    if not err.is_terminal:
        yield LinePrinter(clock)
        return
    name, state = TextColumn("{task.description}"), TextColumn("{task.fields[state]}")
    with Progress(SpinnerColumn(), name, BarColumn(bar_width=20), state, console=err, transient=True) as progress:
        task = progress.add_task(device, total=total, state="")

        def show(event: Event) -> None:
            if event.note:
                err.print(event.note)
            parts = [f"{event.done}/{event.total} cells"]
            for one in event.running[:MAX_RUNNING]:
                parts.append(f"evaluation {one.progress.evaluation}/{one.progress.max_evaluations}")
                if math.isfinite(one.progress.relative_loss):
                    parts.append(f"loss × {one.progress.relative_loss:.1e}")
            if len(event.running) > MAX_RUNNING:
                parts.append(f"{len(event.running)} workers")
            parts.append(f"{duration(clock.left(event))} left")
            progress.update(task, total=event.total, completed=event.done + event.share, state=" · ".join(parts))

        yield show


class LinePrinter:
    """Prints a line for each cell, and between them how far batches are, for logs that somebody watches."""

    def __init__(self, clock: Clock, now: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._now, self._last = clock, now, now()

    def __call__(self, event: Event) -> None:
        """Print what is new, or has been silent for `LINE_EVERY` seconds."""
        left = duration(self._clock.left(event))
        if event.note:
            err.print(event.note)
        if cell := event.outcome:
            state = "" if cell.status == "accepted" else f"  {cell.status.upper()}: {cell.status_reason}"
            coarse = f" after {cell.coarse_evaluations} coarse ones" if cell.coarse_evaluations else ""
            err.print(
                f"[{event.done}/{event.total}] {cell.filename}  total loss {short_number(cell.total_loss)}"
                f"  {cell.evaluations} evaluations{coarse} ({cell.stop_reason})  {left} left{state}"
            )
        elif event.running and self._now() - self._last >= LINE_EVERY:
            progress = event.running[0].progress
            cells = sum(batch.batch_size for batch in event.running)
            err.print(
                f"[{event.done}/{event.total}] {cells} cells at evaluation {progress.evaluation} of at most"
                f" {progress.max_evaluations}  {left} left"
            )
        else:
            return
        self._last = self._now()


def short_number(value: float | None) -> str:
    """Write a number with four digits, and a dash where there is none."""
    return "-" if value is None else f"{value:.4g}"


@contextmanager
def phases() -> Iterator[OnPhase]:
    """Yield a callback for `phase, done, total`: a bar for each phase on a terminal, nothing elsewhere."""
    if err.is_terminal:
        with phase_bars(err) as show:
            yield show
    else:
        yield lambda phase, done, total: None


def watch_run(run: Path, every: float = 2.0) -> None:
    """Show how far a run folder is until nothing is pending: one line that is renewed on a terminal, else one a change.

    It ends as well where nobody writes the folder any more.
    """
    from stimkit.runfolder.notes import read_notes
    from stimkit.runfolder.run import read_run, summarize_state

    last = ""
    with Live(console=err, auto_refresh=False, transient=True) if err.is_terminal else nullcontext() as live:
        while True:
            began = time.monotonic()
            state, notes = summarize_state(read_run(run)), read_notes(run)
            made = state.planned - len(state.pending)
            words = [f"{made}/{state.planned} cells", *(_note_in_words(note) for note in notes)]
            words.append(f"written by {state.writer}" if state.writer else "no process is writing it")
            line = " · ".join(words)
            if live is not None:
                live.update(Text(visible(line), no_wrap=True, overflow="ellipsis"), refresh=True)
            elif line != last:
                err.print(line)
            last = line
            if not state.pending or not state.writer:
                return
            time.sleep(max(every, 5 * (time.monotonic() - began)))  # a large folder takes a while to read


def _note_in_words(note: ProgressNote) -> str:
    words = [] if note.evaluation is None else [f"evaluation {note.evaluation}/{note.max_evaluations}"]
    if note.relative_loss is not None:
        words.append(f"loss × {note.relative_loss:.1e}")
    return ", ".join([*words, f"{duration(math.inf if note.seconds_left is None else note.seconds_left)} left"])

"""What happens in a run, as events for those who watch it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from stimkit.documents.notebooks import html_of, html_pairs
from stimkit.documents.progress import OnPhase, show_progress
from stimkit.records.schema import Record
from stimkit.runfolder.notes import ProgressNote
from stimkit.synthesis.minimization import Progress


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: the parts of its record that watchers see."""

    stimulus_id: str
    filename: str
    status: str
    status_reason: str
    stop_reason: str
    evaluations: int
    """At the size of the stimulus."""
    coarse_evaluations: int
    """At smaller sizes, before."""
    total_loss: float | None
    """Of the file."""

    @classmethod
    def of(cls, record: Record) -> Self:
        """The outcome that a record tells."""
        return cls(
            stimulus_id=record.stimulus_id,
            filename=record.filename,
            status=record.status,
            status_reason=record.status_reason,
            stop_reason=record.stop_reason,
            evaluations=record.evaluations,
            coarse_evaluations=sum(record.coarse_evaluations_listed),
            total_loss=record.losses.file.total,
        )


@dataclass(frozen=True)
class Committed:
    """A cell was committed."""

    outcome: Outcome


@dataclass(frozen=True)
class Running:
    """A batch moved on."""

    progress: Progress
    batch_size: int

    @property
    def share(self) -> float:
        """How many cells' worth of work the batch has done."""
        return self.batch_size * self.progress.evaluation / self.progress.max_evaluations


@dataclass(frozen=True)
class Told:
    """Something that is worth saying before a batch begins."""

    note: str


News = Committed | Running | Told


@dataclass(frozen=True)
class Event:
    """What happened in a run: a cell was committed, or a batch moved on."""

    done: int
    total: int
    outcome: Outcome | None = None
    """Of the cell that was committed."""
    running: tuple[Running, ...] = ()
    """Batches that are under way."""
    note: str = ""
    """Anything else that is worth saying."""

    @property
    def share(self) -> float:
        """How many cells' worth of work has been done in batches that are under way."""
        return sum(batch.share for batch in self.running)


OnEvent = Callable[[Event], None]


class Clock:
    """Time left, from the share of this command's work that is done."""

    def __init__(self) -> None:
        self._began, self._before, self._part = time.perf_counter(), -1, 0.0

    def left(self, event: Event) -> float:
        """Seconds; infinite as long as nothing is done."""
        if self._before < 0:
            self._before = event.done - (event.outcome is not None)
        part = min(1.0, (event.done - self._before + event.share) / (event.total - self._before))
        self._part = max(self._part, part)  # of a batch that is committed cell by cell, the others are done as well
        elapsed = time.perf_counter() - self._began
        return elapsed * (1 - self._part) / self._part if self._part > 0 else math.inf


def noting(on_event: OnEvent | None, note: Callable[[ProgressNote], None]) -> OnEvent:
    """A callback that keeps a note of how far the run is, and then calls another one."""
    clock = Clock()

    def tell(event: Event) -> None:
        first = event.running[0].progress if event.running else None
        loss = first.relative_loss if first and math.isfinite(first.relative_loss) else None
        left = clock.left(event) if event.total > event.done else 0.0
        note(
            ProgressNote(
                event.done,
                event.total,
                event.share,
                first.evaluation if first else None,
                first.max_evaluations if first else None,
                loss,
                left if math.isfinite(left) else None,
            )
        )
        if on_event is not None:
            on_event(event)

    return tell


def shown_run(on_event: OnEvent | None, progress: bool | None) -> AbstractContextManager[OnEvent | None]:
    """What is told of a run: the caller's callback, or a bar where `progress` asks for one; see `show_progress`."""
    return show_progress(on_event, progress, _as_cells)


def _as_cells(show: OnPhase) -> OnEvent:
    return lambda event: show("cells", event.done + event.share, event.total)


class EventCounter:
    """Turns what happens to cells into events."""

    def __init__(self, total: int, before: int, on_event: OnEvent | None) -> None:
        self._total, self._before, self._on_event = total, before, on_event
        self.made = 0

    def __call__(self, news: News) -> None:
        """Count a committed cell, and tell the news."""
        if isinstance(news, Committed):
            self.made += 1
            self.emit(outcome=news.outcome)
        elif isinstance(news, Told):
            self.emit(note=news.note)
        else:
            self.emit(running=(news,))

    def emit(self, *, outcome: Outcome | None = None, running: tuple[Running, ...] = (), note: str = "") -> None:
        """Tell those who watch, if anybody does."""
        if self._on_event is not None:
            self._on_event(Event(self._before + self.made, self._total, outcome, running, note))


@dataclass(frozen=True)
class RunSummary:
    """What a run did and what the folder holds now."""

    path: Path
    planned: int
    made: int
    done_before: int
    rejected: tuple[str, ...]
    failed: tuple[str, ...]
    pending: int = 0
    stop_reasons: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "cpu"
    has_tables: bool = True
    """Whether tables were made; shards leave that to `collect`."""

    def _values(self) -> dict[str, object]:
        return {
            "planned": self.planned,
            "made": self.made,
            "there before": self.done_before,
            "rejected": len(self.rejected),
            "failed": len(self.failed),
            "pending": self.pending,
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in self._values().items() if count)
        return f"<RunSummary {self.path}: {counts}; {self.seconds:.0f} s on {self.device}>"

    def _repr_html_(self) -> str:
        stopped = ", ".join(f"{reason} {count}" for reason, count in self.stop_reasons.items())
        return html_of(str(self.path), html_pairs({**self._values(), "stopped by": stopped}))

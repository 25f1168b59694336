"""How far a long call is: bars in notebooks, and elsewhere where they are asked for."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

OnPhase = Callable[[str, float, float], None]
"""Called with a phase, what is done of it, and how much there is."""
Callback = TypeVar("Callback")
BAR_SECONDS = 0.2  # pictures of a bar


def in_notebook() -> bool:
    """Whether this is a kernel of Jupyter."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def show_progress(
    told: Callback | None, progress: bool | None, as_phases: Callable[[OnPhase], Callback]
) -> Iterator[Callback | None]:
    """Yield the caller's own callback, or one that shows bars; None where nothing is to be shown.

    `as_phases` makes such a callback of what shows a phase. Without a callback of the caller's own nothing is shown
    where `progress` is False, and where it is None outside of notebooks.
    """
    if told is not None or not (in_notebook() if progress is None else progress):
        yield told
    elif in_notebook():
        bars = NotebookBars()
        try:
            yield as_phases(bars)
        finally:
            bars.clear()
    else:
        from rich.console import Console

        with phase_bars(Console(stderr=True)) as show:
            yield as_phases(show)


def show_phases(on_phase: OnPhase | None, progress: bool | None) -> AbstractContextManager[OnPhase | None]:
    """`show_progress` for a callback that is told of phases."""
    return show_progress(on_phase, progress, lambda show: show)


@contextmanager
def phase_bars(console: Console) -> Iterator[OnPhase]:
    """Yield what shows a bar for each phase on a console; they are gone at the end."""
    from rich.progress import BarColumn, Progress, TaskID, TextColumn

    with Progress(TextColumn("{task.description}"), BarColumn(bar_width=20), console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, done: float, total: float) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase)
            bars.update(tasks[phase], completed=done, total=total)

        yield show


class NotebookBars:
    """Bars below a cell of a notebook, with what IPython alone can show."""

    def __init__(self) -> None:
        display: Any = importlib.import_module("IPython.display")
        self._html: Any = display.HTML
        self._handle: Any = display.display(display.HTML(""), display_id=True)
        self._phases: dict[str, tuple[float, float]] = {}
        self._shown = 0.0

    def __call__(self, phase: str, done: float, total: float) -> None:
        """Show a phase, unless the last picture is too new."""
        self._phases[phase] = (done, total)
        if done >= total or time.monotonic() - self._shown > BAR_SECONDS:
            self._shown = time.monotonic()
            self._handle.update(self._html("".join(map(self._bar, self._phases))))

    def clear(self) -> None:
        """Take the bars away."""
        self._handle.update(self._html(""))

    def _bar(self, phase: str) -> str:
        done, total = self._phases[phase]
        bar = f'<progress value="{done:g}" max="{total:g}"></progress>'
        return f"<div>{escape(phase)} {bar} {done:.0f} of {total:.0f}</div>"

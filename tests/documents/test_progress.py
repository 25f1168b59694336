"""Bars are shown in notebooks, and where they are asked for, and nobody's own callback is shadowed by them."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import stimkit
from stimkit.documents.progress import phase_bars, show_phases, show_progress
from stimkit.runfolder.run import Run
from tests.conftest import small_plan


class ZMQInteractiveShell:
    """Of the name that a kernel's shell has."""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A notebook, and the HTML that it shows one after the other."""
    pages: list[str] = []
    display = SimpleNamespace(HTML=str, display=lambda html, display_id: SimpleNamespace(update=pages.append))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=ZMQInteractiveShell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return pages


def test_notebooks_show_bars(small_run: Run, shown: list[str]) -> None:
    stimkit.audit(small_run, device="cpu", losses=False)
    bars = f'<div>stimuli <progress value="{len(small_run.records)}" max="{len(small_run.records)}"></progress>'
    assert any(page.startswith(bars) for page in shown) and shown[-1] == ""


def test_runs_show_cells(tmp_path: Path, shown: list[str]) -> None:
    plan = small_plan(factors={"ratio": [1e-5, 1e-4], "style_layers": ["one"]})
    stimkit.run(plan, tmp_path / "run", device="cpu")
    assert any('value="2" max="2"' in page for page in shown) and "cells" in shown[0]
    shown.clear()
    told: list[Any] = []
    stimkit.run(plan, tmp_path / "again", device="cpu", on_event=told.append)
    stimkit.run(plan, tmp_path / "silent", device="cpu", progress=False)
    assert shown == [] and told[-1].done == 2


def test_elsewhere_bars_are_shown_on_request(small_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    stimkit.audit(small_run, device="cpu", losses=False)
    assert capsys.readouterr() == ("", "")
    terminal = StringIO()
    with phase_bars(Console(file=terminal, force_terminal=True)) as show:
        stimkit.audit(small_run, device="cpu", losses=False, on_phase=show)
    assert "stimuli" in terminal.getvalue()
    own = StringIO().write
    with show_progress(own, True, lambda show: own) as mine, show_phases(None, True) as bars:
        assert mine is own and bars is not None

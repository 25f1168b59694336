"""Batches: which cells share one, and what happens when a device cannot take or keep it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import stimkit
from stimkit.errors import DeviceError
from stimkit.runfolder.run import Run
from stimkit.running.batching import group_cells
from stimkit.running.events import Event
from stimkit.synthesis.devices import determinism
from tests.conftest import small_plan

ALIKE: dict[str, dict[str, Any]] = {
    "factors": {"style_layers": ["two"], "replicate": 5},
    "synthesis": {"max_evaluations": 3},
}


def pixels(results: Run) -> dict[str, str | None]:
    return {stimulus_id: record.pixel_sha256 for stimulus_id, record in results.records.items()}


def test_groups_hold_cells_of_one_kind_each_once() -> None:
    plan = small_plan(factors={"size": [32, 48], "replicate": 3, "style_layers": ["one", "two"]})
    found = list(group_cells(plan.cells).values())
    assert len(found) == 2
    assert sorted(cell.id for group in found for cell in group) == sorted(plan.by_id)
    assert all(len({cell.settings for cell in group}) == 1 for group in found)


def test_batch_size_is_recorded_and_does_not_change_losses_much(small_run: Run, tmp_path: Path) -> None:
    stimkit.run(small_plan(), tmp_path / "run", device="cpu", batch_size=3)
    records = stimkit.open_run(tmp_path / "run").records
    assert sorted(record.batch_size for record in records.values()) == [1, 3, 3, 3]
    for stimulus_id, record in records.items():
        other = small_run.records[stimulus_id]
        assert record.init_sha256 == other.init_sha256
        assert record.losses.file.total == pytest.approx(other.losses.file.total, rel=1e-2)


def device_that_holds(cells: int) -> Callable[[Event], None]:
    """A listener that runs out of memory like a device would, in the midst of a larger batch."""

    def listen(event: Event) -> None:
        if any(one.batch_size > cells for one in event.running):
            raise torch.OutOfMemoryError("CUDA out of memory")

    return listen


def test_a_batch_that_does_not_fit_is_made_smaller_and_no_cell_is_lost(tmp_path: Path) -> None:
    plan = small_plan(**ALIKE)
    summary = stimkit.run(plan, tmp_path / "run", device="cpu", batch_size=100, on_event=device_that_holds(2))
    records = stimkit.open_run(tmp_path / "run").records
    assert summary.made == len(plan.cells) == len(records) == 10
    assert sorted(record.batch_size for record in records.values()) == [2] * 10
    batches: dict[str, list[int]] = {}
    for record in records.values():
        batches.setdefault(record.batch_id, []).append(record.batch_slot)
    assert all(sorted(slots) == [0, 1] for slots in batches.values())


def test_one_cell_that_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"too little memory for one cell of 32 × 32 px; use a smaller size"):
        stimkit.run(small_plan(**ALIKE), tmp_path / "run", device="cpu", on_event=device_that_holds(0))


def test_a_device_that_vanishes_ends_the_run_and_keeps_complete_cells(tmp_path: Path) -> None:
    plan = small_plan(**ALIKE)

    def vanish(event: Event) -> None:
        if event.running and event.done >= 4:
            raise torch.AcceleratorError("CUDA error: device-side trouble\nmore about it")

    with pytest.raises(DeviceError, match=r"cpu failed: CUDA error: device-side trouble; complete cells are kept"):
        stimkit.run(plan, tmp_path / "run", device="cpu", batch_size=2, on_event=vanish)
    kept = stimkit.open_run(tmp_path / "run")
    assert len(kept.records) == 4 and (tmp_path / "run" / "manifest.csv").is_file()
    assert stimkit.run(plan, tmp_path / "run", device="cpu", batch_size=2).made == 6
    assert pixels(kept).items() <= pixels(stimkit.open_run(tmp_path / "run")).items()


def test_deterministic_runs_are_identical_and_say_so(tmp_path: Path) -> None:
    first, second = (
        (stimkit.run(small_plan(), tmp_path / name, device="cpu", deterministic=True), tmp_path / name)[1]
        for name in ("first", "second")
    )
    assert pixels(stimkit.open_run(first)) == pixels(stimkit.open_run(second))
    environments = stimkit.open_run(first).dataset.attrs["environment"]
    assert '"deterministic": true' in environments


def test_determinism_is_switched_on_and_restored() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    with pytest.raises(RuntimeError, match="out"), determinism(True):
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        raise RuntimeError("out")
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic) == before

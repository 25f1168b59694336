"""Run folders: commits, resume, manifest; and losses that anyone can recompute."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import stimkit
from stimkit.auditing.verification import verify
from stimkit.errors import ImageError, ProtocolError, RunFolderError
from stimkit.planning.inputs import PlanInputs
from stimkit.runfolder.run import Run
from stimkit.runfolder.store import RunStore
from stimkit.running.events import Committed, News, Outcome
from stimkit.running.maker import Maker
from stimkit.running.pending import find_pending
from tests.conftest import Stop, small_plan, stop_after


def test_same_protocol_gives_the_same_pixels(small_run: Run, tmp_path: Path) -> None:
    stimkit.run(small_plan(), tmp_path / "again", device="cpu")
    again = stimkit.open_run(tmp_path / "again")
    assert [record.pixel_sha256 for record in again.records.values()] == [
        record.pixel_sha256 for record in small_run.records.values()
    ]


# --- resume, refuse, survive ---------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    run, plan = tmp_path / "run", small_plan()
    with pytest.raises(Stop):
        stimkit.run(plan, run, device="cpu", batch_size=1, on_event=stop_after(2))
    assert len(pd.read_csv(run / "manifest.csv")) == 2
    before = {path: path.stat().st_mtime_ns for path in (run / "stimuli").iterdir()}
    assert len(before) == 2
    summary = stimkit.run(plan, run, device="cpu")
    assert (summary.done_before, summary.made, summary.planned) == (2, 2, 4)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    assert len(pd.read_csv(run / "manifest.csv")) == 4
    assert stimkit.run(plan, run, device="cpu").made == 0


def test_adding_a_level_extends_a_run(tmp_path: Path) -> None:
    stimkit.run(small_plan(factors={"ratio": [1e-5]}), tmp_path / "run", device="cpu")
    summary = stimkit.run(small_plan(), tmp_path / "run", device="cpu")
    assert (summary.done_before, summary.made) == (2, 2)


def test_another_protocol_is_refused_and_nothing_changes(small_run: Run) -> None:
    before = (small_run.path / "protocol.lock.json").read_bytes()
    with pytest.raises(RunFolderError, match="holds another protocol: 4 of its 4 cells are not in this one"):
        stimkit.run(small_plan(synthesis={"size": 48}), small_run.path, device="cpu")
    assert (small_run.path / "protocol.lock.json").read_bytes() == before


def test_an_image_that_changes_after_planning_is_noticed(tmp_path: Path, photograph: Path) -> None:
    plan = small_plan(images={"root": str(tmp_path), "content": {"photo": photograph.name}})
    Image.new("RGB", (40, 40)).save(photograph)
    with pytest.raises(ImageError, match="has changed since the plan was made"):
        stimkit.run(plan, tmp_path / "run", device="cpu")


# --- statistics and failures --------------------------------------------------------------------------------


def overflowing_weights(folder: Path) -> Path:
    """A file of weights with which every loss is not finite."""
    from stimkit.network.sources import load_weights
    from stimkit.network.weights import Weights, save_weights, tensor_digest

    source = load_weights("pca")
    huge = {
        key: value * np.float32(1e30) if key == "conv1_1.weight" else value for key, value in source.tensors.items()
    }
    path = folder / "huge.safetensors"
    save_weights(Weights("huge", huge, "torchvision", tensor_digest(huge)), path)
    return path


def test_a_failed_cell_has_a_record_but_no_image(tmp_path: Path) -> None:
    """The run ends, and says so for each cell."""
    path = overflowing_weights(tmp_path)
    plan = small_plan(model={"weights": str(path), "normalize": "none"}, factors={"ratio": [1e-5]})
    summary = stimkit.run(plan, tmp_path / "run", device="cpu")
    assert len(summary.failed) == 2
    assert not list((tmp_path / "run" / "stimuli").iterdir())
    table = pd.read_csv(tmp_path / "run" / "manifest.csv")
    assert table["status"].tolist() == ["failed", "failed"]
    assert table["status_reason"].str.contains("non-finite").all()
    assert math.isnan(table["loss_total_optimized"][0])
    assert stimkit.run(plan, tmp_path / "run", device="cpu").made == 0
    assert stimkit.run(plan, tmp_path / "run", device="cpu", retry_failed=True).made == 2


def test_trying_a_failed_cell_again_repeats_its_last_attempt(tmp_path: Path) -> None:
    path = overflowing_weights(tmp_path)
    plan = small_plan(
        model={"weights": str(path), "normalize": "none"}, factors={"ratio": [1e-5]}, accept={"retries": 2}
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    first = stimkit.open_run(tmp_path / "run").records
    assert stimkit.run(plan, tmp_path / "run", device="cpu", retry_failed=True).made == 2
    for stimulus_id, record in stimkit.open_run(tmp_path / "run").records.items():
        assert [one.seed for one in record.attempts] == [one.seed for one in first[stimulus_id].attempts]
        assert (record.attempt, len(record.attempts)) == (3, 3)


@pytest.mark.parametrize("folder", ["stimuli", "traces"])
def test_a_complete_cell_whose_file_is_gone_is_made_again(tmp_path: Path, folder: str) -> None:
    plan = small_plan(factors={"ratio": [1e-5]})
    stimkit.run(plan, tmp_path / "run", device="cpu", batch_size=1)
    pixels = {one: record.pixel_sha256 for one, record in stimkit.open_run(tmp_path / "run").records.items()}
    lost = next((tmp_path / "run" / folder).iterdir())
    lost.unlink()
    assert stimkit.run(plan, tmp_path / "run", device="cpu", batch_size=1).made == 1
    assert lost.is_file() and verify(tmp_path / "run").findings == ()
    again = {one: record.pixel_sha256 for one, record in stimkit.open_run(tmp_path / "run").records.items()}
    assert again == pixels


def test_missing_inputs_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    plan = small_plan(images={"root": str(tmp_path), "style": {"cup": "none.png"}})
    with pytest.raises(ProtocolError, match=r"images\.style\.cup"):
        stimkit.run(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stimulus_that_was_made_again_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """A process that was thought to be dead ends its batch after another one made the same cells again."""
    rule = {"rms_contrast": [0.9, 1.0]}
    sections: dict[str, Any] = {"factors": {"ratio": [1e-5]}, "synthesis": {"max_evaluations": 2}}
    stimkit.run(small_plan(accept=rule, **sections), tmp_path / "run", device="cpu")
    plan, store = small_plan(accept={**rule, "retries": 1}, **sections), RunStore.open(tmp_path / "run")
    tasks = find_pending(store, plan, plan.cells).tasks
    assert {task.cell.attempt for task in tasks} == {2}
    before: dict[str, bytes] = {}
    told: list[News] = []

    def hear(news: News) -> None:
        told.append(news)
        if not before:  # while this batch is optimized
            stimkit.run(plan, tmp_path / "run", device="cpu")
            before.update({path.name: path.read_bytes() for path in (tmp_path / "run/records").iterdir()})

    late = [replace(task, cell=replace(task.cell, seed=task.cell.seed + 1)) for task in tasks]
    Maker(plan, store, PlanInputs(plan), torch.device("cpu"), "e0").make(late, hear)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run/records").iterdir()} == before
    outcomes = [one.outcome for one in told if isinstance(one, Committed)]
    assert sorted(one.stimulus_id for one in outcomes) == sorted(task.cell.id for task in tasks)
    assert outcomes == [Outcome.of(store.record(one.stimulus_id)) for one in outcomes]

"""The run folder: whose it is, and what happens where it cannot be written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import stimkit
from stimkit.auditing.verification import verify
from stimkit.errors import RunFolderError, StorageError
from stimkit.runfolder.run import Run
from stimkit.runfolder.store import RunStore
from tests.conftest import changed, small_plan

Command = Callable[..., tuple[int, str, str]]


def test_a_stimulus_without_a_record_is_not_complete(tmp_path: Path) -> None:
    run, plan = tmp_path / "run", small_plan(factors={"ratio": [1e-5]})
    stimkit.run(plan, run, device="cpu")
    (run / "records" / f"{plan.cells[0].id}.json").unlink()
    (run / "records" / ".s123.json.1-ab.tmp").write_text("torn")
    assert stimkit.run(plan, run, device="cpu").made == 1
    assert not list((run / "records").glob(".*"))


def test_what_a_killed_export_left_is_cleared_away_and_what_links_lead_to_is_not(tmp_path: Path) -> None:
    run, plan = tmp_path / "run", small_plan(factors={"ratio": [1e-5]})
    stimkit.run(plan, run, device="cpu")
    mine = tmp_path / "mine"
    for folder in (run / ".psychopy.1-ab.tmp", mine):
        folder.mkdir()
        (folder / "half").write_text("of it")
    (run / ".linked.1-ab.tmp").symlink_to(mine, target_is_directory=True)
    assert stimkit.run(plan, run, device="cpu").done_before == 2
    assert stimkit.collect(run).has_tables
    assert not list(run.glob(".*.tmp")) and (mine / "half").read_text() == "of it"


def test_a_folder_that_was_left_at_its_very_start_is_continued(tmp_path: Path) -> None:
    (tmp_path / "run" / "stimuli").mkdir(parents=True)
    (tmp_path / "run" / ".lock").write_text("")
    (tmp_path / "run" / ".protocol.toml.1-ab.tmp").write_text("to")
    assert stimkit.run(small_plan(factors={"ratio": [1e-5]}), tmp_path / "run", device="cpu").made == 2


def test_notes_in_a_run_folder_do_not_stop_it(tmp_path: Path) -> None:
    plan = small_plan(factors={"ratio": [1e-5]})
    stimkit.run(plan, tmp_path / "run", device="cpu")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert stimkit.run(plan, tmp_path / "run", device="cpu").done_before == 2
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_run_continued_elsewhere_keeps_the_earlier_environment(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", small_plan())
    first, second = store.add_environment({"torch": "1"}), store.add_environment({"torch": "2"})
    assert store.add_environment({"torch": "1"}) == first
    assert store.environments() == {first: {"torch": "1"}, second: {"torch": "2"}}


def test_foreign_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(RunFolderError, match="exists and is not a run folder"):
            stimkit.run(small_plan(), place, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(RunFolderError, match="is not a run folder"):
        stimkit.open_run(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        stimkit.run(small_plan(), tmp_path / "file" / "run", device="cpu")


def test_a_second_writer_is_refused_by_name(tmp_path: Path) -> None:
    plan = small_plan()
    store = RunStore.create(tmp_path / "run", plan)
    with store.writing(), pytest.raises(RunFolderError, match=f"is being written by process {os.getpid()} on "):
        stimkit.run(plan, tmp_path / "run", device="cpu")


def test_a_disk_that_is_too_small_is_noticed_first(small_disk: Path) -> None:
    with pytest.raises(StorageError, match=r"MB free, but about .* MB are needed"):
        stimkit.run(small_plan(), small_disk / "run", device="cpu")


def test_a_disk_that_fills_up_loses_nothing(small_run: Run, small_disk: Path) -> None:
    store = RunStore.create(small_disk / "run", small_plan())
    record = changed(next(iter(small_run.records.values())), stimulus_id="s1", filename="a.png")
    with store.writing():
        store.commit(record, b"x" * 100_000, np.zeros((1, 3), np.float32))
        with pytest.raises(StorageError, match=r"disk .* is full; complete stimuli are intact"):
            store.commit(changed(record, stimulus_id="s2", filename="b.png"), b"x" * 2_000_000, np.zeros((1, 3)))
    assert [path.name for path in (small_disk / "run" / "stimuli").iterdir()] == ["a.png"]
    assert store.completed() == {"s1"}


def test_a_folder_that_is_only_for_reading(small_run: Run, small_disk: Path, command: Command) -> None:
    run = small_disk / "run"
    shutil.copytree(small_run.path, run)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StorageError, match="cannot be"):
        stimkit.run(small_plan(), run, device="cpu")
    with pytest.raises(StorageError, match="cannot be written"):
        stimkit.run(small_plan(), small_disk / "other", device="cpu")
    assert verify(run).findings == ()
    assert "4 of 4 stimuli done" in command("status", run)[1]


@pytest.mark.parametrize("header", [b"{'descr': '<f4', 'shape': (6, 3f4)", b"{'descr': ('<f4'", b"\x00"])
def test_a_trace_with_a_damaged_header_is_told(small_run: Run, tmp_path: Path, header: bytes) -> None:
    """NumPy reads headers as Python, and raises whatever its parser does."""
    shutil.copytree(small_run.path, tmp_path / "run")
    (first, *_) = small_run.records
    path = tmp_path / "run" / "traces" / f"{first}.npy"
    path.write_bytes(path.read_bytes()[:10] + header.ljust(118) + path.read_bytes()[128:])
    with pytest.raises(RunFolderError, match=rf"{first}\.npy cannot be read"):
        stimkit.open_run(tmp_path / "run").trace(first)
    assert {finding.name for finding in stimkit.verify(tmp_path / "run").findings} >= {"trace_altered"}

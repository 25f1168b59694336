"""Run folders: commits, resume, manifest; and losses that anyone can recompute."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
import torch.nn.functional as F
import xarray as xr
from PIL import Image
from safetensors.numpy import load_file

import stimkit
from stimkit.auditing.verification import verify
from stimkit.errors import ImageError, Interrupted, ProtocolError, RunFolderError, StorageError
from stimkit.images.statistics import measure_basics
from stimkit.records.dataset import to_grid
from stimkit.records.schema import COLUMNS
from stimkit.runfolder.run import Run, read_run
from stimkit.runfolder.store import RunStore
from stimkit.running.events import Event
from tests.conftest import ROOT, changed, document, small_plan

Command = Callable[..., tuple[int, str, str]]


def test_folder_holds_what_the_design_says(small_run: Run) -> None:
    names = {path.name for path in small_run.path.iterdir() if not path.name.startswith(".")}
    assert names == {
        "protocol.toml", "protocol.lock.json", "environment.json", "stimuli", "records", "traces",
        "manifest.csv", "losses.csv", "manifest.nc", "contact_sheet.png",
    }  # fmt: skip
    for record in small_run.records.values():
        assert record.filename.startswith("cat_cup_")
        assert record.filename.endswith(f"_r1_{record.stimulus_id}.png")
        data = (small_run.path / "stimuli" / record.filename).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record.file_sha256
    assert len(list((small_run.path / "stimuli").iterdir())) == 4
    environments = json.loads((small_run.path / "environment.json").read_text())
    assert {record.env_id for record in small_run.records.values()} == set(environments)
    assert next(iter(environments.values()))["packages"]["stimkit"] == stimkit.__version__


def numpy_recomputation(run: Path, row: pd.Series[Any]) -> tuple[float, float]:
    """Content and style loss from the PNG, the inputs and the weights, without stimkit's network or losses."""
    packed = load_file(ROOT / "stimkit" / "network" / "pca.safetensors")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def squared(array: np.ndarray) -> np.ndarray:
        side = min(array.shape[:2])
        top, left = (array.shape[0] - side) / 2, (array.shape[1] - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(Image.fromarray(array).resize((32, 32), Image.Resampling.LANCZOS, box=box))

    def maps(pixels: np.ndarray) -> dict[str, np.ndarray]:
        x = torch.from_numpy(((pixels / 255 - mean) / std).transpose(2, 0, 1)[None])
        found = {}
        for name in ("conv1_1", "conv1_2", "conv2_1"):
            if name == "conv2_1":
                x = F.avg_pool2d(x, 2)
            pairs = packed[f"{name}.pairs"].astype(np.float32)
            filters = np.concatenate([pairs, -pairs, packed[f"{name}.rest"].astype(np.float32)])
            filters = filters * packed[f"{name}.scale"][:, None, None, None]
            x = F.relu(
                F.conv2d(
                    x, torch.from_numpy(filters).double(), torch.from_numpy(packed[f"{name}.bias"]).double(), padding=1
                )
            )
            found[name] = x[0].flatten(1).numpy()
        return found

    stimulus = maps(np.asarray(Image.open(run / "stimuli" / row["filename"])))
    content, style = maps(squared(skimage.data.chelsea())), maps(squared(skimage.data.coffee()))
    content_loss = 0.5 * ((stimulus["conv2_1"] - content["conv2_1"]) ** 2).sum()
    style_loss = 0.0
    layers = row["style_layers_used"].split(";")
    for layer in layers:
        f, a = stimulus[layer], style[layer]
        n, m = f.shape
        style_loss += ((f @ f.T - a @ a.T) ** 2).sum() / (4 * n**2 * m**2) / len(layers)
    return float(content_loss), float(style_loss)


def test_file_losses_can_be_recomputed_by_anyone(small_run: Run) -> None:
    table = pd.read_csv(small_run.path / "manifest.csv")
    for _, row in table.iterrows():
        content, style = numpy_recomputation(small_run.path, row)
        assert row["loss_content_file"] == pytest.approx(content, rel=1e-4)
        assert row["loss_style_file"] == pytest.approx(style, rel=1e-4)
        assert row["loss_total_file"] == pytest.approx(row["alpha"] * content + row["beta"] * style, rel=1e-4)


def test_manifest_csv_is_plain_and_complete(small_run: Run) -> None:
    table = pd.read_csv(small_run.path / "manifest.csv")
    assert table["stimulus_id"].tolist() == [cell.id for cell in small_plan().cells]
    assert set(table.columns) >= {column.name for column in COLUMNS} | {"content", "style", "style_layers", "ratio"}
    assert all(name.isidentifier() and name == name.lower() for name in table.columns)
    assert table["ratio"].tolist() == [1e-5, 1e-4, 1e-5, 1e-4]
    assert not table["stimulus_id"].map(lambda text: text[1:]).eq("").any()
    assert (table["status"] == "accepted").all()


def test_losses_csv_adds_up(small_run: Run) -> None:
    rows = pd.read_csv(small_run.path / "losses.csv")
    assert set(rows["stage"]) == {"initial", "optimized", "file"}
    for (_, _), part in rows.groupby(["stimulus_id", "stage"]):
        by_layer = part[(part["term"] == "style") & (part["layer"] != "all")]
        whole = part[(part["term"] == "style") & (part["layer"] == "all")]["value"].item()
        assert (by_layer["weight"] * by_layer["value"]).sum() == pytest.approx(whole, rel=1e-5)
        terms = part[(part["layer"] == "all") & (part["term"] != "total")]
        total = part[part["term"] == "total"]["value"].item()
        assert (terms["weight"] * terms["value"]).sum() == pytest.approx(total, rel=1e-5)


def test_netcdf_opens_with_units_and_long_names(small_run: Run) -> None:
    with xr.open_dataset(small_run.path / "manifest.nc") as manifest:
        assert dict(manifest.sizes) == {
            "stimulus": 4, "stage": 3, "style_layer": 2, "content_layer": 1, "trace_step": 6, "channel": 3,
        }  # fmt: skip
        for name, variable in manifest.data_vars.items():
            assert variable.attrs.get("long_name") and variable.attrs.get("units"), name
        assert manifest["style_layer"].values.tolist() == ["conv1_1", "conv2_1"]
        assert np.isnan(manifest["style_loss_by_layer"].sel(style_layer="conv2_1")).sum() == 2 * 3
        assert manifest["style_weight"].values.tolist() == [[1, 0], [1, 0], [0.5, 0.5], [0.5, 0.5]]
        assert "schema = 1" in manifest.attrs["protocol"]
        assert set(manifest["env_id"].values) == set(json.loads(manifest.attrs["environment"]))
        for name in ("stimulus_id", "seed", "content_sha256", "weights_sha256", "ratio", "replicate"):
            assert manifest[name].dims == ("stimulus",) and name in manifest.coords
        grid = to_grid(manifest)
        cell = grid["loss_total"].sel(style_layers="two", ratio=1e-4, stage="file")
        expected = small_run.dataset["loss_total"].sel(stage="file").values[3]
        assert float(cell) == pytest.approx(expected)


def test_opened_run_gives_images_on_demand(small_run: Run) -> None:
    some = next(iter(small_run.records))
    assert small_run.image(some).shape == (32, 32, 3)
    assert small_run.to_grid().sizes["ratio"] == 2
    with pytest.raises(RunFolderError, match="has no stimulus"):
        small_run.image("snothere")


def test_trace_ends_where_the_optimized_loss_is(small_run: Run) -> None:
    with xr.open_dataset(small_run.path / "manifest.nc") as manifest:
        lowest = manifest["trace_total"].min("trace_step")
        assert (manifest["loss_total"].sel(stage="optimized") <= lowest * 1.001).all()


def test_same_protocol_gives_the_same_pixels(small_run: Run, tmp_path: Path) -> None:
    stimkit.run(small_plan(), tmp_path / "again", device="cpu")
    again = stimkit.open_run(tmp_path / "again")
    assert [record.pixel_sha256 for record in again.records.values()] == [
        record.pixel_sha256 for record in small_run.records.values()
    ]


# --- resume, refuse, survive ---------------------------------------------------------------------------------


class Stop(Exception):
    """Raised by a test in the middle of a run."""


def stop_after(count: int) -> Any:
    def on_event(event: Event) -> None:
        if event.outcome is not None and event.done >= count:
            raise Stop

    return on_event


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


def test_a_stimulus_without_a_record_is_not_complete(tmp_path: Path) -> None:
    run, plan = tmp_path / "run", small_plan(factors={"ratio": [1e-5]})
    stimkit.run(plan, run, device="cpu")
    (run / "records" / f"{plan.cells[0].id}.json").unlink()
    (run / "records" / ".s123.json.1-ab.tmp").write_text("torn")
    assert stimkit.run(plan, run, device="cpu").made == 1
    assert not list((run / "records").glob(".*"))


def test_adding_a_level_extends_a_run(tmp_path: Path) -> None:
    stimkit.run(small_plan(factors={"ratio": [1e-5]}), tmp_path / "run", device="cpu")
    summary = stimkit.run(small_plan(), tmp_path / "run", device="cpu")
    assert (summary.done_before, summary.made) == (2, 2)


def test_another_protocol_is_refused_and_nothing_changes(small_run: Run) -> None:
    before = (small_run.path / "protocol.lock.json").read_bytes()
    with pytest.raises(RunFolderError, match="holds another protocol: 4 of its 4 cells are not in this one"):
        stimkit.run(small_plan(synthesis={"size": 48}), small_run.path, device="cpu")
    assert (small_run.path / "protocol.lock.json").read_bytes() == before


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


def test_an_image_that_changes_after_planning_is_noticed(tmp_path: Path, photograph: Path) -> None:
    plan = small_plan(images={"root": str(tmp_path), "content": {"photo": photograph.name}})
    Image.new("RGB", (40, 40)).save(photograph)
    with pytest.raises(ImageError, match="has changed since the plan was made"):
        stimkit.run(plan, tmp_path / "run", device="cpu")


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 1 MB (or as many as a test asks for), where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={getattr(request, 'param', 1)}m"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


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


def write_slow_protocol(folder: Path) -> Path:
    """A protocol file whose cells take long enough to be interrupted."""
    import tomli_w

    path = folder / "slow.toml"
    path.write_text(tomli_w.dumps(document(factors={"replicate": 50}, synthesis={"max_evaluations": 30})))
    return path


def wait_for_records(run: Path, count: int) -> None:
    for _ in range(1200):
        if len(list((run / "records").glob("s*.json"))) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("the run never got going")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_signals_keep_what_is_complete(number: int, code: int, tmp_path: Path) -> None:
    run, protocol = tmp_path / "run", write_slow_protocol(tmp_path)
    process = start(protocol, run, "--batch-size", "2")
    wait_for_records(run, 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    done = RunStore.open(run).completed()
    assert 2 <= len(done) < 200
    for record in read_run(run).records.values():
        data = (run / "stimuli" / record.filename).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record.file_sha256
    if number != signal.SIGKILL:
        assert "run the same command again to go on" in errors
        assert len(pd.read_csv(run / "manifest.csv")) == len(done)
    plan = stimkit.plan(stimkit.Protocol.load(protocol))
    with pytest.raises(Stop):
        stimkit.run(plan, run, device="cpu", batch_size=2, on_event=stop_after(len(done) + 2))
    assert len(RunStore.open(run).completed()) > len(done)


def start(protocol: Path, run: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stimkit", "run", protocol, "--out", run, "--device", "cpu", *arguments]
    return subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE, text=True)


def test_a_second_driver_is_refused_and_a_second_signal_stops_at_once(tmp_path: Path, command: Command) -> None:
    run, protocol = tmp_path / "run", write_slow_protocol(tmp_path)
    process = start(protocol, run, "--batch-size", "2")
    wait_for_records(run, 2)
    code, _, err = command("run", protocol, "--out", run, "--device", "cpu")
    assert code == 2 and f"is being written by process {process.pid} on " in err
    assert f"being written by process {process.pid}" in command("status", run)[1]
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    while "stopping" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGTERM
    # Files of a cell without a record, tables that are rebuilt at the end: what was on its way may be there.
    assert {finding.name for finding in verify(run).findings} <= {"extra_file", "table_missing", "table_altered"}
    assert "no process is writing it" in command("status", run)[1]


@pytest.mark.parametrize("small_disk", [60], indirect=True)
def test_a_disk_that_fills_up_during_a_run(small_disk: Path, tmp_path: Path) -> None:
    run, protocol = small_disk / "run", write_slow_protocol(tmp_path)
    process = start(protocol, run, "--batch-size", "2")
    wait_for_records(run, 2)
    with (small_disk / "filler").open("wb") as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(b"x" * 65536)
            filler.flush()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 6 and "is full; complete stimuli are intact" in errors, errors
    assert {finding.name for finding in verify(run).findings} <= {"extra_file", "table_missing", "table_altered"}
    done = RunStore.open(run).completed()
    (small_disk / "filler").unlink()
    with pytest.raises(Stop):
        plan = stimkit.plan(stimkit.Protocol.load(protocol))
        stimkit.run(plan, run, device="cpu", batch_size=2, on_event=stop_after(len(done) + 2))
    assert done < RunStore.open(run).completed()
    assert not [finding for finding in verify(run).findings if finding.name != "extra_file"]


def test_interrupted_carries_its_exit_code() -> None:
    assert Interrupted(signal.SIGINT).exit_code == 130


# --- statistics and failures --------------------------------------------------------------------------------


def test_luminance_statistics_against_known_answers() -> None:
    grey = measure_basics(np.full((4, 4, 3), 188, np.uint8))
    assert grey["mean_luminance"] == pytest.approx(0.5029, abs=1e-4)  # IEC 61966-2-1
    assert grey["rms_contrast"] == pytest.approx(0, abs=1e-12)
    half = np.zeros((2, 2, 3), np.uint8)
    half[0] = 255
    assert measure_basics(half) == pytest.approx(
        {"mean_luminance": 0.5, "rms_contrast": 1.0, "mean_r": 0.5, "mean_g": 0.5, "mean_b": 0.5}
    )


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
    plan = small_plan(model={"weights": str(path), "normalize": False}, factors={"ratio": [1e-5]})
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
        model={"weights": str(path), "normalize": False}, factors={"ratio": [1e-5]}, accept={"retries": 2}
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
    stimkit.run(plan, tmp_path / "run", device="cpu")
    pixels = {one: record.pixel_sha256 for one, record in stimkit.open_run(tmp_path / "run").records.items()}
    lost = next((tmp_path / "run" / folder).iterdir())
    lost.unlink()
    assert stimkit.run(plan, tmp_path / "run", device="cpu").made == 1
    assert lost.is_file() and verify(tmp_path / "run").findings == ()
    again = {one: record.pixel_sha256 for one, record in stimkit.open_run(tmp_path / "run").records.items()}
    assert again == pixels


def test_missing_inputs_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    plan = small_plan(images={"root": str(tmp_path), "style": {"cup": "none.png"}})
    with pytest.raises(ProtocolError, match=r"images\.style\.cup"):
        stimkit.run(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()

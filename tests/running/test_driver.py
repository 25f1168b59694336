"""Several processes and one folder: the same stimuli, whatever happens to the processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
import torch
from distributed import Client
from PIL import Image

import stimkit
from stimkit.auditing.audit import audit
from stimkit.auditing.verification import verify
from stimkit.errors import DeviceError, RunFolderError, StimkitError, UsageError
from stimkit.experiment.export.formats import export
from stimkit.planning.cells import Plan
from stimkit.records.record import Execution, lost_record
from stimkit.reporting.report import report
from stimkit.runfolder.locks import current_writers
from stimkit.runfolder.run import read_run, summarize_state
from stimkit.runfolder.store import RunStore
from stimkit.running.batching import shard_cells
from stimkit.running.clusters import local_workers, scheduler_at, slurm_jobs, visible_device
from stimkit.running.driver import run_on_cluster
from stimkit.running.events import Event
from stimkit.running.runner import collect, run_shard
from stimkit.running.session import RunOptions
from tests.conftest import ROOT, document, small_plan

Command = Callable[..., tuple[int, str, str]]
REPLICATED = {"factors": {"replicate": 3}, "synthesis": {"max_evaluations": 3}}
PROTOCOL = """
schema = 1
name = "parts"
[images]
content = { cat = "skimage:chelsea" }
style = { cup = "skimage:coffee" }
[layers]
content = ["conv2_1"]
style = ["conv1_1"]
[factors]
ratio = [1e-5, 1e-4, 1e-3]
replicate = 4
[synthesis]
size = 32
max_evaluations = 40
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two worker processes of one thread each."""
    with local_workers(["cpu", "cpu"]) as (client, kind):
        assert kind == "cpu"
        yield client


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stimuli of `REPLICATED` as one process makes them, with one thread as a worker has."""
    folder, threads = tmp_path_factory.mktemp("runs") / "here", torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stimkit.run(small_plan(**REPLICATED), folder, device="cpu", batch_size=2)
    finally:
        torch.set_num_threads(threads)
    return folder


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "stimuli").iterdir()}


def sound(run: Path, planned: int) -> None:
    result = verify(run)
    assert result.findings == () and result.complete == result.planned == planned


# --- shards ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5, 50])
def test_every_cell_is_in_one_shard(count: int) -> None:
    plan = small_plan(factors={"replicate": 10})
    shards = [[cell.id for cell in shard_cells(plan, number, count)] for number in range(1, count + 1)]
    assert sorted(one for shard in shards for one in shard) == sorted(plan.by_id)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 16 and (count < 3 or max(sizes) < len(plan.cells) / 2)


def test_shards_make_what_one_process_makes(here: Path, tmp_path: Path, command: Command) -> None:
    plan, folder = small_plan(**REPLICATED), tmp_path / "run"
    for number in (2, 1, 2, 3):
        summary = run_shard(plan, folder, (number, 3), device="cpu", batch_size=1)
        assert summary.pending == 0 and summary.planned == len(shard_cells(plan, number, 3))
    assert not (folder / "manifest.csv").exists(), "tables are collected"
    done = collect(folder)
    assert done.pending == 0 and done.planned == 12
    sound(folder, 12)
    assert files(folder).keys() == files(here).keys()
    first = {one: record.init_sha256 for one, record in stimkit.open_run(folder).records.items()}
    assert first == {one: record.init_sha256 for one, record in stimkit.open_run(here).records.items()}


def test_what_is_pending_is_said(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "run"
    run_shard(small_plan(**REPLICATED), folder, (1, 2), device="cpu")
    code, out, _ = command("collect", folder)
    assert code == 3 and "are pending" in out and (folder / "manifest.csv").is_file()
    with pytest.raises(UsageError, match="there is no shard 3 of 2"):
        run_shard(small_plan(**REPLICATED), folder, (3, 2), device="cpu")
    (tmp_path / "p.toml").write_text(PROTOCOL)
    code, _, err = command("run", tmp_path / "p.toml", "--shard", "1")
    assert code == 2 and '--shard is I/N, such as 1/8, not "1"' in err
    code, _, err = command("run", tmp_path / "p.toml", "--shard", "1/2", "--workers", "2")
    assert code == 2 and "give one of --workers and --shard" in err
    assert command("collect", tmp_path)[0] == 2


def test_who_writes_what(tmp_path: Path) -> None:
    plan = small_plan()
    store = RunStore.create(tmp_path / "run", plan)
    store.describe(plan)
    with store.writing_part("1-of-2"):
        with store.writing_part("2-of-2"):
            writer = current_writers(store.path)
            assert "(part 1-of-2) and" in writer and f"process {os.getpid()}" in writer
        pattern = r"being written by process \d+ on \S+ \(part 1-of-2\)"
        with pytest.raises(RunFolderError, match=pattern), store.writing():
            pass
        with pytest.raises(RunFolderError, match=r"\(part 1-of-2\)"):
            run_shard(plan, tmp_path / "run", (1, 2), device="cpu")
        with store.in_turn():
            pass
    assert current_writers(store.path) == ""
    with store.writing():
        assert current_writers(store.path) and "(part" not in current_writers(store.path)


def started(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stimkit", *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_three_shards_at_once_two_of_them_the_same(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(PROTOCOL)
    shards = ("1/2", "2/2", "2/2")
    running = [started("run", tmp_path / "p.toml", "--out", tmp_path / "run", "--shard", one) for one in shards]
    ends = [(process.communicate(timeout=240), process.returncode) for process in running]
    codes = [code for _, code in ends]
    assert codes[0] == 0 and sorted(codes[1:]) in ([0, 0], [0, 2]), ends
    if 2 in codes:  # unless the first of them was done already
        (_, said), _ = ends[codes.index(2)]
        assert "(part 2-of-2); wait for it or stop it" in said
    assert collect(tmp_path / "run").pending == 0
    sound(tmp_path / "run", 12)


# --- workers --------------------------------------------------------------------------------------------------


def test_workers_make_what_one_process_makes(here: Path, client: Client, tmp_path: Path) -> None:
    plan, events = small_plan(**REPLICATED), []
    summary = run_on_cluster(
        plan, tmp_path / "run", client, RunOptions("cpu", batch_size=2), on_event=lambda event: events.append(event)
    )
    assert (summary.made, summary.planned, summary.failed, summary.device) == (12, 12, (), "2 workers")
    assert files(tmp_path / "run") == files(here), "the same batches give the same bits"
    sound(tmp_path / "run", 12)
    assert [event.done for event in events if event.outcome is not None] == list(range(1, 13))
    again = run_on_cluster(plan, tmp_path / "run", client, RunOptions("cpu"))
    assert again.made == 0 and again.done_before == 12


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_workers_that_are_killed_lose_nothing(client: Client, tmp_path: Path, seed: int) -> None:
    plan = small_plan(factors={"replicate": 3}, synthesis={"max_evaluations": 30})
    chance = random.Random(seed)

    def kill() -> None:
        workers = client.run(os.getpid, on_error="ignore")  # one may be dying already
        if workers:
            os.kill(chance.choice(list(workers.values())), signal.SIGKILL)

    timers = [Timer(chance.uniform(0.1, 6), kill) for _ in range(2)]
    for timer in timers:
        timer.start()
    written: dict[str, int] = {}

    def look(event: Event) -> None:
        for path in (tmp_path / "run/records").glob("*.json"):
            assert written.setdefault(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns, "made twice"

    summary = run_on_cluster(plan, tmp_path / "run", client, RunOptions("cpu", batch_size=2), on_event=look)
    for timer in timers:
        timer.cancel()
    assert summary.failed == () and summary.pending == 0
    sound(tmp_path / "run", 12)


POISON = """
import os, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("poison.png"):
        os.kill(os.getpid(), 9)
sys.addaudithook(hook)
"""


@pytest.mark.slow
def test_a_cell_that_ends_its_process_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "poison.png")
    (tmp_path / "sitecustomize.py").write_text(POISON)  # which Python runs when a worker's process starts
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    content = {"poison": "poison.png", "cat": "skimage:chelsea"}
    text = document(images={"content": content}, factors={"content": ["cat", "poison"], "ratio": [1e-5]})
    plan: Plan = stimkit.plan(stimkit.Protocol.from_dict(text, base=tmp_path))
    notes = []
    with local_workers(["cpu", "cpu"]) as (client, _):
        summary = run_on_cluster(
            plan, tmp_path / "run", client, RunOptions("cpu", batch_size=4), workers_come_back=False,
            on_event=lambda event: notes.append(event.note),
        )  # fmt: skip
    poisoned = {cell.id for cell in plan.cells if cell.content == "poison"}
    assert set(summary.failed) == poisoned and summary.pending == 0 and summary.made == len(plan.cells)
    assert any("they are made one by one" in note for note in notes)
    sound(tmp_path / "run", len(plan.cells))
    records = stimkit.open_run(tmp_path / "run").records
    for one in poisoned:
        assert records[one].status_reason.startswith("its process died each time")
        assert records[one].stop_reason == "process_died" and records[one].statistics["mean_luminance"] is None
    found = [(one.name, one.stimulus_id) for one in audit(tmp_path / "run", device="cpu", losses=False).findings]
    assert {stimulus_id for name, stimulus_id in found if name == "failed"} == poisoned
    assert stimkit.run(plan, tmp_path / "run", device="cpu", retry_failed=True).failed == (), "here they can be made"
    sound(tmp_path / "run", len(plan.cells))


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_from_there(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(PROTOCOL)
    run = tmp_path / "run"
    arguments = ("run", tmp_path / "p.toml", "--out", run, "--workers", "2", "--batch-size", "1")
    first = started(*arguments)
    while len(list((run / "records").glob("*.json")) if run.exists() else []) < 3:
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in (run / "records").glob("*.json")}
    second = started(*arguments)
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0, err
    assert "were there before" in out
    sound(run, 12)
    assert all((run / "records" / name).stat().st_mtime_ns == when for name, when in kept.items())


@pytest.mark.slow
def test_a_signal_stops_driver_and_workers(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(PROTOCOL.replace("max_evaluations = 40", "max_evaluations = 4000"))
    process = started("run", tmp_path / "p.toml", "--out", tmp_path / "run", "--workers", "2")
    while not (tmp_path / "run/protocol.lock.json").is_file():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout
    assert children == "" and current_writers(tmp_path / "run") == ""


def dask_process(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.slow
def test_a_scheduler_elsewhere_that_disappears(tmp_path: Path) -> None:
    address = tmp_path / "scheduler.json"
    place = ("--scheduler-file", str(address))
    scheduler = dask_process(
        "distributed.cli.dask_scheduler", *place, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"
    )
    worker = dask_process(
        "distributed.cli.dask_worker", *place, "--nthreads", "1", "--no-dashboard", "--death-timeout", "5"
    )
    try:
        while not address.is_file():
            time.sleep(0.1)
        plan = small_plan(factors={"replicate": 6}, synthesis={"max_evaluations": 20})
        folder = tmp_path / "run"

        def stop(event: Event) -> None:
            if event.outcome is not None and event.done == 4:
                scheduler.kill()

        with (
            scheduler_at(json.loads(address.read_text())["address"]) as client,
            pytest.raises(StimkitError, match="the scheduler is gone; complete cells are kept, run again to go on"),
        ):
            run_on_cluster(plan, folder, client, RunOptions("cpu", batch_size=2), on_event=stop)
        kept = summarize_state(read_run(folder))
        assert len(kept.done) >= 4 and kept.pending and (folder / "manifest.csv").is_file()
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    assert stimkit.run(plan, folder, device="cpu").pending == 0
    sound(folder, 24)


SBATCH = """#!/bin/sh
# Stands for SLURM's sbatch: runs a copy of the script in the background and says a number.
for last; do true; done
echo "$*" >> {log}
cp "$last" {log}.$$
setsid sh {log}.$$ > {log}.$$.out 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
echo "cancel $*" >> {log}
for job; do kill -- -"$job" 2> /dev/null; done
exit 0
"""
SLURM = """
jobs = 2
[cluster]
memory = "2GB"
walltime = "00:10:00"
interface = "lo"
python = "{python}"
job_extra_directives = ["--gres=gpu:1"]
scheduler_options = {{ dashboard = false, dashboard_address = "127.0.0.1:0" }}
"""


@pytest.mark.slow
def test_jobs_of_slurm_by_a_stand_in(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(log=log))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "slurm.toml").write_text(SLURM.format(python=sys.executable))
    with slurm_jobs(tmp_path / "slurm.toml") as client:
        summary = run_on_cluster(small_plan(**REPLICATED), tmp_path / "run", client, RunOptions("cpu", batch_size=2))
    assert summary.pending == 0 and summary.made == 12
    assert files(tmp_path / "run") == files(here)
    sound(tmp_path / "run", 12)
    assert log.read_text().count("cancel") >= 1


# --- mistakes -------------------------------------------------------------------------------------------------


def test_devices_are_those_that_the_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [visible_device("cuda:0"), visible_device("cuda:3")] == ["0", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb")
    assert visible_device("cuda:1") == "GPU-bb"
    with pytest.raises(DeviceError, match="cuda:2 is not there: CUDA_VISIBLE_DEVICES shows 2 devices"):
        visible_device("cuda:2")
    for devices, message in (
        (["cuda:0", "cpu"], "give devices as"),
        (["cuda"], "give devices as"),
        (["cuda:0", "cuda:0"], "named twice"),
        (["tpu:1"], "give devices as"),
        (["cuda:97"], "no CUDA device can be used|there are [0-9]+ CUDA devices"),
    ):
        with pytest.raises(DeviceError, match=message), local_workers(devices):
            pass


def test_a_set_of_lost_cells_can_be_looked_at(tmp_path: Path) -> None:
    """Whose processes died each time: nothing that reads runs may stumble over what they have not."""
    plan = small_plan()
    stimkit.run(plan, tmp_path / "run", device="cpu")
    store = RunStore.open(tmp_path / "run")
    for cell in plan.cells:
        made, trace = store.record(cell.id), np.empty((0, 3), np.float32)
        execution = Execution("cpu", "b0", 1, 0, made.stimkit_version, made.torch_version, made.env_id)
        store.commit(lost_record(cell, plan, execution, trace, "its process died"), b"", trace)
    assert collect(tmp_path / "run").failed == tuple(plan.by_id)
    sound(tmp_path / "run", 4)
    found = audit(tmp_path / "run", device="cpu", losses=False)
    assert {one.stimulus_id for one in found.findings if one.name == "failed"} == set(plan.by_id) and found.failed
    assert report(tmp_path / "run", tmp_path / "report.html", device="cpu").is_file()
    with pytest.raises(RunFolderError, match="has no stimulus that is accepted"):
        export(tmp_path / "run", "csv", tmp_path / "out")


def test_a_shard_of_an_older_protocol_does_not_undo_a_newer_one(tmp_path: Path) -> None:
    older, newer = small_plan(), small_plan(factors={"replicate": 2})
    store = RunStore.create(tmp_path / "run", older)
    store.describe(newer)
    with pytest.raises(RunFolderError, match="holds another protocol"):
        store.describe(older)
    assert set(store.lock_contents()["cells"]) == set(newer.by_id)


@pytest.mark.slow
def test_two_writers_of_a_cell_leave_a_whole_one(tmp_path: Path) -> None:
    """As a worker that a driver has lost, and its successor."""
    (tmp_path / "p.toml").write_text(PROTOCOL.replace("max_evaluations = 40", "max_evaluations = 4"))
    numbers = ("1/1", "1/2", "2/2", "1/3")  # whose cells overlap
    running = [started("run", tmp_path / "p.toml", "--out", tmp_path / "run", "--shard", one) for one in numbers]
    ends = [(process.communicate(timeout=240), process.returncode) for process in running]
    assert [code for _, code in ends] == [0] * 4, ends
    collect(tmp_path / "run")
    sound(tmp_path / "run", 12)


@pytest.mark.slow
def test_jobs_that_cannot_be_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm.toml").write_text(SLURM.format(python=sys.executable))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="sbatch is not there"), slurm_jobs(tmp_path / "slurm.toml"):
        pass
    (tmp_path / "sbatch").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    (tmp_path / "p.toml").write_text(PROTOCOL)
    process = started("run", tmp_path / "p.toml", "--out", tmp_path / "run", "--slurm", tmp_path / "slurm.toml")
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2 and "jobs cannot be submitted: sbatch failed for" in err and "--gres=gpu:1" in err


def test_places_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scheduler answers at"), scheduler_at("nonsense://x"):
        pass
    without = scheduler_at("tls://127.0.0.1:1", ca=tmp_path / "none.pem")
    with pytest.raises(UsageError, match="no scheduler answers at"), without:
        pass
    for text, message in (
        ("jobs = 0", "needs jobs = N"),
        ("jobs = 1\nother = 2", "needs jobs = N"),
        ("jobs =", "is not TOML"),
        ("jobs = 1\n[cluster]\nwalltimes = 1", 'has no option "walltimes" .did you mean "walltime"'),
    ):
        (tmp_path / "slurm.toml").write_text(text)
        with pytest.raises(UsageError, match=message), slurm_jobs(tmp_path / "slurm.toml"):
            pass
    with pytest.raises(UsageError, match="cannot be read"), slurm_jobs(tmp_path / "none.toml"):
        pass

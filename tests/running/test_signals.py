"""Runs that are stopped from outside."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import stimkit
from stimkit.auditing.verification import verify
from stimkit.errors import Interrupted
from stimkit.runfolder.run import read_run
from stimkit.runfolder.store import RunStore
from tests.conftest import Stop, document, stop_after

Command = Callable[..., tuple[int, str, str]]


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


@pytest.mark.slow
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


@pytest.mark.slow
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

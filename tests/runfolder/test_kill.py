"""Runs that are killed: at every write of their files, and at random times. Slow: `pytest -m slow`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import stimkit
from stimkit.auditing.verification import verify
from stimkit.runfolder.store import RunStore
from tests.conftest import document

RANDOM_KILLS = 50
DOCUMENT = document(factors={"ratio": [1e-5], "style_layers": ["one"], "replicate": 3})

# A process that has loaded torch once and forks a child for every run. A child dies by SIGKILL, either in front
# of or after its n-th call of the system functions that make files durable, or when its parent's patience ends.
SERVER = '''
import json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
import stimkit, stimkit.running.runner
plan = stimkit.plan(stimkit.Protocol.from_dict(json.loads(sys.argv[1])))
calls = 0

def deadly(function, at, after):
    def call(*arguments, **keywords):
        global calls
        calls += 1
        if calls == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **keywords)
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

def run(folder, at=0, after=False, patience=None):
    """Run in a child; return whether it was killed, and after how many calls it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for name in ("replace", "fsync"):
            setattr(os, name, deadly(getattr(os, name), at, after))
        stimkit.run(plan, folder, device="cpu", batch_size=1)
        os.write(writer, str(calls).encode())
        os._exit(0)
    os.close(writer)
    if patience is not None:
        time.sleep(patience)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    count = os.read(reader, 20)
    os.close(reader)
    return os.WIFSIGNALED(status), int(count or 0)

for line in sys.stdin:
    print(json.dumps(run(**json.loads(line))), flush=True)
'''


class Server:
    """Starts runs that are killed."""

    def __init__(self) -> None:
        arguments = [sys.executable, "-c", SERVER, json.dumps(DOCUMENT)]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(self, folder: Path, **how: object) -> tuple[bool, int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), **how}) + "\n")
        self._process.stdin.flush()
        killed, calls = json.loads(self._process.stdout.readline())
        return killed, calls

    def close(self) -> None:
        self._process.communicate()


def check_killed(folder: Path) -> int:
    """Nothing that is taken as complete may be damaged; return how many cells are complete."""
    if not (folder / "protocol.lock.json").exists():
        return 0
    kinds = {finding.name for finding in verify(folder).findings}
    # What was on its way: files of cells without a record yet, tables that are rebuilt at the end.
    assert kinds <= {"extra_file", "table_missing", "table_altered"}, kinds
    return len(RunStore.open(folder).completed())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str | None], int, float]:
    """Pixels of an uninterrupted run, how many calls it makes, how long it takes."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    began = time.perf_counter()
    killed, calls = server.run(folder)
    assert not killed
    records = stimkit.open_run(folder).records
    return {one: record.pixel_sha256 for one, record in records.items()}, calls, time.perf_counter() - began


def check_resumed(server: Server, folder: Path, before: int, expected: dict[str, str]) -> None:
    made_before = {path.stem: path.stat().st_mtime_ns for path in (folder / "records").glob("s*.json")}
    killed, _ = server.run(folder)
    assert not killed and verify(folder).findings == ()
    records = stimkit.open_run(folder).records
    assert {one: record.pixel_sha256 for one, record in records.items()} == expected
    after = {path.stem: path.stat().st_mtime_ns for path in (folder / "records").glob("s*.json")}
    assert len(made_before) == before and made_before.items() <= after.items(), "a complete cell was made again"


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_every_write(
    server: Server, whole: tuple[dict[str, str], int, float], tmp_path: Path, after: bool
) -> None:
    expected, calls, _ = whole
    assert calls > 3 * 3 * 3, "three files a cell, each with two fsyncs and a rename"
    complete = []
    for at in range(1, calls + 1):
        folder = tmp_path / str(at)
        killed, _ = server.run(folder, at=at, after=after)
        assert killed
        complete.append(check_killed(folder))
        check_resumed(server, folder, complete[-1], expected)
    # Not monotonic: a slow batch also writes down the speed of the machine, so that calls shift from run to run.
    assert set(complete) == set(range(len(expected) + 1)) and complete[0] == 0


@pytest.mark.slow
def test_killed_at_random_times(server: Server, whole: tuple[dict[str, str], int, float], tmp_path: Path) -> None:
    expected, _, seconds = whole
    complete = []
    for number in range(RANDOM_KILLS):
        folder = tmp_path / str(number)
        server.run(folder, patience=random.uniform(0, 1.1 * seconds))
        complete.append(check_killed(folder))
        check_resumed(server, folder, complete[-1], expected)
    assert len(set(complete)) > 1, "all were killed at the same stage"

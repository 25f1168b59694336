"""Small shared pieces: protocols of 32 px images in shallow layers, run once."""

from __future__ import annotations

import os

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # before torch and NumPy are loaded: processes side by side have one thread each
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"

import copy
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

import stimkit
from stimkit.images.pixels import Pixels
from stimkit.planning.cells import Plan
from stimkit.records.schema import Record
from stimkit.runfolder.journal import extend_journal
from stimkit.runfolder.run import Run
from stimkit.running.events import Event

ROOT = Path(__file__).parent.parent

# Fixtures that are only read may serve all examples of a property; the same examples are tried on every machine.
settings.register_profile(
    "house", max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.register_profile("thorough", settings.get_profile("house"), max_examples=500, derandomize=False)
settings.load_profile("house")

SMALL: dict[str, Any] = {
    "schema": 1,
    "name": "small",
    "images": {"content": {"cat": "skimage:chelsea"}, "style": {"cup": "skimage:coffee"}},
    "layers": {"content": ["conv2_1"], "style": {"one": ["conv1_1"], "two": ["conv1_1", "conv2_1"]}},
    "factors": {"style_layers": ["one", "two"], "ratio": [1e-5, 1e-4]},
    "synthesis": {"size": 32, "max_evaluations": 6},
}


def document(**sections: dict[str, Any]) -> dict[str, Any]:
    """The small protocol with some keys of its sections replaced; None removes a key."""
    result = copy.deepcopy(SMALL)
    for section, changes in sections.items():
        target = result.setdefault(section, {})
        for key, value in changes.items():
            if value is None:
                target.pop(key, None)
            else:
                target[key] = value
    return result


def small_plan(**sections: dict[str, Any]) -> Plan:
    return stimkit.plan(stimkit.Protocol.from_dict(document(**sections)))


def changed(record: Record, **values: Any) -> Record:
    """A record with other values, whatever its file would be read as."""
    return record.model_copy(update=values)


def pixels_of(run: Run, stimulus_id: str) -> Pixels:
    """A stimulus of an 8-bit run."""
    image = run.image(stimulus_id)
    assert image.dtype == np.uint8
    return cast(Pixels, image)


def forge(run: Path, stimulus_id: str, /, **values: Any) -> None:
    """Change values in the file of a record, and hide that from the journal."""
    path = run / "records" / f"{stimulus_id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    extend_journal(run, f"records/{path.name}", path.read_bytes())


def lacking(what: str) -> NoReturn:
    """Skip a test on a machine that lacks what it needs; in CI, where nothing may be lacking, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


@contextmanager
def launched() -> Iterator[Browser]:
    """The browser that pages are tested in.

    What a page shows is looked at with `expect`, which waits, since a page draws when it gets to it.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None) or lacking("Chromium")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.hookimpl(tryfirst=True)  # before slow tests are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every second case of tests that have many like it is a slow one."""
    seen: Counter[str] = Counter()
    for item in items:
        if item.get_closest_marker("alternating"):
            name = item.nodeid.partition("[")[0]
            seen[name] += 1
            if seen[name] % 2 == 0:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of a module."""
    with launched() as found:
        yield found


class Stop(Exception):
    """Raised by a test in the middle of a run."""


def stop_after(count: int) -> Callable[[Event], None]:
    """A listener that stops a run once so many cells are done."""

    def on_event(event: Event) -> None:
        if event.outcome is not None and event.done >= count:
            raise Stop

    return on_event


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 1 MB (or as many as a test asks for), where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={getattr(request, 'param', 1)}m"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        lacking("the right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own cache."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("STIMKIT_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run folder of the small protocol: four cells. Tests read it; none may change it."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    stimkit.run(small_plan(), folder, device="cpu")
    return stimkit.open_run(folder)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A small colour photograph as a PNG file."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    path = tmp_path / "photograph.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: exit code, stdout, stderr."""
    from stimkit.cli.main import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stimkit", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capfd.readouterr()
        code = stopped.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), captured.out, captured.err

    return call

"""PsychoPy itself, in an environment of its own: what it reads, shows and saves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageGrab

import stimkit
from stimkit.experiment.export.formats import export
from stimkit.experiment.responses import join_responses
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.lists import make_lists
from stimkit.runfolder.run import Run
from tests.conftest import lacking, small_plan
from tests.experiment.test_export import design, run, same

__all__ = ["design", "run"]  # fixtures

READ = """
import json, sys
from psychopy.data import importConditions
rows = importConditions(sys.argv[1])
print(json.dumps([{k: v.item() if hasattr(v, "item") else v for k, v in row.items()} for row in rows]))
"""
ANSWER = """
import sys
from psychopy import data
rows = data.importConditions(sys.argv[1])
experiment = data.ExperimentHandler(name="test", extraInfo={"session": 1}, savePickle=False, saveWideText=False)
loop = data.TrialHandler(rows, nReps=1, method="sequential", name="trials")
experiment.addLoop(loop)
for number, trial in enumerate(loop):
    loop.addData("choice", "left")
    loop.addData("rt", number / 4)
    experiment.nextEntry()
experiment.saveAsWideText(sys.argv[2])
experiment.abort()
"""
PLACED = """
schema = 1
name = "places"
participants = 1
[practice]
count = 1
feedback = true
[response]
choices = "ratio"
correct = "ratio"
keys = ["f", "j"]
[timing]
fixation = 3.0  # long: nothing holds back the frames of this screen
[place]
eccentricity = 6
angle = [0, 90]
fixation = [1, 0.5]
[screen]
viewing_distance = 57
width = 40
pixels = [1280, 800]
refresh = 60
[[pages]]
text = "Welcome."
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with PsychoPy in it, which needs much that is of no use here."""
    folder = tmp_path_factory.mktemp("psychopy") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    if subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", "psychopy"]).returncode:
        lacking("the package registry")
    return folder / "bin/python"


@contextmanager
def screen() -> Iterator[str]:
    """A display of 1280 × 800 pixels that nobody sees; its name."""
    if not shutil.which("Xvfb") or not shutil.which("xdotool"):
        lacking("Xvfb and xdotool")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x800x24"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield f":{server.stdout.readline().strip()}"
        server.terminate()


@pytest.mark.slow
def test_the_experiment_runs_on_a_screen(python: Path, tmp_path: Path) -> None:
    """Each stimulus is where the design says, pixel by pixel; keys answer, and the data are joined."""
    factors = {"style_layers": ["one"], "ratio": [1e-5, 1e-4]}
    plan = small_plan(factors=factors, synthesis={"max_evaluations": 1, "size": 64}, display={"ppd": 32})
    stimkit.run(plan, tmp_path / "run", device="cpu")
    export(tmp_path / "run", "psychopy", tmp_path / "out", design=TrialDesign.from_toml(PLACED))
    trials = pd.read_csv(tmp_path / "out/conditions/p001.csv")
    ppd = json.loads((tmp_path / "out/settings.json").read_text())["screen"]["ppd"]
    with screen() as display:
        environment = {**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path)}
        press = partial(send_key, environment)
        command = [str(python), "experiment.py", "p001", "--any-rate"]
        with subprocess.Popen(command, cwd=tmp_path / "out", env=environment, stderr=subprocess.DEVNULL) as experiment:
            shown: list[int] = []
            is_answered = False
            deadline = time.monotonic() + 300
            while experiment.poll() is None and time.monotonic() < deadline:
                picture = np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB")).astype(int)
                there = [row for row in range(len(trials)) if is_at(picture, trials.iloc[row], tmp_path / "out", ppd)]
                if not there:  # pages, and what is between trials
                    is_answered = False
                    press("space")
                elif not is_answered:
                    is_answered = True
                    assert len(shown) in there
                    shown.append(len(shown))
                    press("fj"[shown[-1] % 2])
                time.sleep(0.05)
            experiment.kill()
    assert experiment.returncode == 0 and shown == list(range(len(trials)))
    (saved,) = (tmp_path / "out/data").glob("*.csv")
    answers = join_responses(tmp_path / "run", [saved]).responses
    assert answers["response"].tolist() == [1 + number % 2 for number in shown]
    assert answers["stimulus_id"].tolist() == trials["stimulus_id"].tolist()
    assert (answers["stimulus_s"] > 0).all() and set(answers["image_scale"]) == {1.0}


def send_key(environment: dict[str, str], key: str) -> None:
    """Press a key on a display."""
    subprocess.run(["xdotool", "key", key], env=environment, check=True)


def is_at(picture: NDArray[Any], trial: Any, folder: Path, ppd: float) -> bool:
    """Whether a picture of the screen shows the stimulus of a trial at its place, within a pixel."""
    stimulus = np.asarray(Image.open(folder / trial["stim_file"])).astype(int)
    side = len(stimulus)
    x, y = 640 + (1 + trial["x_deg"]) * ppd - side / 2, 400 - (0.5 + trial["y_deg"]) * ppd - side / 2
    places = [(round(x) + a, round(y) + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    return any(np.abs(picture[top : top + side, left : left + side] - stimulus).max() <= 2 for left, top in places)


@pytest.mark.slow
def test_psychopy_itself_reads_the_conditions_and_its_data_are_joined(
    run: Run, design: TrialDesign, python: Path, tmp_path: Path
) -> None:
    export(run.path, "psychopy", tmp_path / "out", design=design)
    trials = make_lists(list(run.records.values()), design).table.drop(columns="answer")  # which it would misread
    for form in ("csv", "xlsx"):
        for participant, expected in trials.groupby("participant"):
            path = tmp_path / f"out/conditions/{participant}.{form}"
            done = subprocess.run([python, "-c", READ, path], capture_output=True, text=True, check=True)
            same(pd.DataFrame(json.loads(done.stdout.splitlines()[-1]), dtype=object), expected.astype(object))
    answers = tmp_path / "answers.csv"
    subprocess.run([python, "-c", ANSWER, tmp_path / "out/conditions/p001.csv", answers], check=True)
    joined = join_responses(run.path, [answers])
    expected = trials[trials["participant"] == "p001"].reset_index(drop=True)
    same(joined.responses[list(expected.columns)], expected)
    assert list(joined.responses["rt"]) == [number / 4 for number in range(len(expected))]

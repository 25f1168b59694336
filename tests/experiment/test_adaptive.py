"""Adaptive levels: the same rules in a browser, in PsychoPy's handlers, and in a reference of a few lines."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, expect

import stimkit
from stimkit.errors import ProtocolError
from stimkit.experiment.export.formats import export
from stimkit.experiment.responses import join_responses
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.lists import make_lists
from stimkit.runfolder.run import Run
from tests.conftest import ROOT
from tests.experiment.test_export import Stage, run_script, served, tarballs, wait_for_answers
from tests.experiment.test_forms import series_run
from tests.experiment.test_psychopy import python

__all__ = ["python", "series_run", "tarballs"]  # fixtures

LEVELS = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]
STAIRCASE = {"method": "staircase", "up": 1, "down": 2, "steps": [4, 2, 1], "start": None}
QUEST = {"method": "questplus", "slopes": [1.0, 2.0, 4.0], "lapses": [0.02, 0.05], "guess": 0.5, "scale": "linear"}
ANSWERS = [bool(one) for one in np.random.default_rng(3).random(40) < 0.6]


def staircase(levels: Sequence[float], answers: Sequence[bool], settings: Any) -> tuple[list[int], float]:
    """Levels that are shown, and the mean of those at reversals without the first two (Levitt 1971)."""
    at = len(levels) - 1 if settings["start"] is None else int(np.abs(np.array(levels) - settings["start"]).argmin())
    shown: list[int] = []
    reversals: list[int] = []
    last = run = ""
    for lowers in answers:
        shown.append(at)
        run = run + "d" if lowers and "u" not in run else run + "u" if not lowers and "d" not in run else "ud"[lowers]
        needed = {"d": settings["down"], "u": settings["up"]} if reversals else {"d": 1, "u": 1}
        if len(run) < needed[run[0]]:
            continue
        if last and last != run[0]:
            reversals.append(at)
        last = run[0]
        step = settings["steps"][min(len(reversals), len(settings["steps"]) - 1)]
        at = min(len(levels) - 1, max(0, at + (step if last == "u" else -step)))
        run = ""
    return shown, float(np.mean([levels[one] for one in reversals[2:]])) if reversals[2:] else np.nan


def questplus(levels: Sequence[float], answers: Sequence[bool], settings: Any) -> tuple[list[int], float]:
    """The level of the least expected entropy (Watson 2017), and the mean threshold."""
    x = np.log10(levels) if settings["scale"] == "log10" else np.array(levels)
    places = x if settings["scale"] == "log10" else x[x > 0]
    t, slope, lapse = (
        one.ravel() for one in np.meshgrid(places, settings["slopes"], settings["lapses"], indexing="ij")
    )
    power = 10 ** (slope * (x[:, None] - t)) if settings["scale"] == "log10" else (x[:, None] / t) ** slope
    p = 1 - lapse - (1 - settings["guess"] - lapse) * np.exp(-power)
    belief, shown = np.full(len(t), 1 / len(t)), []
    for lowers in answers:
        entropies = np.zeros(len(x))
        for likelihood in (p, 1 - p):
            joint = belief * likelihood
            chance = joint.sum(1, keepdims=True)
            after = joint / chance
            entropies -= (chance[:, 0]) * np.sum(after * np.log(np.where(after > 0, after, 1)), axis=1)
        at = int(entropies.argmin())
        shown.append(at)
        belief = belief * (p[at] if lowers else 1 - p[at])
        belief /= belief.sum()
    mean = float(belief @ t)
    return shown, 10**mean if settings["scale"] == "log10" else mean


CASES = [
    (LEVELS, STAIRCASE),
    (LEVELS, {**STAIRCASE, "down": 3, "up": 2, "steps": [2, 1], "start": 0.4}),
    (LEVELS, QUEST),
    ([1e-6, 1e-5, 1e-4, 1e-3, 1e-2], {**QUEST, "scale": "log10", "guess": 0.0}),
]


def reference(levels: Sequence[float], settings: Any) -> tuple[list[int], float]:
    return (staircase if settings["method"] == "staircase" else questplus)(levels, ANSWERS, settings)


def test_a_staircase_by_hand() -> None:
    """2 down, 1 up: after the first reversal it takes two answers to go down."""
    answers = [True, True, False, True, True, False, True, True]
    shown, _ = staircase(LEVELS, [*answers, False, True, True, False], {**STAIRCASE, "steps": [2, 1]})
    assert shown[:8] == [8, 6, 4, 5, 5, 4, 5, 5]


def test_the_browser_goes_by_the_reference(browser: Browser) -> None:
    """Of near ties in entropy, which rounding decides, any is as good."""
    call = """async ([levels, settings, answers]) => {
        const { makeMethod } = await import("/adaptive.js");
        const method = makeMethod(levels, settings);
        const shown = answers.map((lowers) => { const at = method.next; method.learn(at, lowers); return at; });
        return [shown, method.estimate];
    }"""
    with served(ROOT / "stimkit/experiment/export/templates") as address:
        page = browser.new_page()
        page.goto(f"{address}/style.css")
        for levels, settings in CASES:
            shown, estimate = page.evaluate(call, [levels, settings, ANSWERS])
            expected, wanted = reference(levels, settings)
            assert shown == expected and estimate == pytest.approx(wanted, rel=1e-6), settings


HANDLERS = """
import json, sys, types
import math
from psychopy import data
cases, answers = json.loads(sys.stdin.read())
source = open(sys.argv[1], encoding="utf-8").read()
source = source[source.index("class Adapted:"):source.index("def show_earlier(")]
for levels, settings in cases:
    settings = {"count": len(answers), "scale": "linear", **settings}
    nothing = {"stim_file": "", "columns": {}}
    steps = [{"level": level, "stimulus_id": str(at), **nothing} for at, level in enumerate(levels)]
    space = {"data": data, "math": math, "Any": object,
             "SETTINGS": {"adaptive": settings, "series": {"s": steps}, "form": "single"}}
    exec("from __future__ import annotations\\n" + source, space)
    adapted, shown, estimate = space["Adapted"](), [], None
    for lowers in answers:
        trial = {"series": "s", "answer_index": None}
        trial |= adapted.put(trial)
        shown.append(int(trial["stimulus_id"]))
        estimate = adapted.learn(trial, {"response": 2 if lowers else 1})
    print("found", json.dumps([shown, estimate]))
"""


@pytest.mark.slow
def test_psychopy_goes_by_the_reference(python: Path) -> None:
    """The part of the export's script that has PsychoPy's handlers, with these themselves."""
    script = ROOT / "stimkit/experiment/export/templates/experiment.py"
    command = [str(python), "-c", HANDLERS, str(script)]
    done = subprocess.run(command, input=json.dumps([CASES, ANSWERS]), capture_output=True, text=True, check=True)
    found = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("found ")]
    assert len(found) == len(CASES)
    for (shown, estimate), (levels, settings) in zip(found, CASES, strict=True):
        expected, wanted = reference(levels, settings)
        assert shown == expected and estimate == pytest.approx(wanted, rel=1e-6), settings


# --- designs and runs ------------------------------------------------------------------------------------------


def design(trial: str, adaptive: str, further: str = "") -> TrialDesign:
    head = "schema = 1\nname = 'adaptive'\nparticipants = 2"
    return TrialDesign.from_toml(
        f"{head}\n[trial]\n{trial}\n[adaptive]\n{adaptive}\n[timing]\nfixation = 0.05\n{further}"
    )


YES = '[response]\nchoices = ["no", "yes"]'


def test_lists_have_a_run_for_each_series(series_run: Run) -> None:
    records = list(series_run.records.values())
    single = make_lists(records, design('along = "sm"', 'method = "staircase"\ncount = 10', YES))
    assert len(single.table) == 2 * 2 * 10 and single.table.groupby(["participant", "series"]).size().eq(10).all()
    assert [len(steps) for steps in single.series.values()] == [5, 5]
    two = make_lists(records, design('form = "2afc"\nalong = "sm"', 'method = "questplus"\ncount = 10'))
    assert [[step["level"] for step in steps] for steps in two.series.values()] == [[0.25, 0.5, 0.75, 1]] * 2
    assert two.table.groupby("participant")["answer_index"].value_counts().eq(10).all(), "sides are balanced"


@pytest.mark.parametrize(
    ("trial", "further", "message"),
    [
        ('form = "abx"\ndiffer = ["style"]', "", "adaptive: is for single and 2afc"),
        ('form = "single"', YES, "trial.along: name the series"),
        ('along = "sm"\nrepetitions = 3', YES, "trial.repetitions: is [adaptive] count"),
        ('along = "sm"', "", "adaptive trials have two answers"),
        ('along = "sm"', f"{YES}\n[practice]\ncount = 1", "practice: does not go with [adaptive]"),
        ('along = "sm"', YES + "\n#log", "adaptive.scale: is of levels above 0, and the series has others"),
    ],
)
def test_mistakes_are_named(series_run: Run, trial: str, further: str, message: str) -> None:
    method = 'method = "questplus"\nscale = "log10"' if "#log" in further else 'method = "staircase"'
    with pytest.raises(ProtocolError) as caught:
        make_lists(list(series_run.records.values()), design(trial, method, further))
    assert message in str(caught.value), str(caught.value)


def test_answers_to_adaptive_levels_are_not_simulated(series_run: Run) -> None:
    with pytest.raises(ProtocolError, match="adaptive: lets levels follow from answers"):
        stimkit.simulate(series_run, design('along = "sm"', 'method = "staircase"', YES))


def test_what_psychopy_saves_is_what_was_shown(
    series_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PsychoPy saves the loop's own trial over what was added to it."""
    further = f"{YES}\n[stimuli]\nwhere = 'content == \"cat\"'"
    wanted = design('along = "sm"', 'method = "staircase"\ncount = 4', further)
    export(series_run.path, "psychopy", tmp_path / "out", design=wanted)
    stage = Stage(["1", "2", "1", "1"])
    run_script(stage, tmp_path / "out", "p001", monkeypatch)
    shown = [one for one, _ in itertools.groupby(Path(one).name for one in stage.shown if str(one).endswith(".png"))]
    saved = pd.read_csv(next((tmp_path / "out/data").glob("p001_*.csv")))
    assert [Path(file).name for file in saved["stim_file"]] == shown and len(set(shown)) == 4
    answers = next((tmp_path / "out/data").glob("p001_*.csv"))
    joined = join_responses(series_run.path, [answers], times="s").responses
    assert joined["sm"].tolist() == [1, 0.75, 0.5, 0.25] and joined["response"].tolist() == [1, 2, 1, 1]


@pytest.mark.slow
def test_a_staircase_in_a_browser_goes_on_where_it_was(
    series_run: Run, tarballs: Path, tmp_path: Path, browser: Browser
) -> None:
    """Each answer decides what is shown next, also after the page was closed; the data join the manifest."""
    wanted = design(
        'along = "sm"',
        'method = "staircase"\ncount = 6\nsteps = [2, 1]',
        f"{YES}\n[stimuli]\nwhere = 'content == \"cat\"'",
    )
    export(series_run.path, "jspsych", tmp_path / "out", design=wanted, jspsych_tarballs=tarballs)
    (steps,) = make_lists(list(series_run.records.values()), wanted).series.values()
    answers = [True, True, False, True, True, True]
    expected, _ = staircase([step["level"] for step in steps], answers, {**STAIRCASE, "steps": [2, 1]})
    with served(tmp_path / "out") as address:
        page = browser.new_page()
        for number, (lowers, at) in enumerate(zip(answers, expected, strict=True)):
            if number in (0, 3):
                page.goto(f"{address}/?participant=p001")
                if number:
                    page.click("button:text-is('Go on')")
                page.click("#jspsych-instructions-next")
            expect(page.locator("#stage img")).to_have_attribute("src", str(steps[at]["stim_file"]))
            if number + 1 < len(answers):
                page.keyboard.press("2" if lowers else "1")
                wait_for_answers(page, "adaptive", number + 1)
            else:
                with page.expect_download() as download:
                    page.keyboard.press("2")
                    page.click("button:text-is('Continue')")
                download.value.save_as(tmp_path / "p001.csv")
        page.close()
    found = join_responses(series_run.path, [tmp_path / "p001.csv"]).responses
    assert found["stimulus_id"].tolist() == [steps[at]["stimulus_id"] for at in expected]
    assert found["sm"].tolist() == [steps[at]["level"] for at in expected]


def test_the_script_shows_what_its_handler_says(
    series_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a handler that goes one step at a time; PsychoPy's own is for the slow tests."""
    made: list[Any] = []

    class Handler:
        reversalIntensities = (4, 3, 2, 2)

        def __init__(self, *, startVal: int, **_: Any) -> None:
            self.at, self.answers = startVal, []  # type: ignore[var-annotated]
            made.append(self)

        def __next__(self) -> int:
            return self.at

        def addResponse(self, lowers: int) -> None:
            self.answers.append(lowers)
            self.at = max(0, self.at - lowers)

    wanted = design('form = "2afc"\nalong = "sm"', 'method = "staircase"\ncount = 3')
    export(series_run.path, "psychopy", tmp_path / "out", design=wanted)
    stage = Stage(["1"] * 6)
    modules = stage.modules()
    modules["psychopy"].data.StairHandler = Handler
    monkeypatch.setattr(stage, "modules", lambda: modules)
    run_script(stage, tmp_path / "out", "p001", monkeypatch)
    saved = pd.read_csv(next((tmp_path / "out/data").glob("p001_*.csv")))
    assert sorted(len(one.answers) for one in made) == [3, 3] and saved["estimate"].eq(0.75).all()
    right = saved["answer_index"].to_numpy(int)
    assert (saved["correct"] == (right == 1)).all()
    levels = saved[["sm_1", "sm_2"]].to_numpy()
    rows = np.arange(6)
    assert (levels[rows, 2 - right] == 0).all() and (levels[rows, right - 1] > 0).all()

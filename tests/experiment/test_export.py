"""Exports are read by what they are for, as far as that is at hand, and hold what the manifest holds."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import re
import shutil
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Route, expect

import stimkit
from stimkit.errors import ProtocolError, RunFolderError, StimkitError, UsageError
from stimkit.experiment.export.formats import FORMATS, export
from stimkit.experiment.export.jspsych_library import JSPSYCH_PACKAGES, load_library, npm_command
from stimkit.experiment.export.psychopy import check_conditions
from stimkit.experiment.responses import join_responses
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.lists import make_lists
from stimkit.records.tables import to_table
from stimkit.runfolder.run import Run
from tests.conftest import ROOT, lacking, small_plan

Command = Callable[..., tuple[int, str, str]]
DESIGN = """
schema = 1
name = "compare"
participants = 2
[trial]
form = "pair"
differ = ["style_layers"]
[blocks]
by = ["ratio"]
[practice]
count = 1
[response]
prompt = "Which <ratio> & which structures?"
choices = ["1e-05", "0.0001"]
correct = "ratio"
[timing]
fixation = 0.05
"""


@pytest.fixture(scope="module")
def design() -> TrialDesign:
    return TrialDesign.from_toml(DESIGN)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two layer sets × two ratios × two replicates; one of the stimuli is rejected."""
    folder = tmp_path_factory.mktemp("runs") / "exported"
    stimkit.run(small_plan(factors={"replicate": 2}, synthesis={"max_evaluations": 2}), folder, device="cpu")
    return stimkit.open_run(folder)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Two tables hold the same values and kinds of values; what is empty is missing."""
    assert list(found.columns) == list(expected.columns)
    for name in expected.columns:
        for one, other in zip(found[name], expected[name], strict=True):
            if pd.isna(other) or other == "":
                assert pd.isna(one) or one == "", name
            elif isinstance(other, str):
                assert one == other and isinstance(one, str), name
            else:
                assert one == other and not isinstance(one, str), name


# --- tables ---------------------------------------------------------------------------------------------------


def test_tables_hold_the_manifest(run: Run, design: TrialDesign, tmp_path: Path) -> None:
    assert export(run.path, "csv", tmp_path / "out", design=design) == 8
    words = pd.read_csv(tmp_path / "out/data_dictionary.csv").set_index(["table", "column"])

    def read(name: str) -> pd.DataFrame:
        text = {column: str for column, row in words.loc[name].iterrows() if row["type"] == "text"}
        return pd.read_csv(tmp_path / f"out/{name}.csv", dtype=text, keep_default_na=False, na_values=[""])

    expected = to_table(list(run.records.values()))
    for found in (read("stimuli"), pd.read_parquet(tmp_path / "out/stimuli.parquet")):
        same(found.drop(columns="stim_file"), expected)
        assert all((tmp_path / "out" / name).is_file() for name in found["stim_file"])
    trials = make_lists(list(run.records.values()), design).table
    for found in (read("trials"), pd.read_parquet(tmp_path / "out/trials.parquet")):
        same(found, trials)
    assert set(words.loc["stimuli"].index) == {*expected.columns, "stim_file"} and words["description"].notna().all()
    assert words.loc[("stimuli", "mean_luminance"), "type"] == "number"
    assert words.loc[("stimuli", "ppd"), "units"] == "1/deg"
    assert set(str(words.loc[("trials", "ratio_2"), "levels"]).split(";")) == {"1e-05", "0.0001"}
    assert "stimulus 2 of the trial" in str(words.loc[("trials", "ratio_2"), "description"])


def test_only_what_is_asked_for(run: Run, tmp_path: Path) -> None:
    assert export(run.path, "csv", tmp_path / "few", where="style_layers == 'one'", columns=["mean_luminance"]) == 4
    found = pd.read_csv(tmp_path / "few/stimuli.csv")
    factors = ["content", "style", "style_layers", "ratio", "replicate"]
    assert list(found.columns) == ["stimulus_id", "stim_file", "filename", *factors, "mean_luminance"]
    assert len(list((tmp_path / "few/stimuli").iterdir())) == 4 and not (tmp_path / "few/trials.csv").exists()


# --- PsychoPy -------------------------------------------------------------------------------------------------


def test_conditions_have_the_same_values_in_both_files(run: Run, design: TrialDesign, tmp_path: Path) -> None:
    export(run.path, "psychopy", tmp_path / "out", design=design)
    trials = make_lists(list(run.records.values()), design).table.drop(columns="answer")  # which PsychoPy would misread
    for participant, expected in trials.groupby("participant"):
        same(pd.read_csv(tmp_path / f"out/conditions/{participant}.csv"), expected)
        sheet = openpyxl.load_workbook(tmp_path / f"out/conditions/{participant}.xlsx").worksheets[0]
        rows = list(sheet.iter_rows(values_only=True))
        same(pd.DataFrame(rows[1:], columns=list(rows[0])), expected)
        for name in (*expected["stim_file_1"], *expected["stim_file_2"]):
            assert (tmp_path / "out" / name).read_bytes() == (run.path / name).read_bytes()
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["choices"] == ["1e-05", "0.0001"] and settings["keys"] == ["1", "2"]
    assert settings["background"] == 0.5 and settings["lists"] == ["p001", "p002"]


@pytest.mark.parametrize(
    "value", ["01", "1,5", "1e5", "inf", "NA", "None", "null", "[1]", "(a)", "=1+1", "a\\nb", "nan", "n/a", "True"]
)
def test_values_that_psychopy_reads_otherwise_are_refused(value: str) -> None:
    check_conditions(pd.DataFrame({"style": ["swirl", ""], "ratio": [0.5, np.nan]}))
    with pytest.raises(UsageError, match="PsychoPy would not read style as the text that it is"):
        check_conditions(pd.DataFrame({"style": ["", value]}))
    with pytest.raises(UsageError, match='not "style-layers"'):
        check_conditions(pd.DataFrame({"style-layers": ["a"]}))


class Stage:
    """Stands for the windows and keyboard of PsychoPy: draws nothing, answers with keys that were given."""

    def __init__(self, keys: list[str], patience: int = 1, rate: float = 60.0) -> None:
        self.keys, self.patience, self.rate, self.frames = keys, patience, rate, 0
        self.shown: list[Any] = []
        self.handlers: list[Any] = []

    def modules(self) -> dict[str, types.ModuleType]:
        stage = self

        class Drawn:
            size, pos = (32.0, 32.0), (0, 0)

            def __init__(self, *_: Any, **values: Any) -> None:
                self.__dict__.update(values)

            def draw(self) -> None:
                stage.shown.append(getattr(self, "image", None) or getattr(self, "text", ""))

        class Window:
            size, mouseVisible, nDroppedFrames = (800, 600), True, 0

            def __init__(self, **values: Any) -> None:
                self.frames = 0

            def flip(self) -> float:
                stage.shown.append("flip")
                self.frames += 1
                return self.frames / 60

            def getActualFrameRate(self) -> float:
                return stage.rate

            def close(self) -> None:
                stage.shown.append("closed")

        class Handler:
            """What was added, and then the trial that the loop itself has, as PsychoPy's handlers save it."""

            def __init__(self, trials: list[Any], **_: Any) -> None:
                self.trials, self.added = trials, {}  # type: ignore[var-annotated]

            def __iter__(self) -> Iterator[Any]:
                for trial in self.trials:
                    self.thisTrial = trial
                    yield trial

            def addData(self, name: str, value: Any) -> None:
                self.added[name] = value

        class Experiment:
            def __init__(self, *, dataFileName: str, **_: Any) -> None:
                self.dataFileName = dataFileName
                self.entries: list[dict[str, Any]] = []

            def addLoop(self, loop: Any) -> None:
                self.loop = loop

            def nextEntry(self) -> None:
                self.entries.append({**self.loop.added, **self.loop.thisTrial})
                self.loop.added = {}

            def saveAsWideText(self, name: str) -> None:
                if self.entries[-1].get("trial") != self.loop.thisTrial["trial"]:
                    self.nextEntry()  # one that was stopped
                pd.DataFrame(self.entries).to_csv(name, index=False)

            def __getattr__(self, name: str) -> Any:
                return lambda *_, **__: None

        def conditions(name: str) -> list[dict[Any, Any]]:
            rows = pd.read_csv(name).astype(object)
            return [dict(row) for row in rows.where(rows.notna(), None).to_dict("records")]

        def get_keys(**_: Any) -> list[Any]:
            stage.frames += 1
            return [(stage.keys.pop(0), 0.25)] if stage.frames % stage.patience == 0 else []

        class Monitor:
            def __init__(self, name: str, *, width: float, distance: float) -> None:
                self.width, self.distance = width, distance

            def setSizePix(self, pixels: list[int]) -> None:
                self.pixels = pixels

        class Clock:
            def reset(self) -> None:
                pass

        names = ("core", "data", "event", "gui", "monitors", "tools", "visual")
        modules = {name: types.ModuleType(name) for name in names}
        modules["core"].__dict__.update(Clock=Clock, quit=lambda: None)
        modules["monitors"].__dict__.update(Monitor=Monitor)

        class Stairs:
            """Goes down by one step after each answer."""

            reversalIntensities: tuple[int, ...] = ()

            def __init__(self, *, startVal: int, **_: Any) -> None:
                self.next = startVal

            def __next__(self) -> int:
                return self.next

            def addResponse(self, _: int) -> None:
                self.next -= 1

        modules["data"].__dict__.update(
            importConditions=conditions, ExperimentHandler=Experiment, TrialHandler=Handler, StairHandler=Stairs,
            getDateStr=lambda: "now",
        )  # fmt: skip

        class Mouse:
            def __init__(self, **_: Any) -> None:
                pass

            def getWheelRel(self) -> tuple[float, float]:
                return 0.0, 0.0

        modules["event"].__dict__.update(
            waitKeys=lambda: ["space"], getKeys=get_keys, clearEvents=lambda: None, Mouse=Mouse
        )
        modules["visual"].__dict__.update(Window=Window, ImageStim=Drawn, TextStim=Drawn)
        package = types.ModuleType("psychopy")
        package.__dict__.update(modules)
        units = types.ModuleType("monitorunittools")
        units.__dict__.update(  # as in PsychoPy: degrees in the middle of the screen
            deg2pix=lambda degrees, to: degrees * to.distance * 0.017455 * to.pixels[0] / to.width
        )
        return {"psychopy": package, "psychopy.tools": modules["tools"], "psychopy.tools.monitorunittools": units}


def test_the_experiment_shows_every_trial_and_saves_the_answers(
    run: Run, design: TrialDesign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script itself runs; only PsychoPy's display and keyboard are stood in for."""
    export(run.path, "psychopy", tmp_path / "out", design=design)
    stage = Stage(["1", "2", "1", "escape"])
    run_script(stage, tmp_path / "out", "p002", monkeypatch)
    trials = pd.read_csv(tmp_path / "out/conditions/p002.csv")
    expected = [
        tuple(str(tmp_path / "out" / trials[f"stim_file_{place}"][row]) for place in (1, 2)) for row in range(4)
    ]
    drawn = [one for one in stage.shown if str(one).endswith(".png")]
    pairs = zip(drawn[::2], drawn[1::2], strict=True)  # of every frame
    assert [pair for pair, _ in itertools.groupby(pairs)] == expected
    saved = pd.read_csv(next((tmp_path / "out/data").glob("p002_*.csv")))
    assert list(saved["choice"].dropna()) == [1e-05, 0.0001, 1e-05] and stage.shown[-1] == "closed"
    assert list(saved["correct"].dropna()) == [
        int(index == key) for index, key in zip(trials["answer_index"][:3], (1, 2, 1), strict=True)
    ]
    assert list(saved["stimulus_id_1"]) == list(trials["stimulus_id_1"][:4])
    assert list(saved["response"].dropna()) == [1, 2, 1], "counted as answer_index is"
    lines = next((tmp_path / "out/data").glob("p002_*.jsonl")).read_text().splitlines()
    assert [json.loads(line)["response"] for line in lines] == [1, 2, 1]


def run_script(stage: Stage, folder: Path, participant: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    """Run the experiment of an export with PsychoPy's stand-in; the script."""
    for name, module in stage.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["experiment.py", participant, *options])
    spec = importlib.util.spec_from_file_location("experiment", folder / "experiment.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main()
    return script


def test_the_experiment_counts_frames_and_places_stimuli(
    placed_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 60 Hz: fixation for 6 frames, the stimulus for 3, its mask for 2, until the answer in the 8th frame."""
    design = TrialDesign.from_toml(PLACED)
    export(placed_run.path, "psychopy", tmp_path / "out", design=design)
    stage = Stage(["1", "2"] * 20, patience=8)
    run_script(stage, tmp_path / "out", "p001", monkeypatch)
    trials = pd.read_csv(tmp_path / "out/conditions/p001.csv")
    first = stage.shown[stage.shown.index("flip", 1) + 1 :]
    frames = [[]]  # type: list[list[Any]]
    for one in first:
        frames[-1].append(one)
        if one == "flip":
            frames.append([])
    file = str(tmp_path / "out" / trials["stim_file"][0])
    mask = file.replace("/stimuli/", "/masks/")
    kinds = ["stimulus" if file in frame else "mask" if mask in frame else "" for frame in frames[:16]]
    assert kinds == [""] * 6 + ["stimulus"] * 3 + ["mask"] * 2 + [""] * 5
    assert all("+" in frame for frame in frames[:15])
    saved = pd.read_csv(next((tmp_path / "out/data").glob("p001_*.csv")))
    assert saved["stimulus_s"].tolist() == pytest.approx([3 / 60] * len(trials))
    assert saved["fixation_s"].tolist() == pytest.approx([6 / 60] * len(trials))
    ppd = 1280 / 40 * 57 * 0.017455
    assert saved["image_scale"].tolist() == pytest.approx([ppd / 16] * len(trials))


@pytest.mark.parametrize("delay", [0.2, 0.0])
def test_the_experiment_shows_one_after_the_other(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delay: float
) -> None:
    """At 60 Hz: the first for 6 frames, nothing for 12, the second for 3 and its own mask for 6."""
    design = TrialDesign.from_toml(SEQUENCE.replace("delay = 0.2", f"delay = {delay}"))
    export(run.path, "psychopy", tmp_path / "out", design=design)
    stage = Stage(["1", "2"] * 20, patience=20)
    run_script(stage, tmp_path / "out", "p001", monkeypatch)
    trial = pd.read_csv(tmp_path / "out/conditions/p001.csv").iloc[0]
    shown = "\n".join(map(str, stage.shown[stage.shown.index("flip", 1) + 1 :])).split("flip")
    names = {"mark": "+", "first": trial["stim_file_1"], "second": trial["stim_file_2"]}
    names["mask"] = trial["stim_file_2"].replace("stimuli/", "masks/")
    kinds = [" ".join(kind for kind, name in names.items() if name in frame) for frame in shown[:40]]
    runs = [(kind, len(list(frames))) for kind, frames in itertools.groupby(kinds)]
    blank = [("", 12)] if delay else []
    assert runs[: 4 + len(blank)] == [("mark", 6), ("first", 6), *blank, ("second", 3), ("mask", 6)]
    saved = pd.read_csv(next((tmp_path / "out/data").glob("p001_*.csv"))).iloc[0]
    assert saved["fixation_s"] == pytest.approx(6 / 60) and saved["sample_s"] == pytest.approx(6 / 60)
    assert saved["stimulus_s"] == pytest.approx(3 / 60)


def test_a_display_of_another_refresh_rate_is_told_before_anything_is_shown(
    placed_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(placed_run.path, "psychopy", tmp_path / "out", design=TrialDesign.from_toml(PLACED))
    stage = Stage(["1", "2"] * 20, rate=144.0)
    with pytest.raises(SystemExit, match=r"shows 144\.0 frames a second, not 60: switch vertical synchronization on"):
        run_script(stage, tmp_path / "out", "p001", monkeypatch)
    assert stage.shown == ["closed"] and not list((tmp_path / "out/data").glob("*.csv"))
    run_script(stage, tmp_path / "out", "p001", monkeypatch, "--any-rate")
    saved = pd.read_csv(next((tmp_path / "out/data").glob("p001_*.csv")))
    assert set(saved["frame_rate"]) == {144.0}


# --- jsPsych --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tarballs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jspsych")
    if shutil.which("npm") is None or subprocess.run(npm_command().split(), cwd=folder, capture_output=True).returncode:
        lacking("npm and its registry")
    return folder


def test_lists_of_the_page(run: Run, design: TrialDesign, tmp_path: Path) -> None:
    """All of the page but jsPsych itself."""
    from stimkit.experiment.export import jspsych
    from stimkit.experiment.export.stimulus_set import gather_stimuli

    jspsych.write(gather_stimuli(run.path, design=design), tmp_path, {"jspsych.js": b"library"})
    trials = make_lists(list(run.records.values()), design).table
    for participant, expected in trials.groupby("participant"):
        rows = json.loads((tmp_path / f"lists/{participant}.json").read_text())
        same(pd.DataFrame(rows, dtype=object), expected.astype(object))
        assert all((tmp_path / row[f"stim_file_{place}"]).is_file() for row in rows for place in (1, 2))
    page = (tmp_path / "index.html").read_text()
    loaded = {name for package in JSPSYCH_PACKAGES for name in package.files.values()}
    assert loaded == {line.split('"')[-2].removeprefix("jspsych/") for line in page.splitlines() if "jspsych/" in line}
    assert (tmp_path / "jspsych/jspsych.js").read_bytes() == b"library"


def test_another_tarball_is_refused(tmp_path: Path) -> None:
    assert npm_command() in (ROOT / "docs/how-to/experiments.md").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="npm pack jspsych@"):
        load_library(tmp_path)
    (tmp_path / JSPSYCH_PACKAGES[0].tarball).write_bytes(b"something else")
    with pytest.raises(UsageError, match="is not jspsych 8"):
        load_library(tmp_path)


def note_error(errors: list[str], error: Error) -> None:
    errors.append(str(error))


def note_message(errors: list[str], message: ConsoleMessage) -> None:
    if message.type == "error":
        errors.append(message.text)


def wait_for_answers(page: Page, name: str, count: int, participant: str = "p001") -> list[Any]:
    """Wait until a page has kept so many answers; return them. What it shows meanwhile may be gone in a moment."""
    kept = f"JSON.parse(localStorage.getItem('stimkit {name} {participant}'))?.rows"
    page.wait_for_function(f"{kept}?.length === {count}")
    return list(page.evaluate(kept))


def test_the_page_runs_through_to_its_data(
    run: Run, design: TrialDesign, tarballs: Path, tmp_path: Path, browser: Browser
) -> None:
    """In a browser, from a plain static server, every trial answered; what it saves joins the manifest."""
    export(run.path, "jspsych", tmp_path / "out", design=design, jspsych_tarballs=tarballs)
    trials = make_lists(list(run.records.values()), design).table
    choices = ["1e-05", "0.0001"]
    with served(tmp_path / "out") as address:
        for participant, form in (("p001", "csv"), ("p002", "json")):
            page = browser.new_page()
            errors: list[str] = []
            page.on("pageerror", partial(note_error, errors))
            page.on("console", partial(note_message, errors))
            page.goto(f"{address}/?participant={participant}&save={form}")
            page.click("#jspsych-instructions-next")
            expected = trials[trials["participant"] == participant]
            with page.expect_download() as download:
                for number, (_, row) in enumerate(expected.iterrows()):
                    if number and row["block"] != expected.iloc[number - 1]["block"]:
                        page.click("button:text-is('Continue')")
                    shown = page.locator("#stage img")
                    expect(shown).to_have_count(2)
                    for image, name in zip(shown.all(), (row["stim_file_1"], row["stim_file_2"]), strict=True):
                        expect(image).to_have_attribute("src", name)
                    loaded = "images => images.every(image => image.complete && image.naturalWidth === 32)"
                    assert page.eval_on_selector_all("#stage img", loaded)
                    if participant == "p001":
                        page.click(f"button:text-is('{choices[number % 2]}')")
                    else:
                        page.keyboard.press(str(1 + number % 2))
                    wait_for_answers(page, "compare", number + 1, participant)
                page.click("button:text-is('Continue')")
            download.value.save_as(tmp_path / f"{participant}.{form}")
            assert errors == []
            page.close()
    joined = join_responses(run.path, [tmp_path / "p001.csv", tmp_path / "p002.json"])
    found = joined.responses
    assert len(found) == len(trials) and joined.unanswered == () and joined.without_stimulus == 0
    for name in trials.columns.drop("answer"):
        same(found[[name]], trials[[name]].reset_index(drop=True))
    assert list(found["answer"]) == list(map(float, trials["answer"])), "which look like numbers"
    assert set(found["choice"]) == {1e-05, 0.0001} and (found["rt"] > 0).all()
    assert list(found["correct"]) == [float(a) == c for a, c in zip(trials["answer"], found["choice"], strict=True)]
    assert 0 < found["correct"].mean() < 1


PLACED = """
schema = 1
name = "periphery"
participants = 2
[place]
eccentricity = 6
angle = [0, 90, 180]
fixation = [1, -0.5]
[screen]
viewing_distance = 57
width = 40
pixels = [1280, 1024]
refresh = 60
[timing]
fixation = 0.1
stimulus = 0.05
mask = 0.03333333
response = 3
[response]
choices = ["left", "right"]
"""


@pytest.fixture(scope="module")
def placed_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Stimuli of 32 px and 2 degrees."""
    folder = tmp_path_factory.mktemp("placed") / "run"
    plan = small_plan(display={"ppd": 16.0}, factors={"ratio": [1e-5]}, synthesis={"max_evaluations": 2})
    stimkit.run(plan, folder, device="cpu")
    return stimkit.open_run(folder)


BOXES = """elements => elements.map(element => {
  const {left, top, width, height} = element.getBoundingClientRect();
  return [left, top, width, height].map(value => value * devicePixelRatio);
})"""
WINDOWS = [
    (1, 1280, 800),
    pytest.param(2, 900, 700, marks=pytest.mark.slow),
    pytest.param(1.5, 1111, 733, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("ratio", "width", "height"), WINDOWS)
def test_pictures_are_where_the_design_says(
    placed_run: Run, tarballs: Path, tmp_path: Path, ratio: float, width: int, height: int, browser: Browser
) -> None:
    """Within half a pixel of the display, whatever its pixel ratio, the window, prompt and buttons are."""
    design = TrialDesign.from_toml(PLACED.replace("stimulus = 0.05\nmask = 0.03333333\n", ""))
    export(placed_run.path, "jspsych", tmp_path / "out", design=design, jspsych_tarballs=tarballs)
    rows = json.loads((tmp_path / "out/lists/p001.json").read_text())
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    ppd = settings["screen"]["ppd"]
    assert ppd == pytest.approx(1280 / 40 * 57 * np.tan(np.pi / 180))
    with served(tmp_path / "out") as address:
        context = browser.new_context(device_scale_factor=ratio, viewport={"width": width, "height": height})
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", partial(note_error, errors))
        page.goto(f"{address}/?participant=p001")
        page.click("#jspsych-instructions-next")
        middle = np.array([width, height]) * ratio / 2
        for number, row in enumerate(rows):
            page.wait_for_selector("#stage img")
            *arms, image = page.eval_on_selector_all("#stage > *", BOXES)
            mark = middle + np.array([1, 0.5]) * ppd
            places = [mark, mark, mark + np.array([row["x_deg"], -row["y_deg"]]) * ppd]
            for (left, top, wide, high), expected in zip((*arms, image), places, strict=True):
                assert np.abs([left + wide / 2, top + high / 2] - expected).max() <= 0.51
            assert image[2:] == pytest.approx([round(32 * ppd / 16)] * 2, abs=0.05), "layout has 64ths of a pixel"
            page.keyboard.press(str(1 + number % 2))
            wait_for_answers(page, "periphery", number + 1)
        page.wait_for_selector("form.start")
        with page.expect_download() as download:
            page.keyboard.press("Enter")
        download.value.save_as(tmp_path / "answers.csv")
    assert errors == []
    found = join_responses(placed_run.path, [tmp_path / "answers.csv"]).responses
    assert found["response"].tolist() == [1 + number % 2 for number in range(len(rows))]
    assert found["choice"].tolist() == [["left", "right"][number % 2] for number in range(len(rows))]
    assert set(found["device_pixel_ratio"]) == {ratio} and set(found["window_width_px"]) == {width}
    assert set(found["position"]) <= {"0deg", "90deg", "180deg"}
    assert (found["stimulus_ms"] > 0).all() and (found["onset_ms"].diff().dropna() > 0).all()
    assert found["image_scale"].tolist() == pytest.approx([ppd / 16] * len(rows))


SEVERAL = """
[trial]
form = "{form}"
differ = ["style_layers"]
[place.positions]
left = [-4.5, 0.25]
middle = [0.1, 3]
right = [5, -1]
"""


@pytest.mark.slow
@pytest.mark.parametrize(("form", "ratios"), [("pair", (1, 2, 1)), ("triplet", (2, 1, 2))])
def test_every_picture_of_a_trial_is_at_its_place(
    placed_run: Run, tarballs: Path, tmp_path: Path, form: str, ratios: tuple[int, ...], browser: Browser
) -> None:
    text = PLACED.replace("eccentricity = 6\nangle = [0, 90, 180]\n", "") + SEVERAL.format(form=form)
    text = text.replace("stimulus = 0.05\nmask = 0.03333333\n", "")
    places = {name: json.loads(place) for name, place in re.findall(r"(left|middle|right) = (\[.*\])", SEVERAL)}
    if form == "pair":
        text = text.replace("middle = [0.1, 3]\n", "")
        del places["middle"]
    else:
        text = text.replace('choices = ["left", "right"]\n', "")
    export(placed_run.path, "jspsych", tmp_path / "out", design=TrialDesign.from_toml(text), jspsych_tarballs=tarballs)
    ppd = json.loads((tmp_path / "out/settings.json").read_text())["screen"]["ppd"]
    (row, *_) = json.loads((tmp_path / "out/lists/p001.json").read_text())
    with served(tmp_path / "out") as address:
        for ratio, (width, height) in zip(ratios, ((1280, 800), (900, 701), (1111, 733)), strict=True):
            context = browser.new_context(device_scale_factor=ratio, viewport={"width": width, "height": height})
            page = context.new_page()
            page.goto(f"{address}/?participant=p001")
            page.click("#jspsych-instructions-next")
            expect(page.locator("#stage img")).to_have_count(len(places))
            boxes = page.eval_on_selector_all("#stage img", BOXES)
            for number, ((left, top, wide, high), (name, (x, y))) in enumerate(
                zip(boxes, places.items(), strict=True), 1
            ):
                assert row[f"position_{number}"] == name
                middle = np.array([width, height]) * ratio / 2 + np.array([1 + x, 0.5 - y]) * ppd
                assert np.abs([left + wide / 2, top + high / 2] - middle).max() <= 0.51
            context.close()


@pytest.mark.slow
def test_a_screen_is_measured_with_a_card_and_the_blind_spot(
    placed_run: Run, tarballs: Path, tmp_path: Path, browser: Browser
) -> None:
    """A card of 171 px for 85.6 mm, and stimuli where that and the distance that is found put them."""
    text = PLACED.replace("stimulus = 0.05\nmask = 0.03333333\n", "")
    text = text.replace("viewing_distance = 57\nwidth = 40\npixels = [1280, 1024]", "calibrate = true")
    design = TrialDesign.from_toml(text)
    with pytest.raises(ProtocolError, match="calibrate: is for browsers; PsychoPy needs viewing_distance"):
        export(placed_run.path, "psychopy", tmp_path / "psychopy", design=design)
    export(placed_run.path, "jspsych", tmp_path / "out", design=design, jspsych_tarballs=tarballs)
    with served(tmp_path / "out") as address:
        page = browser.new_context(device_scale_factor=2, viewport={"width": 1280, "height": 800}).new_page()
        page.goto(f"{address}/?participant=p001")
        page.locator("#item").evaluate("item => { item.style.width = '171px'; }")
        page.click("button:text-is('It has the size of the card')")
        while not page.locator("#distance-estimate").count():
            page.keyboard.press("Space")
            page.wait_for_timeout(250)
        page.click("button:text-is('That is about right')")
        page.click("#jspsych-instructions-next")
        page.wait_for_selector("#stage img")
        *_, (left, top, wide, high) = page.eval_on_selector_all("#stage > *", BOXES)
        page.keyboard.press("1")
        (row,) = wait_for_answers(page, "periphery", 1)
    distance, ppd = row["viewing_distance_cm"], row["pixels_per_degree"]
    item = 2 * np.degrees(np.arctan(8.56 / 2 / distance))
    assert ppd == pytest.approx(2 * 171 / item, rel=0.01) and 1 < distance < 500
    middle = [1280 + (1 + row["x_deg"]) * ppd, 800 - (row["y_deg"] - 0.5) * ppd]
    assert np.abs([left + wide / 2 - middle[0], top + high / 2 - middle[1]]).max() <= 0.51
    fits = left >= 0 and top >= 0 and left + wide <= 2560 and top + high <= 1600
    assert row["fits_window"] is fits and row["image_scale"] == pytest.approx(ppd / 16)


# What is on the stage when a frame is painted, with the frame's time: a message comes after that.
WATCH = """() => {
  window.seen = [];
  const painted = new MessageChannel();
  let time;
  painted.port1.onmessage = () => {
    const images = [...document.querySelectorAll("#stage img")].map((image) => image.getAttribute("src"));
    const what = images.join(" ") || (document.querySelector("#stage .mark") ? "mark" : "");
    const can = [...document.querySelectorAll("#jspsych-html-button-response-btngroup button")];
    window.seen.push([time, what, can.length > 0 && !can[0].disabled]);
  };
  const look = (now) => { time = now; painted.port2.postMessage(0); requestAnimationFrame(look); };
  requestAnimationFrame(look);
}"""
SEQUENCE = """
schema = 1
name = "sequence"
participants = 1
[trial]
form = "2afc"
along = "ratio"
[timing]
fixation = 0.1
sample = 0.1
delay = 0.2
stimulus = 0.05
mask = 0.1
response = 0.6
"""


def watched(page: Page, address: str, name: str) -> tuple[list[tuple[str, float]], list[Any], dict[str, Any]]:
    """What a page shows in the first trial and from when on, what it showed in each frame, and its row of data."""
    page.goto(f"{address}/?participant=p001")
    page.wait_for_selector("#jspsych-instructions-next")
    page.evaluate(WATCH)
    page.click("#jspsych-instructions-next")
    (row, *_) = wait_for_answers(page, name, 1)
    frames = page.evaluate("window.seen")
    changes = [frames[at] for at in range(1, len(frames)) if frames[at][1] != frames[at - 1][1]]
    return [(what, time) for time, what, _ in changes], frames, row


def test_times_of_the_page_are_those_of_the_frames_that_are_painted(
    placed_run: Run, tarballs: Path, tmp_path: Path, browser: Browser
) -> None:
    """As measured by another clock, and not longer than asked for by more than a frame unless the browser lags."""
    export(
        placed_run.path, "jspsych", tmp_path / "out", design=TrialDesign.from_toml(PLACED), jspsych_tarballs=tarballs
    )
    with served(tmp_path / "out") as address:
        shown, frames, row = watched(browser.new_page(), address, "periphery")  # 3 s without an answer
    assert row["response"] is None and row["choice"] is None and row["rt"] is None
    file = row["stim_file"]
    assert [what for what, _ in shown[:4]] == ["mark", file, file.replace("stimuli/", "masks/"), "mark"]
    at = [time for _, time in shown]
    for name, lasted, asked in zip(
        ("fixation_ms", "stimulus_ms", "mask_ms"), np.diff(at), (100, 50, 100 / 3), strict=False
    ):
        assert row[name] == pytest.approx(lasted, abs=0.02), name
        assert row[name] >= asked - 0.6 * row["frame_ms"], name
    assert row["onset_ms"] == pytest.approx(at[1], abs=0.02)
    assert frames[-1][0] - at[1] >= 3000 - 0.6 * row["frame_ms"]


def test_answers_to_what_is_not_yet_there_are_not_taken(
    run: Run, tarballs: Path, tmp_path: Path, browser: Browser
) -> None:
    """Of two intervals: the time to answer counts from the second one, whose mask alone follows it."""
    export(run.path, "jspsych", tmp_path / "out", design=TrialDesign.from_toml(SEQUENCE), jspsych_tarballs=tarballs)
    with served(tmp_path / "out") as address:
        page = browser.new_page()
        shown, frames, row = watched(page, address, "sequence")
        assert row["response"] is None, "600 ms from the second stimulus"
        first, second = row["stim_file_1"], row["stim_file_2"]
        mask = second.replace("stimuli/", "masks/")
        assert [what for what, _ in shown[:6]] == ["mark", first, "", second, mask, ""]
        times = dict(shown[:5])
        assert row["sample_ms"] == pytest.approx(shown[2][1] - times[first], abs=0.02)
        assert shown[3][1] - shown[2][1] >= 200 - 0.6 * row["frame_ms"]
        early = [can for time, _, can in frames if times["mark"] <= time < times[second]]
        assert early and not any(early)
        assert all(can for time, _, can in frames if times[second] < time < times[second] + 400)
        page.wait_for_function("document.querySelector('#stage img')")
        page.keyboard.press("1")  # in the first interval
        page.wait_for_function("window.seen.at(-1)[2]")
        page.keyboard.press("2")
        (_, answered, *_) = wait_for_answers(page, "sequence", 2)
    assert answered["response"] == 2 and 0 <= answered["rt"] <= 600


def test_closing_the_page_loses_nothing(
    run: Run, design: TrialDesign, tarballs: Path, tmp_path: Path, browser: Browser
) -> None:
    """Closed after two answers, the page goes on with the third, and saves all of them."""
    export(run.path, "jspsych", tmp_path / "out", design=design, jspsych_tarballs=tarballs)
    trials = make_lists(list(run.records.values()), design).table
    expected = trials[trials["participant"] == "p001"].reset_index(drop=True)
    with served(tmp_path / "out") as address:
        context = browser.new_context()

        def answer(page: Page, rows: pd.DataFrame) -> None:
            before = None
            for _, row in rows.iterrows():
                if before is not None and row["block"] != before:
                    page.click("button:text-is('Continue')")
                before = row["block"]
                page.wait_for_selector("#stage img")
                expect(page.locator("#stage img").first).to_have_attribute("src", row["stim_file_1"])
                page.keyboard.press("1")
                wait_for_answers(page, "compare", row["trial"])

        page = context.new_page()
        page.goto(f"{address}/?participant=p001")
        page.click("#jspsych-instructions-next")
        answer(page, expected[:2])
        page.close()
        page = context.new_page()
        page.goto(f"{address}/?participant=p001")
        expect(page.locator("form")).to_contain_text(f"2 / {len(expected)}")
        page.click("button:text-is('Go on')")
        page.click("#jspsych-instructions-next")
        if expected["block"][1] != expected["block"][2]:
            page.click("button:text-is('Continue')")
        answer(page, expected[2:])
        with page.expect_download() as download:
            page.click("button:text-is('Continue')")
        download.value.save_as(tmp_path / "answers.csv")
        page.goto(f"{address}/?participant=p001")
        expect(page.locator("form")).to_contain_text("All trials have been answered")
    found = join_responses(run.path, [tmp_path / "answers.csv"]).responses
    assert (
        found["trial"].tolist() == expected["trial"].tolist()
        and found["stimulus_id_1"].tolist() == expected["stimulus_id_1"].tolist()
    )


PAGES = """
[practice]
count = 2
feedback = true
[response]
prompt = "Welches?"
choices = ["1e-05", "0.0001"]
correct = "ratio"
[timing]
fixation = 0.05
[[pages]]
text = '''
Sie sehen <Bilder>.

Es dauert nicht lange.'''
consent = true
[[pages]]
file = "who.txt"
questions = [
  { name = "age", text = "Alter?", kind = "number" },
  { name = "hand", text = "Hand?", kind = "choice", choices = ["links", "rechts"] },
]
[[pages]]
when = "after"
questions = [{ name = "remark", text = "Bemerkungen?", required = false }]
[save]
datapipe = "abc123"
jatos = true
[words]
language = "de"
own = { right = "Gut!" }
"""


def refuse(sent: list[Any], route: Route) -> None:
    """Stand for a server that takes no answers."""
    sent.append(route.request.post_data_json)
    route.fulfill(status=400, headers={"Access-Control-Allow-Origin": "*"})


def test_pages_questions_and_words_of_ones_own(run: Run, tarballs: Path, tmp_path: Path, browser: Browser) -> None:
    (tmp_path / "design.toml").write_text('schema = 1\nname = "pages"\nparticipants = 2\n' + PAGES)
    (tmp_path / "who.txt").write_text("Einige Fragen & mehr.")
    design = TrialDesign.load(tmp_path / "design.toml")
    export(run.path, "jspsych", tmp_path / "out", design=design, jspsych_tarballs=tarballs)
    rows = json.loads((tmp_path / "out/lists/p001.json").read_text())
    with served(tmp_path / "out") as address:
        page = browser.new_page()
        page.add_init_script("window.jatos = {submitResultData: async text => { window.sent = text; }};")
        sent: list[Any] = []
        page.route("https://pipe.jspsych.org/**", partial(refuse, sent))
        page.goto(f"{address}/?participant=p001")
        page.click("button:text-is('Ich stimme nicht zu')")
        expect(page.locator(".done")).to_have_text("Vielen Dank. Das Experiment endet hier.")
        page.goto(f"{address}/?participant=p001")
        expect(page.locator("form p").nth(0)).to_have_text("Sie sehen <Bilder>.")
        expect(page.locator("form p").nth(1)).to_have_text("Es dauert nicht lange.")
        page.click("button:text-is('Ich stimme zu')")
        expect(page.locator("form")).to_contain_text("Einige Fragen & mehr.")
        page.fill("input[name=age]", "31.5")
        page.click("button:text-is('Weiter')")
        expect(page.locator("select[name=hand]")).to_be_focused()  # since it needs an answer
        page.select_option("select[name=hand]", "rechts")
        page.click("button:text-is('Weiter')")
        page.click("#jspsych-instructions-next")
        for number, row in enumerate(rows):
            if number and row["block"] != rows[number - 1]["block"]:
                page.click("button:text-is('Weiter')")
            page.wait_for_selector("#stage img")
            page.keyboard.press("1")
            if row["kind"] == "practice":
                expect(page.locator(".feedback")).to_have_text("Gut!" if row["answer_index"] == 1 else "Falsch")
            wait_for_answers(page, "pages", number + 1)
        page.click("button:text-is('Weiter')")
        with page.expect_download() as download:
            page.click("button:text-is('Weiter')")
        download.value.save_as(tmp_path / "answers.csv")
        expect(page.locator(".done")).to_contain_text("Sie konnten nicht an den Server geschickt werden.")
        saved = (tmp_path / "answers.csv").read_text(encoding="utf-8-sig")
        assert page.evaluate("window.sent").lstrip("\ufeff") == saved, "what JATOS gets"
    (posted,) = sent
    assert posted["experimentID"] == "abc123" and posted["data"].lstrip("\ufeff") == saved
    assert re.fullmatch(r"pages_p001_.*\.csv", posted["filename"])
    found = join_responses(run.path, [tmp_path / "answers.csv"]).responses
    assert set(found["age"]) == {31.5} and set(found["hand"]) == {"rechts"} and found["remark"].isna().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[pages]]\ntext = "a"\nfile = "b"\n', "give either text or file"),
        ('[[pages]]\nfile = "../b"\n', "../b is not beside the design"),
        ('[[pages]]\nfile = "none.txt"\n', "none.txt"),
        ('[[pages]]\nwhen = "after"\nconsent = true\n', "comes before the trials"),
        ('[[pages]]\nquestions = [{ name = "rt", text = "?" }]\n', "rt is the name of another column"),
        ('[[pages]]\nquestions = [{ name = "x_deg", text = "?" }]\n', "x_deg is the name of another column"),
        ('[[pages]]\nquestions = [{ name = "frame_ms", text = "?" }]\n', "frame_ms is the name of another column"),
        ('[[pages]]\nquestions = [{ name = "a", text = "?", kind = "choice" }]\n', 'belong to kind = "choice"'),
        ('[words]\nown = { hello = "Hi" }\n', "hello"),
        ('[words]\nlanguage = "tlh"\n', "language"),
    ],
)
def test_mistakes_in_pages_are_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "design.toml").write_text('schema = 1\nname = "pages"\nparticipants = 2\n' + text)
    with pytest.raises(StimkitError, match=re.escape(message)):
        TrialDesign.load(tmp_path / "design.toml")


# --- BIDS, BrainIO --------------------------------------------------------------------------------------------


def test_a_bids_dataset_is_valid(run: Run, design: TrialDesign, tmp_path: Path) -> None:
    export(run.path, "bids", tmp_path / "out", design=design)
    validator = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run([validator, tmp_path / "out", "--json"], capture_output=True, text=True)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [one for one in issues if one["severity"] == "error"] == []
    rows = pd.read_csv(tmp_path / "out/stimuli/stimuli.tsv", sep="\t", na_values=["n/a"])
    assert list(rows.columns[:3]) == ["stimulus_id", "type", "filename"] and set(rows["type"]) == {"image"}
    columns = json.loads((tmp_path / "out/stimuli/stimuli.json").read_text())
    assert set(columns) == set(rows.columns) and all(one["Description"] for one in columns.values())
    assert columns["ppd"]["Units"] == "1/deg" and columns["style_layers"]["Levels"] == {"one": "one", "two": "two"}
    for stimulus_id, filename in zip(rows["stimulus_id"], rows["filename"], strict=True):
        path = tmp_path / "out/stimuli" / filename
        record = run.records[stimulus_id]
        assert path.read_bytes() == (run.path / "stimuli" / record.filename).read_bytes()
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert sidecar["Stimkit"]["loss_total_file"] == record.losses.file.total
    trials = pd.read_csv(tmp_path / "out/sourcedata/trials.tsv", sep="\t")
    assert set(trials["stim_file_1"]) <= set(rows["filename"])
    assert "draft of BEP044" in (tmp_path / "out/README.md").read_text()


def test_brainio_files_and_their_digests(run: Run, tmp_path: Path) -> None:
    export(run.path, "brainio", tmp_path / "out")
    lookup = pd.read_csv(tmp_path / "out/lookup.csv")
    assert list(lookup["lookup_type"]) == ["stimulus_set"] * 2 and lookup["class"].tolist()[0] == "StimulusSet"
    for location, digest in zip(lookup["location"], lookup["sha1"], strict=True):
        assert hashlib.sha1((tmp_path / "out" / location).read_bytes()).hexdigest() == digest
    stimuli = pd.read_csv(tmp_path / "out" / lookup["location"][0])
    assert stimuli["stimulus_id"].is_unique and stimuli["stimulus_id"].str.isalnum().all()
    with zipfile.ZipFile(tmp_path / "out" / lookup["location"][1]) as archive:
        assert sorted(archive.namelist()) == sorted(stimuli["filename"])
        for stimulus_id, filename in zip(stimuli["stimulus_id"], stimuli["filename"], strict=True):
            digest = run.records[stimulus_id].file_sha256
            assert digest and digest.endswith(hashlib.sha256(archive.read(filename)).hexdigest())


# --- mistakes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [one for one in FORMATS if one != "jspsych"])
def test_a_damaged_stimulus_is_not_exported(small_run: Run, tmp_path: Path, form: str) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    path = next((tmp_path / "run/stimuli").iterdir())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(RunFolderError, match="is not the file of its record"):
        export(tmp_path / "run", form, tmp_path / "out")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["run"], "nothing is left of it"


def test_mistakes(run: Run, design: TrialDesign, tmp_path: Path, command: Command) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        (("psychopi",), '"psychopi" is not a format (did you mean "psychopy"?)'),
        (("csv", "--where", "style == 'x'"), "no stimulus meets the condition"),
        (("csv", "--where", "style ="), "cannot be evaluated"),
        (("csv", "--columns", "mean_luminanc"), 'no column "mean_luminanc" (did you mean "mean_luminance"?)'),
        (("csv", "--design", tmp_path / "none.toml"), "no such file"),
    ):
        code, _, err = command("export", run.path, *arguments, "--out", out)
        assert code == 2 and message in err and not out.exists()
    code, said, _ = command("export", run.path, "csv", "--out", out)
    assert code == 0 and "8 stimuli for csv" in said
    code, _, err = command("export", run.path, "csv", "--out", out)
    assert code == 2 and "is not an empty folder" in err
    with pytest.raises(UsageError, match="the trial design says"):
        export(run.path, "csv", tmp_path / "other", design=design, where="style == 'x'")

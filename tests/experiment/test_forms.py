"""Forms of trials beside single stimuli, pairs and triplets: units, places, right answers, and both exports."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

import stimkit
from stimkit.errors import ProtocolError
from stimkit.experiment.export.formats import export
from stimkit.experiment.responses import join_responses
from stimkit.experiment.trials.balance import count_balance
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.lists import TrialLists, make_lists
from stimkit.records.schema import Record
from stimkit.runfolder.run import Run
from tests.conftest import changed, small_plan
from tests.experiment.test_export import Stage, note_error, run_script, served, tarballs, wait_for_answers

__all__ = ["tarballs"]  # a fixture

CONTENTS = {"cat": "skimage:chelsea", "moon": "skimage:moon"}
STYLES = {"cup": "skimage:coffee", "grass": "skimage:grass"}


@pytest.fixture(scope="module")
def series_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two contents × a series of five styles."""
    images = {"content": CONTENTS, "style": STYLES, "mixes": {"sm": {"of": ["cup", "grass"], "steps": 5}}}
    factors = {"style_layers": ["one"], "ratio": [1e-5]}
    folder = tmp_path_factory.mktemp("runs") / "series"
    stimkit.run(small_plan(images=images, factors=factors, synthesis={"max_evaluations": 1}), folder, device="cpu")
    return stimkit.open_run(folder)


@pytest.fixture
def records(series_run: Run) -> list[Record]:
    return list(series_run.records.values())


def design(trial: str, further: str = "", participants: int = 4) -> TrialDesign:
    head = f"schema = 1\nname = 'forms'\nparticipants = {participants}"
    return TrialDesign.from_toml(f"{head}\n[trial]\n{trial}\n[timing]\nfixation = 0.05\n{further}")


def lists(records: list[Record], trial: str, further: str = "", participants: int = 4) -> TrialLists:
    return make_lists(records, design(trial, further, participants))


def columns(found: TrialLists, name: str, count: int) -> np.ndarray[Any, Any]:
    return found.table[[f"{name}_{place}" for place in range(1, count + 1)]].to_numpy()


def arrangements(found: TrialLists) -> tuple[int, int]:
    balance = count_balance(found).set_index("measure")
    row = balance.loc["arrangement"].to_dict()
    return row["lowest"], row["highest"]


# --- units, places, answers ------------------------------------------------------------------------------------


def test_triads_are_all_ascending_or_descending_threes(records: list[Record]) -> None:
    found = lists(records, 'form = "mlds-triad"\nalong = "sm"')
    assert len(found.table) == 4 * 2 * 10, "of five steps ten threes, of two contents, for four participants"
    positions = columns(found, "sm", 3).astype(float)
    steps = np.sign(np.diff(positions))
    assert (np.abs(steps.sum(1)) == 2).all() and Counter(steps[:, 0]) == {1.0: 40, -1.0: 40}
    assert (columns(found, "content", 3) == columns(found, "content", 1)).all()
    assert arrangements(found) == (2, 2) and (found.table["answer"] == "").all()


def test_quadruples_are_pairs_that_do_not_overlap(records: list[Record]) -> None:
    found = lists(records, 'form = "mlds-quad"\nalong = "sm"', participants=8)
    positions = columns(found, "sm", 4).astype(float)
    assert len(positions) == 8 * 2 * 5
    low = np.sort(positions[:, :2], axis=1)[:, 1], np.sort(positions[:, 2:], axis=1)[:, 1]
    high = np.sort(positions[:, 2:], axis=1)[:, 0], np.sort(positions[:, :2], axis=1)[:, 0]
    assert ((low[0] < high[0]) | (low[1] < high[1])).all()
    assert arrangements(found) == (4, 4), "each pair of pairs is on top equally often"
    assert len({tuple(np.sign(np.diff(row))[[0, 2]]) for row in positions}) == 4, "pairs are either way round"


def test_of_two_the_one_with_more_is_right(records: list[Record]) -> None:
    found = lists(records, 'form = "2afc"\nalong = "sm"')
    positions = columns(found, "sm", 2).astype(float)
    assert len(positions) == 4 * 2 * 10
    assert (found.table["answer_index"].to_numpy(int) == 1 + positions.argmax(1)).all()
    assert arrangements(found) == (2, 2)


def test_a_factor_of_numbers_is_a_series(series_run: Run) -> None:
    records = [
        changed(one, levels={"content": one.levels["content"], "ratio": str(10.0**-number)}, attributes={})
        for number, one in enumerate(list(series_run.records.values())[:4])
    ]
    found = lists(records, 'form = "mlds-triad"\nalong = "ratio"')
    assert len(found.table) == 4 * 4
    assert (columns(found, "ratio", 3).astype(float)[:, 1] > 0).all()


def test_x_is_the_twin_of_its_answer(records: list[Record]) -> None:
    found = lists(records, 'form = "abx"\ndiffer = ["style"]')
    assert len(found.table) == 4 * 2 * 20, "each of two may be X"
    ids = columns(found, "stimulus_id", 3)
    right = found.table["answer_index"].to_numpy(int) - 1
    assert (ids[np.arange(len(ids)), right] == ids[:, 2]).all() and (ids[:, 0] != ids[:, 1]).all()
    assert arrangements(found) == (2, 2)


def test_x_may_be_another_exemplar(records: list[Record]) -> None:
    found = lists(records, 'form = "abx"\ndiffer = ["style"]\nfree = ["content"]')
    styles, contents, right = columns(found, "style", 3), columns(found, "content", 3), found.table["answer_index"]
    rows = np.arange(len(styles))
    twin = right.to_numpy(int) - 1
    assert (styles[rows, twin] == styles[:, 2]).all() and (styles[rows, 1 - twin] != styles[:, 2]).all()
    assert (contents[rows, twin] != contents[:, 2]).all(), "X is never the same stimulus"


def test_a_match_has_what_is_asked_for_and_the_other_what_distracts(records: list[Record]) -> None:
    found = lists(records, 'form = "match"\nmatch = ["style"]\ndistract = ["content"]')
    assert len(found.table) == 4 * 10 * 4, "sample × one style of another content × four styles of its own"
    styles, contents = columns(found, "style", 3), columns(found, "content", 3)
    target = found.table["answer_index"].to_numpy(int)
    rows = np.arange(len(target))
    assert (styles[rows, target] == styles[:, 0]).all() and (contents[rows, target] != contents[:, 0]).all()
    other = 3 - target
    assert (styles[rows, other] != styles[:, 0]).all() and (contents[rows, other] == contents[:, 0]).all()
    assert arrangements(found) == (2, 2)


def test_similarity_is_of_three_different_ones(records: list[Record]) -> None:
    found = lists(records, 'form = "similarity"\ndiffer = ["style"]', participants=6)
    styles = columns(found, "style", 3)
    assert len(styles) == 6 * 2 * 10 and all(len(set(row)) == 3 for row in styles)
    assert (found.table["answer"] == "").all() and found.answers.choices == ("1", "2", "3")


def test_an_adjustment_moves_along_what_its_sample_is_in(records: list[Record]) -> None:
    found = lists(records, 'form = "adjust"\nalong = "sm"\nclosed = true', participants=10)
    assert len(found.table) == 10 * 10 and set(found.series) == {"series1", "series2"}
    for _, row in found.table.iterrows():
        steps = found.series[str(row["series"])]
        assert [step["level"] for step in steps] == [0, 0.25, 0.5, 0.75, 1]
        assert row["stimulus_id"] in {step["stimulus_id"] for step in steps}
    assert set(found.table["start"]) == {1, 2, 3, 4, 5}, "starts are random"
    assert found.answers.choices == found.answers.keys == ()


def test_lists_of_all_forms_are_the_same_again(records: list[Record]) -> None:
    for trial in ('form = "mlds-quad"\nalong = "sm"', 'form = "adjust"\nalong = "sm"'):
        assert lists(records, trial).table.equals(lists(records, trial).table)


@pytest.mark.parametrize(
    ("trial", "further", "message"),
    [
        ('form = "mlds-triad"', "", "trial.along: name the series, or the factor of numbers, that mlds-triad"),
        ('form = "match"', "", "trial.match: name the factors that the right candidate shares"),
        ('form = "abx"', "", "trial.differ: name the factors in which the stimuli of a abx differ"),
        ('form = "pair"\ndiffer = ["style"]\nalong = "sm"', "", "trial.along: is for 2afc, mlds-triad"),
        ('form = "adjust"\nalong = "sm"\nfree = ["content"]', "", "trial.free: is for"),
        ('form = "mlds-triad"\nalong = "mood"', "", 'the run has no factor or attribute "mood"'),
        ('form = "mlds-triad"\nalong = "content"', "", "no stimulus of a series content is selected"),
        ('form = "single"', "sample = 1", "timing.sample: is for pair, 2afc, abx, match"),
        ('form = "abx"\ndiffer = ["style"]', "delay = 1", "timing.delay: is between stimuli"),
        ('form = "adjust"\nalong = "sm"', "stimulus = 1", "timing.stimulus: is not for adjust"),
        ('form = "adjust"\nalong = "sm"', "[response]\nchoices = ['a']", "response.choices: is not for adjust"),
        ('form = "2afc"\nalong = "sm"', "[response]\ncorrect = 'sm'", "the right answer of the form 2afc is a place"),
        ('form = "abx"\ndiffer = ["style"]', "[response]\nchoices = ['a', 'b', 'c']", "has 2 answers"),
        ('form = "match"\nmatch = ["style"]\ndistract = ["content"]', "[stimuli]\nwhere = 'sm == 0'", "no match"),
    ],
)  # fmt: skip
def test_mistakes_are_named(records: list[Record], trial: str, further: str, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        lists(records, trial, further)
    assert message in str(caught.value), str(caught.value)


# --- in a browser ----------------------------------------------------------------------------------------------


def boxes(page: Page) -> list[tuple[float, float]]:
    """Middles of the pictures on the stage, from the middle of the window, rightwards and upwards."""
    found = [image.bounding_box() for image in page.locator("#stage img").all()]
    size = page.viewport_size
    assert size is not None
    return [
        (box["x"] + box["width"] / 2 - size["width"] / 2, size["height"] / 2 - box["y"] - box["height"] / 2)
        for box in found
        if box is not None
    ]


def test_forms_in_a_browser(series_run: Run, tarballs: Path, tmp_path: Path, browser: Browser) -> None:
    """Lines of pictures, one stage after the other, and keys; what is saved joins the manifest."""
    forms = {
        "quad": ('form = "mlds-quad"\nalong = "sm"\ncount = 2', "", [(-36, 36), (36, 36), (-36, -36), (36, -36)]),
        "delayed": ('form = "match"\nmatch = ["style"]\ndistract = ["content"]\ncount = 2', "sample = 0.3\ndelay = 0.2",
                    [(-36, 0), (36, 0)]),
    }  # fmt: skip
    for name, (trial, further, _) in forms.items():
        export(series_run.path, "jspsych", tmp_path / name, design=design(trial, further), jspsych_tarballs=tarballs)
    with served(tmp_path) as address:
        for name, (_, _, expected) in forms.items():
            page = browser.new_page()
            errors: list[str] = []
            page.on("pageerror", partial(note_error, errors))
            page.goto(f"{address}/{name}/?participant=p001")
            page.click("#jspsych-instructions-next")
            if name == "delayed":
                expect(page.locator("#stage img")).to_have_count(1)
                assert boxes(page) == [pytest.approx((0, 0), abs=1)], "the sample is alone"
            expect(page.locator("#stage img")).to_have_count(len(expected))
            for found, place in zip(boxes(page), expected, strict=True):
                assert found == pytest.approx(place, abs=1), name
            first, last = (page.locator("button.jspsych-btn").nth(at).bounding_box() for at in (0, -1))
            assert first and last and first["x"] + last["x"] + last["width"] == pytest.approx(1280, abs=2)
            with page.expect_download() as download:
                page.keyboard.press("2")
                wait_for_answers(page, "forms", 1)
                expect(page.locator("#stage img")).to_have_count(len(expected))
                page.keyboard.press("1")
                wait_for_answers(page, "forms", 2)
                page.click("button:text-is('Continue')")
            download.value.save_as(tmp_path / f"{name}.csv")
            assert errors == []
            page.close()
            answers = join_responses(series_run.path, [tmp_path / f"{name}.csv"]).responses
            assert answers["response"].tolist() == [2, 1]
            if name == "delayed":
                assert (answers["sample_ms"] >= 290).all() and set(answers["correct"]) <= {0, 1}


def by_keys(page: Page) -> None:
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")


def by_wheel(page: Page) -> None:
    page.mouse.wheel(0, -150)


def by_dragging(page: Page) -> None:
    page.mouse.move(400, 200)
    page.mouse.down()
    page.mouse.move(412, 200)
    page.mouse.up()


def test_an_adjustment_in_a_browser(series_run: Run, tarballs: Path, tmp_path: Path, browser: Browser) -> None:
    """Arrow keys, the wheel and dragging go along the series, and around it; Return or the button ends the trial."""
    wanted = design('form = "adjust"\nalong = "sm"\nclosed = true\ncount = 3', participants=1)
    export(series_run.path, "jspsych", tmp_path / "out", design=wanted, jspsych_tarballs=tarballs)
    made = make_lists(list(series_run.records.values()), wanted)
    rows = made.table.reset_index(drop=True)
    moves: list[tuple[Callable[[Page], None], int]] = [(by_keys, 2), (by_wheel, -3), (by_dragging, 1)]
    with served(tmp_path / "out") as address:
        page = browser.new_page()
        page.goto(f"{address}/?participant=p001")
        page.click("#jspsych-instructions-next")
        with page.expect_download() as download:
            for number, (act, by) in enumerate(moves):
                row = rows.iloc[number]
                steps = made.series[str(row["series"])]
                sample, moved = page.locator("#stage img").nth(0), page.locator("#stage img").nth(1)
                expect(sample).to_have_attribute("src", str(row["stim_file"]))
                expect(moved).to_have_attribute("src", str(steps[int(row["start"]) - 1]["stim_file"]))
                act(page)
                at = (int(row["start"]) - 1 + by) % 5
                expect(moved).to_have_attribute("src", str(steps[at]["stim_file"]))
                assert boxes(page) == [pytest.approx((-36, 0), abs=1), pytest.approx((36, 0), abs=1)]
                page.keyboard.press("Enter") if number != 1 else page.click("button:text-is('It matches')")
                found = wait_for_answers(page, "forms", number + 1)[-1]
                assert found["response"] == at + 1 and found["chosen_id"] == steps[at]["stimulus_id"]
                assert found["moves"] == abs(by) and found["rt"] >= 0
            page.click("button:text-is('Continue')")
        download.value.save_as(tmp_path / "p001.csv")
        page.close()
    answers = join_responses(series_run.path, [tmp_path / "p001.csv"]).responses
    assert answers["chosen"].between(0, 1).all() and list(answers["start"]) == list(rows["start"])


# --- in PsychoPy, as far as its script goes ---------------------------------------------------------------------


def test_a_sequence_of_stages_in_psychopy(series_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 60 Hz: A for 6 frames, nothing for 3, B for 6, nothing for 3, then X until the answer."""
    wanted = design('form = "abx"\ndiffer = ["style"]\ncount = 1', "sample = 0.1\ndelay = 0.05", participants=1)
    export(series_run.path, "psychopy", tmp_path / "out", design=wanted)
    stage = Stage(["2"], patience=4)
    run_script(stage, tmp_path / "out", "p001", monkeypatch)
    row = pd.read_csv(tmp_path / "out/conditions/p001.csv").iloc[0]
    files = {str(tmp_path / "out" / row[f"stim_file_{place}"]): name for place, name in ((1, "A"), (2, "B"))}
    frames = [list(frame) for is_flip, frame in itertools.groupby(stage.shown, "flip".__eq__) if not is_flip]
    pictures = ["".join(files.get(str(one), "") for one in frame) for frame in frames]
    assert "".join(pictures).count("A") + "".join(pictures).count("B") >= 12
    order = [name for name, _ in itertools.groupby(filter(None, pictures))]
    assert order[:2] == ["A", "B"]
    saved = pd.read_csv(next((tmp_path / "out/data").glob("p001_*.csv")))
    assert saved["sample_s"].tolist() == pytest.approx([0.1]) and saved["response"].tolist() == [2]


def test_an_adjustment_in_psychopy(series_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = design('form = "adjust"\nalong = "sm"\ncount = 2', participants=1)
    export(series_run.path, "psychopy", tmp_path / "out", design=wanted)
    stage = Stage(["right", "up", "left", "return", *["left"] * 5, "return"])
    run_script(stage, tmp_path / "out", "p001", monkeypatch)
    saved = pd.read_csv(next((tmp_path / "out/data").glob("p001_*.csv")))
    start = saved["start"].to_numpy()
    assert saved["response"].tolist() == [min(5, start[0] + 2) - 1, 1], "an open series ends"
    assert saved["moves"].tolist() == [min(2, 5 - start[0]) + 1, start[1] - 1]
    answers = join_responses(series_run.path, list((tmp_path / "out/data").glob("*.csv")), times="s").responses
    assert answers["chosen"].tolist() == [(one - 1) / 4 for one in saved["response"]]

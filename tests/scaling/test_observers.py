"""Simulated observers: what they see is in their answers, which go the way of real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import stimkit
from stimkit.errors import UsageError
from stimkit.experiment.trials.lists import make_lists
from stimkit.runfolder.run import Run
from stimkit.scaling.observers import Observer, answer_lists, save_answers
from tests.experiment.test_forms import design, series_run

__all__ = ["series_run"]  # a fixture

Command = Callable[..., tuple[int, str, str]]
ALONG = {
    "2afc": 'form = "2afc"\nalong = "sm"',
    "abx": 'form = "abx"\ndiffer = ["style"]',
    "match": 'form = "match"\nmatch = ["style"]\ndistract = ["content"]',
    "triad": 'form = "mlds-triad"\nalong = "sm"',
    "quad": 'form = "mlds-quad"\nalong = "sm"',
    "adjust": 'form = "adjust"\nalong = "sm"',
    "single": 'form = "single"',
}


def answers_of(run: Run, form: str, observer: Observer, further: str = "", participants: int = 4) -> pd.DataFrame:
    lists = make_lists(list(run.records.values()), design(ALONG[form], further, participants))
    return answer_lists(lists, observer, along="sm", seed=3)


@pytest.mark.parametrize("form", ["2afc", "abx", "match"])
def test_who_sees_without_noise_is_right(series_run: Run, form: str) -> None:
    assert answers_of(series_run, form, Observer(noise=0.0))["correct"].all()
    noisy = answers_of(series_run, form, Observer(noise=0.5))["correct"].astype(float).mean()
    assert 0.5 < noisy < 0.95
    chance = answers_of(series_run, form, Observer("random"))["correct"].astype(float).mean()
    assert chance == pytest.approx(0.5, abs=0.2)


def test_an_adjustment_ends_at_what_is_seen(series_run: Run) -> None:
    exact = answers_of(series_run, "adjust", Observer(noise=0.0))
    assert (exact["chosen"] == exact["sm"]).all() and (exact["chosen_id"] == exact["stimulus_id"])[:5].any()
    noisy = answers_of(series_run, "adjust", Observer(noise=0.3))
    assert 0.05 < np.abs(noisy["chosen"] - noisy["sm"]).mean() < 0.4


def test_differences_are_those_of_the_scale(series_run: Run) -> None:
    found = answers_of(series_run, "triad", Observer(exponent=2.0, noise=0.0))
    psi = found[[f"sm_{place}" for place in (1, 2, 3)]].to_numpy(float) ** 2
    steps = np.abs(np.diff(psi))
    assert (found["response"].to_numpy() == 1 + (steps[:, 1] > steps[:, 0])).all()


def test_lapses_and_thresholds(series_run: Run) -> None:
    asked = '[response]\nchoices = ["no", "yes"]'
    sure = answers_of(series_run, "single", Observer("logistic", width=0.001, threshold=0.6), asked)
    assert (sure["choice"] == np.where(sure["sm"] > 0.6, "yes", "no")).all()
    lapsed = Observer("logistic", width=0.001, threshold=0.6, lapse=0.4)
    found = answers_of(series_run, "single", lapsed, asked, participants=40)
    wrong = (found["choice"] != np.where(found["sm"] > 0.6, "yes", "no")).mean()
    assert wrong == pytest.approx(0.2, abs=0.05)


def test_answers_are_marked_and_the_same_again(series_run: Run) -> None:
    one, again = (answers_of(series_run, "quad", Observer(noise=0.2)) for _ in range(2))
    assert one.equals(again) and one["observer"].str.startswith("simulated: ").all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "ideal"}, '"ideal" is not an observer'),
        ({"noise": -1.0}, "noise is not below 0"),
        ({"lapse": 2.0}, "lapse is from 0 to 1"),
        ({"width": 0.0}, "width are above 0"),
    ],
)
def test_observers_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Observer(**values)
    assert message in str(caught.value)


def test_a_series_that_is_not_there_is_told(series_run: Run) -> None:
    lists = make_lists(list(series_run.records.values()), design(ALONG["abx"]))
    for along in (None, "tm", "content"):
        with pytest.raises(UsageError, match=r"--along|without a number"):
            answer_lists(lists, Observer(), along=along, seed=0)


def test_from_series_to_scale_with_commands(series_run: Run, tmp_path: Path, command: Command) -> None:
    """As real answers go: simulated, joined, scaled; the scale is the observer's."""
    path = tmp_path / "design.toml"
    path.write_text(design(ALONG["triad"].replace("along", "repetitions = 8\nalong"), participants=3).text)
    code, out, err = command("simulate", series_run.path, "--design", path, "--exponent", "0.5", "--noise", "0.15",
                             "--out", tmp_path / "answers")  # fmt: skip
    assert code == 0 and "480 simulated answers of 3 participants" in out, err
    files = sorted((tmp_path / "answers").glob("p*.csv"))
    code, out, err = command("join", series_run.path, *files, "--out", tmp_path / "joined")
    assert code == 0 and "480 responses of 3 participants" in out, err
    code, out, err = command(
        "scale",
        tmp_path / "joined",
        "--method",
        "mlds",
        "--along",
        "sm",
        "--samples",
        "40",
        "--out",
        tmp_path / "scale",
    )
    assert code == 0 and "all: 480 trials" in out and "p002: 160 trials" in out, err
    values = pd.read_csv(tmp_path / "scale/scales.csv", keep_default_na=False)
    whole = values[(values["participant"] == "") & (values["kind"] == "item")]
    assert whole["value"].astype(float).to_numpy() == pytest.approx(np.sqrt([0, 0.25, 0.5, 0.75, 1]), abs=0.08)
    assert (tmp_path / "scale/scale.png").read_bytes().startswith(b"\x89PNG")
    code, out, err = command("scale", tmp_path / "joined", "--method", "psychometric", "--along", "sm")
    assert code == 2 and "needs trials of 1 or 2 stimuli" in err


def test_files_are_those_of_the_exports(series_run: Run, tmp_path: Path) -> None:
    answers = stimkit.simulate(series_run, design(ALONG["2afc"]), Observer(noise=0.2))
    assert save_answers(answers, tmp_path / "out") == 4
    joined = stimkit.join_responses(series_run.path, sorted((tmp_path / "out").glob("*.csv"))).responses
    assert len(joined) == len(answers) and joined["rt"].between(0.3, 2).all(), "milliseconds became seconds"
    assert set(joined["observer"].str[:10]) == {"simulated:"}

"""Norms: means over participants with intervals that textbooks have, in the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stimkit
from stimkit.errors import UsageError
from stimkit.runfolder.run import Run
from tests.conftest import small_plan

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(small_run: Run, tmp_path: Path) -> Run:
    shutil.copytree(small_run.path, tmp_path / "run")
    return stimkit.open_run(tmp_path / "run")


def joined(folder: Path, rows: Sequence[tuple[object, ...]], *names: str) -> Path:
    path = folder / "responses.csv"
    pd.DataFrame(rows, columns=["participant", "stimulus_id", *names]).to_csv(path, index=False)
    return path


def test_people_are_found_by_other_names_too(run: Run, tmp_path: Path) -> None:
    """A participant may be called NA, and rows of a file without kinds of trials are main trials."""
    first, *_ = run.records
    rows = [("NA", first, 1, np.nan), ("a", first, 3, "main"), ("a", first, 9, "practice")]
    pd.DataFrame(rows, columns=["subject", "stimulus_id", "response", "kind"]).to_csv(tmp_path / "r.csv")
    found = stimkit.norm(run.path, tmp_path / "r.csv").iloc[0]
    assert found["norm_participants"] == 2 and found["norm_rating"] == 2


def test_accuracy_has_the_interval_of_wilson(run: Run, tmp_path: Path) -> None:
    """Agresti & Coull (1998) give 0.596 to 0.982 as the score interval of 9 of 10."""
    first, second, *_ = run.records
    rows = [(f"p{n}", first, 1, "cat", int(n < 9), 0.5) for n in range(10)] + [("p0", second, 2, "dog", 0, 0.7)]
    found = stimkit.norm(run.path, joined(tmp_path, rows, "response", "choice", "correct", "rt"), name="naming")
    row = found.set_index("stimulus_id").loc[first]
    assert row["naming_accuracy"] == 0.9 and row["naming_participants"] == 10
    assert (row["naming_accuracy_low"], row["naming_accuracy_high"]) == pytest.approx((0.596, 0.982), abs=5e-4)
    assert row["naming_entropy"] == 0 and row["naming_modal_share"] == 1 and row["naming_rt"] == 0.5
    table = pd.read_csv(run.path / "manifest.csv").set_index("stimulus_id")
    assert table["naming_accuracy"].tolist()[:2] == [0.9, 0.0] and table["naming_accuracy"].isna().sum() == 2


def test_ratings_count_each_participant_once(run: Run, tmp_path: Path) -> None:
    first, *_ = run.records
    rows = [("a", first, 1), ("a", first, 3), ("b", first, 4), ("c", first, 3)]
    found = stimkit.norm(run.path, joined(tmp_path, rows, "response")).iloc[0]
    assert found["norm_rating"] == 3 and found["norm_rating_sd"] == 1 and found["norm_answers"] == 4
    assert found["norm_rating_high"] - 3 == pytest.approx(4.302653 / np.sqrt(3), rel=1e-5)  # t(0.975, 2)


def test_agreement_of_names_is_their_entropy(run: Run, tmp_path: Path) -> None:
    first, *_ = run.records
    rows = [(f"p{n}", first, n + 1, name) for n, name in enumerate(["cat", "cat", "dog", "fox"])]
    found = stimkit.norm(run.path, joined(tmp_path, rows, "response", "choice")).iloc[0]
    assert found["norm_entropy"] == pytest.approx(1.5) and found["norm_modal_share"] == 0.5


def test_pilots_select_without_a_script(run: Run, tmp_path: Path, command: Command) -> None:
    stimkit.run(small_plan(accept={"measured": {"norm_rating": [2.5, 5.0]}}), run.path, device="cpu")
    rows = [("a", name, 1 + index) for index, name in enumerate(run.records)]
    code, said, _ = command("norm", run.path, joined(tmp_path, rows, "response"))
    assert code == 0 and "2 accepted, 2 rejected" in said
    design = stimkit.TrialDesign.from_toml(
        'schema = 1\nname = "t"\nparticipants = 1\n[trial]\n[stimuli]\nwhere = "norm_rating > 3"'
    )
    lists = stimkit.make_trials(run.path, design)
    assert lists.table["stimulus_id"].tolist() == [list(run.records)[3]]
    assert stimkit.verify(run.path).findings == ()


def test_each_participant_has_one_vote(run: Run, tmp_path: Path) -> None:
    first, *_ = run.records
    rows = [("a", first, 1, "cat")] * 9 + [("b", first, 2, "dog"), ("c", first, 2, "dog")]
    found = stimkit.norm(run.path, joined(tmp_path, rows, "response", "choice")).iloc[0]
    assert found["norm_modal_share"] == pytest.approx(2 / 3)
    assert found["norm_entropy"] == pytest.approx(-(2 / 3) * np.log2(2 / 3) - (1 / 3) * np.log2(1 / 3))


def test_answers_that_say_nothing_are_left_out(run: Run, tmp_path: Path) -> None:
    first, *_ = run.records
    rows = [("a", first, 3, "3"), ("b", first, 5, "5"), ("c", first, 1, None), ("d", first, np.inf, "inf")]
    found = stimkit.norm(run.path, joined(tmp_path, rows, "response", "choice")).iloc[0]
    assert found["norm_rating"] == 4 and found["norm_answers"] == 2


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("correct", "yes", '"correct" holds more than numbers'),
        ("participant", None, "answers without a participant"),
        ("stimulus_id", ..., "has no column stimulus_id"),
    ],
)
def test_tables_of_others_are_told(run: Run, tmp_path: Path, column: str, value: object, words: str) -> None:
    rows: list[dict[str, object]] = [
        {"participant": person, "stimulus_id": stimulus, "response": 1, "correct": 1}
        for person, stimulus in zip("ab", run.records, strict=False)
    ]
    rows[1][column] = value
    table = pd.DataFrame(rows)
    (table.drop(columns=column) if value is ... else table).to_csv(tmp_path / "answers.csv", index=False)
    with pytest.raises(UsageError, match=words):
        stimkit.norm(run.path, tmp_path / "answers.csv")


def test_answers_that_norms_cannot_be_made_of(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot begin a column"):
        stimkit.norm(run.path, tmp_path, name="Naming!")
    with pytest.raises(UsageError, match="what stimkit measures itself"):
        stimkit.norm(run.path, tmp_path, name="similarity")
    first = next(iter(run.records))
    with pytest.raises(UsageError, match=r"has answers to s0123456789, which .* does not have"):
        stimkit.norm(run.path, joined(tmp_path, [("a", first, 1), ("a", "s0123456789", 1)], "response"))
    nobody = tmp_path / "nobody.csv"
    pd.DataFrame({"stimulus_id": [first] * 3, "response": [1, 2, 3]}).to_csv(nobody)
    with pytest.raises(UsageError, match="does not say who answered"):
        stimkit.norm(run.path, nobody)
    pairs = tmp_path / "pairs.csv"
    pd.DataFrame({"participant": ["a"], "stimulus_id_1": ["s"], "stimulus_id_2": ["s"], "response": [1]}).to_csv(pairs)
    with pytest.raises(UsageError, match="trials of one stimulus"):
        stimkit.norm(run.path, pairs)

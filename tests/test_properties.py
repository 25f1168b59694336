"""Properties of all designs, samples, trial lists, answers and protocols, tried on many of them (Hypothesis)."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import stimkit
from stimkit.documents.toml import parse_toml
from stimkit.planning.resolved import plan_from_resolved, resolve
from stimkit.runfolder.run import Run
from tests.conftest import document, small_plan

CONTENTS = {name: f"skimage:{name}" for name in ("chelsea", "coffee", "rocket", "astronaut")}
STYLES = {name: f"skimage:{name}" for name in ("brick", "grass", "gravel")}

ratios = st.lists(st.sampled_from([0.0, 1e-7, 3e-6, 1e-4, 2.5]), min_size=1, max_size=4, unique=True)
replicates = st.integers(1, 4)
evaluations = st.lists(st.integers(1, 500), min_size=1, max_size=3, unique=True)
designs = st.fixed_dictionaries({"ratio": ratios, "replicate": replicates, "max_evaluations": evaluations})


def plan_of(factors: dict[str, Any], **sections: Any) -> stimkit.Plan:
    synthesis = {"max_evaluations": None} if "max_evaluations" in factors else {}
    return small_plan(
        factors={"style_layers": None, **factors},
        synthesis=synthesis,
        layers={"style": {"one": ["conv1_1"]}},
        **sections,
    )


# --- designs ---------------------------------------------------------------------------------------------------


@given(designs)
def test_cells_are_the_product_and_differ(factors: dict[str, Any]) -> None:
    plan = plan_of(factors)
    assert len(plan.cells) == len(factors["ratio"]) * factors["replicate"] * len(factors["max_evaluations"])
    for name in ("id", "filename", "seed"):
        assert len({getattr(cell, name) for cell in plan.cells}) == len(plan.cells), name


@given(designs, st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_order_or_company(factors: dict[str, Any], random: Any) -> None:
    ids = set(plan_of(factors).by_id)
    shuffled = {
        name: random.sample(value, len(value)) if isinstance(value, list) else value for name, value in factors.items()
    }
    order = random.sample(list(shuffled), len(shuffled))
    assert set(plan_of({name: shuffled[name] for name in order}).by_id) == ids
    more = {**factors, "ratio": [*factors["ratio"], 7.0], "replicate": factors["replicate"] + 1}
    assert ids < set(plan_of(more).by_id), "a level more leaves the cells that were there"


@given(designs)
def test_locks_describe_the_same_cells(factors: dict[str, Any]) -> None:
    plan = plan_of(factors)
    again = plan_from_resolved(resolve(plan), base=Path())
    assert [(cell.id, cell.seed, cell.filename, cell.levels) for cell in again.cells] == [
        (cell.id, cell.seed, cell.filename, cell.levels) for cell in plan.cells
    ]


# --- samples ---------------------------------------------------------------------------------------------------


@given(st.integers(2, 4), st.integers(2, 3), st.data())
def test_samples_use_images_equally_often(contents: int, styles: int, data: Any) -> None:
    count = data.draw(st.integers(1, contents * styles))
    images = {"content": dict(list(CONTENTS.items())[:contents]), "style": dict(list(STYLES.items())[:styles])}
    sample = {"count": count, "seed": data.draw(st.integers(0, 99))}
    plan = plan_of({"content": "*", "style": "*", "ratio": [1e-5]}, images=images, sample=sample)
    assert len(plan.cells) == count == len({(cell.content, cell.style) for cell in plan.cells})
    for kind in ("content", "style"):
        used = Counter(getattr(cell, kind) for cell in plan.cells)
        counts = [used.get(name, 0) for name in images[kind]]
        assert max(counts) - min(counts) <= 1, (kind, counts)


# --- protocols as text -----------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)


@given(words, designs)
@example("\x1b[31m\u202e'''\"\\ \n", {"ratio": [1e-5], "replicate": 1, "max_evaluations": [5]})
def test_protocols_survive_their_text(description: str, factors: dict[str, Any]) -> None:
    asked = {**document(factors=factors, synthesis={"max_evaluations": None}), "description": description}
    protocol = stimkit.Protocol.from_dict(asked)
    assert protocol.description == description == parse_toml(protocol.text, "p")["description"]
    assert stimkit.Protocol.from_toml(protocol.text) == protocol


@given(st.floats(1e-9, 1e3), st.floats(1.5, 1e4), st.integers(2, 12))
def test_series_have_equal_factors(first: float, span: float, steps: int) -> None:
    asked = document(factors={"ratio": {"from": first, "to": first * span, "steps": steps}})
    levels = stimkit.Protocol.from_dict(asked).levels("ratio")
    assert levels[0] == first and levels[-1] == first * span and len(levels) == steps
    quotients = [b / a for a, b in pairwise(levels)]  # rounded to six digits
    assert all(math.isclose(one, span ** (1 / (steps - 1)), rel_tol=1e-4) for one in quotients)


# --- trial lists -----------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 1000))
def test_everybody_sees_every_stimulus_as_often(small_run: Run, participants: int, repetitions: int, seed: int) -> None:
    def lists(count: int) -> pd.DataFrame:
        return stimkit.make_trials(
            small_run,
            stimkit.TrialDesign.from_toml(
                f'schema = 1\nname = "t"\nparticipants = {count}\nseed = {seed}\n[trial]\nform = "single"\n'
                f'repetitions = {repetitions}\n[response]\nchoices = ["a", "b"]'
            ),
        ).table

    table = lists(participants)
    seen = table.groupby("participant")["stimulus_id"].value_counts()
    assert set(seen) == {repetitions} and len(seen) == participants * len(small_run.records)
    assert table.groupby("participant")["trial"].apply(lambda one: sorted(one) == list(range(1, len(one) + 1))).all()
    more = lists(participants + 1)
    pd.testing.assert_frame_equal(more[more.participant.isin(table.participant)].reset_index(drop=True), table)


# --- answers ---------------------------------------------------------------------------------------------------

people = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=12)


@given(
    st.lists(people.map(str.strip).filter(bool), min_size=1, max_size=3, unique=True),
    st.lists(words, min_size=4, max_size=4),
)
def test_what_people_typed_comes_back(small_run: Run, names: list[str], notes: list[str]) -> None:
    gaps = {"null", "NaN", "None", "n/a", "NA"}  # which programs write where there is no value
    assume(all("\r" not in note and "\0" not in note and note not in gaps for note in notes))
    shown = list(small_run.records)
    rows = [
        {"participant": name, "trial": trial, "stimulus_id": shown[trial], "rt": 0.5 + trial, "note": notes[trial]}
        for name in names
        for trial in range(4)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
        found = stimkit.join_responses(small_run, [path], times="s").responses
    assert list(found["participant"].astype(str)) == [row["participant"] for row in rows]
    assert [("" if pd.isna(one) else str(one)) for one in found["note"]] == [row["note"] for row in rows]
    assert found["rt"].astype(float).tolist() == pytest.approx([0.5 + trial for _ in names for trial in range(4)])
    assert list(found["stimulus_id"]) == [row["stimulus_id"] for row in rows]

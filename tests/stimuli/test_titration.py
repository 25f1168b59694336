"""Graded and matched strength: stop rules as factors, snapshots along one optimization, titration of the ratio."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

import stimkit
from stimkit.auditing.audit import audit
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import ProtocolError
from stimkit.images.pixels import resize
from stimkit.images.statistics import measure_image, measure_similarity
from stimkit.planning.inputs import PlanInputs
from stimkit.planning.summary import summarize
from stimkit.runfolder.run import Run
from tests.conftest import document, pixels_of, small_plan
from tests.stimuli.plans import ONE

TITRATION: dict[str, Any] = {
    "titrate": "ssim_content",
    "titrate_value": 0.6,
    "titrate_tolerance": 0.03,
    "titrate_lowest": 1e-6,
    "titrate_highest": 1e-2,
    "max_evaluations": 20,
}


def test_snapshots_lie_on_one_optimization(tmp_path: Path) -> None:
    whole = document(factors={**ONE, "max_evaluations": [3, 6, 12]})
    plan = stimkit.plan(stimkit.Protocol.from_dict({**whole, "seeds": "shared"}))
    stimkit.run(plan, tmp_path / "run", device="cpu", batch_size=1)
    run = stimkit.open_run(tmp_path / "run")
    traces = run.dataset["trace_total"].values
    assert [int(np.isfinite(one).sum()) for one in traces] == [3, 6, 12]
    assert np.array_equal(traces[0, :3], traces[2, :3]) and np.array_equal(traces[1, :6], traces[2, :6])
    losses = run.dataset["loss_total"].sel(stage="optimized").values
    assert losses[0] > losses[1] > losses[2]
    digests = run.dataset["init_sha256"].values
    assert len(set(digests)) == 1


def test_equal_strength_is_reached_by_stopping_there(tmp_path: Path) -> None:
    plan = small_plan(
        images={"style": {"cup": "skimage:coffee", "brick": "skimage:brick"}},
        factors={**ONE, "target_style": [0.5, 0.1]},
        synthesis={"max_evaluations": 60},
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    table = pd.read_csv(tmp_path / "run" / "manifest.csv")
    reached = table["loss_style_optimized"] / table["loss_style_initial"]
    assert (table["stop_reason"] == "target_style").all()
    assert (reached < table["target_style"]).all()
    assert (table.groupby("style")["evaluations"].apply(list).map(lambda n: n[0] < n[1])).all()


@pytest.fixture(scope="module")
def titrated_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plan = small_plan(
        images={"content": {"cat": "skimage:chelsea", "rocket": "skimage:rocket"}},
        factors={"style_layers": ["two"], "ratio": None, "titrate_value": [0.4, 0.7]},
        synthesis={**TITRATION, "titrate_value": None},
    )
    folder = tmp_path_factory.mktemp("runs") / "titrated"
    stimkit.run(plan, folder, device="cpu")
    return stimkit.open_run(folder)


def test_titration_finds_the_ratio_of_each_cell(titrated_run: Run) -> None:
    table = pd.read_csv(titrated_run.path / "manifest.csv")
    assert (table["status"] == "accepted").all()
    assert (table["titrate_error"].abs() <= 0.03).all()
    source = PlanInputs(small_plan(images={"content": {"cat": "skimage:chelsea", "rocket": "skimage:rocket"}}))
    for row in table.to_dict("records"):
        content = resize(source.image("content", row["content_id"]), (32, 32), "crop")
        found = measure_similarity(pixels_of(titrated_run, row["stimulus_id"]), content)
        assert found == pytest.approx(row["titrate_value"] + row["titrate_error"], abs=1e-9)
    for _, group in table.groupby("content"):
        low, high = group.sort_values("titrate_value")["alpha_beta_ratio"]
        assert 1e-6 <= low < high <= 1e-2, "more content, more similar"


def test_titrated_runs_are_sound_and_made_again(titrated_run: Run, tmp_path: Path) -> None:
    assert verify(titrated_run.path).findings == ()
    assert not [one for one in audit(titrated_run.path, device="cpu").findings if one.severity == "error"]
    made = regenerate(titrated_run.path, tmp_path / "again", device="cpu")
    assert {one.tier for one in made} == {"identical_file"}


def test_a_value_out_of_reach_is_told_and_not_accepted(tmp_path: Path) -> None:
    changes = {**TITRATION, "titrate": "mean_luminance", "titrate_value": 0.95, "max_evaluations": 3}
    plan = small_plan(factors={"style_layers": ["two"], "ratio": None}, synthesis=changes)
    summary = stimkit.run(plan, tmp_path / "run", device="cpu")
    (record,) = stimkit.open_run(tmp_path / "run").records.values()
    assert summary.rejected == (record.stimulus_id,)
    assert "mean_luminance is" in record.status_reason and "from 0.95" in record.status_reason
    pixels = pixels_of(stimkit.open_run(tmp_path / "run"), record.stimulus_id)
    assert record.titrate_error == pytest.approx(measure_image(pixels)["mean_luminance"] - 0.95)


def test_titration_is_part_of_the_estimate() -> None:
    once = summarize(small_plan(factors=ONE))["estimate"]["evaluations"]
    changes = {**TITRATION, "titrate_runs": 5, "max_evaluations": 6}
    often = summarize(small_plan(factors={"style_layers": ["two"], "ratio": None}, synthesis=changes))
    assert often["estimate"]["evaluations"] == 8 * once


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"synthesis": TITRATION}, "factors.ratio: is found by titration; leave it out"),
        (
            {"synthesis": {**TITRATION, "titrate": "ssim"}, "factors": {"ratio": None}},
            'must be "none", "cue_balance", "ssim_content"',
        ),
        (
            {"synthesis": {**TITRATION, "titrate_lowest": 1.0}, "factors": {"ratio": None}},
            "titrate_lowest: must be below titrate_highest",
        ),
        (
            {"synthesis": TITRATION, "factors": {"ratio": None}, "accept": {"retries": 1}},
            "accept.retries: is not possible with titration",
        ),
        (
            {"synthesis": TITRATION, "factors": {"ratio": None}, "images": {"content": None}},
            "titrate: looks for a ratio, which needs a content and a style image in every cell",
        ),
    ],
)
def test_titrations_that_cannot_be_are_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        small_plan(**sections)
    assert message in str(caught.value)


def test_files_say_what_they_are(titrated_run: Run) -> None:
    for one, record in titrated_run.records.items():
        with Image.open(titrated_run.path / "stimuli" / record.filename) as image:
            assert isinstance(image, PngImageFile)
            text = image.text
        parameters = json.loads(text["stimkit"])
        assert text["stimulus_id"] == one
        assert (parameters["alpha"], parameters["seed"], parameters["titrate"]) == (
            record.alpha,
            record.seed,
            "ssim_content",
        )

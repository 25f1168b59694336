"""From the optimized image to the stimulus: colours, apertures, equalization in a run, degrees of visual angle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import stimkit
from stimkit.auditing.audit import audit
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.images.aperture import aperture_weights
from stimkit.images.equalization import measure_light
from stimkit.images.light import luminance, to_linear, to_srgb
from stimkit.images.pixels import resize, to_float
from stimkit.planning.inputs import PlanInputs
from stimkit.reporting.report import report
from stimkit.runfolder.run import Run
from stimkit.stimuli.finishing import Finishings
from tests.conftest import pixels_of, small_plan
from tests.stimuli.plans import ONE, colour_plan

OUTPUT: dict[str, Any] = {
    "equalize_luminance": 0.2,
    "equalize_contrast": 0.5,
    "aperture": "circle",
    "aperture_ramp": 0.5,
    "rounding": "dither",
}


# --- colours ---------------------------------------------------------------------------------------------------


def test_luminance_transfer_has_the_colours_of_the_content() -> None:
    plan = colour_plan("luminance")
    cell, source = plan.cells[0], PlanInputs(plan)
    finishing = Finishings(source).of(cell)
    content = to_linear(to_float(resize(source.image("content", "cat"), (32, 32), "crop")))
    wanted = np.clip(0.5 * luminance(content), 0, 1)
    found = to_linear(finishing.equalize(np.repeat(to_srgb(wanted)[None], 3, axis=0).astype(np.float32)))
    assert luminance(found) == pytest.approx(wanted, abs=1e-6)
    assert found == pytest.approx(0.5 * content, abs=1e-6)


# --- in a run --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def output_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Cells in grey and in luminance transfer, equalized, behind a circle, dithered."""
    plan = small_plan(factors={**ONE, "colour": ["free", "grey", "luminance"]}, output=OUTPUT, display={"ppd": 8})
    folder = tmp_path_factory.mktemp("runs") / "output"
    stimkit.run(plan, folder, device="cpu")
    return stimkit.open_run(folder)


def test_the_manifest_tells_what_was_done_and_what_it_cost(output_run: Run) -> None:
    table = pd.read_csv(output_run.path / "manifest.csv")
    assert table["equalize_luminance"].tolist() == [0.2] * 3
    assert (table["equalize_error"] < 0.01).all()
    assert (abs(table["rms_contrast_optimized"] - 0.5) > 0.01).all()
    assert (abs(table["loss_total_equalized"] / table["loss_total_optimized"] - 1) > 1e-3).all()
    assert table["height_deg"].tolist() == [4.0] * 3
    dataset = output_run.dataset
    assert dataset["stage"].values.tolist() == ["initial", "optimized", "equalized", "file"]
    assert dataset["loss_total"].sel(stage="equalized").notnull().all()


def test_the_files_have_the_light_that_was_asked_for(output_run: Run) -> None:
    y, x = np.mgrid[:32, :32] + 0.5 - 16
    middle, outside = np.hypot(x, y) <= 12, np.hypot(x, y) > 16
    for one, record in output_run.records.items():
        pixels = pixels_of(output_run, one)
        values = luminance(to_linear(to_float(pixels)))
        weights = np.clip((np.hypot(x, y) - 12) / 4, 0, 1)
        weights = np.where(outside, 0, (1 + np.cos(np.pi * weights)) / 2)
        assert values[outside] == pytest.approx(0.2159, abs=0.006)
        assert measure_light(values, np.where(middle, 1.0, 0)).mean == pytest.approx(0.2, rel=0.15)
        if record.levels["colour"] == "grey":
            assert (np.ptp(pixels.astype(int), axis=2) <= 1).all(), "but for the dither"


def test_such_runs_are_sound_and_can_be_made_again(output_run: Run, tmp_path: Path) -> None:
    assert verify(output_run.path).findings == ()
    found = audit(output_run.path, device="cpu")
    assert not [one for one in found.findings if one.severity == "error"]
    made = regenerate(output_run.path, tmp_path / "again", device="cpu")
    assert {one.tier for one in made} == {"identical_file"}


def test_holding_light_during_the_optimization_costs_less_than_equalizing_afterwards(tmp_path: Path) -> None:
    equalize = {"equalize_luminance": 0.35, "equalize_contrast": 0.3}
    plan = small_plan(
        factors={**ONE, "equalize_weight": [0.0, 1.0]}, output=equalize, synthesis={"max_evaluations": 40}
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    after, during = pd.read_csv(tmp_path / "run" / "manifest.csv").to_dict("records")
    assert abs(during["mean_luminance_optimized"] - 0.35) < 0.2 * abs(after["mean_luminance_optimized"] - 0.35)
    assert during["loss_total_file"] < 0.8 * after["loss_total_file"]
    assert during["equalize_error"] < 0.01 and after["equalize_error"] < 0.01
    assert not [one for one in audit(tmp_path / "run", device="cpu").findings if one.severity == "error"]


def test_what_is_inside_an_aperture_is_recorded_and_judged(tmp_path: Path) -> None:
    plan = small_plan(
        factors=ONE,
        output={"equalize_luminance": 0.2, "equalize_contrast": 0.4, "aperture": "circle", "background": 0.5},
        accept={"mean_luminance": [0.19, 0.21], "rms_contrast": [0.38, 0.42]},
    )
    summary = stimkit.run(plan, tmp_path / "run", device="cpu")
    assert not summary.rejected and summary.made
    for record in stimkit.open_run(tmp_path / "run").records.values():
        assert record.mean_luminance_inside == pytest.approx(0.2, rel=0.02)
        assert record.rms_contrast_inside == pytest.approx(0.4, rel=0.02)
        assert (record.statistics["mean_luminance"] or 0) > 0.23, "the background is part of the whole file"
        values = luminance(to_linear(to_float(pixels_of(stimkit.open_run(tmp_path / "run"), record.stimulus_id))))
        seen = values[aperture_weights(plan.cells[0].settings.aperture_shape) == 1]
        assert record.mean_luminance_inside == pytest.approx(seen.mean(), rel=0.05)
    assert verify(tmp_path / "run").findings == ()


def test_targets_are_taken_from_images() -> None:
    images = {"content": {"cat": "skimage:chelsea", "cup": "skimage:coffee"}}
    plan = small_plan(
        images=images, factors=ONE, output={"equalize_luminance": "contents", "equalize_contrast": "content"}
    )
    finishings = [Finishings(PlanInputs(plan)).of(cell) for cell in plan.cells]
    source = PlanInputs(plan)
    pixels = [resize(source.image("content", name), (32, 32), "crop") for name in images["content"]]
    lights = [measure_light(luminance(to_linear(to_float(one))), None) for one in pixels]
    assert [one.target.luminance for one in finishings] == pytest.approx(
        [np.mean([light.mean for light in lights])] * 2
    )
    assert [one.target.contrast for one in finishings] == pytest.approx([light.contrast for light in lights])
    fewer = small_plan(factors=ONE, output={"equalize_luminance": "contents", "equalize_contrast": "content"})
    assert not plan.by_id.keys() & fewer.by_id.keys(), "another set of images, other stimuli"


# --- files -----------------------------------------------------------------------------------------------------


def test_a_run_for_a_linearized_display(tmp_path: Path) -> None:
    plan = small_plan(
        factors={**ONE, "transfer": ["srgb", "linear"], "bits": [8, 16]},
        output={"equalize_luminance": 0.1},
        synthesis={"max_evaluations": 3},
    )
    run = tmp_path / "run"
    stimkit.run(plan, run, device="cpu")
    table = pd.read_csv(run / "manifest.csv")
    assert table["mean_luminance"].tolist() == pytest.approx([0.1] * 4, abs=0.003)
    assert (table["equalize_error"][table["bits"] == 16] < 1e-4).all()
    assert verify(run).findings == ()
    assert not [one for one in audit(run, device="cpu").findings if one.severity == "error"]
    made = regenerate(run, tmp_path / "again", device="cpu")
    assert {one.tier for one in made} == {"identical_file"}
    sixteen = stimkit.open_run(run).image(table["stimulus_id"][3])
    assert sixteen.dtype == np.uint16
    light = sixteen.astype(float) / 65535
    assert light.mean((0, 1)) @ [0.2126, 0.7152, 0.0722] == pytest.approx(0.1, abs=1e-4)
    page = report(run, device="cpu", losses=False)
    assert page.stat().st_size > 1000


def test_a_black_photograph_as_target_breaks_nothing(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "black.png")
    plan = small_plan(
        images={"root": str(tmp_path), "content": {"black": "black.png"}},
        factors=ONE,
        output={"equalize_luminance": "content", "equalize_contrast": "content", "equalize_weight": 0.3},
        synthesis={"max_evaluations": 2},
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    assert verify(tmp_path / "run").findings == ()


def test_images_that_cannot_be_equalized_are_named(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((40, 40, 3), 60, np.uint8)).save(tmp_path / "flat.png")
    plan = small_plan(
        images={"root": str(tmp_path), "content": {"flat": "flat.png"}},
        factors=ONE,
        output={"equalize_luminance": 0.3, "equalize_contrast": 0.5},
        controls={"untouched": True},
        synthesis={"max_evaluations": 3},
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    found = audit(tmp_path / "run", device="cpu", losses=False).findings
    (missed,) = [one for one in found if one.name == "not_equalized"]
    assert missed.stimulus_id == plan.cells[1].id
    assert missed.value == pytest.approx(1.0), "a uniform image has no contrast to change"

"""Input images as cells use them: their colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.exposure import match_histograms

import stimkit
from stimkit.images.light import luminance, to_linear
from stimkit.images.pixels import to_float
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.stimuli.preparation import prepare_image, prepare_initial
from tests.conftest import forge, small_plan
from tests.stimuli.plans import ONE, colour_plan


def inputs_of(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    source, cell = PlanInputs(plan), plan.cells[0]
    return prepare_image(cell, "content", source), prepare_image(cell, "style", source)


def test_grey_images_keep_their_luminance() -> None:
    free, grey = inputs_of(colour_plan("free"))[1], inputs_of(colour_plan("grey"))[1]
    assert (grey == grey[..., :1]).all() and not (free == free[..., :1]).all()
    before, after = (luminance(to_linear(to_float(one))) for one in (free, grey))
    assert after == pytest.approx(before, abs=0.005)
    plan = colour_plan("grey")
    noise = prepare_initial(plan.cells[0], PlanInputs(plan))
    assert (noise == noise[:1]).all() and noise.std() > 0.02


def test_covariance_is_matched_to_the_content() -> None:
    content, style = inputs_of(colour_plan("covariance"))
    plain = inputs_of(colour_plan("free"))[1]
    one, other = (image.reshape(-1, 3).astype(float) for image in (content, style))
    assert other.mean(0) == pytest.approx(one.mean(0), abs=4)
    assert np.abs(np.cov(other.T) - np.cov(one.T)).max() < 0.15 * np.cov(one.T).max()
    unmatched = plain.reshape(-1, 3).astype(float)
    assert np.abs(np.cov(unmatched.T) - np.cov(one.T)).max() > 0.5 * np.cov(one.T).max()


def test_histograms_are_matched_as_scikit_image_does() -> None:
    content, style = inputs_of(colour_plan("histogram"))
    plain = inputs_of(colour_plan("free"))[1]
    expected = match_histograms(plain, content, channel_axis=-1)
    assert np.abs(style - expected).max() <= 0.5


def test_an_image_of_one_colour_can_be_matched(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((40, 40, 3), (200, 30, 30), np.uint8)).save(tmp_path / "red.png")
    images = {"root": str(tmp_path), "style": {"red": "red.png"}}
    plan = small_plan(images=images, factors=ONE, synthesis={"colour": "covariance"})
    content, style = inputs_of(plan)
    assert style.reshape(-1, 3).std(0).max() == 0
    assert style[0, 0] == pytest.approx(content.reshape(-1, 3).mean(0), abs=0.51)


@pytest.mark.parametrize("image_range", ["bounded", "free"])
def test_what_the_optimization_starts_from_is_what_is_recorded(tmp_path: Path, image_range: str) -> None:
    """Noise of natural spectrum and full contrast has values that cannot be displayed; losses are of what is used."""
    plan = small_plan(
        factors={"style_layers": ["one"], "ratio": [1e-5]},
        synthesis={"init_slope": 1.0, "init_contrast": 1.0, "scales": 1, "max_evaluations": 3}
        | {"image_range": image_range},
    )
    start = prepare_initial(plan.cells[0], PlanInputs(plan))
    assert bool(start.min() < 0 and start.max() > 1) is (image_range == "free")
    stimkit.run(plan, tmp_path / "run", device="cpu")
    found = stimkit.audit(tmp_path / "run", device="cpu").findings
    assert not [one for one in found if one.severity == "error" or one.name == "initial_differs"], found
    (record,) = stimkit.open_run(tmp_path / "run").records
    forge(tmp_path / "run", record, init_sha256="0" * 64)
    assert "initial_differs" in {one.name for one in stimkit.audit(tmp_path / "run", device="cpu").findings}

"""Images that can be displayed throughout the optimization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import stimkit
from stimkit.synthesis.image_range import BENT, OVERSHOOT, make_image_range
from tests.conftest import small_plan


def test_values_stay_in_range_and_the_middle_is_what_it_is() -> None:
    bounded = make_image_range("bounded")
    values = torch.linspace(-3, 4, 701, dtype=torch.float64)
    images = bounded.forward(values)
    assert images.min() > -OVERSHOOT and images.max() < 1 + OVERSHOOT
    assert (images.diff() >= 0).all() and images[0] < 0 and images[-1] > 1
    middle = (values - 0.5).abs() <= 0.5 - BENT
    assert torch.allclose(images[middle], values[middle], rtol=1e-12)
    assert torch.allclose(images - 0.5, -(images.flip(0) - 0.5))


def test_every_value_of_a_file_has_an_inverse_and_a_slope() -> None:
    bounded = make_image_range("bounded")
    pixels = torch.arange(256, dtype=torch.float64) / 255
    values = bounded.inverse(pixels).requires_grad_()
    images = bounded.forward(values)
    (slope,) = torch.autograd.grad(images.sum(), values)
    assert torch.allclose(images, pixels, atol=1e-12)
    assert slope.min() > 0.015 and float(slope[128]) == 1
    assert float(bounded.inverse(torch.tensor(-5.0))) == pytest.approx(float(values[0].detach()), rel=1e-5)


@pytest.mark.alternating
@pytest.mark.parametrize("sections", [{}, {"output": {"bits": 16}}, {"synthesis": {"colour": "grey"}}])
def test_the_file_is_as_good_as_the_optimized_image(sections: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """From noise of full contrast, whose values are clipped most."""
    ratios = {}
    for kind in ("bounded", "free"):
        synthesis = {"max_evaluations": 40, "init_contrast": 1.0, "image_range": kind, **sections.get("synthesis", {})}
        plan = small_plan(**{**sections, "synthesis": synthesis}, factors={"ratio": [0.0]})
        stimkit.run(plan, tmp_path / kind, device="cpu")
        table = pd.read_csv(tmp_path / kind / "manifest.csv")
        ratios[kind] = float((table["loss_total_file"] / table["loss_total_optimized"]).max())
        assert ((table["clip_low_frac"] + table["clip_high_frac"]).max() == 0) == (kind == "bounded")
    assert ratios["bounded"] < 1.02 < 1.1 < ratios["free"]


def test_a_start_outside_of_the_range_is_brought_into_it(tmp_path: Path) -> None:
    plan = small_plan(synthesis={"init": "scrambled", "max_evaluations": 3})
    run = stimkit.open_run(stimkit.run(plan, tmp_path / "run", device="cpu").path)
    assert not stimkit.audit(run.path, device="cpu").failed
    for stimulus_id, record in run.records.items():
        trace = np.load(run.path / "traces" / f"{stimulus_id}.npy")
        assert record.losses.initial.total == pytest.approx(trace[0, 2], rel=1e-4)

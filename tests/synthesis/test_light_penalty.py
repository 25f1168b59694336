"""The penalty that holds luminance and contrast."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stimkit.images.equalization import measure_light
from stimkit.images.light import LUMINANCE_WEIGHTS, luminance, to_linear
from stimkit.synthesis.light_penalty import LightPenalty


def test_the_penalty_is_that_of_numpy_and_has_its_gradient() -> None:
    generator = np.random.default_rng(0)
    images = generator.uniform(0.02, 0.98, (2, 3, 6, 5))
    weights = generator.uniform(0, 1, (6, 5))
    hold = LightPenalty(
        2.0, torch.tensor([0.3, 0.2]).double(), torch.tensor([0.5, 0.4]).double(),
        torch.from_numpy(LUMINANCE_WEIGHTS), torch.from_numpy((weights / weights.sum()).ravel()),
    )  # fmt: skip
    values = torch.from_numpy(images).requires_grad_()
    found = hold(values)
    for row, (mean, contrast) in enumerate(((0.3, 0.5), (0.2, 0.4))):
        light = measure_light(luminance(to_linear(images[row])), weights)
        expected = 2 * ((light.mean / mean - 1) ** 2 + (light.contrast / contrast - 1) ** 2)
        assert float(found[row].detach()) == pytest.approx(expected, rel=1e-4)
    assert torch.autograd.gradcheck(hold, (values,))
    assert torch.equal(hold.select(torch.tensor([1]))(values[1:]), found[1:])

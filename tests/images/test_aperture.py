"""Apertures: their weights, and the background around them."""

from __future__ import annotations

import numpy as np
import pytest

from stimkit.images.aperture import aperture_weights, lay_on_background
from stimkit.images.light import to_linear
from stimkit.protocol.settings import Settings


def test_a_circle_has_a_raised_cosine_ramp() -> None:
    settings = Settings(size=(40, 60), aperture="circle", aperture_diameter=3.0, aperture_ramp=0.5, ppd=10.0)
    found = aperture_weights(settings.aperture_shape)
    assert found is not None and found.shape == (40, 60)
    for row, column in ((20, 30), (20, 43), (5, 30), (29, 41), (0, 0), (20, 44), (20, 45), (33, 36)):
        r = np.hypot(row + 0.5 - 20, column + 0.5 - 30)
        expected = 1.0 if r <= 10 else 0.0 if r > 15 else 0.5 * (1 + np.cos(np.pi * (r - 10) / 5))
        assert found[row, column] == pytest.approx(expected)
    assert np.array_equal(found, found[::-1]) and np.array_equal(found, found[:, ::-1])


def test_a_gaussian_ends_at_its_diameter() -> None:
    settings = Settings(size=(32, 32), aperture="gaussian", aperture_sigma=0.4, aperture_diameter=2.0, ppd=15.0)
    found = aperture_weights(settings.aperture_shape)
    assert found is not None
    assert found[16, 20] == pytest.approx(np.exp(-((0.5**2 + 4.5**2) / (2 * 6.0**2))))
    assert found[16, 31] == 0 and found[0, 0] == 0
    assert aperture_weights(Settings(size=(8, 8)).aperture_shape) is None


def test_the_background_is_mixed_in_linear_light() -> None:
    image = np.full((3, 2, 2), 1.0)
    weights = np.array([[0.0, 0.25], [0.5, 1.0]])
    found = to_linear(lay_on_background(image, weights, 0.2))
    assert found[0] == pytest.approx(np.array([[0.2, 0.4], [0.6, 1.0]]))

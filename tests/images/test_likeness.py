"""Images that are nearly the same are found among many."""

from __future__ import annotations

import numpy as np
import pytest

from stimkit.images.likeness import closest_pairs, pixel_difference, small_copy


def test_copies_are_means_over_parts() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    wanted = image.reshape(16, 4, 16, 2, 3).mean((1, 3)).ravel()
    assert small_copy(image) == pytest.approx(wanted, abs=1.01)  # rounded in both directions
    assert small_copy(image / 255) == pytest.approx(small_copy(image))


def test_the_closest_pairs_are_found_whatever_their_place() -> None:
    rows = np.random.default_rng(1).uniform(0, 255, (1200, 768)).astype(np.float32)
    rows[1100] = rows[3] + 1.0
    rows[700] = rows[3] + 2.0
    rows[20] = rows[900]
    assert closest_pairs(rows, 2.5, 10) == [(20, 900), (3, 1100), (700, 1100), (3, 700)]
    assert closest_pairs(rows, 2.5, 2) == [(20, 900), (3, 1100)]
    assert closest_pairs(rows, 1.5, 10) == [(20, 900), (3, 1100), (700, 1100)]


def test_differences_are_in_steps_of_8_bits() -> None:
    one = np.full((8, 8, 3), 100, np.uint8)
    assert pixel_difference(one, one + np.uint8(3)) == 3 and pixel_difference(one / 255, one) == pytest.approx(0)
    assert pixel_difference(one, one[:4]) == np.inf

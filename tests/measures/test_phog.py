"""PHOG measures of images whose gradients are known."""

from __future__ import annotations

import numpy as np
import pytest

from stimkit.measures.phog import anisotropy, histograms, largest_gradients, measure_phog, similarities


def test_gradients_are_the_largest_of_the_channels() -> None:
    y, x = np.mgrid[:8, :9].astype(float)
    lab = np.stack([2 * x, -3 * x + y, -5 * y], axis=2)
    strength, turn = largest_gradients(lab)
    assert strength == pytest.approx(np.hypot(3, 5))
    assert turn == pytest.approx((np.arctan2(-5, -3) / (2 * np.pi) + 0.5) % 1)


def test_histograms_count_every_pixel_once() -> None:
    generator = np.random.default_rng(0)
    strength, turn = generator.random((31, 45)), generator.random((31, 45))
    for sections in (1, 2, 4, 8):
        found = histograms(strength, turn, sections)
        assert found.shape == (sections**2, 16) and found.sum() == pytest.approx(strength.sum())
    halves = histograms(strength, np.zeros((31, 45)), 2)
    assert halves[0, 0] == pytest.approx(strength[:16, :22].sum()) and halves[:, 1:].sum() == 0


def test_an_image_of_equal_parts_is_similar_to_itself() -> None:
    tile = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    same = measure_phog(np.tile(tile, (8, 8, 1)))
    lopsided = np.zeros((320, 320, 3), np.uint8)
    lopsided[:40, :40] = tile
    assert same["phog_self_similarity"] > 0.93 and measure_phog(lopsided)["phog_self_similarity"] < 0.05
    assert same["phog_complexity"] > 25 * measure_phog(lopsided)["phog_complexity"]


def test_similarities_are_intersections_times_strengths() -> None:
    whole = np.array([4.0, 4.0, 0.0, 0.0])
    parts = np.array([[1.0, 1.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert similarities(whole, parts).tolist() == [1.0, 0.5 * 0.5, 0.0, 0.0]
    assert similarities(np.zeros(4), parts).tolist() == [0.0] * 4


def test_one_orientation_is_more_anisotropic_than_all() -> None:
    y, x = np.mgrid[:128, :128]
    bars = np.repeat((127 * (1 + np.sin(x / 3)))[..., None], 3, 2).astype(np.uint8)
    rings = np.repeat((127 * (1 + np.sin(np.hypot(x - 64, y - 64) / 3)))[..., None], 3, 2).astype(np.uint8)
    assert measure_phog(bars)["phog_anisotropy"] > 1.2 * measure_phog(rings)["phog_anisotropy"]
    assert measure_phog(np.full((64, 64, 3), 7, np.uint8)) == dict.fromkeys(
        ("phog_self_similarity", "phog_complexity", "phog_anisotropy"), 0.0
    )


def test_anisotropy_is_the_deviation_of_shares() -> None:
    levels = [np.ones((1, 16)), np.eye(16)[:4] * 5, np.eye(16)]
    shares = np.concatenate([one.ravel() / one.sum(1).repeat(16) for one in levels]) / (1 + 4 + 16)
    assert anisotropy(levels) == pytest.approx(shares[-256:].std())

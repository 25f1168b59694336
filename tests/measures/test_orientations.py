"""Orientations of gratings and edges are those that were drawn; entropies agree with sums that are written out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from stimkit.measures import orientations
from stimkit.measures.orientations import (
    DIRECTIONS,
    ORIENTATIONS,
    edge_entropies,
    find_edges,
    measure_orientations,
    orientation_energies,
)

SIDE = 96


def grating(degrees: float, cycles: float = 12.0) -> np.ndarray:
    """Luminance of bars that rise by so many degrees from the horizontal."""
    y, x = np.mgrid[:SIDE, :SIDE]
    across = -x * np.sin(np.radians(degrees)) - y * np.cos(np.radians(degrees))
    return np.asarray(0.5 + 0.4 * np.sin(2 * np.pi * cycles * across / SIDE))


@pytest.mark.parametrize(("degrees", "band"), [(0, 0), (45, 1), (90, 2), (135, 3), (10, 0), (60, 1), (100, 2)])
def test_energy_of_a_grating_is_in_its_band(degrees: float, band: int) -> None:
    energies = orientation_energies(grating(degrees))
    assert sum(energies) == pytest.approx(1) and energies[band] > 0.98


def test_energies_turn_with_the_image() -> None:
    light = np.random.default_rng(0).random((64, 80)) + np.linspace(0, 1, 80)
    horizontal, rising, vertical, falling = orientation_energies(light)
    assert orientation_energies(light.T) == pytest.approx((vertical, rising, horizontal, falling), rel=1e-9)
    mirrored = orientation_energies(light[:, ::-1])
    assert mirrored == pytest.approx((horizontal, falling, vertical, rising), rel=1e-9)


def test_noise_has_energy_in_all_orientations_and_a_blank_image_in_none() -> None:
    noise = np.random.default_rng(1).random((256, 256))
    assert orientation_energies(noise) == pytest.approx([0.25] * 4, abs=0.01)
    assert np.isnan(orientation_energies(np.full((32, 32), 0.5))).all()


def test_edges_are_found_where_and_as_they_are() -> None:
    luma = np.zeros((300, 400))
    luma[:, 200:] = 200.0  # dark on the left
    strength, orientation = find_edges(luma)
    assert strength.shape == (300, 400)
    assert set(strength[20:-20].argmax(1)) <= {199, 200}
    edge = orientation[150, strength[150].argmax()]
    assert find_edges(luma[:, ::-1])[1][150, 200] == (edge + ORIENTATIONS // 2) % ORIENTATIONS  # the reverse
    turned = np.zeros((400, 300))
    turned[200:] = 200.0
    across = find_edges(turned)[1][200, 150]
    assert (across - edge) % (ORIENTATIONS // 2) == ORIENTATIONS // 4  # a quarter turn


def test_entropies_are_those_of_sums_that_are_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(2)
    strength, orientation = generator.random((60, 50)) ** 8, generator.integers(0, ORIENTATIONS, (60, 50))
    monkeypatch.setattr(orientations, "STRONGEST", 120)  # a number, so that the loop below ends
    order = np.argsort(strength, axis=None)[::-1][:120]
    edges = [(*divmod(int(one), 50), int(orientation.flat[one]), float(strength.flat[one])) for one in order]
    first = np.zeros(ORIENTATIONS)
    pairs: dict[tuple[int, int], np.ndarray] = {}
    for _, _, angle, weight in edges:
        first[angle] += weight
    for (y, x, angle, weight), (v, u, other, more) in product(edges, edges):
        distance = round(float(np.hypot(v - y, u - x)))
        direction = (round(float(np.arctan2(v - y, u - x) / (2 * np.pi) * DIRECTIONS)) + 2 * angle) % DIRECTIONS
        pairs.setdefault((distance, direction), np.zeros(ORIENTATIONS))[(other - angle) % ORIENTATIONS] += weight * more
    by_distance: dict[int, list[float]] = {}
    for (distance, _), counts in pairs.items():
        if distance >= 20 and counts.sum() > 1:
            by_distance.setdefault(distance, []).append(entropy(counts))
    second = np.mean([np.mean(values) for values in by_distance.values()])
    assert edge_entropies(strength, orientation) == pytest.approx((entropy(first), second), rel=1e-9)


def entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def test_a_grating_has_edges_of_few_orientations_and_noise_of_all() -> None:
    bars = np.round(np.repeat(grating(90)[..., None], 3, 2) * 255).astype(np.uint8)
    noise = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    few, many = measure_orientations(bars), measure_orientations(noise)
    assert few["edge_entropy_1"] < 1.1 < 4.4 < many["edge_entropy_1"] <= np.log2(ORIENTATIONS)
    assert few["edge_entropy_2"] < many["edge_entropy_2"] <= np.log2(ORIENTATIONS)
    blank = measure_orientations(np.full((SIDE, SIDE, 3), 90, np.uint8))
    assert np.isnan(list(blank.values())).all()

"""Orientations in an image: entropies of its edges, and the energy of its spectrum by orientation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import oaconvolve

from stimkit.columns import Column
from stimkit.images.light import Array
from stimkit.images.png import Shown
from stimkit.images.statistics import LUMA_WEIGHTS, in_steps, luminance_of_pixels

Ints = NDArray[np.int64]
EDGE_PIXELS = 300 * 400  # to which an image is brought before its edges are looked for, keeping its shape
STRONGEST = 10_000  # edges that are counted
ORIENTATIONS, DIRECTIONS = 24, 48  # of edges, which have a bright and a dark side; of the way from edge to edge
NEAR, FAR = 20, 240  # pixels between the edges of a pair
_GABOR_SIDE, _WAVELENGTH, _SIGMA = 31, 8.0, 1.699  # pixels
_CHUNK = 16  # edges whose pairs are counted at a time
_FAINTEST = 1e-6  # of the values 0 to 255: what convolutions leave of a uniform image
_MIN_SUM = 1.0  # of the strengths of pairs at a distance and direction, for an entropy of theirs
BANDS = ("horizontal", "oblique_45", "vertical", "oblique_135")
ORIENTATION_COLUMNS = (
    Column("edge_entropy_1", "bit", "first-order entropy of edge orientations (Redies et al. 2017)"),
    Column("edge_entropy_2", "bit", "second-order entropy of edge orientations (Redies et al. 2017)"),
    *(
        Column(f"energy_{band}", "1", f"part of the spectral power of luminance in {words} structure, ± 22.5 degrees")
        for band, words in zip(BANDS, ("horizontal", "rising", "vertical", "falling"), strict=True)
    ),
)


def measure_orientations(image: Shown) -> dict[str, float]:
    """All of `ORIENTATION_COLUMNS` for an sRGB-encoded image (height, width, 3)."""
    strength, orientation = find_edges(in_steps(image) @ LUMA_WEIGHTS)
    first, second = edge_entropies(strength, orientation)
    energies = orientation_energies(luminance_of_pixels(image))
    found = {f"energy_{band}": energy for band, energy in zip(BANDS, energies, strict=True)}
    return {"edge_entropy_1": first, "edge_entropy_2": second, **found}


def find_edges(luma: Array) -> tuple[Array, NDArray[np.int64]]:
    """Strength of the edge at each pixel, and its orientation from 0 to 23, of an image of values 0 to 255.

    Edges are the largest responses of odd Gabor filters of a wavelength of 8 pixels, at 24 orientations around the
    circle, so that an edge and its reverse differ. The image is brought to 120,000 pixels first.

    Redies, Brachmann & Wagemans (2017), High entropy of edge orientations characterizes visual artworks from diverse
    cultural backgrounds, Vision Research 133: section 2.3.
    """
    factor = (EDGE_PIXELS / luma.size) ** 0.5
    height, width = (max(1, int(side * factor)) for side in luma.shape)
    grey = Image.fromarray(np.round(luma).clip(0, 255).astype(np.uint8))
    scaled = np.asarray(grey.resize((width, height), Image.Resampling.LANCZOS), np.float64)
    half = _GABOR_SIDE // 2
    padded = np.pad(scaled, half, "symmetric")
    strength, orientation = np.full(scaled.shape, -np.inf), np.zeros(scaled.shape, np.int64)
    for index in range(ORIENTATIONS):
        response = oaconvolve(padded, _gabor(2 * np.pi * index / ORIENTATIONS), mode="valid")
        better = response > strength
        strength[better], orientation[better] = response[better], index
    return strength, orientation


def _gabor(angle: float) -> Array:
    """An odd Gabor filter; its bandwidth makes the Gaussian narrow, so that it is an edge detector."""
    half = _GABOR_SIDE // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    along = x * np.sin(angle) + y * np.cos(angle)
    return np.asarray(np.exp(-(x**2 + y**2) / (2 * _SIGMA**2)) * np.cos(2 * np.pi / _WAVELENGTH * along + np.pi / 2))


def edge_entropies(strength: Array, orientation: NDArray[np.int64]) -> tuple[float, float]:
    """First- and second-order entropy of the 10,000 strongest edges, in bits (at most log2 24 = 4.58).

    First order: of orientations, each edge with its strength. Second order: of the difference of orientations in pairs
    of edges, each with the product of their strengths, for every distance (20 to 239 pixels) and direction from the
    first edge's orientation (48), then the mean over directions and distances. NaN where there is no edge.
    """
    chosen = np.argsort(strength, axis=None)[::-1][:STRONGEST]
    chosen = chosen[strength.ravel()[chosen] > _FAINTEST]
    if not len(chosen):
        return float("nan"), float("nan")
    weights, angles = strength.ravel()[chosen], orientation.ravel()[chosen]
    first = _entropy(np.asarray(np.bincount(angles, weights, ORIENTATIONS), np.float64)[None])[0]
    y, x = np.divmod(chosen, strength.shape[1])
    counts = _count_pairs(y, x, angles, weights)
    sums = counts.sum(2)[NEAR:]
    entropies = np.where(sums > _MIN_SUM, _entropy(counts[NEAR:]), np.nan)
    known = np.isfinite(entropies).sum(1)
    of_distances = np.nansum(entropies, 1)[known > 0] / known[known > 0]
    return float(first), float(of_distances.mean()) if len(of_distances) else float("nan")


def _count_pairs(y: Ints, x: Ints, angles: Ints, weights: Array) -> Array:
    """Products of strengths of pairs of edges by distance, direction and difference of orientations."""
    height, width = (int(np.ptp(values)) for values in (y, x))
    dy, dx = np.mgrid[-height : height + 1, -width : width + 1]
    distance = np.rint(np.hypot(dy, dx)).astype(np.int32)
    direction = np.rint(np.arctan2(dy, dx) / (2 * np.pi) * DIRECTIONS).astype(np.int32) % DIRECTIONS
    places = (np.minimum(distance, FAR) * DIRECTIONS + direction).ravel()  # those too far are counted beyond the others
    at = (y * dx.shape[1] + x).astype(np.int32)
    middle = height * dx.shape[1] + width
    counts = np.zeros((FAR + 1) * DIRECTIONS * ORIENTATIONS)
    for angle in range(ORIENTATIONS):  # of the first edge of each pair, from which the others are counted
        difference = ((angles - angle) % ORIENTATIONS).astype(np.int32)
        turned = np.zeros((FAR + 1) * DIRECTIONS * ORIENTATIONS)
        own = np.flatnonzero(angles == angle)
        for some in np.array_split(own, len(own) // _CHUNK + 1):
            place = places[middle + at[None] - at[some, None]] * ORIENTATIONS + difference
            turned += np.bincount(place.ravel(), np.outer(weights[some], weights).ravel(), len(turned))
        # 48 directions are two for each orientation: from that of the first edge on, they begin elsewhere.
        by_direction = turned.reshape(FAR + 1, DIRECTIONS, ORIENTATIONS)
        counts += np.roll(by_direction, DIRECTIONS // ORIENTATIONS * angle, axis=1).ravel()
    return counts.reshape(FAR + 1, DIRECTIONS, ORIENTATIONS)[:FAR]


def _entropy(counts: Array) -> Array:
    """Entropy in bits along the last axis; 0 where there are no counts."""
    sums = counts.sum(-1, keepdims=True)
    shares = counts / np.where(sums > 0, sums, 1)
    return np.asarray(-(shares * np.log2(np.where(shares > 0, shares, 1))).sum(-1))


def orientation_energies(light: Array) -> tuple[float, float, float, float]:
    """Parts of the power of luminance (height, width) in horizontal, rising, vertical and falling structure.

    Of the Fourier spectrum of luminance less its mean, under a Hann window, which keeps the edges of the frame out. All
    frequencies up to those that are there in every orientation count. Each band is 45 degrees wide; together they are
    1. NaN for a uniform image.
    """
    height, width = light.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    centred = (light - (light * window).sum() / window.sum()) * window
    power = np.abs(np.fft.fft2(centred)) ** 2
    v, u = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    radius = np.hypot(u, v)
    inside = (radius > 0) & (radius <= 0.5)
    # Structure lies across its frequency; y of images goes down, so that rising structure has u and v of equal sign.
    along = (np.degrees(np.arctan2(v, u)) + 90) % 180
    band = np.rint(along / 45).astype(np.int64) % 4
    found = np.bincount(band[inside], power[inside], 4)
    if found.sum() <= 1e-12 * light.size:
        return (float("nan"),) * 4
    horizontal, falling, vertical, rising = (found / found.sum()).tolist()
    return horizontal, rising, vertical, falling

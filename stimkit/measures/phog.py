"""Self-similarity, complexity and anisotropy by pyramids of histograms of oriented gradients (PHOG).

Braun, Amirshahi, Denzler & Redies (2013), Statistical image properties of print advertisements, visual artworks and
images of architecture, Frontiers in Psychology 4:808; Redies, Amirshahi, Koch & Denzler (2012), PHOG-derived aesthetic
measures applied to color photographs of artworks, natural scenes and objects, ECCV Workshops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.color import rgb2lab

from stimkit.columns import Column
from stimkit.images.light import Array
from stimkit.images.png import Shown
from stimkit.images.statistics import in_steps

PHOG_PIXELS = 100_000  # to which an image is brought first, keeping its shape
BINS, LEVELS = 16, 3
PHOG_COLUMNS = (
    Column("phog_self_similarity", "1", "self-similarity of gradient histograms, median over sections (Braun 2013)"),
    Column("phog_complexity", "1", "mean gradient of L*a*b* (Braun 2013; L* from 0 to 255, at 100,000 pixels)"),
    Column("phog_anisotropy", "1", "standard deviation of the gradient histograms of level 3 (Braun 2013)"),
)


def measure_phog(image: Shown) -> dict[str, float]:
    """All of `PHOG_COLUMNS` for an sRGB-encoded image (height, width, 3)."""
    strength, turn = largest_gradients(_lab(_at_size(image)))
    levels = [histograms(strength, turn, 2**level) for level in range(LEVELS + 1)]
    return {
        "phog_self_similarity": float(np.mean([np.median(similarities(levels[0][0], one)) for one in levels[1:]])),
        "phog_complexity": float(strength.mean()),
        "phog_anisotropy": anisotropy(levels),
    }


def _at_size(image: Shown) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    factor = (PHOG_PIXELS / (height * width)) ** 0.5
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    picture = Image.fromarray(np.round(in_steps(image)).astype(np.uint8))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC))


def _lab(pixels: NDArray[np.uint8]) -> Array:
    """L*a*b* with L* from 0 to 255, as in 8 bits, but not rounded."""
    lab: Array = np.asarray(rgb2lab(pixels), np.float64)
    lab[..., 0] *= 2.55
    return lab


def largest_gradients(lab: Array) -> tuple[Array, Array]:
    """Strength and direction (turns, 0 to 1) of the gradient at each pixel: of either axis, the largest of channels."""
    down, across = np.gradient(lab, axis=(0, 1))
    y, x = (np.take_along_axis(one, np.abs(one).argmax(2)[..., None], 2)[..., 0] for one in (down, across))
    return np.asarray(np.hypot(x, y)), (np.arctan2(y, x) / (2 * np.pi) + 0.5) % 1


def histograms(strength: Array, turn: Array, sections: int) -> Array:
    """Sums of strengths by direction (16), for sections × sections parts of an image: (parts, 16)."""
    height, width = strength.shape
    rows = np.arange(sections + 1) * height / sections
    columns = np.arange(sections + 1) * width / sections
    row = np.searchsorted(np.round(rows[1:-1]), np.arange(height), "right")
    column = np.searchsorted(np.round(columns[1:-1]), np.arange(width), "right")
    part = row[:, None] * sections + column[None]
    place = part * BINS + np.rint(turn * BINS).astype(np.int64) % BINS
    return np.asarray(np.bincount(place.ravel(), strength.ravel(), sections**2 * BINS).reshape(-1, BINS), np.float64)


def similarities(whole: Array, parts: Array) -> Array:
    """Intersections of normalized histograms of parts with that of the whole, times the smaller strength / the larger.

    Strengths are means over pixels, so that a part of an evenly filled image has that of the whole. A part without
    gradients has 0.
    """
    sums, whole_sum = parts.sum(1), whole.sum()
    if whole_sum <= 0:
        return np.zeros(len(parts))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(sums[:, None] > 0, parts / sums[:, None], 0)
        relative = sums * len(parts) / whole_sum
        balance = np.where(relative > 0, np.minimum(relative, 1 / relative), 0)
    return np.asarray(np.minimum(shares, whole / whole_sum).sum(1) * balance)


def anisotropy(levels: list[Array]) -> float:
    """Standard deviation of the values of the last level; histograms of all levels have the same sum, together 1."""
    sums = [one.sum(1, keepdims=True) for one in levels]
    shares = [
        np.divide(one, total, out=np.zeros_like(one), where=total > 0) for one, total in zip(levels, sums, strict=True)
    ]
    whole = sum(float(one.sum()) for one in shares)
    return float(shares[-1].std() / whole) if whole else 0.0

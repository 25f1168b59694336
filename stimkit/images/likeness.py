"""Which of many images are nearly the same: by small copies of all, then by the pixels of those that are close."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stimkit.images.png import Shown
from stimkit.images.statistics import in_steps

COPY_SIDE = 16  # pixels
_ROWS = 500  # images that are compared with all others at a time


def small_copy(image: Shown) -> NDArray[np.float32]:
    """Means of an image (height, width, 3) over 16 × 16 parts, values 0 to 255: (768,)."""
    picture = Image.fromarray(np.round(in_steps(image)).astype(np.uint8))
    return np.asarray(picture.resize((COPY_SIDE, COPY_SIDE), Image.Resampling.BOX), np.float32).ravel()


def closest_pairs(copies: NDArray[np.float32], limit: float, count: int) -> list[tuple[int, int]]:
    """The `count` closest pairs of rows whose root mean square difference is at most `limit`, the closest first."""
    rows = copies.astype(np.float64)
    squares = (rows**2).mean(1)
    found = np.zeros((0, 3))
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        differences = squares[part, None] + squares[None] - 2 * (rows[part] @ rows.T) / rows.shape[1]
        ones, others = np.nonzero(differences <= limit**2)
        later = ones + start < others
        ones, others = ones[later], others[later]
        found = np.concatenate([found, np.column_stack([differences[ones, others], ones + start, others])])
        found = found[np.argsort(found[:, 0], kind="stable")[:count]]
    return [(int(one), int(other)) for _, one, other in found]


def pixel_difference(one: Shown, other: Shown) -> float:
    """Root mean square difference of two images in steps of 8 bits; infinite where their sizes differ."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.sqrt(np.mean((in_steps(one) - in_steps(other)) ** 2)))

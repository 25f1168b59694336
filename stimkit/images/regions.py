"""Regions over which Gram matrices are taken: the whole image, a grid, windows that grow with eccentricity, a mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stimkit.images.light import Array

FOVEA = 0.1  # radius of the central region where none is given, of half of the shorter side
SMALLEST = 2.0  # pixels: radial width of the smallest window, for which that region grows

Box = tuple[int, int, int, int]
"""Top, bottom, left and right."""


@dataclass(frozen=True)
class RegionShape:
    """Regions of an image of a size (height, width)."""

    kind: Literal["whole", "grid", "polar"]
    size: tuple[int, int]
    count: int
    """n of the n × n rectangles of a grid."""
    scaling: float
    """Radial width of a polar window / its eccentricity."""
    fixation: tuple[float, float] = (0.0, 0.0)
    """Pixels right of and above the middle of the image, in it or not."""
    fovea: float = 0.0
    """Radius of the central region in pixels; 0: as `FOVEA` and `SMALLEST` say."""

    @property
    def smallest_fovea(self) -> float:
        """Radius in pixels at which the first ring of windows is `SMALLEST` wide."""
        return SMALLEST / self.scaling

    @property
    def central_radius(self) -> float:
        """Radius of the central region in pixels."""
        return max(self.fovea or FOVEA * min(self.size) / 2, self.smallest_fovea)


@dataclass(frozen=True)
class Window:
    """The weights of pixels, or of the positions of a layer, in one region; outside of its box they are 0."""

    box: Box
    weights: Array

    def at_stride(self, size: tuple[int, int], stride: int) -> Window:
        """Weights of a layer's positions, means over the pixels of each, of sum 1.

        They are 0 where all of the region is in what the layer leaves out of an image of this size (height, width).
        """
        top, bottom, left, right = self.box
        rows, columns = (
            (low // stride, min(-(-high // stride), side // stride))
            for low, high, side in ((top, bottom, size[0]), (left, right, size[1]))
        )
        shape = (max(0, rows[1] - rows[0]), max(0, columns[1] - columns[0]))
        if not all(shape):
            return Window((0, 1, 0, 1), np.zeros((1, 1)))
        padded = np.zeros((shape[0] * stride, shape[1] * stride))
        above, before = top - rows[0] * stride, left - columns[0] * stride
        part = self.weights[: len(padded) - above, : padded.shape[1] - before]
        padded[above : above + part.shape[0], before : before + part.shape[1]] = part
        means = padded.reshape(shape[0], stride, shape[1], stride).mean((1, 3))
        return Window((*rows, *columns), means / max(means.sum(), 1e-12))


def whole_window(weights: Array) -> Window:
    """The region of a mask, (height, width)."""
    return Window((0, weights.shape[0], 0, weights.shape[1]), weights)


def region_windows(shape: RegionShape) -> tuple[Window, ...] | None:
    """Weights of the pixels in each region, which have the sum 1 at every pixel; None for one region.

    grid: n × n rectangles. polar: windows about fixation, whose radial width is `scaling` times their eccentricity, as
    wide as long, with raised-cosine flanks on a logarithmic scale (Freeman & Simoncelli 2011, Metamers of the ventral
    stream); one disc in the middle. Of windows with less than a pixel in the image, the nearest one takes the pixels.
    """
    if shape.kind == "whole":
        return None
    return _grid(shape.size, shape.count) if shape.kind == "grid" else _polar(shape)


@lru_cache(maxsize=256)
def count_regions(shape: RegionShape) -> int:
    """Count the regions."""
    if shape.kind == "whole":
        return 1
    return shape.count**2 if shape.kind == "grid" else len(_polar(shape))


def _grid(size: tuple[int, int], count: int) -> tuple[Window, ...]:
    rows, columns = ([-(-side * number // count) for number in range(count + 1)] for side in size)
    boxes = [(*row, *column) for row in pairwise(rows) for column in pairwise(columns)]
    return tuple(Window(box, np.ones((box[1] - box[0], box[3] - box[2]))) for box in boxes)


def _polar_spacing(shape: RegionShape) -> tuple[float, int]:
    """Distance of rings of windows in the logarithm of eccentricity, and windows of a ring."""
    half = shape.scaling / 2
    return float(np.log((1 + half) / (1 - half))), max(4, round(np.pi / half))


@lru_cache(maxsize=4)
def _polar(shape: RegionShape) -> tuple[Window, ...]:
    """A pixel is in two rings and two sectors, so in four windows at most: those are listed, not maps of windows."""
    height, width = shape.size
    right, up = shape.fixation
    y, x = np.meshgrid(
        np.arange(height) + 0.5 - height / 2 + up, np.arange(width) + 0.5 - width / 2 - right, indexing="ij"
    )
    step, around = _polar_spacing(shape)
    ring = np.log(np.maximum(np.hypot(y, x), 1e-9) / shape.central_radius) / step
    sector = np.arctan2(y, x) / (2 * np.pi) * around
    window: list[NDArray[np.int64]] = []
    weight: list[Array] = []
    for number, share in _neighbours(np.maximum(ring, -1)):
        for place, part in _neighbours(sector):
            window.append(np.where(number > 0, 1 + (number - 1) * around + place % around, 0).ravel())
            weight.append((share * part).ravel())
    pixel = np.tile(np.arange(height * width), len(window))
    return _gathered(np.concatenate(window), pixel, np.concatenate(weight), shape.size)


def _neighbours(place: Array) -> tuple[tuple[NDArray[np.int64], Array], ...]:
    """The whole numbers on both sides, and the share of each: raised cosines of unit spacing, whose sum is 1."""
    below = np.floor(place)
    share = (1 + np.cos(np.pi * (place - below))) / 2
    return (below.astype(np.int64), share), (below.astype(np.int64) + 1, 1 - share)


def _gathered(
    window: NDArray[np.int64], pixel: NDArray[Any], weight: Array, size: tuple[int, int]
) -> tuple[Window, ...]:
    """Windows of a list of weights by window and pixel, in the order of their numbers."""
    _, own = np.unique(window, return_inverse=True)
    area = np.bincount(own, weight)
    centres = [np.bincount(own, weight * at) / np.maximum(area, 1e-12) for at in np.divmod(pixel, size[1])]
    kept = area > 1 if (area > 1).any() else area == area.max()
    owner = np.where(kept, np.arange(len(area)), 0)
    for small in np.flatnonzero(~kept):
        distance = sum((centre - centre[small]) ** 2 for centre in centres)
        owner[small] = np.argmin(np.where(kept, distance, np.inf))
    key, place = np.unique(owner[own] * (size[0] * size[1]) + pixel, return_inverse=True)
    numbers, pixels = np.divmod(key, size[0] * size[1])
    ends = np.flatnonzero(np.diff(numbers)) + 1
    weights = np.asarray(np.bincount(place, weight), np.float64)
    parts = zip(np.split(pixels, ends), np.split(weights, ends), strict=True)
    return tuple(_boxed(*np.divmod(inside, size[1]), part) for inside, part in parts)


def _boxed(rows: NDArray[Any], columns: NDArray[Any], weights: Array) -> Window:
    there = weights > 0
    rows, columns, weights = rows[there], columns[there], weights[there]
    top, left = int(rows.min()), int(columns.min())
    inside = np.zeros((int(rows.max()) + 1 - top, int(columns.max()) + 1 - left))
    inside[rows - top, columns - left] = weights
    return Window((top, top + inside.shape[0], left, left + inside.shape[1]), inside)

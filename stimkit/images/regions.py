"""Regions over which Gram matrices are taken: the whole image, a grid, windows that grow with eccentricity, a mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from stimkit.images.light import Array

FOVEA = 0.1  # radius of the central region, of half of the shorter side
SMALLEST = 2.0  # pixels: radial width of the smallest window, for which the central region grows


@dataclass(frozen=True)
class RegionShape:
    """Regions of an image of a size (height, width)."""

    kind: Literal["whole", "grid", "polar"]
    size: tuple[int, int]
    count: int
    """n of the n × n rectangles of a grid."""
    scaling: float
    """Radial width of a polar window / its eccentricity."""


def region_maps(shape: RegionShape) -> Array | None:
    """Weights of the pixels in each region, (regions, height, width), of sum 1 over regions; None for one region.

    grid: n × n rectangles. polar: windows about the middle of the image, whose radial width is `scaling` times
    their eccentricity, as wide as long, with raised-cosine flanks on a logarithmic scale (Freeman & Simoncelli 2011,
    Metamers of the ventral stream); one disc in the middle.
    """
    if shape.kind == "whole":
        return None
    if shape.kind == "grid":
        return _grid(shape.size, shape.count)
    return _polar(shape.size, shape.scaling)


def count_regions(shape: RegionShape) -> int:
    """Count the regions that there are at most, without making their maps."""
    if shape.kind == "whole":
        return 1
    if shape.kind == "grid":
        return shape.count**2
    fovea, step, around = _spacing(shape.size, shape.scaling)
    return 1 + around * int(np.ceil(np.log(np.hypot(*shape.size) / 2 / fovea) / step))


def _spacing(size: tuple[int, int], scaling: float) -> tuple[float, float, int]:
    """Radius of the central region, spacing of the rings in log eccentricity, and windows of a ring."""
    fovea = max(FOVEA * min(size) / 2, SMALLEST / scaling)
    return fovea, float(np.log((1 + scaling / 2) / (1 - scaling / 2))), max(4, round(2 * np.pi / scaling))


def _grid(size: tuple[int, int], count: int) -> Array:
    rows, columns = (np.arange(side) * count // side for side in size)
    place = rows[:, None] * count + columns[None, :]
    return np.asarray(place[None] == np.arange(count**2)[:, None, None], np.float64)


@lru_cache(maxsize=1)
def _polar(size: tuple[int, int], scaling: float) -> Array:
    y, x = (np.arange(side) + 0.5 - side / 2 for side in size)
    distance, angle = np.hypot(y[:, None], x[None, :]), np.arctan2(y[:, None], x[None, :])
    fovea, step, around = _spacing(size, scaling)
    place = np.log(np.maximum(distance, 1e-9) / fovea) / step
    rings = [_window(place - number) for number in range(1, int(np.ceil(place.max())) + 1)]
    turn = angle / (2 * np.pi) * around
    sectors = [_window((turn - number + around / 2) % around - around / 2) for number in range(around)]
    windows = [np.clip(1 - np.sum(rings, axis=0), 0, 1), *(ring * sector for ring in rings for sector in sectors)]
    return np.stack([window for window in windows if window.sum() > 1])


def _window(distance: Array) -> Array:
    """A raised cosine of unit spacing: windows at whole numbers have the sum 1."""
    return np.where(np.abs(distance) < 1, (1 + np.cos(np.pi * np.clip(distance, -1, 1))) / 2, 0.0)


def weights_of_positions(maps: Array, stride: int) -> Array:
    """Weights at the positions of a layer's feature map: means over the pixels of each, of sum 1 in every region.

    (regions, height, width) to (regions, height // stride, width // stride).
    """
    regions, height, width = maps.shape
    rows, columns = height // stride, width // stride
    blocks = maps[:, : rows * stride, : columns * stride].reshape(regions, rows, stride, columns, stride)
    weights = blocks.mean((2, 4))
    return np.asarray(weights / np.maximum(weights.sum((1, 2), keepdims=True), 1e-12))


Box = tuple[int, int, int, int]


def bounding_box(weights: Array) -> Box:
    """Top, bottom, left and right of what is above 0; of everything where nothing is."""
    rows, columns = (np.flatnonzero(weights.any(axis)) for axis in (1, 0))
    if not len(rows):
        return 0, weights.shape[0], 0, weights.shape[1]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1

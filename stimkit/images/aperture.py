"""Apertures: how much of each pixel is stimulus, and how much background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stimkit.images.light import Array, to_linear, to_srgb


@dataclass(frozen=True)
class ApertureShape:
    """An aperture in the middle of an image; lengths are in pixels."""

    kind: Literal["none", "circle", "gaussian"]
    size: tuple[int, int]
    """Height and width of the image."""
    diameter: float
    ramp: float
    """Width of the raised cosine, which lies inside the diameter of a circle."""
    sigma: float
    """Standard deviation of a Gaussian."""


def aperture_weights(shape: ApertureShape) -> Array | None:
    """Weights of the stimulus against the background, 0 to 1, (height, width); None without an aperture.

    circle: 1 inside, falling to 0 at the diameter as a raised cosine over the ramp. gaussian: exp(-r² / 2σ²), and 0
    beyond the circle of the diameter. Pixels have their centres at half-integers; r is measured from the middle.
    """
    if shape.kind == "none":
        return None
    height, width = shape.size
    y, x = (np.arange(side) + 0.5 - side / 2 for side in (height, width))
    distance: Array = np.hypot(y[:, None], x[None, :])
    radius = shape.diameter / 2
    inside: Array = (distance <= radius).astype(np.float64)
    if shape.kind == "gaussian":
        return np.asarray(inside * np.exp(-((distance / shape.sigma) ** 2) / 2))
    if shape.ramp == 0:
        return inside
    outward = np.clip((distance - (radius - shape.ramp)) / shape.ramp, 0, 1)
    return np.asarray(inside * (1 + np.cos(np.pi * outward)) / 2)


def lay_on_background(image: NDArray[Any], weights: Array, background: float) -> Array:
    """Mix an sRGB-encoded image (3, height, width) with a background of relative luminance, in linear light."""
    return to_srgb(weights * to_linear(image) + (1 - weights) * background)

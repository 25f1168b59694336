"""Apertures: how much of each pixel is stimulus, and how much background."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimkit.images.light import Array, decode, encode
from stimkit.protocol.settings import Settings


def aperture(settings: Settings) -> Array | None:
    """Weights of the stimulus against the background, 0 to 1, (height, width); None without an aperture.

    circle: 1 inside, falling to 0 at the diameter as a raised cosine over the ramp. gaussian: exp(-r² / 2σ²), and 0
    beyond the circle of the diameter. Pixels have their centres at half-integers; r is measured from the middle.
    """
    if settings.aperture == "none":
        return None
    height, width = settings.size
    y, x = (np.arange(side) + 0.5 - side / 2 for side in (height, width))
    distance: Array = np.hypot(y[:, None], x[None, :])
    radius, ramp = diameter_px(settings) / 2, settings.aperture_ramp * settings.ppd
    inside: Array = (distance <= radius).astype(np.float64)
    if settings.aperture == "gaussian":
        return np.asarray(inside * np.exp(-((distance / (settings.aperture_sigma * settings.ppd)) ** 2) / 2))
    if ramp == 0:
        return inside
    outward = np.clip((distance - (radius - ramp)) / ramp, 0, 1)
    return np.asarray(inside * (1 + np.cos(np.pi * outward)) / 2)


def diameter_px(settings: Settings) -> float:
    """Diameter of the aperture in pixels; by default that of the largest circle."""
    return settings.aperture_diameter * settings.ppd or float(min(settings.size))


def seen_through(image: NDArray[Any], weights: Array, background: float) -> Array:
    """An sRGB-encoded image (3, height, width) on a background of relative luminance, mixed in linear light."""
    return encode(weights * decode(image) + (1 - weights) * background)

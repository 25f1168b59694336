"""Light: between the sRGB encoding of files and relative luminance in linear light (IEC 61966-2-1, ITU-R BT.709)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LUMINANCE_WEIGHTS = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709


def to_linear(encoded: NDArray[Any]) -> Array:
    """Linear light, 0 to 1, of sRGB-encoded values; what lies outside of 0 to 1 is clipped."""
    values = np.clip(np.asarray(encoded, np.float64), 0, 1)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: NDArray[Any]) -> Array:
    """sRGB encoding, 0 to 1, of values in linear light; what lies outside of 0 to 1 is clipped."""
    values = np.clip(np.asarray(linear, np.float64), 0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def luminance(linear: Array) -> Array:
    """Relative luminance of linear RGB: (3, height, width) to (height, width)."""
    return np.tensordot(LUMINANCE_WEIGHTS, linear, axes=1)


def set_luminance(linear: Array, wanted: Array, *, gain: Array | float, desaturate: bool = True) -> Array:
    """Linear RGB of another luminance: chromatic differences RGB - Y are multiplied by `gain`.

    With `desaturate` they are made smaller where a channel would leave 0 to 1, which keeps the luminance (it has to
    be within 0 to 1 itself); otherwise channels are clipped, which does not.
    """
    chroma = gain * (linear - luminance(linear))
    if desaturate:
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.where(chroma > 0, (1 - wanted) / chroma, np.where(chroma < 0, -wanted / chroma, np.inf))
        chroma = chroma * np.clip(room.min(0), 0, 1)
    return np.clip(wanted + chroma, 0, 1)

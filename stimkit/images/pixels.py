"""Pixels in memory: arrays of 8-bit and float images, their digests and sizes."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]  # (height, width, 3)
FloatImage = NDArray[np.float32]  # (3, height, width)
MAX_PIXELS = 64_000_000


def float_digest(image: FloatImage) -> str:
    """sha256 of the float32 values of an image (3, height, width), channel by channel."""
    return hashlib.sha256(np.ascontiguousarray(image, np.float32).tobytes()).hexdigest()


def pixel_digest(pixels: Pixels) -> str:
    """sha256 of the shape and the 8-bit RGB values: the same for any lossless file of the image."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}x3;".encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return digest.hexdigest()


def resize(pixels: Pixels, size: tuple[int, int], how: str) -> Pixels:
    """Bring 8-bit RGB pixels to (height, width): cut the middle to shape (`crop`) or distort (`stretch`)."""
    height, width = size
    image = Image.fromarray(pixels)
    if how == "stretch":
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))


def to_float(pixels: Pixels) -> FloatImage:
    """(height, width, 3) 8-bit to (3, height, width) float32 in 0 to 1."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)


def quantize(image: FloatImage) -> Pixels:
    """Clip a float image to 0 … 1 and round it to 8 bits."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def clipped_fractions(image: FloatImage) -> tuple[float, float]:
    """Fractions of channel values below 0 and above 1 by more than rounding to 8 bits: what `quantize` clips."""
    half = 0.5 / 255
    return float((image < -half).mean()), float((image > 1 + half).mean())

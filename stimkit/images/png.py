"""Stimulus files: PNG of 8 or 16 bits, for displays with the sRGB transfer function, a gamma, or linear light.

What an observer sees of a file is an image in the sRGB encoding that all measures and losses take: 8-bit pixels where
the file has them, values from 0 to 1 otherwise.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import png
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stimkit.files import read_file
from stimkit.images.deep import decode_deep
from stimkit.images.light import to_linear, to_srgb
from stimkit.images.pixels import FloatImage, Pixels, pixel_digest, quantize, to_float
from stimkit.images.reading import decode_image

Values = NDArray[np.uint8] | NDArray[np.uint16]  # (height, width, 3), as the file holds them
Shown = Pixels | NDArray[np.float64]  # (height, width, 3), sRGB encoded: 8 bits, or 0 to 1


@dataclass(frozen=True)
class Encoding:
    """How a file holds an image, and for which display."""

    transfer: Literal["srgb", "gamma", "linear"] = "srgb"
    """Transfer function of the display."""
    gamma: float = 2.2
    """Exponent of a display with transfer gamma."""
    bits: int = 8
    rounding: Literal["nearest", "dither"] = "nearest"

    @property
    def exponent(self) -> float:
        """The exponent with which a display that is not sRGB turns values into light."""
        return 1.0 if self.transfer == "linear" else self.gamma


def to_file_values(image: FloatImage, encoding: Encoding, seed: int) -> Values:
    """The values of a file from an sRGB-encoded image (3, height, width); `seed` is that of the dither."""
    if encoding.transfer == "srgb" and encoding.bits == 8 and encoding.rounding == "nearest":
        return quantize(image)
    encoded = np.clip(image, 0, 1).astype(np.float64)
    if encoding.transfer != "srgb":
        encoded = to_linear(encoded) ** (1 / encoding.exponent)
    steps = 2**encoding.bits - 1
    rounded = np.floor(encoded * steps + _offsets(image.shape, encoding, seed)).transpose(1, 2, 0)
    return np.asarray(rounded, np.uint8) if encoding.bits == 8 else np.asarray(rounded, np.uint16)


def _offsets(shape: tuple[int, ...], encoding: Encoding, seed: int) -> Any:
    """0.5 rounds to the nearest; a random offset rounds up or down so that the mean is the value before rounding."""
    if encoding.rounding == "nearest":
        return 0.5
    words = np.random.Philox(key=seed + 1).random_raw(int(np.prod(shape))) >> np.uint64(40)
    return words.astype(np.float64).reshape(shape) * 2.0**-24


def encode_png(pixels: Pixels, text: Mapping[str, str] = {}) -> bytes:
    """Encode 8-bit RGB pixels as PNG, marked as sRGB, with text chunks."""
    return _encode_8(pixels, (b"sRGB", b"\x00"), text)


def _encode_8(values: NDArray[np.uint8], marked: tuple[bytes, bytes], text: Mapping[str, str]) -> bytes:
    info = PngInfo()
    info.add(*marked)
    for key, value in text.items():
        info.add_text(key, value)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(values)).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def encode_values(values: Values, encoding: Encoding, text: Mapping[str, str]) -> bytes:
    """Encode the values of a file as PNG that says which transfer function they are for, with text chunks."""
    marked = (b"sRGB", b"\x00")
    if encoding.transfer != "srgb":
        marked = (b"gAMA", struct.pack(">I", round(100_000 / encoding.exponent)))
    if values.dtype == np.uint8:
        return _encode_8(values.astype(np.uint8), marked, text)
    return _encode_16(
        values, [marked, *((b"tEXt", f"{key}\0{value}".encode("latin-1")) for key, value in text.items())]
    )


def _encode_16(values: Values, chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Pillow writes no RGB of 16 bits; the chunks come after the header."""
    height, width, _ = values.shape
    plain, buffer = io.BytesIO(), io.BytesIO()
    png.Writer(width, height, greyscale=False, bitdepth=16).write(plain, values.reshape(height, -1))
    header, *others = png.Reader(bytes=plain.getvalue()).chunks()
    png.write_chunks(buffer, [header, *chunks, *others])
    return buffer.getvalue()


def decode_values(data: bytes, name: str) -> Values:
    """The values of a stimulus file as they are; `name` is used in messages.

    Raises `ImageError` where the data are not an image, or damaged, or larger than `MAX_PIXELS`.
    """
    depth, colour = struct.unpack(">BB", data[24:26]) if len(data) > 26 else (0, 0)
    if not data.startswith(b"\x89PNG") or (depth, colour) != (16, 2):
        return decode_image(data, name, to_srgb=False)
    return decode_deep(data, 3, name)


def values_digest(values: Values) -> str:
    """sha256 of the shape and the values of a file."""
    if values.dtype == np.uint8:
        return pixel_digest(values.astype(np.uint8))
    digest = hashlib.sha256(f"{values.shape[0]}x{values.shape[1]}x3x16;".encode())
    digest.update(np.ascontiguousarray(values, ">u2").tobytes())
    return digest.hexdigest()


def to_shown(values: Values, encoding: Encoding) -> Shown:
    """What an observer sees of the values of a file."""
    if values.dtype == np.uint8 and encoding.transfer == "srgb":
        return values.astype(np.uint8)
    encoded = values / np.float64(np.iinfo(values.dtype).max)
    if encoding.transfer != "srgb":
        encoded = to_srgb(encoded**encoding.exponent)
    return np.asarray(encoded)


def to_network_image(values: Values, encoding: Encoding) -> FloatImage:
    """What an observer sees, as the network takes it: (3, height, width) float32, sRGB encoded."""
    seen = to_shown(values, encoding)
    if seen.dtype == np.uint8:
        return to_float(seen.astype(np.uint8))
    return np.ascontiguousarray(seen.transpose(2, 0, 1), dtype=np.float32)


def read_picture(path: Path, encoding: Encoding) -> Image.Image:
    """Read what an observer sees of a stimulus file, in 8 bits, for contact sheets and reports.

    Raises `OSError` or `ImageError` where the file cannot be read.
    """
    return to_picture(decode_values(read_file(path), path.name), encoding)


def to_picture(values: Values, encoding: Encoding) -> Image.Image:
    """What an observer sees of the values of a file, in 8 bits."""
    return Image.fromarray(quantize(to_network_image(values, encoding)))

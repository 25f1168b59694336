"""Stimulus files: PNG of 8 or 16 bits, for displays with the sRGB transfer function, a gamma, or linear light.

What an observer sees of a file is an image in the sRGB encoding that all measures and losses take: 8-bit pixels where
the file has them, values from 0 to 1 otherwise.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import png
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stimkit.errors import ImageError
from stimkit.images import light as photometry
from stimkit.images.reading import MAX_PIXELS, FloatImage, Pixels, decode, encode_png, pixel_digest, quantize, to_float
from stimkit.protocol.settings import Settings

Values = NDArray[np.uint8] | NDArray[np.uint16]  # (height, width, 3), as the file holds them
Shown = Pixels | NDArray[np.float64]  # (height, width, 3), sRGB encoded: 8 bits, or 0 to 1


def values_of(image: FloatImage, settings: Settings, seed: int) -> Values:
    """The values of a file from an sRGB-encoded image (3, height, width); `seed` is that of the dither."""
    if settings.transfer == "srgb" and settings.bits == 8 and settings.rounding == "nearest":
        return quantize(image)
    encoded = np.clip(image, 0, 1).astype(np.float64)
    if settings.transfer != "srgb":
        encoded = photometry.decode(encoded) ** (1 / _gamma(settings))
    steps = 2**settings.bits - 1
    rounded = np.floor(encoded * steps + _offsets(image.shape, settings, seed)).transpose(1, 2, 0)
    return np.asarray(rounded, np.uint8) if settings.bits == 8 else np.asarray(rounded, np.uint16)


def _offsets(shape: tuple[int, ...], settings: Settings, seed: int) -> Any:
    """0.5 rounds to the nearest; a random offset rounds up or down so that the mean is the value before rounding."""
    if settings.rounding == "nearest":
        return 0.5
    words = np.random.Philox(key=seed + 1).random_raw(int(np.prod(shape))) >> np.uint64(40)
    return words.astype(np.float64).reshape(shape) * 2.0**-24


def _gamma(settings: Settings) -> float:
    return 1.0 if settings.transfer == "linear" else settings.gamma


def encode_values(values: Values, settings: Settings, text: Mapping[str, str]) -> bytes:
    """Encode the values of a file as PNG that says which transfer function they are for, with text chunks."""
    if values.dtype == np.uint8 and settings.transfer == "srgb":
        return encode_png(values.astype(np.uint8), text)
    marked = (b"sRGB", b"\x00")
    if settings.transfer != "srgb":
        marked = (b"gAMA", struct.pack(">I", round(100_000 / _gamma(settings))))
    if values.dtype == np.uint8:
        info = PngInfo()
        info.add(*marked)
        for key, value in text.items():
            info.add_text(key, value)
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, format="PNG", pnginfo=info)
        return buffer.getvalue()
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

    Raises `ImageError` where the data are no image, damaged, or larger than `MAX_PIXELS`.
    """
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26]) if len(data) > 26 else (0, 0, 0, 0)
    if not data.startswith(b"\x89PNG") or (depth, colour) != (16, 2):
        return decode(data, name, to_srgb=False)
    if width * height > MAX_PIXELS:
        raise ImageError(f'image "{name}" has {width} × {height} pixels; at most {MAX_PIXELS:,} are accepted')
    try:
        _, _, rows, _ = png.Reader(bytes=data).asDirect()
        return np.vstack([np.asarray(row, np.uint16) for row in rows]).reshape(height, width, 3)
    except (png.Error, zlib.error, struct.error, ValueError, EOFError) as error:
        raise ImageError(f'image "{name}" is damaged: {error}') from None


def values_digest(values: Values) -> str:
    """sha256 of the shape and the values of a file."""
    if values.dtype == np.uint8:
        return pixel_digest(values.astype(np.uint8))
    digest = hashlib.sha256(f"{values.shape[0]}x{values.shape[1]}x3x16;".encode())
    digest.update(np.ascontiguousarray(values, ">u2").tobytes())
    return digest.hexdigest()


def shown(values: Values, settings: Settings) -> Shown:
    """What an observer sees of the values of a file."""
    if values.dtype == np.uint8 and settings.transfer == "srgb":
        return values.astype(np.uint8)
    encoded = values / np.float64(np.iinfo(values.dtype).max)
    if settings.transfer != "srgb":
        encoded = photometry.encode(encoded ** _gamma(settings))
    return np.asarray(encoded)


def shown_image(values: Values, settings: Settings) -> FloatImage:
    """What an observer sees, as the network takes it: (3, height, width) float32, sRGB encoded."""
    seen = shown(values, settings)
    if seen.dtype == np.uint8:
        return to_float(seen.astype(np.uint8))
    return np.ascontiguousarray(seen.transpose(2, 0, 1), dtype=np.float32)


def picture(path: Path, record: Mapping[str, Any]) -> Image.Image:
    """What an observer sees of the stimulus of a record, in 8 bits, for contact sheets and reports.

    Raises `OSError` or `ImageError` where the file cannot be read.
    """
    settings = Settings(transfer=record["transfer"], gamma=record["gamma"])
    return Image.fromarray(quantize(shown_image(decode_values(path.read_bytes(), path.name), settings)))

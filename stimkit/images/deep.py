"""PNG of 16 bits a channel, which Pillow reads as 8: decoded within bounds, since files come from others."""

from __future__ import annotations

import itertools
import struct
import zlib

import numpy as np
import png
from numpy.typing import NDArray

from stimkit.errors import ImageError
from stimkit.images.pixels import MAX_PIXELS

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode_deep(data: bytes, channels: int, name: str) -> NDArray[np.uint16]:
    """The values of a PNG of 16 bits, (height, width, channels), of which the last may be what tRNS says.

    Raises `ImageError` where it is damaged, has more than `MAX_PIXELS`, or more values than pixels; `name` is used in
    messages.
    """
    try:
        width, height = _checked_size(data, name)
        reader = png.Reader(bytes=data)
        found_width, found_height, rows, _ = reader.asDirect()
        if (found_width, found_height) != (width, height):
            raise ValueError("it has several headers")
        values = [np.asarray(row, np.uint16) for row in itertools.islice(rows, height)]
        return np.vstack(values).reshape(height, width, channels)
    except (png.Error, zlib.error, struct.error, ValueError, EOFError) as error:
        raise ImageError(f'image "{name}" is damaged: {error}') from None


def _checked_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height by the header, once the compressed values are known to be no more than such an image has."""
    if not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        raise ValueError("it does not begin with its header")
    width, height = struct.unpack(">II", data[16:24])
    if width * height > MAX_PIXELS:
        raise ImageError(f'image "{name}" has {width} × {height} pixels; at most {MAX_PIXELS:,} are accepted')
    # 8 bytes a pixel at most, and the filters of rows, of which interlaced images have more.
    inflate, left = zlib.decompressobj(), 8 * (width + 8) * (height + 8)
    for kind, part in png.Reader(bytes=data).chunks():
        if kind == b"IDAT":
            left -= len(inflate.decompress(part, left + 1))
            if left < 0 or inflate.unconsumed_tail:
                raise ValueError("it has more values than pixels")
    return width, height

"""Stimulus files: 8 and 16 bits, for several displays."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from typing import Literal

import numpy as np
import pytest

from stimkit.errors import ImageError
from stimkit.images.light import to_linear, to_srgb
from stimkit.images.png import decode_values, encode_values, to_file_values, to_network_image, values_digest
from stimkit.protocol.settings import Settings


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("transfer", "exponent"), [("srgb", None), ("gamma", 2.4), ("linear", 1.0)])
def test_files_for_other_displays_show_the_same(
    bits: Literal[8, 16], transfer: Literal["srgb", "gamma", "linear"], exponent: float | None
) -> None:
    settings = Settings(size=(12, 10), bits=bits, transfer=transfer, gamma=2.4 if transfer == "gamma" else 2.2)
    image = np.random.default_rng(0).uniform(0, 1, (3, 12, 10)).astype(np.float32)
    values = to_file_values(image, settings.encoding, 0)
    assert values.dtype == (np.uint8 if bits == 8 else np.uint16)
    light = to_linear(image)
    expected = to_srgb(light) if exponent is None else light ** (1 / exponent)
    assert values.transpose(2, 0, 1) / (2**bits - 1) == pytest.approx(expected, abs=0.5001 / (2**bits - 1))
    data = encode_values(values, settings.encoding, {"stimulus_id": "s1"})
    again = decode_values(data, "it")
    assert np.array_equal(again, values) and values_digest(again) == values_digest(values)
    # Half a step in the dark is most where light is coded linearly.
    error = np.abs(to_linear(to_network_image(again, settings.encoding)) - light).max()
    assert error < {8: 0.006, 16: 3e-5}[bits]
    chunk = b"sRGB" if exponent is None else b"gAMA" + round(100_000 / exponent).to_bytes(4, "big")
    assert chunk in data and b"tEXt" + b"stimulus_id\0s1" in data


def test_sixteen_bits_are_read_by_another_program_too() -> None:
    settings = Settings(size=(4, 5), bits=16)
    values = to_file_values(np.random.default_rng(0).uniform(0, 1, (3, 4, 5)).astype(np.float32), settings.encoding, 0)
    from PIL import Image

    with Image.open(io.BytesIO(encode_values(values, settings.encoding, {}))) as image:
        assert image.mode == "RGB"
        assert np.asarray(image) == pytest.approx(values / 257, abs=1), "Pillow keeps the upper eight bits"


def test_damaged_files_of_sixteen_bits_are_told() -> None:
    settings = Settings(size=(8, 8), bits=16)
    data = encode_values(np.zeros((8, 8, 3), np.uint16), settings.encoding, {})
    for wrong in (data[:60], data[:-30], data[:40] + b"\xff" * 20 + data[60:]):
        with pytest.raises(ImageError, match="is damaged"):
            decode_values(wrong, "it")
    large = data[:16] + (100_000).to_bytes(4, "big") * 2 + data[24:]
    with pytest.raises(ImageError, match="at most 64,000,000 are accepted"):
        decode_values(large, "it")


def test_the_dither_keeps_the_mean() -> None:
    image = np.full((3, 64, 64), 100.3 / 255, np.float32)
    assert to_file_values(image, Settings(size=(64, 64)).encoding, 1).mean() == 100
    dithered = to_file_values(image, Settings(size=(64, 64), rounding="dither").encoding, 1)
    assert set(np.unique(dithered)) == {100, 101} and dithered.mean() == pytest.approx(100.3, abs=0.02)
    assert not np.array_equal(dithered, to_file_values(image, Settings(size=(64, 64), rounding="dither").encoding, 2))


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def test_more_values_than_pixels_are_not_made_room_for() -> None:
    """Some kilobytes that would become gigabytes, and headers that contradict each other."""
    header = chunk(b"IHDR", (1).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0]))
    large = chunk(b"IHDR", (50_000).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0]))
    bomb = chunk(b"IDAT", zlib.compress(bytes(50_000_000), 9))
    row = chunk(b"IDAT", zlib.compress(bytes(7)))
    begin, end = b"\x89PNG\r\n\x1a\n", chunk(b"IEND", b"")
    assert decode_values(begin + header + row + end, "it").shape == (1, 1, 3)
    tracemalloc.start()
    for parts in ((header, bomb), (header, large, row), (chunk(b"tEXt", header[8:21]), large, row)):
        with pytest.raises(ImageError, match=r"is damaged|is not an image"):
            decode_values(begin + b"".join(parts) + end, "it")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()

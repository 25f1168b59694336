"""Reading hostile and ordinary images, and writing PNG."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import png
import pytest
import skimage.data
import tifffile
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from stimkit.errors import ImageError
from stimkit.images.noise import draw_sloped_noise, draw_white_noise
from stimkit.images.pixels import clipped_fractions, pixel_digest, quantize, resize, to_float
from stimkit.images.png import encode_png
from stimkit.images.reading import SKIMAGE_SAMPLES, decode_image, from_pillow, image_files, read_source

RAMP = np.linspace(0, 255, 24 * 20 * 3).astype(np.uint8).reshape(20, 24, 3)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **options})  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("name", SKIMAGE_SAMPLES)
def test_samples_are_there_without_a_download(name: str) -> None:
    source = read_source(f"skimage:{name}", Path())
    assert source.pixels.dtype == np.uint8
    assert source.pixels.shape[2] == 3


def test_sample_has_its_own_pixels() -> None:
    assert np.array_equal(read_source("skimage:chelsea", Path()).pixels, skimage.data.chelsea())


def test_png_round_trip_is_exact_and_marked_srgb() -> None:
    data = encode_png(RAMP)
    assert np.array_equal(decode_image(data, "x"), RAMP)
    assert b"sRGB" in data


def test_quantize_rounds_and_clips() -> None:
    image = np.array([-0.5, 0.0, 0.5 / 255 + 1e-6, 1.4 / 255, 1.0, 1.7], np.float32)
    pixels = quantize(np.broadcast_to(image, (3, 1, 6)).astype(np.float32))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 255, 255]
    assert clipped_fractions(np.broadcast_to(image, (3, 1, 6)).astype(np.float32)) == (1 / 6, 1 / 6)
    assert np.array_equal(quantize(to_float(RAMP)), RAMP)


def test_grey_alpha_palette_and_16_bit_become_rgb() -> None:
    grey = RAMP[:, :, 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(decode_image(saved(Image.fromarray(grey)), "x"), expected)
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert np.array_equal(decode_image(saved(wide), "x"), expected)
    palette = Image.fromarray(RAMP).quantize(16)
    assert np.array_equal(decode_image(saved(palette), "x"), np.asarray(palette.convert("RGB")))
    clear = np.dstack([RAMP, np.zeros(RAMP.shape[:2], np.uint8)])
    assert decode_image(saved(Image.fromarray(clear)), "x").min() == 255


def png_file(values: np.ndarray, **options: Any) -> bytes:
    """A PNG of any colour type and depth; values are (height, width · channels)."""
    buffer = io.BytesIO()
    png.Writer(size=(12, values.shape[0]), **options).write(buffer, values)
    return buffer.getvalue()


def on_white(data: bytes) -> np.ndarray:
    """8-bit RGB of a PNG, transparent pixels on white, by another reader."""
    width, height, rows, info = png.Reader(bytes=data).asDirect()
    values = np.array([list(row) for row in rows], float).reshape(height, width, info["planes"])
    values /= 2 ** info["bitdepth"] - 1
    alpha = values[..., -1:] if info["alpha"] else np.ones_like(values[..., :1])
    colours = np.broadcast_to(values[..., : 1 if info["greyscale"] else 3], (height, width, 3))
    return np.asarray(255 * (alpha * colours + 1 - alpha))


PNG_KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    **{f"grey {bits}": (1, {"greyscale": True, "bitdepth": bits}) for bits in (1, 2, 4, 8, 16)},
    **{f"grey {bits} tRNS": (1, {"greyscale": True, "bitdepth": bits, "transparent": 1}) for bits in (1, 2, 4, 8, 16)},
    **{f"colour {bits}": (3, {"greyscale": False, "bitdepth": bits}) for bits in (8, 16)},
    **{
        f"colour {bits} tRNS": (3, {"greyscale": False, "bitdepth": bits, "transparent": (1, 2, 3)}) for bits in (8, 16)
    },
    **{f"grey {bits} alpha": (2, {"greyscale": True, "alpha": True, "bitdepth": bits}) for bits in (8, 16)},
    **{f"colour {bits} alpha": (4, {"greyscale": False, "alpha": True, "bitdepth": bits}) for bits in (8, 16)},
    **{
        f"palette {bits} {name}": (1, {"bitdepth": bits, "palette": [(9, 99, 199, *alpha), (200, 50, 0)]})
        for bits in (1, 2, 4, 8)
        for name, alpha in (("", ()), ("tRNS", (0,)))
    },
}


@pytest.mark.parametrize("kind", PNG_KINDS)
def test_every_kind_of_png_is_what_another_reader_says(kind: str) -> None:
    planes, options = PNG_KINDS[kind]
    top = 2 if "palette" in options else 2 ** options["bitdepth"]
    values = np.random.default_rng(0).integers(0, top, (6, 12, planes))
    values[0, :6], values[0, 6:] = np.arange(1, planes + 1) % top, 0  # the transparent colour, and one that is not
    if planes == 3 and top > 256:
        values[1, :] = (1, 2, 4)  # of which the upper bytes are those of the transparent colour
    data = png_file(values.reshape(6, -1).astype(np.uint16 if options["bitdepth"] == 16 else np.uint8), **options)
    found, expected = decode_image(data, "x"), on_white(data)
    step = 1.5 if options["bitdepth"] == 16 else 0.5  # of 16 bits of colour and alpha, Pillow keeps the upper byte
    assert np.abs(found - expected).max() <= step + 1e-9
    if kind.endswith("tRNS"):
        clear, other = (6, 0) if "palette" in options else (0, 6)
        assert (found[0, clear] == 255).all() and (found[0, other] < 255).any()


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_grey_tiffs_are_as_bright_as_they_say(photometric: str, dtype: type) -> None:
    top = 1 if dtype is bool else np.iinfo(dtype).max
    light = np.linspace(0, 1, 64).reshape(8, 8) if dtype is not bool else np.indices((8, 8)).sum(0) % 2
    stored = np.round(light * top) if photometric == "minisblack" else top - np.round(light * top)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, stored.astype(dtype), photometric=photometric)
    assert np.abs(decode_image(buffer.getvalue(), "x")[..., 0] - 255 * light).max() <= 1


def test_colour_tiffs_of_other_kinds() -> None:
    for photometric, values in (("rgb", RAMP), ("separated", np.dstack([255 - RAMP, np.zeros_like(RAMP[..., 0])]))):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, values, photometric=photometric)
        assert np.abs(decode_image(buffer.getvalue(), "x").astype(int) - RAMP).max() <= 1


def test_the_first_photograph_of_a_telephone_is_read() -> None:
    photograph, other = (
        Image.fromarray(np.full((8, 8, 3), 200, np.uint8)),
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)),
    )
    data = saved(photograph, format="MPO", save_all=True, append_images=[other])
    assert (decode_image(data, "IMG_1.JPG") == 200).all()


def test_exif_that_cannot_be_written_back_is_read() -> None:
    resolution, orientation = struct.pack(">HHI4s", 0x011A, 2, 4, b"72\0\0"), struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + orientation + resolution + bytes(4)
    data = saved(Image.fromarray(RAMP), format="JPEG", quality=100, subsampling=0, exif=exif)
    assert decode_image(data, "x").shape == (24, 20, 3)
    assert decode_image(saved(Image.fromarray(RAMP), format="JPEG", exif=exif[:20]), "x").shape == (20, 24, 3)


def test_no_other_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would give a file that says it is EPS to Ghostscript, whatever its name is."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "photo.png").write_bytes(eps)
    with pytest.raises(ImageError, match="is not an image of a format that stimkit reads"):
        read_source("photo.png", tmp_path)
    with Image.open(io.BytesIO(eps)) as image, pytest.raises(ImageError, match="is EPS, which is not one of PNG"):
        from_pillow(image, "photo.png")
    assert not (tmp_path / "started").exists()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    data = saved(Image.fromarray(RAMP), exif=exif)
    assert np.array_equal(decode_image(data, "x"), np.rot90(RAMP, -1))


def test_colour_profile_is_converted() -> None:
    same = saved(Image.fromarray(RAMP), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert np.abs(decode_image(same, "x").astype(int) - RAMP).max() <= 1
    broken = saved(Image.fromarray(RAMP), icc_profile=b"no profile at all")
    with pytest.raises(ImageError, match="colour profile"):
        decode_image(broken, "broken.png")


def test_grey_images_keep_the_profile_of_a_colour_image_or_their_own() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.fromarray(RAMP[:, :, 0])
    expected = np.repeat(RAMP[:, :, :1], 3, axis=2)
    assert np.abs(decode_image(saved(grey, icc_profile=srgb), "x").astype(int) - expected).max() <= 1
    clear = Image.fromarray(np.dstack([RAMP[:, :, 0], np.full(RAMP.shape[:2], 255, np.uint8)]), "LA")
    assert np.abs(decode_image(saved(clear, icc_profile=srgb), "x").astype(int) - expected).max() <= 1
    palette = Image.fromarray(RAMP).quantize(16)
    plain = decode_image(saved(palette), "x").astype(int)
    assert np.abs(decode_image(saved(palette, icc_profile=srgb), "x") - plain).max() <= 1
    with pytest.raises(ImageError, match="save it as PNG or JPEG"):
        decode_image(b"\x00\x00\x00\x18ftypheic" + bytes(64), "photo.heic")


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    for name in ("a.png", "._a.png", ".hidden.png", ".cache/b.png"):
        (tmp_path / name).write_bytes(encode_png(RAMP))
    assert [path.name for path in image_files(tmp_path)] == ["a.png"]


def test_the_exponent_of_a_png_is_used() -> None:
    """gAMA 1: values are light; one of 1 / 2.2, or beside the mark of sRGB, says nothing new."""
    values = np.full((8, 8, 3), 55, np.uint8)  # 0.2159 of the light is mid-grey
    for exponent, expected in ((1.0, 128), (1 / 2.2, 55), (1 / 1.8, 71), (0.0, 55)):
        info = PngInfo()
        info.add(b"gAMA", struct.pack(">I", round(1e5 * exponent)))
        data = saved(Image.fromarray(values), pnginfo=info)
        assert abs(int(decode_image(data, "x")[0, 0, 0]) - expected) <= 1
        assert np.array_equal(decode_image(data, "x", to_srgb=False), values)


def test_wide_integers_are_no_grey_values() -> None:
    wide = Image.fromarray(np.full((4, 4), 200, np.int32))
    with pytest.raises(ImageError, match="has 32-bit pixels"):
        decode_image(saved(wide, format="TIFF"), "x")


def bomb() -> bytes:
    return saved(Image.new("1", (20_000, 20_000)))


def animation() -> bytes:
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    return saved(frames[0], format="GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an image"),
        (b"\x89PNG\r\n\x1a\n nonsense", "not an image|damaged"),
        (encode_png(NOISE)[:500], "damaged"),
        (bomb(), "20000 × 20000 pixels; at most 64,000,000|too large"),
        (animation(), "several frames"),
        (saved(Image.fromarray(RAMP[:, :, 0].astype(np.float32)), format="TIFF"), "floating-point"),
    ],
    ids=["empty", "nonsense", "truncated", "bomb", "animation", "float"],
)
def test_unusable_images_are_named_and_explained(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=f'image "bad".*({message})'):
        decode_image(data, "bad")


@pytest.mark.parametrize("spec", ["../secret.png", "/etc/hostname", "a/../../b.png", "link.png"])
def test_paths_do_not_escape_the_root(spec: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(encode_png(RAMP))
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ImageError, match=r"outside the image root|out of the image root .* say follow_links = true"):
        read_source(spec, root)


def test_missing_files_folders_and_samples(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="was not found at"):
        read_source("none.png", tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ImageError, match="cannot be read"):
        read_source("folder", tmp_path)
    with pytest.raises(ImageError, match='did you mean "chelsea"'):
        read_source("skimage:chelsa", tmp_path)


def test_fit_crops_the_middle_or_stretches() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (resize(wide, (10, 10), "crop") == 200).all()
    stretched = resize(wide, (10, 10), "stretch")
    assert stretched[:, 0].max() < 20 < 180 < stretched[:, 5].min()
    assert resize(wide, (7, 5), "crop").shape == (7, 5, 3)


def test_pixel_digest_knows_shape_and_values() -> None:
    digests = {pixel_digest(RAMP), pixel_digest(RAMP.reshape(24, 20, 3)), pixel_digest(RAMP[::-1])}
    assert len(digests) == 3


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_sloped_noise_has_its_spectrum_and_the_variance_of_white_noise(slope: float) -> None:
    noise = np.stack([draw_sloped_noise(seed, 96, 128, 0.3, slope) for seed in range(8)]).astype(float)
    white = np.stack([draw_white_noise(seed, 96, 128, 0.3) for seed in range(8)]).astype(float)
    power = (np.abs(np.fft.fft2(noise - 0.5)) ** 2).mean((0, 1))
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(128)[None])
    inside = (frequency > 0.03) & (frequency < 0.5)
    found = np.polyfit(np.log(frequency[inside]), np.log(power[inside]) / 2, 1)[0]
    assert found == pytest.approx(-slope, abs=0.03)
    assert noise.std((2, 3)) == pytest.approx(white.std((2, 3)), rel=1e-4)
    assert noise.mean((2, 3)) == pytest.approx(0.5, abs=1e-6)
    assert (noise * 2.0**20 == np.round(noise * 2.0**20)).all(), "digits that differ between machines are not there"
    again = draw_sloped_noise(3, 96, 128, 0.3, slope)
    assert np.array_equal(again, noise[3]) and not np.array_equal(again, noise[4])


def test_noise_is_white_uniform_and_of_known_value() -> None:
    noise = draw_white_noise(12345, 64, 64)
    words = np.random.Philox(key=12345).random_raw(2)
    assert noise[0, 0, :2].tolist() == [int(word >> 40) / 2**24 for word in words.tolist()]
    assert noise.min() >= 0 and noise.max() < 1
    assert noise.mean() == pytest.approx(0.5, abs=0.01)
    assert noise.std() == pytest.approx(1 / np.sqrt(12), abs=0.01)
    assert not np.array_equal(noise, draw_white_noise(12346, 64, 64))
    half = draw_white_noise(12345, 64, 64, contrast=0.5)
    assert np.allclose(half - 0.5, (noise - 0.5) / 2, atol=1e-6)

"""Images: files and scikit-image samples to pixels, and back to PNG. No torch.

Inside stimkit an image is a float32 array (3, height, width), RGB, values 0 to 1 in the sRGB encoding
of the files. Resizing works on 8-bit pixels with Pillow's integer arithmetic, which gives the same
result on every machine.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from stimkit.errors import ImageError, did_you_mean
from stimkit.files import read_file
from stimkit.images.deep import decode_deep
from stimkit.images.light import to_srgb
from stimkit.images.pixels import MAX_PIXELS, Pixels, pixel_digest

SRGB_GAMMA = 0.05  # relative difference of an exponent from 1 / 2.2 below which it means sRGB
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts an image upright, by its orientation in EXIF. Only that is read: Pillow's own function also writes EXIF
back, which fails with some cameras' files."""
_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_HEIF = {b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheif"}
# What Pillow may read. It knows more formats, of which EPS starts another program, whatever the name of the file says.
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".mpo", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm"}
)
SKIMAGE_SAMPLES = (
    "astronaut", "brick", "camera", "cell", "chelsea", "coffee", "coins", "grass", "gravel", "horse",
    "hubble_deep_field", "immunohistochemistry", "moon", "motorcycle", "page", "retina", "rocket", "text",
)  # fmt: skip
"""Samples that scikit-image ships inside its package, so that no download is needed."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An input image as read: 8-bit RGB pixels and digests of them and of the file."""

    spec: str
    pixels: Pixels
    pixel_sha256: str
    file_sha256: str | None  # None for a scikit-image sample


def read_source(spec: str, root: Path, *, follow_links: bool = False) -> SourceImage:
    """Read `skimage:NAME`, or a file given relative to `root`, out of which links lead with `follow_links` only.

    Files are turned upright (EXIF), converted to sRGB (ICC), to 8 bits and to RGB; transparent pixels
    are laid on white; of the photographs in an MPO file, as telephones write it, the first is taken. Raises
    `ImageError` for a file that is missing, outside `root`, not of one of `IMAGE_FORMATS`, damaged, animated or larger
    than `MAX_PIXELS`.
    """
    if spec.startswith("skimage:"):
        pixels = _skimage_sample(spec.removeprefix("skimage:"))
        return SourceImage(spec, pixels, pixel_digest(pixels), None)
    path = _inside(spec, root, follow_links)
    try:
        data = read_file(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise ImageError(
                f'image "{spec}" is a link to {os.readlink(path)}, which is not there (of git-annex or DataLad: get it)'
            ) from None
        raise ImageError(f'image "{spec}" was not found at {path}') from None
    except OSError as error:
        raise ImageError(f'image "{spec}" cannot be read: {error.strerror or error}') from error
    pixels = decode_image(data, spec)
    return SourceImage(spec, pixels, pixel_digest(pixels), hashlib.sha256(data).hexdigest())


def image_files(folder: Path) -> list[Path]:
    """The files in and below a folder whose names say that they are images, hidden ones aside, sorted."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _SUFFIXES and not is_hidden(path, folder) and path.is_file()
    ]


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder that it is in below `folder`, is hidden."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def decode_image(data: bytes, name: str, *, to_srgb: bool = True) -> Pixels:
    """Decode an image file to 8-bit RGB pixels; `name` is used in messages.

    With `to_srgb`, colours are converted as the file says by an ICC profile, or a PNG by the exponent in its gAMA.
    Raises `ImageError` where the data are not an image, or damaged, animated or larger than `MAX_PIXELS`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # about oddities of files that are read nevertheless; our limit of size is lower
        try:
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                return from_pillow(image, name, to_srgb=to_srgb, data=data)
        except (ImageError, MemoryError):
            raise
        except UnidentifiedImageError:
            hint = "; save it as PNG or JPEG" if data[4:12] in _HEIF else ", or it is damaged"
            raise ImageError(f'image "{name}" is not an image of a format that stimkit reads{hint}') from None
        except Image.DecompressionBombError as error:
            raise ImageError(f'image "{name}" is too large: {error}') from None
        except Exception as error:  # whatever Pillow's readers stumble over in a damaged file
            raise ImageError(f'image "{name}" is damaged: {error}') from error


def from_pillow(image: Image.Image, name: str, *, to_srgb: bool = True, data: bytes = b"") -> Pixels:
    """The pixels of an open Pillow image, as `decode_image` gives them; `data` is its file, where that is at hand."""
    if image.format not in (None, "MPO", *IMAGE_FORMATS):  # an MPO file is a JPEG file with further photographs
        raise ImageError(f'image "{name}" is {image.format}, which is not one of {", ".join(IMAGE_FORMATS)}')
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f'image "{name}" has {image.width} × {image.height} pixels; at most {MAX_PIXELS:,} are'
            " accepted: make it smaller, stimuli are resized to `size` anyway"
        )
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ImageError(f'image "{name}" has several frames; save the one you mean as PNG')
    profile = image.info.get("icc_profile") if to_srgb else None
    is_file = image.format is not None
    exponent = image.info.get("gamma") if to_srgb and not profile and "srgb" not in image.info else None
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        what = "floating-point" if image.mode == "F" else "32-bit"
        raise ImageError(f'image "{name}" has {what} pixels; save it as 8-bit or 16-bit PNG')
    is_grey = image.mode[0] in "1LI"
    as_read, image = image, _narrow(_with_alpha(image, data, name))
    turn = _TURNS.get(_orientation(as_read))
    image = image if turn is None else image.transpose(turn)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode == "P":  # a profile is that of the colours in the palette
        image = image.convert("RGB")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        image = _to_srgb(image, profile, name, is_grey=is_grey, is_file=is_file)
    pixels = np.asarray(image.convert("RGB")).copy()
    if exponent is None or not 0.1 <= exponent <= 10 or abs(2.2 * exponent - 1) < SRGB_GAMMA:
        return pixels
    return np.asarray(_from_gamma(exponent)[pixels])


def _orientation(image: Image.Image) -> Any:
    """The orientation that EXIF gives, 1 where it cannot be read: as viewers of photographs do."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return 1


def _with_alpha(image: Image.Image, data: bytes, name: str) -> Image.Image:
    """An image with the alpha that a PNG gives by naming one transparent value (tRNS), which Pillow keeps as stored.

    Pillow spreads grey of 1, 2 and 4 bits over 0 to 255, keeps no alpha with 16 bits of grey, and only the upper byte
    of 16 bits of colour, so that what it calls transparent is another value, or none.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode in ("P", "PA") or key is None:
        return image
    tile = image.tile if isinstance(image, ImageFile.ImageFile) else []  # empty once its pixels were read
    stored = str(tile[0].args) if tile else image.mode
    if stored == "RGB;16B" and data:
        is_clear = decode_deep(data, 4, name)[..., 3] == 0
    elif stored == "RGB;16B":
        is_clear = (np.asarray(image) == np.asarray(key) >> 8).all(-1)
    elif image.mode == "RGB":
        is_clear = (np.asarray(image) == np.asarray(key)).all(-1)
    else:
        values = np.asarray(image.convert("L") if image.mode == "1" else image)
        is_clear = values == key * {"1": 255, "L;2": 85, "L;4": 17}.get(stored, 1)
    opaque = _narrow(image).convert("RGB")
    result = np.dstack([np.asarray(opaque), np.where(is_clear, 0, 255).astype(np.uint8)])
    clear = Image.fromarray(result)
    clear.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return clear


def _narrow(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8, white where a TIFF says that it is: Pillow inverts only up to 8 bits."""
    if not image.mode.startswith("I"):
        return image
    wide = np.asarray(image).astype(np.int64)
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(BITSPERSAMPLE, (16,))[0]
        wide = wide * 65535 // (2**bits - 1)
        if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:  # WhiteIsZero
            wide = 65535 - wide
    narrow = Image.fromarray(np.clip((wide + 128) // 257, 0, 255).astype(np.uint8))
    narrow.info = dict(image.info)
    return narrow


def _from_gamma(exponent: float) -> NDArray[np.uint8]:
    """The sRGB encoding of every 8-bit value that is light to the power of `exponent` (PNG specification, gAMA)."""
    light = (np.arange(256) / 255) ** (1 / exponent)
    return np.round(255 * to_srgb(light)).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes, name: str, *, is_grey: bool, is_file: bool) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = _MODES.get(source.profile.xcolor_space.strip(), image.mode)
        if is_grey:  # and may have been given colours, or keep the profile of an image that had some
            image = image.convert(space)
        elif space != image.mode and not is_file:
            return image  # which was converted in memory, where Pillow keeps the profile of what it was
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError) as error:
        raise ImageError(
            f'image "{name}" has a colour profile that cannot be used ({error}); save it as sRGB'
        ) from error
    assert converted is not None
    return converted


def _skimage_sample(name: str) -> Pixels:
    if name not in SKIMAGE_SAMPLES:
        raise ImageError(
            f'"skimage:{name}" is not a bundled sample{did_you_mean(name, SKIMAGE_SAMPLES)}; '
            f"there are {', '.join(SKIMAGE_SAMPLES)}"
        )
    try:
        data = importlib.import_module("skimage.data")
        array = np.asarray(data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)())
    except RuntimeError as error:  # it looks for the folder of its downloads, which these samples are not
        raise ImageError(f"scikit-image needs a home folder, or XDG_CACHE_HOME: {error}") from None
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    return np.ascontiguousarray(array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2))


def _inside(spec: str, root: Path, follow_links: bool) -> Path:
    """The place of a file below the root: as its path says, and unless links are followed also where it really is."""
    if "\0" in f"{root}{spec}":
        raise ImageError(f'image "{spec}" in "{root}" has a NUL in its name, which no file has')
    place = root.resolve()
    path = Path(os.path.normpath(place / spec))
    if not path.is_relative_to(place):
        raise ImageError(f'image "{spec}" lies outside the image root {place}; change images.root or move it')
    if not follow_links and path.exists() and not path.resolve().is_relative_to(place):
        raise ImageError(
            f'image "{spec}" is a link that leads out of the image root {place}; say follow_links = true in [images] if'
            " that is meant"
        )
    return path

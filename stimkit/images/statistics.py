"""Image statistics: what an observer may respond to instead of content and style."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimkit.columns import MEASURES
from stimkit.errors import ImageError
from stimkit.files import read_file
from stimkit.images.light import LUMINANCE_WEIGHTS, to_linear
from stimkit.images.pixels import pixel_digest
from stimkit.images.png import Shown
from stimkit.images.reading import decode_image

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, of encoded values
EDGE_SCALE = 2.0  # pixels: standard deviation of the Gaussian of the edge detector
MIN_SIDE = 8  # pixels; below this a spectrum and a similarity say nothing
LINEAR = to_linear(np.arange(256) / 255.0)  # light of every 8-bit value


def luminance_of_pixels(image: Shown) -> NDArray[np.float64]:
    """Relative luminance, 0 to 1 in linear light, of an sRGB-encoded image: (height, width, 3) to (height, width)."""
    linear = LINEAR[image] if image.dtype == np.uint8 else to_linear(image)
    return np.asarray(linear @ LUMINANCE_WEIGHTS)


def in_steps(image: Shown) -> NDArray[np.float64]:
    """Values on the scale of 8 bits, 0 to 255."""
    return image.astype(np.float64) if image.dtype == np.uint8 else np.asarray(image * 255.0)


def measure_basics(image: Shown) -> dict[str, float]:
    """Luminance and colour of an sRGB-encoded image (height, width, 3), as every record holds them."""
    light = luminance_of_pixels(image)
    mean = float(light.mean())
    red, green, blue = (in_steps(image).reshape(-1, 3).mean(0) / 255.0).tolist()
    return {
        "mean_luminance": mean,
        "rms_contrast": float(light.std() / mean) if mean > 0 else 0.0,
        "mean_r": red,
        "mean_g": green,
        "mean_b": blue,
    }


def measure_image(image: Shown) -> dict[str, float]:
    """All of `MEASURES` for an sRGB-encoded image (height, width, 3); NaN where it is too small for one.

    The image has 8 bits, or values from 0 to 1.
    """
    light, steps = luminance_of_pixels(image), in_steps(image)
    luma = steps @ LUMA_WEIGHTS
    found = measure_basics(image) | {
        "michelson": _michelson(light),
        "colourfulness": measure_colourfulness(steps),
        "spectral_slope": measure_slope(light),
        "edge_density": measure_edges(luma),
        "saturated_frac": float(((steps == 0) | (steps == 255)).mean()),
        "entropy": _entropy(luma),
    }
    return {measure.name: found[measure.name] for measure in MEASURES}


def _michelson(light: NDArray[np.float64]) -> float:
    darkest, brightest = float(light.min()), float(light.max())
    return (brightest - darkest) / (brightest + darkest) if brightest > 0 else 0.0


def measure_colourfulness(pixels: NDArray[Any]) -> float:
    """M = σ_rgyb + 0.3 μ_rgyb of values from 0 to 255.

    Hasler & Süsstrunk (2003), Measuring colourfulness in natural images.
    """
    red, green, blue = pixels.reshape(-1, 3).astype(float).T
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    return float(np.hypot(*opponents.std(1)) + 0.3 * np.hypot(*opponents.mean(1)))


def measure_slope(light: NDArray[np.float64]) -> float:
    """Slope of log amplitude over log frequency: about -1 for photographs (Field 1987).

    The amplitude is averaged in rings of one cycle per (shorter) side, from 1 to the highest that both axes hold;
    a Hann window keeps the borders out. NaN for an image without any structure, or of less than 8 pixels.
    """
    height, width = light.shape
    side = min(height, width)
    if side < MIN_SIDE:
        return float("nan")
    window = np.outer(np.hanning(height), np.hanning(width))
    amplitude = np.abs(np.fft.rfft2((light - np.average(light, weights=window)) * window))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]) * side
    ring = np.floor(frequency + 0.5 + 1e-9).astype(int).ravel()  # halves go up, whatever their last digit
    sums = np.bincount(ring, amplitude.ravel()) / np.maximum(np.bincount(ring), 1)
    rings = np.arange(1, side // 2)
    if not (sums[rings] > 1e-12).all():
        return float("nan")
    return float(np.polyfit(np.log(rings), np.log(sums[rings]), 1)[0])


def measure_edges(luma: NDArray[np.float64]) -> float:
    """Fraction of the pixels of a luma image (0 to 255) that Canny's detector, as in scikit-image, puts on an edge."""
    from skimage.feature import canny

    return float(canny(luma / 255.0, sigma=EDGE_SCALE).mean())


def _entropy(luma: NDArray[np.float64]) -> float:
    counts = np.bincount(np.rint(luma).astype(int).ravel())
    shares = counts[counts > 0] / luma.size
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # not -0.0


def measure_similarity(first: Shown, second: Shown) -> float | None:
    """SSIM of two images, the mean over channels; None for less than 11 pixels a side.

    With the Gaussian window and the constants of Wang, Bovik, Sheikh & Simoncelli (2004).
    """
    from skimage.metrics import structural_similarity

    if min(first.shape[:2]) < 11:
        return None
    return float(
        structural_similarity(
            in_steps(first), in_steps(second), channel_axis=2, data_range=255,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
    )  # fmt: skip


def measure_files(paths: Sequence[Path], on_count: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """Size, digest and statistics of image files, converted to sRGB as they say.

    All cores decode. The row of a file that is missing or damaged has a `problem` instead.
    """
    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row in pool.map(_measure_file, paths):
            found.append(row)
            on_count(len(found), len(paths))
    return found


def _measure_file(path: Path) -> dict[str, Any]:
    try:
        pixels = decode_image(read_file(path), path.name)
    except OSError as error:
        return {"problem": f"{path} cannot be read: {error.strerror or error}"}
    except ImageError as error:
        return {"problem": str(error)}
    height, width = pixels.shape[:2]
    return {
        "height_px": height,
        "width_px": width,
        "pixel_sha256": pixel_digest(pixels),
        **measure_image(pixels),
    }

"""Equalization: images with given luminance, contrast, histogram or amplitude spectrum, in linear light.

As SHINE (Willenbockel et al. 2010) does for grey images, here for colour images too: luminance is changed, chromatic
differences follow it, and a rule says what happens where the result would leave what a display can show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stimkit.images.light import Array, luminance, set_luminance

MAX_GAIN = 4.0  # by which chromatic differences may grow where luminance is set pixel by pixel
STEEPEST = 1e4  # contrast is not raised by more
SPECTRUM_ITERATIONS = 30  # at most, of setting the spectrum and bringing values back into range


@dataclass(frozen=True)
class EqualizationTarget:
    """What an image is made equal to; None where it is left as it is."""

    luminance: float | None = None
    """Mean relative luminance."""
    contrast: float | None = None
    """Standard deviation / mean of luminance."""
    histogram: Array | None = None
    """Luminance values in ascending order, of any number."""
    spectrum: Array | None = None
    """Amplitudes of `numpy.fft.fft2` of luminance."""

    @property
    def empty(self) -> bool:
        return all(part is None for part in (self.luminance, self.contrast, self.histogram, self.spectrum))


@dataclass(frozen=True)
class Light:
    """Mean and contrast of luminance, within an aperture."""

    mean: float
    contrast: float


def measure_light(values: Array, weights: Array | None) -> Light:
    """Weighted mean of luminance values, and their weighted standard deviation / mean."""
    mean = float(np.average(values, weights=weights))
    spread = float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))
    return Light(mean, spread / mean if mean > 0 else 0.0)


def equalize(linear: Array, target: EqualizationTarget, gamut: str, weights: Array | None) -> Array:
    """Make linear RGB (3, height, width) equal to a target: first its spectrum, then histogram, or mean and contrast.

    `weights` (height, width) is the aperture inside of which that holds; the spectrum is that of the whole image.
    `gamut`: clip (channels that leave 0 to 1 are clipped), compress (contrast is lowered until luminance fits, colours
    until channels do), iterate (luminance is clipped, and the change chosen so that the result has the target all the
    same; colours are desaturated until channels fit).
    """
    desaturate = gamut != "clip"
    if target.spectrum is not None:
        wanted = set_spectrum(luminance(linear), target.spectrum, gamut)
        linear = _set_luminance(linear, wanted, desaturate=desaturate)
    if target.histogram is not None:
        wanted = set_histogram(luminance(linear), target.histogram, weights)
        return _set_luminance(linear, wanted, desaturate=desaturate)
    if target.luminance is None and target.contrast is None:
        return linear
    values = luminance(linear)
    gain, offset = _affine(values, target, gamut, weights)
    wanted = gain * values + offset
    return set_luminance(linear, np.clip(wanted, 0, 1) if desaturate else wanted, gain=gain, desaturate=desaturate)


def _set_luminance(linear: Array, wanted: Array, *, desaturate: bool) -> Array:
    """Set luminance pixel by pixel and keep the chromaticity."""
    known = luminance(linear)
    gain = np.where(known > 0, wanted / np.where(known > 0, known, 1), 1.0)
    return set_luminance(linear, wanted, gain=np.minimum(gain, MAX_GAIN), desaturate=desaturate)


def _affine(values: Array, target: EqualizationTarget, gamut: str, weights: Array | None) -> tuple[float, float]:
    """Gain and offset of luminance that reach mean and contrast.

    Without a contrast, it is a gain alone, as of a filter before the eye, which keeps the contrast.
    """
    known = measure_light(values, weights)
    mean = known.mean if target.luminance is None else target.luminance
    if target.contrast is None:
        if known.mean == 0:
            return 0.0, mean
        if gamut != "iterate":
            gain = mean / known.mean
            return (gain, 0.0) if gamut == "clip" else (min(gain, 1 / float(_seen(values, weights).max())), 0.0)
        return _root(lambda gain: _light(values, gain, 0.0, weights).mean - mean, 0.0, STEEPEST), 0.0
    spread = known.mean * known.contrast
    if spread == 0:
        return 0.0, mean
    wanted = target.contrast
    gain = wanted * mean / spread
    if gamut == "compress":
        gain = min(gain, *_largest_gains(_seen(values, weights), known.mean, mean))
    if gamut != "iterate":
        return gain, mean - gain * known.mean

    def offset(gain: float) -> float:
        return _root(lambda by: _light(values, gain, by, weights).mean - mean, -gain, 1.0)

    gain = _root(lambda gain: _light(values, gain, offset(gain), weights).contrast - wanted, 0.0, STEEPEST)
    return gain, offset(gain)


def _seen(values: Array, weights: Array | None) -> Array:
    """The values of those pixels that an aperture shows."""
    return values if weights is None else values[weights > 0]


def _light(values: Array, gain: float, offset: float, weights: Array | None) -> Light:
    return measure_light(np.clip(gain * values + offset, 0, 1), weights)


def _largest_gains(values: Array, known: float, mean: float) -> list[float]:
    """Largest gains about the mean that keep the darkest and the brightest value within 0 to 1."""
    below, above = known - float(values.min()), float(values.max()) - known
    return [room / reach for room, reach in ((mean, below), (1 - mean, above)) if reach > 0]


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function is zero; the end that comes closest where it is nowhere."""
    from scipy.optimize import brentq

    if function(high) <= 0:
        return high
    return low if function(low) >= 0 else float(brentq(function, low, high, xtol=1e-10, rtol=1e-12))


def set_histogram(values: Array, wanted: Array, weights: Array | None = None) -> Array:
    """Luminance with exactly the distribution `wanted` where weights are above 0; the order of the pixels is kept.

    Pixels of equal luminance are ordered by the mean of their 3 × 3 neighbourhood (Coltuc et al. 2006), then by their
    place from the top left.
    """
    from scipy.ndimage import uniform_filter

    where = np.flatnonzero(np.ones(values.shape) if weights is None else weights > 0)
    around = uniform_filter(values, 3, mode="nearest").ravel()[where]
    order = where[np.lexsort((where, around, values.ravel()[where]))]
    quantiles = (np.arange(len(where)) + 0.5) / len(where)
    result = values.copy().ravel()
    result[order] = quantile_function(wanted, quantiles)
    return result.reshape(values.shape)


def quantile_function(ascending: Array, at: Array) -> Array:
    """Values of a distribution at quantiles, interpolated; its own values where there are as many quantiles."""
    return np.asarray(np.interp(at, (np.arange(len(ascending)) + 0.5) / len(ascending), ascending))


def mean_histogram(images: Sequence[Array], weights: Array | None = None) -> Array:
    """The distribution half way between those of luminance images of one size: the mean of their sorted values."""
    chosen = slice(None) if weights is None else weights > 0
    return np.asarray(np.mean([np.sort(image[chosen], axis=None) for image in images], axis=0))


def mean_spectrum(images: Sequence[Array]) -> Array:
    """Mean amplitudes of luminance images of one size."""
    return np.asarray(np.mean([np.abs(np.fft.fft2(image)) for image in images], axis=0))


def set_spectrum(values: Array, amplitudes: Array, gamut: str) -> Array:
    """Luminance with the amplitudes wanted and its own phases, brought into 0 to 1 by the gamut rule."""
    result = _reamplified(values, amplitudes)
    if gamut == "compress":
        mean = float(np.clip(result.mean(), 0, 1))
        gain = min(1.0, *_largest_gains(result, float(result.mean()), mean))
        return np.asarray(np.clip(mean + gain * (result - result.mean()), 0, 1))
    for _ in range(SPECTRUM_ITERATIONS if gamut == "iterate" else 0):
        result = _reamplified(np.clip(result, 0, 1), amplitudes)
    return np.asarray(np.clip(result, 0, 1))


def _reamplified(values: Array, amplitudes: Array) -> Array:
    spectrum = np.fft.fft2(values)
    known = np.abs(spectrum)
    phases = np.where(known > 0, spectrum / np.where(known > 0, known, 1), 1.0)
    return np.asarray(np.fft.ifft2(amplitudes * phases).real)

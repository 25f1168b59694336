"""Input images as a cell uses them: in its size, and with the colours that it asks for."""

from __future__ import annotations

import numpy as np

from stimkit.images import light as photometry
from stimkit.images.noise import sloped_noise, white_noise
from stimkit.images.reading import FloatImage, Pixels, fit, quantize, to_float
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import Inputs
from stimkit.protocol.settings import BY_CONTENT, GREY_COLOURS, Settings


def prepared(cell: Cell, kind: str, inputs: Inputs) -> Pixels:
    """The content or style image of a cell, (height, width, 3), as the network is shown it."""
    settings = cell.settings
    content = None if cell.content is None else fit(inputs.image("content", cell.content), settings.size, settings.fit)
    if kind == "content":
        assert content is not None
        return plain(content, settings)
    assert cell.style is not None
    style = plain(fit(inputs.image("style", cell.style), settings.style_size, settings.fit), settings)
    if content is None or settings.colour not in BY_CONTENT:
        return style
    if settings.colour == "histogram":
        return _matched_histograms(style, content)
    return _matched_covariance(style, plain(content, settings))


def mask_of(cell: Cell, inputs: Inputs) -> photometry.Array:
    """Where the style of a cell goes, (height, width), 0 to 1: the mean of the mask's channels in its size."""
    settings = cell.settings
    assert cell.mask is not None
    return np.asarray(fit(inputs.image("mask", cell.mask), settings.size, settings.fit).mean(2) / 255)


def initial_image(cell: Cell, inputs: Inputs) -> FloatImage:
    """The image that the optimization of a cell starts from, (3, height, width)."""
    settings = cell.settings
    if settings.init == "noise":
        shape = (settings.height, settings.width, settings.init_contrast)
        slope = settings.init_slope
        noise = sloped_noise(cell.seed, *shape, slope) if slope else white_noise(cell.seed, *shape)
        return np.repeat(noise[:1], 3, axis=0) if settings.colour in GREY_COLOURS else noise
    kind, name = ("style", cell.style) if settings.init == "style" else ("content", cell.content)
    assert name is not None
    image = to_float(plain(fit(inputs.image(kind, name), settings.size, settings.fit), settings))
    return phase_scrambled(image, cell.seed) if settings.init == "scrambled" else image


def phase_scrambled(image: FloatImage, seed: int) -> FloatImage:
    """The amplitude spectrum of an image (3, height, width) with random phases, the same added to all channels.

    Phases are those of white noise of the seed, so that the result is real; their sum with the image's own keeps how
    the channels go together. Means are kept. Values may leave 0 to 1, and are clipped in the file.
    """
    noise = white_noise(seed, *image.shape[1:])[0].astype(np.float64)
    spectrum = np.fft.fft2(noise)
    turned = np.where(np.abs(spectrum) > 0, spectrum / np.maximum(np.abs(spectrum), 1e-300), 1.0)
    turned[0, 0] = 1.0
    return np.fft.ifft2(np.fft.fft2(image.astype(np.float64)) * turned).real.astype(np.float32)


def preparation_key(cell: Cell, kind: str) -> tuple[object, ...]:
    """What `prepared` depends on, but for the files."""
    settings = cell.settings
    name, size = (cell.content, settings.size) if kind == "content" else (cell.style, settings.style_size)
    partner = (cell.content, settings.size) if kind == "style" and settings.colour in BY_CONTENT else None
    regions = (settings.regions, settings.region_count, settings.region_scaling, bool(cell.mask))
    return kind, name, size, settings.fit, settings.colour, partner, regions


def plain(pixels: Pixels, settings: Settings) -> Pixels:
    """An image by itself: in grey of the same luminance where the settings say so."""
    if settings.colour not in GREY_COLOURS:
        return pixels
    light = photometry.luminance(photometry.decode(to_float(pixels)))
    return quantize(np.repeat(photometry.encode(light)[None], 3, axis=0).astype(np.float32))


def _matched_histograms(style: Pixels, content: Pixels) -> Pixels:
    """The style image with the histograms of the content image's channels (scikit-image)."""
    from skimage.exposure import match_histograms

    matched = match_histograms(style, content, channel_axis=-1)
    return np.asarray(np.round(np.clip(matched, 0, 255)), np.uint8)


def _matched_covariance(style: Pixels, content: Pixels) -> Pixels:
    """The style image with the mean and covariance of the content image's colours.

    x' = A (x - mean) + mean of the content, A = Σc^½ Σs^-½ (Gatys et al. 2016, Preserving color in neural artistic
    style transfer: the transformation of image analogies). Values are clipped and rounded to 8 bits.
    """
    values, others = (image.reshape(-1, 3).astype(np.float64) for image in (style, content))
    transform = _power(np.cov(others.T), 0.5) @ _power(np.cov(values.T), -0.5)
    matched = (values - values.mean(0)) @ transform.T + others.mean(0)
    return np.asarray(np.round(np.clip(matched, 0, 255)), np.uint8).reshape(style.shape)


def _power(covariance: photometry.Array, exponent: float) -> photometry.Array:
    """Power of a symmetric matrix; directions without variance stay without."""
    variances, directions = np.linalg.eigh(covariance)
    there = variances > 1e-6 * max(float(variances.max()), 1e-6)
    powers = np.where(there, np.where(there, variances, 1.0) ** exponent, 0.0)
    return np.asarray(directions * powers @ directions.T)

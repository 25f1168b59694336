"""Input images as a cell uses them: in its size, and with the colours that it asks for."""

from __future__ import annotations

import numpy as np

from stimkit.images.colour import match_covariance, match_histograms
from stimkit.images.light import Array, luminance, to_linear, to_srgb
from stimkit.images.noise import draw_sloped_noise, draw_white_noise, scramble_phases
from stimkit.images.pixels import FloatImage, Pixels, quantize, resize, to_float
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.protocol.settings import BY_CONTENT, GREY_COLOURS, Settings


def prepare_image(cell: Cell, kind: str, inputs: InputSource) -> Pixels:
    """The content or style image of a cell, (height, width, 3), as the network is shown it."""
    settings = cell.settings
    content = (
        None if cell.content is None else resize(inputs.image("content", cell.content), settings.size, settings.fit)
    )
    if kind == "content":
        assert content is not None
        return to_grey_if_asked(content, settings)
    assert cell.style is not None
    style = to_grey_if_asked(resize(inputs.image("style", cell.style), settings.style_size, settings.fit), settings)
    if content is None or settings.colour not in BY_CONTENT:
        return style
    if settings.colour == "histogram":
        return match_histograms(style, content)
    return match_covariance(style, to_grey_if_asked(content, settings))


def prepare_mask(cell: Cell, inputs: InputSource) -> Array:
    """Where the style of a cell goes, (height, width), 0 to 1: the mean of the mask's channels in its size."""
    settings = cell.settings
    assert cell.mask is not None
    return np.asarray(resize(inputs.image("mask", cell.mask), settings.size, settings.fit).mean(2) / 255)


def prepare_initial(cell: Cell, inputs: InputSource) -> FloatImage:
    """The image that the optimization of a cell starts from, (3, height, width)."""
    settings = cell.settings
    if settings.init == "noise":
        shape = (settings.height, settings.width, settings.init_contrast)
        slope = settings.init_slope
        noise = draw_sloped_noise(cell.seed, *shape, slope) if slope else draw_white_noise(cell.seed, *shape)
        return np.repeat(noise[:1], 3, axis=0) if settings.colour in GREY_COLOURS else noise
    kind, name = ("style", cell.style) if settings.init == "style" else ("content", cell.content)
    assert name is not None
    image = to_float(to_grey_if_asked(resize(inputs.image(kind, name), settings.size, settings.fit), settings))
    if settings.init != "scrambled":
        return image
    scrambled = scramble_phases(image, cell.seed)
    return scrambled.clip(0, 1) if settings.image_range == "bounded" and settings.max_evaluations else scrambled


def preparation_key(cell: Cell, kind: str) -> tuple[object, ...]:
    """What `prepared` depends on, but for the files."""
    settings = cell.settings
    name, size = (cell.content, settings.size) if kind == "content" else (cell.style, settings.style_size)
    partner = (cell.content, settings.size) if kind == "style" and settings.colour in BY_CONTENT else None
    return kind, name, size, settings.fit, settings.colour, partner, settings.region_shape, bool(cell.mask)


def to_grey_if_asked(pixels: Pixels, settings: Settings) -> Pixels:
    """An image by itself: in grey of the same luminance where the settings say so."""
    if settings.colour not in GREY_COLOURS:
        return pixels
    light = luminance(to_linear(to_float(pixels)))
    return quantize(np.repeat(to_srgb(light)[None], 3, axis=0).astype(np.float32))

"""Input images as a cell uses them: in its size, and with the colours that it asks for."""

from __future__ import annotations

import numpy as np

from stimkit.images.colour import match_covariance, match_histograms
from stimkit.images.light import Array, luminance, to_linear, to_srgb
from stimkit.images.noise import draw_sloped_noise, draw_white_noise, scramble_phases
from stimkit.images.pixels import FloatImage, Pixels, quantize, resize, to_float
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.protocol.mixes import Mixture
from stimkit.protocol.settings import BY_CONTENT, GREY_COLOURS, Settings


def prepare_image(cell: Cell, kind: str, inputs: InputSource) -> Pixels:
    """The content or style image of a cell, (height, width, 3), as the network is shown it."""
    settings = cell.settings
    if kind == "content":
        return to_grey_if_asked(picture(cell, "content", inputs), settings)
    style = to_grey_if_asked(picture(cell, "style", inputs, settings.style_size), settings)
    if cell.content is None or settings.colour not in BY_CONTENT:
        return style
    content = picture(cell, "content", inputs)
    if settings.colour == "histogram":
        return match_histograms(style, content)
    return match_covariance(style, to_grey_if_asked(content, settings))


def picture(cell: Cell, kind: str, inputs: InputSource, size: tuple[int, int] | None = None) -> Pixels:
    """The content or style image of a cell in its own size or another; of a mixture the weighted mean in linear light.

    Networks are shown the images of a mixture one by one. It is a picture only where one is needed: as the initial
    image, for colours, and as a control.
    """
    wanted = cell.settings.size if size is None else size
    images = [resize(inputs.image(kind, name), wanted, cell.settings.fit) for name in cell.images(kind)]
    mixture = cell.mixture(kind)
    if mixture is None:
        return images[0]
    assert isinstance(mixture, Mixture), "distances are resolved before anything is made"
    pairs = zip(mixture.weights, images, strict=True)
    mean = np.sum([weight * to_linear(to_float(image)) for weight, image in pairs], axis=0)
    return quantize(to_srgb(mean).astype(np.float32))


def prepare_mask(cell: Cell, inputs: InputSource) -> Array:
    """Where the style of a cell goes, (height, width), 0 to 1: the mean of the mask's channels in its size."""
    settings = cell.settings
    assert cell.mask is not None
    return np.asarray(resize(inputs.image("mask", cell.mask), settings.size, settings.fit).mean(2) / 255)


def prepare_initial(cell: Cell, inputs: InputSource) -> FloatImage:
    """The image that the optimization of a cell starts from, (3, height, width).

    Where the optimization keeps to values that can be displayed, it has no others.
    """
    image = _start(cell, inputs)
    return image.clip(0, 1) if cell.settings.image_range == "bounded" and cell.settings.max_evaluations else image


def _start(cell: Cell, inputs: InputSource) -> FloatImage:
    settings = cell.settings
    if settings.init == "noise":
        shape = (settings.height, settings.width, settings.init_contrast)
        slope = settings.init_slope
        noise = draw_sloped_noise(cell.seed, *shape, slope) if slope else draw_white_noise(cell.seed, *shape)
        return np.repeat(noise[:1], 3, axis=0) if settings.colour in GREY_COLOURS else noise
    kind = "style" if settings.init == "style" else "content"
    image = to_float(to_grey_if_asked(picture(cell, kind, inputs), settings))
    return scramble_phases(image, cell.seed) if settings.init == "scrambled" else image


def preparation_key(cell: Cell, kind: str) -> tuple[object, ...]:
    """What the target of a cell depends on, but for the files."""
    return *pixels_key(cell, kind), cell.settings.region_shape, bool(cell.mask)


def pixels_key(cell: Cell, kind: str) -> tuple[object, ...]:
    """What the image of `prepare_image` depends on, but for the files."""
    settings = cell.settings
    name, size = (cell.content, settings.size) if kind == "content" else (cell.style, settings.style_size)
    partner = (cell.content, settings.size) if kind == "style" and settings.colour in BY_CONTENT else None
    return kind, name, size, settings.fit, settings.colour, partner


def to_grey_if_asked(pixels: Pixels, settings: Settings) -> Pixels:
    """An image by itself: in grey of the same luminance where the settings say so."""
    if settings.colour not in GREY_COLOURS:
        return pixels
    light = luminance(to_linear(to_float(pixels)))
    return quantize(np.repeat(to_srgb(light)[None], 3, axis=0).astype(np.float32))

"""Coarse to fine: the smaller sizes at which a cell is optimized before its own, and what is done there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from stimkit.network.layers import LAYERS
from stimkit.planning.cells import Cell, LayerWeights
from stimkit.protocol.settings import Settings

PixelSize = tuple[int, int]  # height, width

# Smallest shorter side, in pixels: the deepest layers have 2 × 2 positions there. With trained filters, style that
# weighs much, 256 px and the work of 150 evaluations, the loss is 0.85, 0.76 and 0.75 times that of one size where the
# smallest side is 128, 64 and 32 px; at 128 px and from 64 and 32 px, 0.75 and 0.63 times (8 pairs of images each).
SMALLEST_SIDE = 32
# Evaluations at half the size, and at all smaller ones, as parts of `max_evaluations`: 1/8 to 1/5 of all work. Half as
# many below, or twice as many at half the size, give losses that are 1.01 to 1.08 times as high (as above).
HALF, SMALLER = 0.5, 1.0


def scale_sizes(settings: Settings, style_layers: LayerWeights, beta: float) -> tuple[PixelSize, ...]:
    """Sizes (height, width) at which a cell is optimized, each half of the next; the last is that of the stimulus.

    There are at most `scales` of them, and none at which no style layer is left (see `at_size`): without style, small
    sizes gain nothing. The deepest layer left has at least as many positions as the deepest has at the full size.
    """
    sizes = [settings.size]
    while settings.max_evaluations and len(sizes) < settings.scales:
        factor = 2 ** len(sizes)
        smaller = (_divided(settings.height, factor), _divided(settings.width, factor))
        if min(smaller) < SMALLEST_SIDE or not (beta and _seen_at(style_layers, factor)):
            break
        sizes.append(smaller)
    return tuple(reversed(sizes))


def scale_limits(settings: Settings, sizes: Sequence[PixelSize]) -> tuple[int, ...]:
    """Largest number of evaluations at each of the sizes of a cell.

    One at a smaller size counts as its part of the pixels, so that all of them cost what `max_evaluations` at the size
    of the stimulus do.
    """
    smaller = len(sizes) - 1
    parts = [*[SMALLER] * (smaller - 1), HALF][:smaller]
    limits = [math.ceil(part * settings.max_evaluations) for part in parts]
    left = settings.max_evaluations - round(count_work(limits, sizes[:-1], settings))
    return (*limits, max(min(1, settings.max_evaluations), left))


def count_work(evaluations: Sequence[int], sizes: Sequence[PixelSize], settings: Settings) -> float:
    """What evaluations at sizes cost, in those of the full size."""
    pixels = settings.height * settings.width
    return sum(count * height * width / pixels for count, (height, width) in zip(evaluations, sizes, strict=True))


def at_size(cell: Cell, size: PixelSize) -> Cell:
    """The cell as a problem of a smaller size: the same weight of content against style, the same visual angle.

    At half the size, a layer sees structures twice as large. Style layers that would see larger ones than the deepest
    style layer does at the full size are left out, since nothing holds such structures there. With all layers, losses
    are 1.0 to 1.2 times as high after as much work (trained filters, 128 and 256 px, ratios over four decades).
    """
    settings = cell.settings
    style = _seen_at(cell.style_layers, settings.height / size[0])
    content = cell.content_layers
    if settings.loss == "paper":  # whose content losses are sums over positions (equation 1)
        content = tuple((name, weight * _gain(name, settings.size, size)) for name, weight in content)
    changed = settings.model_copy(update={"size": size, "ppd": settings.ppd * size[0] / settings.height})
    return replace(cell, content_layers=content, style_layers=style, settings=changed)


def _seen_at(style_layers: LayerWeights, factor: float) -> LayerWeights:
    """Style layers that see no larger structures at a part 1 / factor of the size than the deepest at the full one."""
    deepest = max((LAYERS[name].stride for name, _ in style_layers), default=0)
    octave = 2 ** round(math.log2(factor))
    return tuple((name, weight) for name, weight in style_layers if LAYERS[name].stride * octave <= deepest)


def _gain(layer: str, full: PixelSize, size: PixelSize) -> float:
    return LAYERS[layer].positions(*full) / LAYERS[layer].positions(*size)


def _divided(side: int, factor: int) -> int:
    return (side + factor // 2) // factor

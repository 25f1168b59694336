"""From optimized images to stimuli: the PNG file, what an observer sees of it, and its losses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stimkit.batch import Batch
from stimkit.equalize import Light
from stimkit.images import FloatImage, Pixels, clipped_fractions, decode, encode_png, quantize, to_float
from stimkit.synthesis import Measured, Synthesis, measure


@dataclass(frozen=True)
class Stimulus:
    """A finished image."""

    image: FloatImage
    """The optimizer's values, not clipped."""
    png: bytes
    pixels: Pixels
    """What the file decodes to."""
    equalized: Measured | None
    """Losses after equalization, before aperture and rounding; None where nothing was equalized."""
    measured: Measured
    """Losses of the decoded pixels."""
    clipped: tuple[float, float]
    """Fractions of values below 0 and above 1 before clipping."""
    light: Light
    """Mean and contrast of luminance before equalization, inside the aperture."""
    equalize_error: float | None
    """How far luminance, contrast, histogram or spectrum are from their target, relative to it."""

    @property
    def file_sha256(self) -> str:
        return hashlib.sha256(self.png).hexdigest()


def finish(results: Sequence[Synthesis], batch: Batch) -> list[Stimulus]:
    """Finish each image of a batch, write it as PNG in memory, decode it again, and measure what an observer sees."""
    images = [np.nan_to_num(one.image) for one in results]
    equalized = [
        one.equalize(image) if one.equalizes else image for one, image in zip(batch.finishings, images, strict=True)
    ]
    files = [encode_png(one.show(image), one.text) for one, image in zip(batch.finishings, equalized, strict=True)]
    pixels = [decode(file, "stimulus") for file in files]
    of_files = _measure(batch, [to_float(one) for one in pixels])
    changed = any(finishing.equalizes for finishing in batch.finishings)
    of_equalized = _measure(batch, equalized) if changed else [None] * len(files)
    return [
        Stimulus(
            image=result.image,
            png=files[row],
            pixels=pixels[row],
            equalized=of_equalized[row],
            measured=of_files[row],
            clipped=clipped_fractions(result.image),
            light=batch.finishings[row].light(images[row]),
            equalize_error=batch.finishings[row].error(quantize(equalized[row])),
        )
        for row, result in enumerate(results)
    ]


def _measure(batch: Batch, images: Sequence[FloatImage]) -> list[Measured]:
    return measure(batch.reference, batch.objective, torch.from_numpy(np.stack(images)).to(batch.initial))

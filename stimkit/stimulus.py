"""From optimized images to stimuli: the PNG file, what an observer sees of it, and its losses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stimkit.batch import Batch
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
    measured: Measured
    """Losses of the decoded pixels."""
    clipped: tuple[float, float]
    """Fractions of values below 0 and above 1 before clipping."""

    @property
    def file_sha256(self) -> str:
        return hashlib.sha256(self.png).hexdigest()


def finish(results: Sequence[Synthesis], batch: Batch) -> list[Stimulus]:
    """Write each image of a batch as PNG in memory, decode it again, and measure what an observer will see."""
    files = [encode_png(quantize(np.nan_to_num(one.image))) for one in results]
    pixels = [decode(file, "stimulus") for file in files]
    decoded = torch.from_numpy(np.stack([to_float(one) for one in pixels]))
    measured = measure(batch.reference, batch.objective, decoded.to(batch.initial))
    return [
        Stimulus(one.image, file, image, losses, clipped_fractions(one.image))
        for one, file, image, losses in zip(results, files, pixels, measured, strict=True)
    ]

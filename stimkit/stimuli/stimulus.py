"""From optimized images to stimuli: the PNG file, what an observer sees of it, and its losses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from stimkit.images.equalization import Light
from stimkit.images.pixels import FloatImage, clipped_fractions
from stimkit.images.png import Shown, Values, decode_values, encode_values, to_network_image, to_shown
from stimkit.planning.cells import Cell
from stimkit.recognition.decisions import Recognition
from stimkit.stimuli.finishing import Finishing
from stimkit.synthesis.batch import Batch
from stimkit.synthesis.synthesis import Measured, Synthesis, measure

Distances = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Losses by layer, by image, by kind of image."""


@dataclass(frozen=True)
class Stimulus:
    """A finished image."""

    image: FloatImage
    """The optimizer's values, not clipped."""
    png: bytes
    values: Values
    """What the file decodes to."""
    shown: Shown
    """What an observer sees of it, sRGB encoded."""
    equalized: Measured | None
    """Losses after equalization, before aperture and rounding; None where nothing was equalized."""
    measured: Measured
    """Losses of the decoded pixels."""
    clipped: tuple[float, float]
    """Fractions of values below 0 and above 1 before clipping."""
    light: Light
    """Mean and contrast of luminance before equalization, inside the aperture."""
    inside: Light | None
    """Mean and contrast of luminance inside the aperture, of what is shown; None without an aperture."""
    equalize_error: float | None
    """How far luminance, contrast, histogram or spectrum are from their target, relative to it."""

    @property
    def file_sha256(self) -> str:
        return hashlib.sha256(self.png).hexdigest()


@dataclass(frozen=True)
class Made:
    """A cell that was made: what the optimization gave, and the stimulus."""

    cell: Cell
    synthesis: Synthesis
    stimulus: Stimulus
    distances: Distances = field(default_factory=dict)
    """Losses of the file to the images that its cell is compared with."""
    recognition: Recognition | None = None
    """What a classifier takes it for."""
    titrate_error: float | None = None
    """How far the stimulus is from the value that its ratio was titrated to."""


def finish(results: Sequence[Synthesis], batch: Batch, finishings: Sequence[Finishing]) -> list[Stimulus]:
    """Finish each image of a batch, write it as PNG in memory, decode it again, and measure what an observer sees."""
    images = [np.nan_to_num(result.image) for result in results]
    equalized = [
        finishing.equalize(image) if finishing.equalizes else image
        for finishing, image in zip(finishings, images, strict=True)
    ]
    with ThreadPoolExecutor() as pool:  # compressing a large batch would let a GPU wait
        files = list(pool.map(_encode, finishings, equalized))
    values = [decode_values(file, "stimulus") for file in files]
    of_files = _measure(batch, [to_network_image(value, batch.settings.encoding) for value in values])
    changed = any(finishing.equalizes for finishing in finishings)
    of_equalized = _measure(batch, equalized) if changed else [None] * len(files)
    return [
        Stimulus(
            image=result.image,
            png=files[row],
            values=values[row],
            shown=to_shown(values[row], batch.settings.encoding),
            equalized=of_equalized[row],
            measured=of_files[row],
            clipped=clipped_fractions(result.image),
            light=finishings[row].light(images[row]),
            inside=finishings[row].inside(equalized[row]),
            equalize_error=finishings[row].error(equalized[row]),
        )
        for row, result in enumerate(results)
    ]


def _encode(finishing: Finishing, image: FloatImage) -> bytes:
    return encode_values(finishing.show(image), finishing.settings.encoding, finishing.text)


def _measure(batch: Batch, images: Sequence[FloatImage]) -> list[Measured]:
    return measure(batch.reference, batch.objective, torch.from_numpy(np.stack(images)).to(batch.initial))

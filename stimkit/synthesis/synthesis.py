"""Synthesis: minimize the losses of a batch of cells, each its own problem."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stimkit.images.pixels import Pixels, quantize
from stimkit.network.losses import Objective
from stimkit.network.vgg import VGG
from stimkit.synthesis.batch import Batch
from stimkit.synthesis.devices import network_arithmetic
from stimkit.synthesis.minimization import STOP_REASONS, Minimization, OnProgress, Trace


@dataclass(frozen=True)
class Measured:
    """Unweighted losses by layer, and the weighted sums, of one image at one stage."""

    content_layers: dict[str, float]
    style_layers: dict[str, float]
    content: float
    style: float
    total: float


@dataclass(frozen=True)
class Synthesis:
    """The result for one cell."""

    image: NDArray[np.float32]
    """(3, height, width), RGB; the optimizer's values, not clipped to 0 … 1."""
    initial: Measured
    initial_sha256: str
    """Digest of the initial image's float32 values."""
    optimized: Measured
    trace: Trace
    evaluations: int
    rollbacks: int
    stop_reason: str
    seconds: float
    """Wall time of the batch, divided by its cells."""

    @property
    def pixels(self) -> Pixels:
        """(height, width, 3), 8-bit RGB: the image clipped and rounded, as a file would hold it."""
        return quantize(self.image)


@torch.no_grad()
def measure(network: VGG, objective: Objective, images: Tensor) -> list[Measured]:
    """Evaluate the losses of images (batch, 3, height, width) by layer, without gradients."""
    with network_arithmetic("float32"):
        losses = objective.losses(network.features(images, objective.layers))
    sums = [value.tolist() for value in (objective.content(losses), objective.style(losses), objective.total(losses))]
    return [
        Measured(
            dict(zip(objective.content_targets, content, strict=True)),
            dict(zip(objective.style_targets, style, strict=True)),
            *each,
        )
        for content, style, *each in zip(losses.content.tolist(), losses.style.tolist(), *sums, strict=True)
    ]


def synthesize_batch(batch: Batch, on_progress: OnProgress | None = None, *, graph: bool = True) -> list[Synthesis]:
    """Minimize the total loss of every cell of a batch.

    Each cell stops by the first rule that holds for it. `graph` lets a CUDA device replay evaluations as a
    CUDA graph; the result is the same without.
    """
    began = time.perf_counter()
    before = measure(batch.reference, batch.objective, batch.initial)
    search = Minimization(batch, [measured.total for measured in before], graph=graph)
    search.run(on_progress)
    after = measure(batch.reference, batch.objective, search.images)
    seconds = (time.perf_counter() - began) / len(before)
    images = search.images.float().cpu().numpy()
    return [
        Synthesis(
            image=images[row],
            initial=before[row],
            initial_sha256=hashlib.sha256(batch.initial[row].float().cpu().numpy().tobytes()).hexdigest(),
            optimized=after[row],
            trace=search.trace(row),
            evaluations=int(search.evaluations[row]),
            rollbacks=int(search.rollbacks[row]),
            stop_reason=STOP_REASONS[int(search.reasons[row])],
            seconds=seconds,
        )
        for row in range(len(before))
    ]

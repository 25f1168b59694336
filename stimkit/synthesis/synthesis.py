"""Synthesis: minimize the losses of a batch of cells, each its own problem."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from stimkit.documents.notebooks import html_of, html_picture
from stimkit.images.pixels import Pixels, float_digest, quantize
from stimkit.images.png import encode_png
from stimkit.network.losses import Objective
from stimkit.network.vgg import VGG
from stimkit.synthesis.batch import Batch
from stimkit.synthesis.devices import network_arithmetic
from stimkit.synthesis.minimization import STOP_REASONS, Minimization, OnProgress, Progress, Trace


@dataclass(frozen=True)
class Measured:
    """Unweighted losses by layer, and the weighted sums, of one image at one stage."""

    content_layers: dict[str, float]
    style_layers: dict[str, float]
    content: float
    style: float
    total: float


SMALLEST_SHOWN = 192  # pixels, of an image in a notebook


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
    """At smaller sizes, then at that of the image."""
    evaluations: int
    """At the size of the image."""
    coarse_evaluations: tuple[int, ...]
    """At the smaller sizes, from the smallest on."""
    work: float
    """All evaluations, in those of the size of the image: by their parts of its pixels."""
    rollbacks: int
    stop_reason: str
    seconds: float
    """Wall time of the batch, divided by its cells."""

    def __repr__(self) -> str:
        height, width = self.image.shape[1:]
        losses = f"total loss {self.initial.total:.4g} → {self.optimized.total:.4g}"
        return f"<Synthesis {height} × {width} px: {losses}, {self.evaluations} evaluations ({self.stop_reason})>"

    def _repr_html_(self) -> str:
        picture = html_picture(encode_png(self.pixels), "the image", max(self.image.shape[2], SMALLEST_SHOWN))
        return html_of(repr(self)[1:-1], picture)

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
    """Minimize the total loss of every cell of a batch, from the smallest of its sizes to the largest.

    At each size, every cell stops by the first rule that holds for it; losses are counted in those of its initial
    image. `graph` lets a CUDA device replay evaluations as a CUDA graph; the result is the same without.
    """
    began = time.perf_counter()
    before = measure(batch.reference, batch.objective, batch.initial)
    units = loss_units(before).to(batch.initial)
    idle = ~(units[:, 2].isfinite() & (units[:, 2] > 0))
    searches: list[Minimization] = []
    parts = (*batch.coarser, batch)
    shares = [part.pixels / batch.pixels for part in parts]
    spent = 0.0
    for part, share in zip(parts, shares, strict=True):
        start = part.initial
        if searches:
            start = torch.where(idle[:, None, None, None], start, enlarge(searches[-1].images, start))
        unit = units if part is batch else loss_units(measure(part.reference, part.objective, part.initial)).to(units)
        search = Minimization(replace(part, initial=start), unit.where(~idle[:, None], units), graph=graph)
        search.run(on_progress and _counted(on_progress, spent, share, batch.settings.max_evaluations))
        spent += share * part.limit
        searches.append(search)
    after = measure(batch.reference, batch.objective, search.images)
    seconds = (time.perf_counter() - began) / len(before)
    images = search.images.float().cpu().numpy()
    return [
        Synthesis(
            image=images[row],
            initial=before[row],
            initial_sha256=float_digest(batch.initial[row].float().cpu().numpy()),
            optimized=after[row],
            trace=np.concatenate([one.trace(row) for one in searches]),
            evaluations=int(search.evaluations[row]),
            coarse_evaluations=tuple(int(one.evaluations[row]) for one in searches[:-1]),
            work=sum(int(one.evaluations[row]) * share for one, share in zip(searches, shares, strict=True)),
            rollbacks=sum(int(one.rollbacks[row]) for one in searches),
            stop_reason=STOP_REASONS[int(search.reasons[row])],
            seconds=seconds,
        )
        for row in range(len(before))
    ]


def loss_units(measured: Sequence[Measured]) -> Tensor:
    """Losses as `Minimization` counts in them: content, style and total, (batch, 3)."""
    return torch.tensor([(one.content, one.style, one.total) for one in measured], dtype=torch.float64)


def _counted(on_progress: OnProgress, spent: float, share: float, limit: int) -> OnProgress:
    """Report progress at one of several sizes in evaluations of the full size, of which there are `limit`."""

    def report(progress: Progress) -> None:
        evaluation = min(limit, round(spent + share * progress.evaluation))
        on_progress(replace(progress, evaluation=evaluation, max_evaluations=limit))

    return report


@torch.no_grad()
def enlarge(images: Tensor, initial: Tensor) -> Tensor:
    """Images (batch, 3, height, width) in the size of `initial`, with the fine structure that `initial` has there.

    What a smaller image cannot hold is taken from the initial image of the larger size: its noise, or the details of a
    photograph that the optimization starts from. Computed on the CPU, since not every device resamples alike.
    """
    fine, coarse = initial.cpu(), images.cpu()
    smooth = _resample(_resample(fine, coarse), fine)
    return (_resample(coarse, fine) + fine - smooth).to(initial)


def _resample(images: Tensor, like: Tensor) -> Tensor:
    smaller = images.shape[-1] > like.shape[-1]
    return interpolate(images, size=like.shape[-2:], mode="bicubic", align_corners=False, antialias=smaller)

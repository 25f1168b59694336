"""Synthesis: minimize the losses of a batch of cells, each its own problem."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stimkit.images import Pixels, quantize
from stimkit.lbfgs import LBFGS, Adam, BatchOptimizer
from stimkit.losses import Losses, Objective
from stimkit.precision import network_arithmetic
from stimkit.precondition import preconditioner
from stimkit.settings import Settings
from stimkit.vgg import VGG19

SYNC_INTERVAL = {"cpu": 1, "cuda": 10, "mps": 10}  # evaluations between looks at the stop rules
COMPACT_BELOW = 0.75  # part of the rows still running at which the batch is made smaller

STOP_REASONS = ("max_evaluations", "rtol", "target_style", "target_content", "zero_loss", "stalled", "non_finite")
"""Why a cell stopped. stalled: no step lowers the loss any more; zero_loss: there was nothing to do."""
_RUNNING = -1
_CODE = {reason: code for code, reason in enumerate(STOP_REASONS)}

Trace = NDArray[np.float32]  # (evaluations, 3): content, style, total loss at every point that was evaluated


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


@dataclass(frozen=True)
class Progress:
    """Where a batch stands: reported while it is optimized."""

    evaluation: int
    max_evaluations: int
    running: int
    batch: int
    relative_loss: float
    """Mean over the running cells of total loss / initial total loss."""


OnProgress = Callable[[Progress], None]


@torch.no_grad()
def measure(network: VGG19, objective: Objective, images: Tensor) -> list[Measured]:
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


def synthesize_batch(
    network: VGG19,
    reference: VGG19,
    objective: Objective,
    initial: Tensor,
    settings: Settings,
    on_progress: OnProgress | None = None,
) -> list[Synthesis]:
    """Minimize the total loss of every cell of a batch, from `initial` (batch, 3, height, width).

    `network` evaluates in the precision of the settings; `reference`, in float32 (or float64), measures
    the initial and the final images. Each cell stops by the first rule that holds for it.
    """
    began = time.perf_counter()
    before = measure(reference, objective, initial)
    search = _Search(network, objective, initial, settings, [one.total for one in before])
    search.run(on_progress)
    after = measure(reference, objective, search.images)
    seconds = (time.perf_counter() - began) / len(initial)
    images = search.images.float().cpu().numpy()
    return [
        Synthesis(
            image=images[row],
            initial=before[row],
            optimized=after[row],
            trace=search.trace(row),
            evaluations=int(search.evaluations[row]),
            rollbacks=int(search.rollbacks[row]),
            stop_reason=STOP_REASONS[int(search.reasons[row])],
            seconds=seconds,
        )
        for row in range(len(initial))
    ]


class _Search:
    """One optimization of a batch. Rows that have stopped are stored and dropped from the work."""

    def __init__(
        self, network: VGG19, objective: Objective, initial: Tensor, settings: Settings, totals: list[float]
    ) -> None:
        self._network, self._objective, self._settings = network, objective, settings
        self._transform = preconditioner(settings.preconditioner, settings.height, settings.width, initial)
        self._optimizer = _optimizer(self._transform.inverse(initial).flatten(1), settings)
        self._shape = initial.shape[1:]
        self._sync = SYNC_INTERVAL[initial.device.type]
        # The problem is solved for total loss / initial total loss, so that no tolerance, step or
        # rounding depends on the scale of alpha and beta.
        start = initial.new_tensor(totals)
        self._scale = torch.where(start.isfinite() & (start > 0), 1 / start, 1)
        self._rows = torch.arange(len(initial), device=initial.device)  # rows of the batch still at work
        self._state = torch.full_like(self._rows, _RUNNING)
        self._state[start == 0] = _CODE["zero_loss"]
        self._state[~start.isfinite()] = _CODE["non_finite"]
        self._counts = torch.zeros_like(self._rows)
        self._first: tuple[Tensor, Tensor] | None = None  # content and style loss at the first evaluation
        self._recent = initial.new_full((settings.window, len(initial)), torch.inf)  # lowest losses, a ring
        self._chunks: list[tuple[Tensor, list[Tensor]]] = [(self._rows, [])]

        self.images = initial.clone()
        self.reasons = torch.zeros_like(self._rows)
        self.evaluations = torch.zeros_like(self._rows)
        self.rollbacks = torch.zeros_like(self._rows)

    def run(self, on_progress: OnProgress | None) -> None:
        limit = self._settings.max_evaluations
        for evaluation in range(1, limit + 1):
            self._evaluate(evaluation)
            if evaluation % self._sync == 0 or evaluation == limit:
                self._retire(last=evaluation == limit)
                if on_progress is not None:
                    left = self._optimizer.loss[self._state == _RUNNING] if len(self._rows) else self._scale[:0]
                    mean = float(left.mean()) if len(left) else float("nan")
                    on_progress(Progress(evaluation, limit, len(left), len(self.images), mean))
                if not len(self._rows):
                    return

    def _evaluate(self, evaluation: int) -> None:
        optimizer, objective = self._optimizer, self._objective
        images = self._transform.forward(optimizer.point.view(-1, *self._shape)).detach().requires_grad_()
        with network_arithmetic(self._settings.precision):
            losses = objective.losses(self._network.features(images, objective.layers))
            total = self._scale * objective.total(losses)
            (grad,) = torch.autograd.grad(total.sum(), images)
        with torch.no_grad(), network_arithmetic("float32"):
            running = self._state == _RUNNING
            self._record(losses, running)
            optimizer.update(total.detach(), self._transform.adjoint(grad).flatten(1), running)
            self._counts += running
            self._apply_stop_rules(losses, running, evaluation)

    def _record(self, losses: Losses, running: Tensor) -> None:
        objective = self._objective
        row = torch.stack([objective.content(losses), objective.style(losses), objective.total(losses)], dim=1)
        self._chunks[-1][1].append(torch.where(running[:, None], row, torch.nan).detach().float())

    def _apply_stop_rules(self, losses: Losses, running: Tensor, evaluation: int) -> None:
        settings, optimizer = self._settings, self._optimizer
        content, style = self._objective.content(losses), self._objective.style(losses)
        if self._first is None:
            self._first = content, style
        slot = evaluation % settings.window
        oldest = self._recent[slot].clone()
        newest = torch.minimum(self._recent[slot - 1], optimizer.loss)
        self._recent[slot] = newest
        holds = {
            "target_style": optimizer.took & (style < settings.target_style * self._first[1]),
            "target_content": optimizer.took & (content < settings.target_content * self._first[0]),
            "rtol": oldest.isfinite() & (oldest - newest < settings.rtol * oldest),
            "stalled": optimizer.stuck & (optimizer.rollbacks == 0),
            "non_finite": optimizer.stuck & (optimizer.rollbacks > 0),
        }
        for reason, hold in holds.items():
            stop = running & hold & (self._state == _RUNNING)
            self._state = torch.where(stop, _CODE[reason], self._state)

    def _retire(self, *, last: bool) -> None:
        """Store the rows that have stopped; drop them from the batch once enough have."""
        if last:
            self._state = torch.where(self._state == _RUNNING, _CODE["max_evaluations"], self._state)
        running = self._state == _RUNNING
        count = int(running.sum())
        if count > COMPACT_BELOW * len(self._rows):
            return
        done = (~running).nonzero()[:, 0]
        rows = self._rows[done]
        changed = self._counts[done] > 0
        final = self._transform.forward(self._optimizer.accepted[done].view(-1, *self._shape))
        self.images[rows] = torch.where(changed[:, None, None, None], final, self.images[rows])
        self.reasons[rows], self.evaluations[rows] = self._state[done], self._counts[done]
        self.rollbacks[rows] = self._optimizer.rollbacks[done]
        self._keep(running.nonzero()[:, 0])

    def _keep(self, index: Tensor) -> None:
        self._optimizer.keep(index)
        self._objective = self._objective.select(index)
        self._rows, self._state, self._counts = self._rows[index], self._state[index], self._counts[index]
        self._scale, self._recent = self._scale[index], self._recent[:, index]
        if self._first is not None:
            self._first = self._first[0][index], self._first[1][index]
        self._chunks.append((self._rows, []))

    def trace(self, row: int) -> Trace:
        """Losses of one row at its evaluations."""
        parts = [
            torch.stack(values)[:, int((rows == row).nonzero()[0, 0])].cpu()
            for rows, values in self._chunks
            if values and bool((rows == row).any())
        ]
        count = int(self.evaluations[row])
        return torch.cat(parts).numpy()[:count] if parts else np.zeros((0, 3), np.float32)


def _optimizer(start: Tensor, settings: Settings) -> BatchOptimizer:
    if settings.optimizer == "adam":
        return Adam(start, learning_rate=settings.learning_rate)
    return LBFGS(start, history=settings.history)

"""The optimization of one batch: evaluate, step, stop; rows that have stopped leave the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stimkit.network.losses import Losses
from stimkit.protocol.settings import GREY_COLOURS, Settings
from stimkit.protocol.values import StopReason
from stimkit.synthesis.adam import Adam
from stimkit.synthesis.batch import Batch
from stimkit.synthesis.cuda_graph import Repeated
from stimkit.synthesis.devices import network_arithmetic
from stimkit.synthesis.image_range import make_image_range
from stimkit.synthesis.lbfgs import LBFGS
from stimkit.synthesis.optimizers import BatchOptimizer
from stimkit.synthesis.preconditioners import make_preconditioner

LOOK_EVERY = {"cpu": 1, "cuda": 10, "mps": 10}  # evaluations between looks at the stop rules
# Part of the rows still running at which the batch is made smaller. With it no row of the bundled protocols is computed
# for a cell that stopped (RESULTS.md, Large sets); smaller batches at every stop would record a CUDA graph each time.
COMPACT_BELOW = 0.75
STOP_REASONS: tuple[StopReason, ...] = get_args(StopReason)
"""Why a cell stopped. stalled: no step lowers the loss any more; zero_loss: there was nothing to do."""
_RUNNING = -1
_CODE: dict[str, int] = {reason: code for code, reason in enumerate(STOP_REASONS)}
Trace = NDArray[np.float32]  # (evaluations, 3): content, style, total loss at every point that was evaluated


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


class Minimization:
    """One optimization of a batch, for which the losses `unit` count as 1: content, style and total, (batch, 3).

    They are those of the initial images. A cell whose total is 0 has nothing to do.

    After `run`, the attributes hold one row a cell. What changes from evaluation to evaluation is in
    tensors that are changed in place and not looked at in between, so that an evaluation can be replayed
    as a CUDA graph; the host looks at the stop rules every `look_every` evaluations only.
    """

    images: Tensor  # (batch, 3, height, width)
    reasons: Tensor  # (batch,): numbers in STOP_REASONS
    evaluations: Tensor  # (batch,)
    rollbacks: Tensor  # (batch,)
    evaluation: Tensor  # (1,): number of the next evaluation, from 0
    counts: Tensor  # (running,): evaluations of the rows still at work

    def __init__(self, batch: Batch, unit: Tensor, *, graph: bool = True, look_every: int | None = None) -> None:
        initial, settings = batch.initial, batch.settings
        self._network, self._objective, self._settings, self._graph = batch.network, batch.objective, settings, graph
        self._transform = make_preconditioner(settings.preconditioner, initial, grey=settings.colour in GREY_COLOURS)
        self._light, self._range = batch.light, make_image_range(settings.image_range)
        self._optimizer = _optimizer(self._transform.inverse(self._range.inverse(initial)).flatten(1), settings)
        self._shape, self._device = initial.shape[1:], initial.device
        self._look_every = look_every or LOOK_EVERY[initial.device.type]
        # The problem is solved for total loss / initial total loss, so that no tolerance, step, penalty or
        # rounding depends on the scale of alpha and beta.
        start = unit[:, 2].to(initial)
        self._scale = torch.where(start.isfinite() & (start > 0), 1 / start, 1)
        self._rows = torch.arange(len(initial), device=initial.device)  # rows of the batch still at work
        self._state = torch.full_like(self._rows, _RUNNING)
        self._state[start == 0] = _CODE["zero_loss"]
        self._state[~start.isfinite()] = _CODE["non_finite"]
        self.counts = torch.zeros_like(self._rows)
        self._unit = unit[:, :2].to(initial)
        self._limit = batch.limit
        self._recent = initial.new_full((settings.window, len(initial)), torch.inf)  # lowest losses, a ring
        self._log = initial.new_zeros(self._look_every, len(initial), 3)  # losses since the host last looked
        self.evaluation = torch.zeros((1,), dtype=torch.int64, device=initial.device)
        self._traces: list[Trace] = []

        self.images = initial.clone()
        self.reasons = torch.zeros_like(self._rows)
        self.evaluations = torch.zeros_like(self._rows)
        self.rollbacks = torch.zeros_like(self._rows)

    def run(self, on_progress: OnProgress | None = None) -> None:
        """Evaluate until every row has stopped."""
        limit, evaluate = self._limit, self._repeated()
        seen = 0
        for evaluation in range(1, limit + 1):
            evaluate()
            if evaluation - seen < self._look_every and evaluation < limit:
                continue
            self._look(evaluation - seen, last=evaluation == limit)
            seen = evaluation
            if on_progress is not None:
                on_progress(self._progress(evaluation))
            if self._retire():
                evaluate = self._repeated()
            if not len(self._rows):
                return

    def trace(self, row: int) -> Trace:
        """Losses of one row at its evaluations."""
        if not self._traces:
            return np.zeros((0, 3), np.float32)
        return np.concatenate([part[:, row] for part in self._traces])[: int(self.evaluations[row])]

    def _repeated(self) -> Repeated:
        return Repeated(self.evaluate, self._device, record=self._graph)

    def evaluate(self) -> None:
        """Evaluate and step once: everything that is repeated, on the device alone."""
        optimizer, objective = self._optimizer, self._objective
        values = self._transform.forward(optimizer.point.view(-1, *self._shape)).detach().requires_grad_()
        with network_arithmetic(self._settings.precision):
            images = self._range.forward(values)
            losses = objective.losses(self._network.features(images, objective.layers))
            total = self._scale * objective.total(losses)
            if self._light is not None:
                total = total + self._light(images)
            (grad,) = torch.autograd.grad(total.sum(), values)
        with torch.no_grad(), network_arithmetic("float32"):
            running = self._state == _RUNNING
            optimizer.update(total.detach(), self._transform.adjoint(grad).flatten(1), running)
            self.counts.add_(running)
            self._write_log(losses)
            self._apply_stop_rules(losses, running)
            self.evaluation.add_(1)

    def _write_log(self, losses: Losses) -> None:
        terms = [term(losses) for term in (self._objective.content, self._objective.style, self._objective.total)]
        values = torch.stack(terms, dim=1)
        self._log.index_copy_(0, self.evaluation % self._look_every, values[None])

    def _apply_stop_rules(self, losses: Losses, running: Tensor) -> None:
        settings, optimizer = self._settings, self._optimizer
        content, style = self._objective.content(losses), self._objective.style(losses)
        slot = self.evaluation % settings.window
        oldest = self._recent[slot][0]
        newest = torch.minimum(self._recent[(slot - 1) % settings.window][0], optimizer.loss)
        self._recent.index_copy_(0, slot, newest[None])
        rules = {
            "target_style": optimizer.took & (style < settings.target_style * self._unit[:, 1]),
            "target_content": optimizer.took & (content < settings.target_content * self._unit[:, 0]),
            "rtol": oldest.isfinite() & (oldest - newest < settings.rtol * oldest),
            "stalled": optimizer.stuck & optimizer.finite,
            "non_finite": optimizer.stuck & ~optimizer.finite,
        }
        for reason, holds in rules.items():
            self._state.masked_fill_(running & holds & (self._state == _RUNNING), _CODE[reason])

    def _look(self, evaluations: int, *, last: bool) -> None:
        """Take over the log; end every row after the last evaluation."""
        traces = np.full((evaluations, len(self.images), 3), np.nan, np.float32)
        traces[:, self._rows.cpu().numpy()] = self._log[:evaluations].float().cpu().numpy()
        self._traces.append(traces)
        if last:
            self._state.masked_fill_(self._state == _RUNNING, _CODE["max_evaluations"])

    def _progress(self, evaluation: int) -> Progress:
        left = self._optimizer.loss[self._state == _RUNNING]
        mean = float(left.mean()) if len(left) else float("nan")
        return Progress(evaluation, self._limit, len(left), len(self.images), mean)

    def _retire(self) -> bool:
        """Once enough rows have stopped, store them and drop them from the batch."""
        running = self._state == _RUNNING
        if int(running.sum()) > COMPACT_BELOW * len(self._rows):
            return False
        done = (~running).nonzero()[:, 0]
        rows = self._rows[done]
        changed = self.counts[done] > 0
        final = self._range.forward(self._transform.forward(self._optimizer.accepted[done].view(-1, *self._shape)))
        self.images[rows] = torch.where(changed[:, None, None, None], final, self.images[rows])
        self.reasons[rows], self.evaluations[rows] = self._state[done], self.counts[done]
        self.rollbacks[rows] = self._optimizer.rollbacks[done]
        self._keep(running.nonzero()[:, 0])
        return True

    def _keep(self, index: Tensor) -> None:
        self._optimizer.keep(index)
        self._objective = self._objective.select(index)
        self._light = self._light and self._light.select(index)
        self._rows, self._state, self.counts = self._rows[index], self._state[index], self.counts[index]
        self._scale, self._unit = self._scale[index], self._unit[index]
        self._recent, self._log = self._recent[:, index], self._log[:, index]


def _optimizer(start: Tensor, settings: Settings) -> BatchOptimizer:
    if settings.optimizer == "adam":
        return Adam(start, learning_rate=settings.learning_rate)
    return LBFGS(start, history=settings.history)

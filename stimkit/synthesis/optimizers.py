"""Optimizers for a batch of independent problems.

Each row of the batch has its own history, step length, curvature test and rollback; nothing that
happens in one row reaches another. Both optimizers are asked the same way: evaluate the objective at
`point`, hand values and gradients to `update`, and read the best accepted iterate from `accepted`.

All state is in tensors that are changed in place and never looked at by the host, so that one update can be
recorded as a CUDA graph and replayed. That is also why the place in the history is a tensor.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

SHRINK = 0.25  # of the step after a rejected evaluation
MIN_CURVATURE = 1e-8  # cosine between step and change of gradient below which a pair is not used
MAX_REJECTIONS = 12  # in a row: 0.25^12 of a step is below float32 resolution


class BatchOptimizer(Protocol):
    """What synthesis needs of an optimizer; all tensors have one row per problem."""

    point: Tensor  # (batch, n): where to evaluate next
    accepted: Tensor  # (batch, n): the last accepted iterate
    loss: Tensor  # (batch,): its value
    rollbacks: Tensor  # (batch,): evaluations that were rejected because they were not finite
    took: Tensor  # (batch,): the last `point` was accepted
    finite: Tensor  # (batch,): value and gradient at the last `point` were finite

    @property
    def stuck(self) -> Tensor:
        """(batch,): no acceptable step was found."""

    def update(self, loss: Tensor, grad: Tensor, running: Tensor | None = None) -> None:
        """Take the value (batch,) and gradient (batch, n) at `point`; move `point`.

        Rows that are not `running` (batch,) keep their accepted iterate from now on.
        """

    def keep(self, rows: Tensor) -> None:
        """Drop all problems but those of the given row numbers."""


class LBFGS:
    """Batched L-BFGS (Nocedal 1980) in the compact form of Byrd, Nocedal & Schnabel (1994, theorem 2.2).

    All inner products of an iteration come from one batched matrix product with the history, and the
    direction from a second one (as in the vector-free form of Chen, Wang & Zhou 2014); between the two
    there are only small matrices, in float64. Steps have unit length, without a line search, as in every
    style-transfer code; a step that raises the loss beyond `growth` times the accepted one, or is not
    finite, is taken back and tried again at a quarter of its length.

    `first_step` is the root-mean-square length of a step along the plain gradient, taken while there is
    no curvature information. It makes the method independent of the scale of the loss.
    """

    def __init__(self, start: Tensor, *, history: int = 10, first_step: float = 0.02, growth: float = 1.0) -> None:
        batch, n = start.shape
        self.point, self.accepted = start.clone(), start.clone()
        self.loss = start.new_full((batch,), torch.inf)
        self.rollbacks = torch.zeros(batch, dtype=torch.int64, device=start.device)
        self.took = torch.zeros(batch, dtype=torch.bool, device=start.device)
        self.finite = torch.ones_like(self.took)
        self._grad = torch.zeros_like(start)
        self._step = torch.zeros_like(start)
        self._rejections = torch.zeros_like(self.rollbacks)
        self._pairs = start.new_zeros(batch, 2 * history, n)  # rows: s of every slot, then y of every slot
        self._small = torch.float32 if start.device.type == "mps" else torch.float64  # MPS has no float64
        self._sy = torch.zeros(batch, history, history, dtype=self._small, device=start.device)
        self._yy = torch.zeros_like(self._sy)
        self._valid = torch.zeros(batch, history, dtype=torch.bool, device=start.device)
        # The slot that is written next: that of the oldest pair, the same for all rows.
        self._slot = torch.zeros((), dtype=torch.int64, device=start.device)
        self._history, self._first_step, self._growth = history, first_step, growth

    @property
    def stuck(self) -> Tensor:
        return self._rejections >= MAX_REJECTIONS

    def update(self, loss: Tensor, grad: Tensor, running: Tensor | None = None) -> None:
        running = torch.ones_like(self.took) if running is None else running
        finite = loss.isfinite() & grad.isfinite().all(1)
        good = running & finite & ~(loss > self._growth * self.loss)
        row = good[:, None]
        began = self.loss.isfinite()
        self.took.copy_(good)
        self.finite.copy_(finite)
        self.rollbacks.add_(running & ~finite)
        self._rejections.add_(1).masked_fill_(good, 0)

        step = (self.point - self.accepted).masked_fill_(~row, 0)
        change = (grad - self._grad).masked_fill_(~(row & began[:, None]), 0)
        _replace(self.accepted, row, self.point)
        _replace(self._grad, row, grad)
        _replace(self.loss, good, loss)

        direction = self._remember(step, change)
        torch.where(row, direction, SHRINK * self._step, out=self._step)
        torch.add(self.accepted, self._step, out=self.point)

    def _remember(self, step: Tensor, change: Tensor) -> Tensor:
        """Put one pair into the history and return the next step −H g of every row.

        The slot advances for all rows alike, also where no pair is stored: otherwise a row's history
        would depend on what its batch-mates did.
        """
        m, slot = self._history, self._slot[None]
        self._pairs.index_copy_(1, torch.cat([slot, slot + m]), torch.stack([step, change], dim=1))
        columns = torch.stack([step, change, self._grad], dim=1)
        dots = (self._pairs @ columns.transpose(1, 2)).to(self._small)  # (batch, 2 m, 3)
        s_dot, y_dot = dots[:, :m], dots[:, m:]
        self._sy.index_copy_(1, slot, y_dot[:, None, :, 0])
        self._sy.index_copy_(2, slot, s_dot[:, :, None, 1])
        self._yy.index_copy_(1, slot, y_dot[:, None, :, 1])
        self._yy.index_copy_(2, slot, y_dot[:, :, None, 1])
        ss, sy, yy = s_dot[:, slot, 0], s_dot[:, slot, 1], y_dot[:, slot, 1]
        self._valid.index_copy_(1, slot, sy > MIN_CURVATURE * (ss * yy).sqrt())
        self._slot.add_(1).remainder_(m)

        weights, gamma = self._coefficients(s_dot[:, :, 2], y_dot[:, :, 2])
        direction = -(gamma[:, None] * self._grad + (weights.to(step.dtype)[:, None] @ self._pairs)[:, 0])
        norm = self._grad.square().mean(1).sqrt()
        plain = -self._grad * (self._first_step / norm.masked_fill(norm == 0, 1))[:, None]
        return torch.where(self._valid.any(1)[:, None], direction, plain)

    def _coefficients(self, s_grad: Tensor, y_grad: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the pairs in H g, and gamma: H g = gamma g + [S, gamma Y] K [Sᵀ g; gamma Yᵀ g].

        K = [[R⁻ᵀ (D + gamma Yᵀ Y) R⁻¹, −R⁻ᵀ], [−R⁻¹, 0]] with R the upper triangle of Sᵀ Y by age and
        D its diagonal. A slot without a valid pair becomes a row of the identity with zero products.
        """
        m = self._history
        places = torch.arange(m, device=s_grad.device)
        age = (places + self._slot) % m  # oldest first
        invalid = ~self._valid[:, age]
        unused = invalid[:, :, None] | invalid[:, None, :]
        sy = self._sy[:, age][:, :, age].masked_fill_(unused, 0)
        yy = self._yy[:, age][:, :, age].masked_fill_(unused, 0)
        diagonal = sy.diagonal(dim1=1, dim2=2)
        upper = torch.triu(sy) + torch.diag_embed(invalid.to(sy.dtype))
        newest = (~invalid * (places + 1)).argmax(1, keepdim=True)
        yy_newest = yy.diagonal(dim1=1, dim2=2).gather(1, newest)
        gamma = (diagonal.gather(1, newest) / yy_newest).masked_fill_(invalid.all(1, keepdim=True), 1)

        s_g, y_g = (one[:, age].masked_fill_(invalid, 0) for one in (s_grad, y_grad))
        inner = torch.linalg.solve_triangular(upper, s_g[:, :, None], upper=True)
        middle = diagonal[:, :, None] * inner + gamma[:, :, None] * (yy @ inner) - gamma[:, :, None] * y_g[:, :, None]
        outer = torch.linalg.solve_triangular(upper.transpose(1, 2), middle, upper=False)
        by_age = torch.stack([outer[:, :, 0], -gamma * inner[:, :, 0]], dim=1).masked_fill_(invalid[:, None], 0)
        by_slot = torch.zeros_like(by_age).index_copy_(2, age, by_age)
        return by_slot.flatten(1), gamma[:, 0].to(self._grad.dtype)

    def keep(self, rows: Tensor) -> None:
        for name in (
            "point",
            "accepted",
            "loss",
            "rollbacks",
            "took",
            "finite",
            "_grad",
            "_step",
            "_rejections",
            "_pairs",
            "_sy",
            "_yy",
            "_valid",
        ):
            setattr(self, name, getattr(self, name)[rows])


class Adam:
    """Adam (Kingma & Ba 2015), elementwise and therefore independent for every row.

    A step that is not finite is taken back and the learning rate of that row halved.
    """

    def __init__(
        self, start: Tensor, *, learning_rate: float = 0.05, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self.point, self.accepted = start.clone(), start.clone()
        self.loss = start.new_full((len(start),), torch.inf)
        self.rollbacks = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        self.took = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        self.finite = torch.ones_like(self.took)
        self._rejections = torch.zeros_like(self.rollbacks)
        self._steps = torch.zeros_like(self.rollbacks)
        self._mean, self._square = torch.zeros_like(start), torch.zeros_like(start)
        self._rate = start.new_full((len(start), 1), learning_rate)
        self._betas = betas

    @property
    def stuck(self) -> Tensor:
        return self._rejections >= MAX_REJECTIONS

    def update(self, loss: Tensor, grad: Tensor, running: Tensor | None = None) -> None:
        running = torch.ones_like(self.took) if running is None else running
        finite = loss.isfinite() & grad.isfinite().all(1)
        good = running & finite
        row = good[:, None]
        self.took.copy_(good)
        self.finite.copy_(finite)
        self.rollbacks.add_(running & ~finite)
        self._rejections.add_(1).masked_fill_(good, 0)
        _replace(self._rate, ~row, self._rate / 2)
        _replace(self.accepted, row, self.point)
        _replace(self.loss, good, loss)

        first, second = self._betas
        _replace(self._mean, row, first * self._mean + (1 - first) * grad)
        _replace(self._square, row, second * self._square + (1 - second) * grad.square())
        self._steps.add_(good)
        steps = self._steps[:, None].to(grad.dtype).clamp(min=1)
        mean, square = self._mean / (1 - first**steps), self._square / (1 - second**steps)
        # The usual epsilon of 1e-8 is absolute; gradients here can be far smaller, so it is relative.
        floor = 1e-8 * square.amax(1, keepdim=True).sqrt() + torch.finfo(grad.dtype).tiny
        torch.sub(self.accepted, self._rate * mean / (square.sqrt() + floor), out=self.point)

    def keep(self, rows: Tensor) -> None:
        for name in (
            "point",
            "accepted",
            "loss",
            "rollbacks",
            "took",
            "finite",
            "_rejections",
            "_steps",
            "_mean",
            "_square",
            "_rate",
        ):
            setattr(self, name, getattr(self, name)[rows])


def _replace(target: Tensor, where: Tensor, values: Tensor) -> None:
    """target[where] = values[where], in place; `where` is broadcast."""
    torch.where(where, values, target, out=target)

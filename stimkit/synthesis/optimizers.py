"""Optimizers for a batch of independent problems.

Each row of the batch has its own history, step length, curvature test and rollback; nothing that
happens in one row reaches another. Both optimizers are asked the same way: evaluate the objective at
`point`, hand values and gradients to `update`, and read the best accepted iterate from `accepted`.

All state is in tensors that are changed in place and never looked at by the host, so that one update can be
recorded as a CUDA graph and replayed. That is also why the place in the history is a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

SHRINK = 0.25  # of the step after a rejected evaluation
MIN_CURVATURE = 1e-8  # cosine between step and change of gradient below which a pair is not used
MAX_REJECTIONS = 12  # in a row: 0.25^12 of a step is below float32 resolution


class BatchOptimizer(Protocol):
    """What a minimization needs of an optimizer; all tensors have one row per problem."""

    @property
    def point(self) -> Tensor:
        """(batch, n): where to evaluate next."""

    @property
    def accepted(self) -> Tensor:
        """(batch, n): the last accepted iterate."""

    @property
    def loss(self) -> Tensor:
        """(batch,): its value."""

    @property
    def rollbacks(self) -> Tensor:
        """(batch,): evaluations that were rejected because they were not finite."""

    @property
    def took(self) -> Tensor:
        """(batch,): the last `point` was accepted."""

    @property
    def finite(self) -> Tensor:
        """(batch,): value and gradient at the last `point` were finite."""

    @property
    def stuck(self) -> Tensor:
        """(batch,): no acceptable step was found."""

    def update(self, loss: Tensor, grad: Tensor, running: Tensor | None = None) -> None:
        """Take the value (batch,) and gradient (batch, n) at `point`; move `point`.

        Rows that are not `running` (batch,) keep their accepted iterate from now on.
        """

    def keep(self, rows: Tensor) -> None:
        """Drop all problems but those of the given row numbers."""


@dataclass(frozen=True)
class OptimizerRows:
    """The state of an optimizer that has one row per problem; its tensors are changed in place."""

    point: Tensor
    accepted: Tensor
    loss: Tensor
    rollbacks: Tensor
    took: Tensor
    finite: Tensor
    rejections: Tensor
    """(batch,): evaluations in a row that were not accepted."""

    def select(self, rows: Tensor) -> Self:
        """Those rows of every tensor."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


Rows = TypeVar("Rows", bound=OptimizerRows)


class _RowOptimizer(Generic[Rows]):
    """What optimizers have in common: rows, and which of them took the last point."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @property
    def point(self) -> Tensor:
        return self._rows.point

    @property
    def accepted(self) -> Tensor:
        return self._rows.accepted

    @property
    def loss(self) -> Tensor:
        return self._rows.loss

    @property
    def rollbacks(self) -> Tensor:
        return self._rows.rollbacks

    @property
    def took(self) -> Tensor:
        return self._rows.took

    @property
    def finite(self) -> Tensor:
        return self._rows.finite

    @property
    def stuck(self) -> Tensor:
        return self._rows.rejections >= MAX_REJECTIONS

    def keep(self, rows: Tensor) -> None:
        self._rows = self._rows.select(rows)

    def _judge(self, loss: Tensor, grad: Tensor, running: Tensor | None, highest: float) -> Tensor:
        """Which rows take their point, (batch,): finite ones whose loss is at most `highest` times the accepted one."""
        state = self._rows
        running = torch.ones_like(state.took) if running is None else running
        finite = loss.isfinite() & grad.isfinite().all(1)
        good = running & finite & ~(loss > highest * state.loss)
        state.took.copy_(good)
        state.finite.copy_(finite)
        state.rollbacks.add_(running & ~finite)
        state.rejections.add_(1).masked_fill_(good, 0)
        return good


def _start_rows(start: Tensor) -> dict[str, Tensor]:
    """The rows of an optimizer that begins at `start` (batch, n)."""
    counts = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    flags = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    return {
        "point": start.clone(),
        "accepted": start.clone(),
        "loss": start.new_full((len(start),), torch.inf),
        "rollbacks": counts,
        "took": flags,
        "finite": torch.ones_like(flags),
        "rejections": torch.zeros_like(counts),
    }


@dataclass(frozen=True)
class LBFGSRows(OptimizerRows):
    """The state of L-BFGS; slots of the history are written in rotation."""

    grad: Tensor
    step: Tensor
    pairs: Tensor
    """(batch, 2 history, n): s of every slot, then y of every slot."""
    sy: Tensor
    yy: Tensor
    """(batch, history, history): inner products of the pairs."""
    valid: Tensor
    """(batch, history): the slot holds a pair that is used."""


class LBFGS(_RowOptimizer[LBFGSRows]):
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
        self._small = torch.float32 if start.device.type == "mps" else torch.float64  # MPS has no float64
        small = torch.zeros(batch, history, history, dtype=self._small, device=start.device)
        super().__init__(
            LBFGSRows(
                **_start_rows(start),
                grad=torch.zeros_like(start),
                step=torch.zeros_like(start),
                pairs=start.new_zeros(batch, 2 * history, n),
                sy=small,
                yy=torch.zeros_like(small),
                valid=torch.zeros(batch, history, dtype=torch.bool, device=start.device),
            )
        )
        # The slot that is written next: that of the oldest pair, the same for all rows.
        self._slot = torch.zeros((), dtype=torch.int64, device=start.device)
        self._history, self._first_step, self._growth = history, first_step, growth

    def update(self, loss: Tensor, grad: Tensor, running: Tensor | None = None) -> None:
        state = self._rows
        good = self._judge(loss, grad, running, self._growth)
        row = good[:, None]
        began = state.loss.isfinite()
        step = (state.point - state.accepted).masked_fill_(~row, 0)
        change = (grad - state.grad).masked_fill_(~(row & began[:, None]), 0)
        _replace(state.accepted, row, state.point)
        _replace(state.grad, row, grad)
        _replace(state.loss, good, loss)

        direction = self._remember(step, change)
        torch.where(row, direction, SHRINK * state.step, out=state.step)
        torch.add(state.accepted, state.step, out=state.point)

    def _remember(self, step: Tensor, change: Tensor) -> Tensor:
        """Put one pair into the history and return the next step −H g of every row.

        The slot advances for all rows alike, also where no pair is stored: otherwise a row's history
        would depend on what its batch-mates did.
        """
        m, slot = self._history, self._slot[None]
        self._rows.pairs.index_copy_(1, torch.cat([slot, slot + m]), torch.stack([step, change], dim=1))
        columns = torch.stack([step, change, self._rows.grad], dim=1)
        dots = (self._rows.pairs @ columns.transpose(1, 2)).to(self._small)  # (batch, 2 m, 3)
        s_dot, y_dot = dots[:, :m], dots[:, m:]
        self._rows.sy.index_copy_(1, slot, y_dot[:, None, :, 0])
        self._rows.sy.index_copy_(2, slot, s_dot[:, :, None, 1])
        self._rows.yy.index_copy_(1, slot, y_dot[:, None, :, 1])
        self._rows.yy.index_copy_(2, slot, y_dot[:, :, None, 1])
        ss, sy, yy = s_dot[:, slot, 0], s_dot[:, slot, 1], y_dot[:, slot, 1]
        self._rows.valid.index_copy_(1, slot, sy > MIN_CURVATURE * (ss * yy).sqrt())
        self._slot.add_(1).remainder_(m)

        weights, gamma = self._coefficients(s_dot[:, :, 2], y_dot[:, :, 2])
        direction = -(gamma[:, None] * self._rows.grad + (weights.to(step.dtype)[:, None] @ self._rows.pairs)[:, 0])
        norm = self._rows.grad.square().mean(1).sqrt()
        plain = -self._rows.grad * (self._first_step / norm.masked_fill(norm == 0, 1))[:, None]
        return torch.where(self._rows.valid.any(1)[:, None], direction, plain)

    def _coefficients(self, s_grad: Tensor, y_grad: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the pairs in H g, and gamma: H g = gamma g + [S, gamma Y] K [Sᵀ g; gamma Yᵀ g].

        K = [[R⁻ᵀ (D + gamma Yᵀ Y) R⁻¹, −R⁻ᵀ], [−R⁻¹, 0]] with R the upper triangle of Sᵀ Y by age and
        D its diagonal. A slot without a valid pair becomes a row of the identity with zero products.
        """
        m = self._history
        places = torch.arange(m, device=s_grad.device)
        age = (places + self._slot) % m  # oldest first
        invalid = ~self._rows.valid[:, age]
        unused = invalid[:, :, None] | invalid[:, None, :]
        sy = self._rows.sy[:, age][:, :, age].masked_fill_(unused, 0)
        yy = self._rows.yy[:, age][:, :, age].masked_fill_(unused, 0)
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
        return by_slot.flatten(1), gamma[:, 0].to(self._rows.grad.dtype)


@dataclass(frozen=True)
class AdamRows(OptimizerRows):
    """The state of Adam."""

    steps: Tensor
    mean: Tensor
    square: Tensor
    rate: Tensor
    """(batch, 1): learning rate of each row."""


class Adam(_RowOptimizer[AdamRows]):
    """Adam (Kingma & Ba 2015), elementwise and therefore independent for every row.

    A step that is not finite is taken back and the learning rate of that row halved.
    """

    def __init__(
        self, start: Tensor, *, learning_rate: float = 0.05, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        steps = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        super().__init__(
            AdamRows(
                **_start_rows(start),
                steps=steps,
                mean=torch.zeros_like(start),
                square=torch.zeros_like(start),
                rate=start.new_full((len(start), 1), learning_rate),
            )
        )
        self._betas = betas

    def update(self, loss: Tensor, grad: Tensor, running: Tensor | None = None) -> None:
        state = self._rows
        good = self._judge(loss, grad, running, torch.inf)
        row = good[:, None]
        _replace(state.rate, ~row, state.rate / 2)
        _replace(state.accepted, row, state.point)
        _replace(state.loss, good, loss)

        first, second = self._betas
        _replace(state.mean, row, first * state.mean + (1 - first) * grad)
        _replace(state.square, row, second * state.square + (1 - second) * grad.square())
        state.steps.add_(good)
        steps = state.steps[:, None].to(grad.dtype).clamp(min=1)
        mean, square = state.mean / (1 - first**steps), state.square / (1 - second**steps)
        # The usual epsilon of 1e-8 is absolute; gradients here can be far smaller, so it is relative.
        floor = 1e-8 * square.amax(1, keepdim=True).sqrt() + torch.finfo(grad.dtype).tiny
        torch.sub(state.accepted, state.rate * mean / (square.sqrt() + floor), out=state.point)


def _replace(target: Tensor, where: Tensor, values: Tensor) -> None:
    """target[where] = values[where], in place; `where` is broadcast."""
    torch.where(where, values, target, out=target)

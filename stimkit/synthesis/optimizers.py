"""What optimizers of a batch of independent problems have in common.

Each row of the batch has its own history, step length, curvature test and rollback; nothing that
happens in one row reaches another. All are asked the same way: evaluate the objective at
`point`, hand values and gradients to `update`, and read the best accepted iterate from `accepted`.

All state is in tensors that are changed in place and never looked at by the host, so that one update can be
recorded as a CUDA graph and replayed. That is also why the place in a history is a tensor.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

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


class RowOptimizer(Generic[Rows]):
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


def start_rows(start: Tensor) -> dict[str, Tensor]:
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


def replace_rows(target: Tensor, where: Tensor, values: Tensor) -> None:
    """target[where] = values[where], in place; `where` is broadcast."""
    torch.where(where, values, target, out=target)

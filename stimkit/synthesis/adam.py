"""Adam for a batch of independent problems."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stimkit.synthesis.optimizers import OptimizerRows, RowOptimizer, replace_rows, start_rows


@dataclass(frozen=True)
class AdamRows(OptimizerRows):
    """The state of Adam."""

    steps: Tensor
    mean: Tensor
    square: Tensor
    rate: Tensor
    """(batch, 1): learning rate of each row."""


class Adam(RowOptimizer[AdamRows]):
    """Adam (Kingma & Ba 2015), elementwise and therefore independent for every row.

    A step that is not finite is taken back and the learning rate of that row halved.
    """

    def __init__(
        self, start: Tensor, *, learning_rate: float = 0.05, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        steps = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        super().__init__(
            AdamRows(
                **start_rows(start),
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
        replace_rows(state.rate, ~row, state.rate / 2)
        replace_rows(state.accepted, row, state.point)
        replace_rows(state.loss, good, loss)

        first, second = self._betas
        replace_rows(state.mean, row, first * state.mean + (1 - first) * grad)
        replace_rows(state.square, row, second * state.square + (1 - second) * grad.square())
        state.steps.add_(good)
        steps = state.steps[:, None].to(grad.dtype).clamp(min=1)
        mean, square = state.mean / (1 - first**steps), state.square / (1 - second**steps)
        # The usual epsilon of 1e-8 is absolute; gradients here can be far smaller, so it is relative.
        floor = 1e-8 * square.amax(1, keepdim=True).sqrt() + torch.finfo(grad.dtype).tiny
        torch.sub(state.accepted, state.rate * mean / (square.sqrt() + floor), out=state.point)

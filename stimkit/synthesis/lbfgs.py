"""L-BFGS for a batch of independent problems."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stimkit.synthesis.optimizers import OptimizerRows, RowOptimizer, replace_rows, start_rows

SHRINK = 0.25  # of the step after a rejected evaluation
MIN_CURVATURE = 1e-8  # cosine between step and change of gradient below which a pair is not used
# Pieces, at most, in which inner products of L-BFGS are summed. A GPU computes each product of a batch with one block,
# whose sum over a whole image takes 4.5 ms on an H200 however small the batch is.
PIECES = {"cpu": 1, "cuda": 64, "mps": 1}


@dataclass(frozen=True)
class LBFGSRows(OptimizerRows):
    """The state of L-BFGS; slots of the history are written in rotation."""

    grad: Tensor
    step: Tensor
    pairs: Tensor
    """(batch, pieces, 2 history, n / pieces): s of every slot, then y of every slot."""
    sy: Tensor
    yy: Tensor
    """(batch, history, history): inner products of the pairs."""
    valid: Tensor
    """(batch, history): the slot holds a pair that is used."""


class LBFGS(RowOptimizer[LBFGSRows]):
    """Batched L-BFGS (Nocedal 1980) in the compact form of Byrd, Nocedal & Schnabel (1994, theorem 2.2).

    All inner products of an iteration come from one batched matrix product with the history, and the
    direction from a second one (as in the vector-free form of Chen, Wang & Zhou 2014); between the two
    there are only small matrices, in float64. Steps have unit length, without a line search, as in every
    style-transfer code; a step that raises the loss beyond `growth` times the accepted one, or is not
    finite, is taken back and tried again at a quarter of its length.

    `first_step` is the root-mean-square length of a step along the plain gradient, taken while there is
    no curvature information. It makes the method independent of the scale of the loss. `pieces` is how many pieces at
    most inner products are summed in, by default what suits the device.
    """

    def __init__(
        self,
        start: Tensor,
        *,
        history: int = 10,
        first_step: float = 0.02,
        growth: float = 1.0,
        pieces: int | None = None,
    ) -> None:
        batch, n = start.shape
        most = pieces or PIECES[start.device.type]
        pieces = max(count for count in range(1, most + 1) if n % count == 0)
        self._small = torch.float32 if start.device.type == "mps" else torch.float64  # MPS has no float64
        small = torch.zeros(batch, history, history, dtype=self._small, device=start.device)
        super().__init__(
            LBFGSRows(
                **start_rows(start),
                grad=torch.zeros_like(start),
                step=torch.zeros_like(start),
                pairs=start.new_zeros(batch, pieces, 2 * history, n // pieces),
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
        replace_rows(state.accepted, row, state.point)
        replace_rows(state.grad, row, grad)
        replace_rows(state.loss, good, loss)

        direction = self._remember(step, change)
        torch.where(row, direction, SHRINK * state.step, out=state.step)
        torch.add(state.accepted, state.step, out=state.point)

    def _remember(self, step: Tensor, change: Tensor) -> Tensor:
        """Put one pair into the history and return the next step −H g of every row.

        The slot advances for all rows alike, also where no pair is stored: otherwise a row's history
        would depend on what its batch-mates did.
        """
        m, slot, pairs = self._history, self._slot[None], self._rows.pairs
        columns = torch.stack([one.view(*pairs.shape[:2], -1) for one in (step, change, self._rows.grad)], dim=2)
        pairs.index_copy_(2, torch.cat([slot, slot + m]), columns[:, :, :2])
        dots = (pairs @ columns.transpose(2, 3)).to(self._small).sum(1)  # (batch, 2 m, 3)
        s_dot, y_dot = dots[:, :m], dots[:, m:]
        self._rows.sy.index_copy_(1, slot, y_dot[:, None, :, 0])
        self._rows.sy.index_copy_(2, slot, s_dot[:, :, None, 1])
        self._rows.yy.index_copy_(1, slot, y_dot[:, None, :, 1])
        self._rows.yy.index_copy_(2, slot, y_dot[:, :, None, 1])
        ss, sy, yy = s_dot[:, slot, 0], s_dot[:, slot, 1], y_dot[:, slot, 1]
        self._rows.valid.index_copy_(1, slot, sy > MIN_CURVATURE * (ss * yy).sqrt())
        self._slot.add_(1).remainder_(m)

        weights, gamma = self._coefficients(s_dot[:, :, 2], y_dot[:, :, 2])
        combined = (weights.to(step.dtype)[:, None, None] @ pairs).view_as(step)
        direction = -(gamma[:, None] * self._rows.grad + combined)
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

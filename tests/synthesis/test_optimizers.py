"""Batched optimizers against torch's, alone and in company."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from stimkit.synthesis.adam import Adam
from stimkit.synthesis.lbfgs import LBFGS
from stimkit.synthesis.optimizers import MAX_REJECTIONS, BatchOptimizer

N = 40
Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


def problems(rows: Sequence[int]) -> Evaluate:
    """Smooth, slightly non-convex problems in float64, one a row."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5, N, N, generator=generator, dtype=torch.float64)
    a = a @ a.transpose(1, 2) + torch.eye(N, dtype=torch.float64)
    c = torch.randn(5, N, generator=generator, dtype=torch.float64)

    def evaluate(z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        r = z - c[list(rows)]
        loss = 0.5 * torch.einsum("bi,bij,bj->b", r, a[list(rows)], r) + 0.1 * torch.cos(3 * z).sum(1)
        return loss.detach(), torch.autograd.grad(loss.sum(), z)[0]

    return evaluate


def minimize(optimizer: BatchOptimizer, evaluate: Evaluate, steps: int) -> Tensor:
    """Losses (steps, batch) at the points that were evaluated."""
    losses = []
    for _ in range(steps):
        loss, grad = evaluate(optimizer.point)
        losses.append(loss)
        optimizer.update(loss, grad)
    return torch.stack(losses)


def test_inner_products_in_pieces_are_the_same() -> None:
    evaluate = problems([0, 3])
    whole, pieces = (minimize(LBFGS(start(2), pieces=count), evaluate, 30) for count in (1, 16))  # 40 in 10 pieces of 4
    assert torch.allclose(whole, pieces, rtol=1e-9)


def start(rows: int) -> Tensor:
    return torch.zeros(rows, N, dtype=torch.float64)


def test_lbfgs_follows_torch_step_for_step() -> None:
    evaluate = problems([2])
    z = torch.zeros(1, N, dtype=torch.float64, requires_grad=True)
    expected: list[float] = []
    theirs = torch.optim.LBFGS([z], max_iter=60, max_eval=10**6, history_size=10, tolerance_grad=0, tolerance_change=0)

    def closure() -> Tensor:
        loss, z.grad = evaluate(z)
        expected.append(float(loss))
        return loss.sum()

    theirs.step(closure)
    _, grad = evaluate(start(1))
    first = min(1.0, 1 / float(grad.abs().sum())) * float(grad.square().mean().sqrt())  # torch's rule, as RMS
    ours = minimize(LBFGS(start(1), first_step=first, growth=math.inf), evaluate, 60)
    assert len(expected) == 60
    assert ours[:, 0].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("make", [LBFGS, Adam])
def test_company_changes_nothing(make: Callable[[Tensor], BatchOptimizer]) -> None:
    together, alone = make(start(5)), make(start(1))
    minimize(together, problems([0, 1, 2, 3, 4]), 40)
    minimize(alone, problems([3]), 40)
    assert torch.allclose(together.accepted[3], alone.accepted[0], rtol=1e-12, atol=1e-12)


def with_trouble(evaluate: Evaluate, row: int, at: Callable[[int], bool]) -> Evaluate:
    """Make one row non-finite at some evaluations."""
    count = 0

    def evaluate_badly(z: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal count
        loss, grad = evaluate(z)
        if at(count):
            loss[row] = math.nan
        count += 1
        return loss, grad

    return evaluate_badly


@pytest.mark.parametrize("make", [LBFGS, Adam])
def test_a_bad_evaluation_is_rolled_back_and_stays_private(make: Callable[[Tensor], BatchOptimizer]) -> None:
    calm, troubled = make(start(3)), make(start(3))
    minimize(calm, problems([0, 1, 2]), 80)
    minimize(troubled, with_trouble(problems([0, 1, 2]), 1, lambda count: count in (5, 6, 20)), 80)
    assert troubled.rollbacks.tolist() == [0, 3, 0]
    assert torch.equal(troubled.accepted[[0, 2]], calm.accepted[[0, 2]])
    assert troubled.accepted.isfinite().all()
    assert not troubled.stuck.any()
    if make is LBFGS:
        assert troubled.loss[1] <= calm.loss[1] + 1e-3


@pytest.mark.parametrize("make", [LBFGS, Adam])
def test_a_row_without_finite_values_gets_stuck_alone(make: Callable[[Tensor], BatchOptimizer]) -> None:
    optimizer = make(start(2))
    minimize(optimizer, with_trouble(problems([0, 1]), 0, lambda count: count >= 3), 3 + MAX_REJECTIONS)
    assert optimizer.stuck.tolist() == [True, False]
    assert optimizer.accepted.isfinite().all()


def test_loss_never_rises() -> None:
    optimizer = LBFGS(start(5))
    evaluate = problems([0, 1, 2, 3, 4])
    accepted = []
    for _ in range(60):
        optimizer.update(*evaluate(optimizer.point))
        accepted.append(optimizer.loss.clone())
    assert (torch.stack(accepted).diff(dim=0) <= 0).all()


@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_lbfgs_does_not_care_about_the_scale_of_the_loss(scale: float) -> None:
    evaluate = problems([0, 1])
    plain, scaled = LBFGS(start(2)), LBFGS(start(2))
    minimize(plain, evaluate, 30)
    minimize(scaled, lambda z: tuple(scale * one for one in evaluate(z)), 30)  # type: ignore[arg-type, return-value]
    assert torch.allclose(plain.accepted, scaled.accepted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [LBFGS, Adam])
def test_rows_that_rest_or_leave_change_nothing(make: Callable[[Tensor], BatchOptimizer]) -> None:
    evaluate = problems([0, 1, 2])
    optimizer, alone = make(start(3)), make(start(1))
    minimize(optimizer, evaluate, 10)
    frozen = optimizer.accepted[1].clone()
    for _ in range(5):
        optimizer.update(*evaluate(optimizer.point), torch.tensor([True, False, True]))
    assert torch.equal(optimizer.accepted[1], frozen)
    optimizer.keep(torch.tensor([2]))
    minimize(optimizer, problems([2]), 10)
    minimize(alone, problems([2]), 25)
    assert torch.allclose(optimizer.accepted[0], alone.accepted[0], rtol=1e-12, atol=1e-12)


def test_adam_follows_torch() -> None:
    evaluate = problems([1])
    z = torch.zeros(1, N, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.Adam([z], lr=0.05, eps=0)
    ours = Adam(start(1), learning_rate=0.05)
    for _ in range(50):
        _, z.grad = evaluate(z)
        theirs.step()
        ours.update(*evaluate(ours.point))
    assert torch.allclose(ours.point, z.detach(), rtol=1e-5, atol=1e-6)

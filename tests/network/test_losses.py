"""Losses against NumPy in float64, closed-form derivatives, finite differences and invariances."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stimkit.network.layers import Convention
from stimkit.network.losses import Objective, content_loss, gram_matrix, style_loss

N, SIDE, OTHER = 7, 6, 9
CONVENTIONS: list[Convention] = ["paper", "mean"]


def maps(seed: int, side: int = SIDE, dtype: torch.dtype = torch.float64, batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, N, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(
        dtype
    )


def numpy_content(f: Any, p: Any, convention: str) -> float:
    return float(0.5 * ((f - p) ** 2).sum() if convention == "paper" else ((f - p) ** 2).mean())


def numpy_style(f: Any, a: Any, convention: str) -> float:
    """Equations 3 and 4 as written, where both images have M positions; else each Gram divided by its own."""
    f, a = f.reshape(N, -1), a.reshape(N, -1)
    m = f.shape[1]
    if convention == "paper" and a.shape[1] == m:
        return float(((f @ f.T - a @ a.T) ** 2).sum() / (4 * N**2 * m**2))
    difference = f @ f.T / m - a @ a.T / a.shape[1]
    return float((difference**2).sum() / (4 * N**2) if convention == "paper" else (difference**2).mean())


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("style_side", [SIDE, OTHER])
def test_losses_agree_with_numpy(convention: Convention, dtype: torch.dtype, tolerance: float, style_side: int) -> None:
    f, p, s = maps(0), maps(1), maps(2, style_side)
    content = content_loss(f.to(dtype), p.to(dtype), convention)
    style = style_loss(gram_matrix(f.to(dtype)), gram_matrix(s.to(dtype)), convention)
    for cell in range(3):
        assert float(content[cell]) == pytest.approx(
            numpy_content(f[cell].numpy(), p[cell].numpy(), convention), rel=tolerance
        )
        assert float(style[cell]) == pytest.approx(
            numpy_style(f[cell].numpy(), s[cell].numpy(), convention), rel=tolerance
        )


def test_gram_of_ones_and_of_permuted_positions() -> None:
    assert torch.equal(gram_matrix(torch.ones(2, 3, 4, 5)), torch.ones(2, 3, 3))
    f = maps(0)
    shuffled = f.flatten(2)[:, :, torch.randperm(SIDE * SIDE)].view_as(f)
    assert torch.allclose(gram_matrix(shuffled), gram_matrix(f), rtol=1e-12)
    assert float(content_loss(shuffled, f, "paper").min()) > 1


def test_gram_is_float32_for_a_bfloat16_network() -> None:
    low = maps(0, dtype=torch.bfloat16)
    assert gram_matrix(low).dtype == torch.float32
    assert torch.allclose(gram_matrix(low), gram_matrix(low.double()).float(), rtol=1e-5)


def test_content_gradient_is_equation_2() -> None:
    """dL/dF = F − P (times the step of the ReLU, which is part of the network)."""
    f, p = maps(0).requires_grad_(), maps(1)
    content_loss(f, p, "paper").sum().backward()
    assert f.grad is not None
    assert torch.allclose(f.grad, f.detach() - p, rtol=1e-12)


def test_style_gradient_is_equation_6() -> None:
    """dE/dF = Fᵀ (G − A) / (N² M²)."""
    f, s = maps(0).requires_grad_(), maps(2)
    style_loss(gram_matrix(f), gram_matrix(s), "paper").sum().backward()
    flat, other, m = f.detach().flatten(2), s.flatten(2), SIDE * SIDE
    expected = (flat @ flat.transpose(1, 2) - other @ other.transpose(1, 2)) @ flat / (N**2 * m**2)
    assert f.grad is not None
    assert torch.allclose(f.grad.flatten(2), expected, rtol=1e-10)


def objective(convention: Convention, scale: float = 1.0) -> Objective:
    return Objective(
        convention=convention,
        alpha=scale * torch.tensor([1e-3, 1.0, 0.0], dtype=torch.float64),
        beta=scale * torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64),
        content_weights=torch.tensor([[1.0], [0.7], [1.0]], dtype=torch.float64),
        style_weights=torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64),
        content_targets={"conv2_1": maps(1)},
        style_targets={"conv1_1": gram_matrix(maps(2)), "conv2_1": gram_matrix(maps(3))},
    )


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_gradient_agrees_with_finite_differences(convention: Convention) -> None:
    goal = objective(convention)

    def total(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return goal.total(goal.losses({"conv1_1": first, "conv2_1": second}))

    assert torch.autograd.gradcheck(total, (maps(4).requires_grad_(), maps(5).requires_grad_()), rtol=1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_total_is_the_weighted_sum_of_each_cells_own_layers(convention: Convention) -> None:
    goal = objective(convention)
    first, second = maps(4), maps(5)
    total = goal.total(goal.losses({"conv1_1": first, "conv2_1": second}))
    f1, f2, p, s1, s2 = (one.numpy() for one in (first, second, maps(1), maps(2), maps(3)))

    def style(cell: int, w1: float, w2: float) -> float:
        return w1 * numpy_style(f1[cell], s1[cell], convention) + w2 * numpy_style(f2[cell], s2[cell], convention)

    expected = [
        1e-3 * numpy_content(f2[0], p[0], convention) + style(0, 0.5, 0.5),
        0.7 * numpy_content(f2[1], p[1], convention),
        2 * style(2, 0, 1),
    ]
    assert total.tolist() == pytest.approx(expected, rel=1e-10)


def test_selected_cells_keep_their_losses() -> None:
    goal = objective("paper")
    features = {"conv1_1": maps(4), "conv2_1": maps(5)}
    rows = torch.tensor([2, 0])
    part = goal.select(rows)
    selected = part.total(part.losses({name: one[rows] for name, one in features.items()}))
    assert torch.allclose(selected, goal.total(goal.losses(features))[rows], rtol=1e-12)


def test_loss_is_zero_at_the_target() -> None:
    f = maps(0)
    assert content_loss(f, f, "paper").tolist() == [0, 0, 0]
    assert style_loss(gram_matrix(f), gram_matrix(f), "mean").tolist() == [0, 0, 0]


def test_conventions_differ_by_their_known_factors() -> None:
    f, p = maps(0), maps(1)
    assert torch.allclose(content_loss(f, p, "paper"), content_loss(f, p, "mean") * N * SIDE * SIDE / 2)
    g, a = gram_matrix(f), gram_matrix(p)
    assert torch.allclose(4 * style_loss(g, a, "paper"), style_loss(g, a, "mean"))


def test_matrices_of_other_batches_are_refused() -> None:
    gram = gram_matrix(maps(0))
    with pytest.raises(ValueError, match=r"Gram matrices \(3, 7, 7\) and targets \(1, 7, 7\) differ in shape"):
        style_loss(gram, gram[:1], "paper")


def test_the_layout_of_feature_maps_changes_no_gradient() -> None:
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        feature_maps = maps(0).contiguous(memory_format=layout).requires_grad_()
        style_loss(gram_matrix(feature_maps), gram_matrix(maps(1)), "paper").sum().backward()
        assert feature_maps.grad is not None
        gradients.append(feature_maps.grad)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-12)
    assert gradients[1].is_contiguous(memory_format=torch.channels_last), "as later passes need it"

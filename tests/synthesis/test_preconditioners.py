"""Preconditioners: maps with their inverses and adjoints."""

from __future__ import annotations

import pytest
import torch

from stimkit.synthesis.preconditioners import make_preconditioner


def test_the_grey_map_has_its_adjoint_and_its_inverse() -> None:
    generator = torch.Generator().manual_seed(0)
    z, x = (torch.randn(2, 3, 12, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    grey = make_preconditioner("fourier", z, grey=True)
    assert torch.equal(grey.forward(z)[:, 0], grey.forward(z)[:, 2])
    assert float((grey.forward(z) * x).sum()) == pytest.approx(float((z * grey.adjoint(x)).sum()), rel=1e-10)
    image = x[:, :1].repeat(1, 3, 1, 1)
    assert torch.allclose(grey.forward(grey.inverse(image)), image)

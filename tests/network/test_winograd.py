"""Winograd's convolutions against direct ones in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stimkit.network import winograd
from stimkit.network.sources import load_weights
from stimkit.network.vgg import VGG

CASES = [(1, 128, 128, 16, 16), (3, 128, 256, 17, 22), (2, 256, 128, 40, 13), (5, 128, 128, 4, 64)]


@pytest.mark.parametrize(("batch", "inputs", "outputs", "height", "width"), CASES)
def test_agrees_with_the_direct_convolution(batch: int, inputs: int, outputs: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(batch, n, height, width, generator=generator) for n in (inputs, outputs))
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    bias = torch.randn(outputs, generator=generator)
    x.requires_grad_()
    exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    # Where a response is so close to zero that rounding decides about the ReLU, no gradient is asked for.
    g = torch.where(exact.abs() < 1e-3, 0, g)
    (expected,) = torch.autograd.grad(exact.relu(), x, g.double())

    y = winograd.convolve_relu(x, winograd.Kernel(weight, bias))
    (gradient,) = torch.autograd.grad(y, x, g)
    for value, exactly in ((y, exact.relu()), (gradient, expected)):
        assert value.shape == exactly.shape
        assert value.is_contiguous(memory_format=torch.channels_last)
        assert (value - exactly).abs().max() < 3e-5 * exactly.abs().max()


def test_a_row_is_the_same_in_any_company() -> None:
    generator = torch.Generator().manual_seed(1)
    kernel = winograd.Kernel(torch.randn(128, 128, 3, 3, generator=generator) / 34, torch.zeros(128))
    x = torch.randn(20, 128, 16, 16, generator=generator)
    together = winograd.convolve_relu(x, kernel)
    for row in (0, 7, 19):
        alone = winograd.convolve_relu(x[row : row + 1], kernel)
        assert torch.allclose(together[row], alone[0], rtol=0, atol=1e-4)


def test_the_fast_network_agrees_with_the_direct_one_and_is_used_where_it_pays() -> None:
    source = load_weights("pca")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = ["conv2_2", "conv3_4"]
    exact = VGG(source, dtype=torch.float64).features(image.double(), layers)
    fast, direct = (VGG(source, fast=choice).features(image, layers) for choice in (True, False))
    for name in layers:
        assert not torch.equal(fast[name], direct[name]), "computed the same way"
        assert (fast[name] - exact[name]).abs().max() < 1e-4 * exact[name].abs().max(), name
    shallow = [VGG(source, fast=choice).features(image, ["conv2_1"])["conv2_1"] for choice in (True, False)]
    assert torch.equal(*shallow)

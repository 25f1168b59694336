"""What NVIDIA GPUs do otherwise, as far as a CPU can show it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stimkit.network.cudnn import average_pool, pad_channels

LAYOUTS = (torch.channels_last, torch.contiguous_format)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(8, 6), (7, 9), (2, 3)])
def test_average_pooling_and_its_gradient_are_torchs(
    size: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 64, *size, generator=generator).to(dtype).contiguous(memory_format=layout).requires_grad_()
    mine, theirs = average_pool(x), F.avg_pool2d(x, 2)
    grad = torch.randn(mine.shape, generator=generator).to(dtype)
    assert torch.allclose(mine, theirs, rtol=1e-6, atol=1e-6)
    assert torch.equal(*(torch.autograd.grad(one, x, grad)[0] for one in (mine, theirs)))
    assert mine.is_contiguous(memory_format=layout)


def test_channels_of_zeros_change_no_convolution() -> None:
    x, weight = torch.rand(1, 3, 6, 6, dtype=torch.float64), torch.rand(4, 3, 3, 3, dtype=torch.float64)
    assert pad_channels(x).shape == (1, 8, 6, 6)
    assert torch.allclose(F.conv2d(pad_channels(x), pad_channels(weight)), F.conv2d(x, weight))

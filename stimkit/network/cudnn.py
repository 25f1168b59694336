"""Convolutions and average pooling on NVIDIA GPUs, with few passes over the feature maps.

Matrix units are so fast that an evaluation is bound by memory: torch adds the bias in one pass over the output of
a convolution and rectifies it in another, and its average pooling in channels last takes ten times as long as the
memory does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = 8  # to which the image is padded with zeros: cuDNN's kernels for 3 channels take 1.7 times as long


def usable(device: torch.device) -> bool:
    """Whether cuDNN's convolutions can be called: on NVIDIA's GPUs, not on AMD's, which torch calls cuda as well."""
    return device.type == "cuda" and torch.version.hip is None and torch.backends.cudnn.is_available()


def pad_channels(x: Tensor) -> Tensor:
    """Append channels of zeros to images or kernels (…, channels, height, width)."""
    return F.pad(x, (0, 0, 0, 0, 0, max(0, CHANNELS - x.shape[1])))


def direct_convolve_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(conv(x) + bias) with zero padding: (batch, I, height, width) to (batch, O, height, width).

    Differentiable with respect to x.
    """
    result: Tensor = _ConvolveRelu.apply(x, weight, bias)
    return result


class _ConvolveRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, weight, y = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grads[0], y, 0)
        rest = None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, False, False)
        return torch.ops.aten.convolution_backward(grad, x, weight, *rest)[0], None, None


def average_pool(x: Tensor) -> Tensor:
    """Means of 2 × 2 positions: (batch, N, height, width) to (batch, N, height // 2, width // 2)."""
    result: Tensor = _AveragePool.apply(x)
    return result


class _AveragePool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        if not _is_last(x):
            return F.avg_pool2d(x, 2)
        height, width = (side // 2 for side in x.shape[2:])
        even = x[:, :, : 2 * height, : 2 * width].permute(0, 2, 3, 1)
        means: Tensor = even.unflatten(2, (width, 2)).unflatten(1, (height, 2)).mean((2, 4))
        return means.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        batch, channels, height, width = grads[0].shape
        if _is_last(grads[0]):
            quarter = torch.div(grads[0].permute(0, 2, 3, 1), 4, out=grads[0].new_empty(batch, height, width, channels))
            # Copied in words of 8 bytes, since what is not copied in one piece is copied value by value.
            words = quarter.view(torch.int64)[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
            grad = words.flatten(3, 4).flatten(1, 2).view(quarter.dtype).permute(0, 3, 1, 2)
        else:
            grad = torch.ops.aten.upsample_nearest2d(grads[0] / 4, (2 * height, 2 * width), None, None)
        missing = (0, ctx.shape[3] - 2 * width, 0, ctx.shape[2] - 2 * height)
        return F.pad(grad, missing) if any(missing) else grad


def _is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)

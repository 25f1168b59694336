"""3 × 3 convolutions on a CPU with a quarter of the multiplications: Winograd's F(4 × 4, 3 × 3).

Lavin & Gray (2016), "Fast algorithms for convolutional neural networks", equation 8: tiles of 6 × 6
inputs and the kernel are transformed to 36 values each, multiplied, and transformed back to 4 × 4
outputs. The products of all tiles and channels are 36 matrix products. Rounding errors are a few times
those of the direct sum (about 1e-5 of the largest output in float32).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stimkit.network.layers import TRANSFORMED_CHANNELS

TILE, OUT = 6, 4
# Time of forward and backward relative to torch's own convolutions, on two cores with AVX2, by tiles of a map:
#
#     channels   4 tiles   9     16    64    256
#      64         1.86    1.53  1.31  1.22  1.32
#     128         1.34    1.12  0.96  0.81  1.00
#     256         1.13    1.10  0.86  0.65  0.62
#     512         1.08    0.96  0.67  0.45  0.40
#
# Hence 16 tiles, and 128 channels in `layers.TRANSFORMED_CHANNELS`.
MIN_TILES = 16
_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_KERNEL = (
    torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64) / 24
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
# Both directions of a tile at once: (36, 36), (36, 9) and (16, 36).
_INPUT_2D = torch.kron(_INPUT, _INPUT).float()
_KERNEL_2D = torch.kron(_KERNEL, _KERNEL).float()
_OUTPUT_2D = torch.kron(_OUTPUT, _OUTPUT).float()


def worthwhile(weight: Tensor, height: int, width: int) -> bool:
    """Whether this convolution is faster than the direct one: weight (O, I, 3, 3), map height × width."""
    return min(weight.shape[:2]) >= TRANSFORMED_CHANNELS and _tiles(height) * _tiles(width) >= MIN_TILES


class Kernel:
    """A kernel (O, I, 3, 3) and its bias, transformed for the forward and the backward convolution."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.forward = _transform(weight)
        self.backward = _transform(weight.transpose(0, 1).flip(2, 3))
        self.bias = bias


def convolve_relu(x: Tensor, kernel: Kernel) -> Tensor:
    """relu(conv(x) + bias) with zero padding: (batch, I, height, width) to (batch, O, height, width).

    float32 on the CPU; the result is channels_last. Differentiable with respect to x.
    """
    result: Tensor = _ConvolveRelu.apply(x, kernel.forward, kernel.backward, kernel.bias)
    return result


class _ConvolveRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Tensor, backward: Tensor, bias: Tensor) -> Tensor:
        y = _convolve(x, forward).add_(bias[:, None, None]).relu_()
        ctx.save_for_backward(y, backward)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        y, backward = ctx.saved_tensors
        return _convolve(torch.ops.aten.threshold_backward(grads[0], y, 0), backward), None, None, None


def _transform(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) to (36, I, O), as one product: each term by itself took five times as long."""
    flat = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (_KERNEL_2D @ flat).view(TILE * TILE, weight.shape[1], weight.shape[0])


def _convolve(x: Tensor, transformed: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    filters = transformed.shape[2]
    rows, columns = _tiles(height), _tiles(width)
    padding = (0, 0, 1, OUT * columns - width + 1, 1, OUT * rows - height + 1)
    padded = F.pad(x.permute(0, 2, 3, 1), padding)
    tiles = padded.unfold(1, TILE, OUT).unfold(2, TILE, OUT)  # (batch, rows, columns, channels, 6, 6)
    y = x.new_empty(batch, rows, OUT, columns, OUT, filters)
    for images, lines in _parts(batch, rows, columns, min(channels, filters) // 2):
        part = tiles[images, lines]
        values = _INPUT_2D @ part.permute(4, 5, 0, 1, 2, 3).reshape(TILE * TILE, -1)
        products = torch.bmm(values.view(TILE * TILE, -1, channels), transformed)
        out = _OUTPUT_2D @ products.view(TILE * TILE, -1)
        y[images, lines] = out.view(OUT, OUT, *part.shape[:3], filters).permute(2, 3, 0, 4, 1, 5)
    whole = y.view(batch, OUT * rows, OUT * columns, filters)[:, :height, :width].permute(0, 3, 1, 2)
    return whole.contiguous(memory_format=torch.channels_last)


def _tiles(side: int) -> int:
    return -(-side // OUT)


def _parts(batch: int, rows: int, columns: int, tiles: int) -> list[tuple[slice, slice]]:
    """Cut a batch into parts of about `tiles` tiles, which stay in the cache from transform to transform."""
    images = max(1, tiles // (rows * columns))
    lines = rows if images > 1 else max(1, tiles // columns)
    return [
        (slice(image, image + images), slice(line, line + lines))
        for image in range(0, batch, images)
        for line in range(0, rows, lines)
    ]

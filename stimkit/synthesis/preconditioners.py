"""Linear changes of variables x = G z that make the optimization of images better conditioned.

Optimizing z with L-BFGS is optimizing the image x with the initial inverse Hessian G Gᵀ.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

# Amplitude falls as 1/f^0.5, between white noise and the 1/f of natural images. To the loss that it has after 120
# evaluations, 1/f^0.7 takes 1.1 to 1.3 times as many, 1/f 1.3 to 1.9 (RESULTS.md, Optimizer; embedded and untrained
# filters).
POWER = 0.5

# Columns: directions of natural colour variation (luminance, red-green and yellow-blue opponency), each
# with its standard deviation: the square root of the covariance of natural image colours.
_COLOUR = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


class Preconditioner(Protocol):
    """A linear map of image batches (batch, 3, height, width), its inverse and its adjoint."""

    def forward(self, z: Tensor) -> Tensor: ...
    def inverse(self, x: Tensor) -> Tensor: ...
    def adjoint(self, x: Tensor) -> Tensor: ...


class Identity:
    """No preconditioning: plain pixels."""

    def forward(self, z: Tensor) -> Tensor:
        return z

    inverse = adjoint = forward


class Fourier:
    """Spatial frequencies scaled by 1/f^0.5 and decorrelated colour channels.

    The filter is real and symmetric, hence its own adjoint. Its gain is 1 in the root mean square.
    """

    def __init__(self, height: int, width: int, like: Tensor) -> None:
        self._size = (height, width)
        frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
        frequency[0, 0] = 1 / max(height, width)
        gain = frequency.double() ** -POWER
        self._gain = _like(gain / gain.square().mean().sqrt(), like)
        colour = torch.tensor(_COLOUR, dtype=torch.float64)
        colour = colour / colour.norm(dim=0).max()
        self._colour, self._uncolour = _like(colour, like), _like(torch.linalg.inv(colour), like)

    def forward(self, z: Tensor) -> Tensor:
        return _mix(self._colour, self._filter(z, self._gain))

    def inverse(self, x: Tensor) -> Tensor:
        return self._filter(_mix(self._uncolour, x), 1 / self._gain)

    def adjoint(self, x: Tensor) -> Tensor:
        return self._filter(_mix(self._colour.T, x), self._gain)

    def _filter(self, x: Tensor, gain: Tensor) -> Tensor:
        filtered: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * gain, s=self._size)
        return filtered


class Grey:
    """Another map, and then the mean of the channels: the image stays grey while it is optimized."""

    def __init__(self, inner: Preconditioner) -> None:
        self._inner = inner

    def forward(self, z: Tensor) -> Tensor:
        return _grey(self._inner.forward(z))

    def inverse(self, x: Tensor) -> Tensor:
        return self._inner.inverse(_grey(x))

    def adjoint(self, x: Tensor) -> Tensor:
        return self._inner.adjoint(_grey(x))


def _grey(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()


def _like(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype).to(like.device)  # the type first: not every device has float64


def _mix(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", matrix, x)


def make_preconditioner(kind: str, like: Tensor, *, grey: bool = False) -> Preconditioner:
    """Return the preconditioner of that name for images like `like`, in its size, device and dtype."""
    height, width = like.shape[-2:]
    inner = Fourier(height, width, like) if kind == "fourier" else Identity()
    return Grey(inner) if grey else inner

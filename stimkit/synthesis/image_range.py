"""What values an image can have while it is optimized."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

# The part of the range next to black and next to white over which values are bent; between them they are what is
# optimized. Chosen with tanh as the bend, by the loss of the file relative to that of a free optimization after as many
# evaluations (4 pairs at 2 ratios, 64 px; geometric means after 40 and 100 evaluations):
#
#                           embedded filters    trained filters
#     0.2                   0.91    0.87        1.01    0.88
#     0.1                   0.91    0.86        1.03    0.90
#     a logistic function   1.00    0.96        1.00    0.92
#
# A penalty on values outside gives 0.89 and 1.00 after 40, but files whose loss is 1.2 times the optimized one.
BENT = 0.2
# Nearly half a step of 8 bits beyond 0 and 1, so that black and white are reached, and a start there still moves: its
# slope is 0.017 of that at mid-grey. Files of 16 bits are clipped by as little.
OVERSHOOT = 0.49 / 255
_STRAIGHT, _ROOM = 0.5 - BENT, BENT + OVERSHOOT


class ImageRange(Protocol):
    """A map from any values to those that an image can have, elementwise, and its inverse."""

    def forward(self, values: Tensor) -> Tensor: ...
    def inverse(self, images: Tensor) -> Tensor: ...


class Free:
    """Any values; those that cannot be displayed are clipped at the end."""

    def forward(self, values: Tensor) -> Tensor:
        return values

    inverse = forward


class Bounded:
    """Values that can be displayed: what is optimized where that is far from black and white, bent near them.

    The bend is t / (1 + t⁴)^¼: close to tanh, but of operations whose rounding does not depend on the place in memory,
    so that a batch gives what its cells give alone.
    """

    def forward(self, values: Tensor) -> Tensor:
        return self._bend(values, lambda t: t / (1 + t.square().square()).sqrt().sqrt())

    def inverse(self, images: Tensor) -> Tensor:
        return self._bend(images.clamp(0, 1), lambda t: t / (1 - t.square().square()).sqrt().sqrt())

    def _bend(self, values: Tensor, curve: Callable[[Tensor], Tensor]) -> Tensor:
        beyond = ((values - 0.5).abs() - _STRAIGHT).clamp(min=0)
        return values + (values - 0.5).sign() * (_ROOM * curve(beyond / _ROOM) - beyond)


def make_image_range(kind: str) -> ImageRange:
    """Return the range of that name."""
    return Bounded() if kind == "bounded" else Free()

"""A penalty that holds luminance and contrast while the losses are minimized."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class LightPenalty:
    """Targets of a batch; None where that is not held."""

    weight: float
    mean: Tensor | None  # (batch,)
    contrast: Tensor | None  # (batch,)
    colours: Tensor  # (3,): luminance of linear red, green and blue
    pixels: Tensor  # (height * width,): shares of the pixels in the aperture, of sum 1

    def __call__(self, images: Tensor) -> Tensor:
        """weight · [((m - m*) / m*)² + ((c - c*) / c*)²] of sRGB-encoded images: (batch, 3, height, width) to (batch,).

        m is mean luminance in linear light and c its standard deviation / m, inside the aperture; * are targets.
        """
        values = images.clamp(0, 1)
        # Beyond the dark part only: the power has no finite slope at 0.
        power = ((values.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
        linear = torch.where(values <= 0.04045, values / 12.92, power)
        light = (linear * self.colours[:, None, None]).sum(1).flatten(1)  # a matrix product might be in TF32
        mean = (light * self.pixels).sum(1)
        total = torch.zeros_like(mean)
        if self.mean is not None:
            total = total + (mean / self.mean.clamp(min=1e-6) - 1).square()
        if self.contrast is not None:
            variance = ((light - mean[:, None]).square() * self.pixels).sum(1)
            contrast = (variance + 1e-12).sqrt() / (mean + 1e-6)
            total = total + (contrast / self.contrast.clamp(min=1e-6) - 1).square()
        return self.weight * total

    def select(self, index: Tensor) -> LightPenalty:
        """The targets of some cells of the batch."""
        return replace(
            self,
            mean=None if self.mean is None else self.mean[index],
            contrast=None if self.contrast is None else self.contrast[index],
        )

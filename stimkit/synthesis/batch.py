"""A batch of problems, ready to be optimized."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from stimkit.network.losses import Objective
from stimkit.network.vgg import VGG
from stimkit.protocol.settings import Settings
from stimkit.synthesis.light_penalty import LightPenalty


@dataclass(frozen=True)
class Batch:
    """Cells of equal settings, ready to be optimized."""

    settings: Settings
    network: VGG
    """Evaluates in the precision of the settings."""
    reference: VGG
    """Measures, in float32 (or float64)."""
    objective: Objective
    initial: Tensor
    """(batch, 3, height, width)"""
    limit: int
    """Largest number of evaluations at this size."""
    light: LightPenalty | None = None
    """What holds luminance and contrast during the optimization."""
    coarser: tuple[Batch, ...] = ()
    """The same problems at smaller sizes, from the smallest on, which are optimized first."""

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return self.initial[0, 0].numel()

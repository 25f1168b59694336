"""The networks that cells are optimized and measured with."""

from __future__ import annotations

import torch

from stimkit.network.layers import Precision
from stimkit.network.vgg import VGG, rescale
from stimkit.network.weights import Weights
from stimkit.planning.inputs import InputSource
from stimkit.protocol.settings import Settings
from stimkit.synthesis.devices import NETWORK_DTYPE, network_layout


class Networks:
    """The networks of some weights and settings on one device, each made once."""

    def __init__(self, inputs: InputSource, device: torch.device) -> None:
        self._inputs, self._device = inputs, device
        self._weights: dict[tuple[object, ...], Weights] = {}
        self._made: dict[tuple[object, ...], VGG] = {}

    def network(self, settings: Settings) -> VGG:
        """The network that a cell of these settings is optimized with."""
        return self._get(settings, settings.precision, fast=True)

    def reference(self, settings: Settings) -> VGG:
        """The network that losses are measured with: float32, or float64 for float64 cells."""
        return self._get(settings, "float64" if settings.precision == "float64" else "float32", fast=False)

    def _get(self, settings: Settings, precision: Precision, *, fast: bool) -> VGG:
        source = (*settings.source, settings.pooling, settings.normalize)
        if source not in self._weights:
            weights = self._inputs.weights(settings)
            self._weights[source] = rescale(weights, settings.pooling, settings.normalize)
        key = (*source, precision, fast)
        if key not in self._made:
            self._made[key] = VGG(
                self._weights[source],
                pooling=settings.pooling,
                normalize="none",
                dtype=NETWORK_DTYPE[precision],
                device=self._device,
                layout=network_layout(precision, self._device),
                fast=fast,
            )
        return self._made[key]

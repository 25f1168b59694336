"""Variances of the responses of an early layer of a network over an image: sparseness and variability.

Brachmann, Barth & Redies (2017), Using CNN features to better understand what makes visual artworks special, Frontiers
in Psychology 8:830. They took the 96 filters of AlexNet's first layer, of 11 pixels; here it is conv2_1, whose filters
see 10 pixels of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stimkit.columns import Column
from stimkit.synthesis.devices import exact

VARIANCE_LAYER = "conv2_1"
SPARSENESS_PARTS, VARIABILITY_PARTS = 22, 12  # a side, of the grid of parts of the image
VARIANCE_COLUMNS = (
    Column("cnn_sparseness", "1", "variance of the largest responses of filters in 22 x 22 parts (Brachmann 2017)"),
    Column("cnn_variability", "1", "median variance of a filter over 12 x 12 parts (Brachmann 2017)"),
)


def measure_variances(responses: Tensor) -> dict[str, float]:
    """All of `VARIANCE_COLUMNS` for the responses (N, height, width) of a layer."""
    sparse, variable = (_shares(responses, parts) for parts in (SPARSENESS_PARTS, VARIABILITY_PARTS))
    return {
        "cnn_sparseness": float(sparse.var(correction=0)),
        "cnn_variability": float(_median_variance(variable)),
    }


def _median_variance(shares: Tensor) -> Tensor:
    """The median over filters of the variance over parts; of an even number, the mean of the middle two."""
    return shares.flatten(1).var(1, correction=0).quantile(0.5)


def _shares(responses: Tensor, parts: int) -> Tensor:
    """The largest response of each filter in each part, divided by the sum over filters: (N, parts, parts).

    Where the map is smaller than the grid, parts share positions.
    """
    largest = torch.nn.functional.adaptive_max_pool2d(exact(responses), parts)
    sums = largest.sum(0, keepdim=True)
    return largest / sums.clamp_min(1e-300)

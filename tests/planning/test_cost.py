"""What cells cost, by the layer table."""

from __future__ import annotations

from stimkit.network.layers import NETWORKS
from stimkit.planning.cost import evaluation_flops


def test_a_vgg16_takes_less_than_a_vgg19() -> None:
    """By the convolutions that it lacks: 256 → 256 at a quarter of the side, 512 → 512 at an eighth."""
    flops = {name: evaluation_flops(["conv5_1"], [], (64, 64), name) for name in NETWORKS}
    assert flops["vgg19"] - flops["vgg16"] == 2 * 2 * 9 * (256**2 * 16**2 + 512**2 * 8**2)

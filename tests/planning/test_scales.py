"""Sizes of a cell from coarse to fine, and what is done at each."""

from __future__ import annotations

import numpy as np
import pytest

from stimkit.network.layers import LAYERS
from stimkit.planning.scales import at_size, count_work, scale_limits, scale_sizes
from stimkit.planning.summary import summarize
from stimkit.protocol.settings import Settings
from tests.conftest import small_plan

FIVE = tuple((f"conv{block}_1", 0.2) for block in range(1, 6))


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({"size": (256, 256)}, [(32, 32), (64, 64), (128, 128), (256, 256)]),
        ({"size": (256, 256), "scales": 2}, [(128, 128), (256, 256)]),
        ({"size": (256, 256), "scales": 1}, [(256, 256)]),
        ({"size": (256, 256), "max_evaluations": 0}, [(256, 256)]),
        ({"size": (63, 300)}, [(32, 150), (63, 300)]),
        ({"size": (62, 300)}, [(62, 300)]),
        ({"size": (225, 224)}, [(56, 56), (113, 112), (225, 224)]),
        ({"size": (128, 128), "regions": "grid", "region_count": 8}, [(32, 32), (64, 64), (128, 128)]),
    ],
)
def test_sizes_are_halves_from_32_px_up(settings: dict[str, object], sizes: list[tuple[int, int]]) -> None:
    assert scale_sizes(Settings(**settings), FIVE, 1.0) == tuple(sizes)  # type: ignore[arg-type]


def test_a_size_without_style_is_left_out() -> None:
    """conv2_1 sees twice as large structures as conv1_1: that is all there is to be seen at half the size."""
    settings = Settings(size=(512, 512))
    assert scale_sizes(settings, FIVE[:1], 1.0) == ((512, 512),)
    assert scale_sizes(settings, FIVE[:2], 1.0) == ((256, 256), (512, 512))
    assert scale_sizes(settings, (), 1.0) == scale_sizes(settings, FIVE, 0.0) == ((512, 512),)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50, 300, 5_000])
@pytest.mark.parametrize("size", [(64, 64), (225, 224), (1024, 700)])
def test_all_sizes_together_cost_what_was_asked_for(limit: int, size: tuple[int, int]) -> None:
    settings = Settings(size=size, max_evaluations=limit)
    sizes = scale_sizes(settings, FIVE, 1.0)
    *smaller, last = scale_limits(settings, sizes)
    assert min(*smaller, last) >= 1 and 0.5 * limit <= last <= limit
    assert count_work([*smaller, last], sizes, settings) == pytest.approx(limit, abs=1)


@pytest.mark.parametrize("convention", ["paper", "mean"])
def test_content_and_style_weigh_at_a_smaller_size_what_they_do_at_the_full_one(convention: str) -> None:
    """In the paper's formulas a content loss is a sum over positions, of which 49 px do not have a quarter."""
    layers = {"content": ["conv1_1", "conv4_2"], "style": {"two": ["conv1_1", "conv2_1"]}}
    cell = small_plan(
        layers=layers, factors={"style_layers": ["two"], "ratio": [0.1]},
        synthesis={"size": [98, 100], "loss": convention}, display={"ppd": 49.0},
    ).cells[0]  # fmt: skip
    half = at_size(cell, (49, 50))
    for (name, weight), (other, there) in zip(cell.content_layers, half.content_layers, strict=True):
        positions = [LAYERS[name].positions(*size) for size in ((98, 100), (49, 50))]
        mean_square = np.pi
        sums = [one if convention == "paper" else 1 for one in positions]
        assert name == other and weight * mean_square * sums[0] == pytest.approx(there * mean_square * sums[1])
    assert half.style_layers == (("conv1_1", dict(cell.style_layers)["conv1_1"]),)
    assert half.settings.degrees == cell.settings.degrees == (2, 100 / 49)
    assert (half.seed, half.alpha, half.beta) == (cell.seed, cell.alpha, cell.beta)


def test_ids_say_how_many_sizes_there_are() -> None:
    """Asking for one size, or for two where more are not possible, is asking for the same stimulus."""

    def ids(size: int, scales: int) -> list[str]:
        factors = {"style_layers": ["one", "two"], "ratio": [1e-5]}
        return [cell.id for cell in small_plan(factors=factors, synthesis={"size": size, "scales": scales}).cells]

    assert ids(32, 1) == ids(32, 8)
    (one, two), (same, other) = ids(64, 1), ids(64, 8)
    assert one == same and two != other, "conv1_1 by itself has no smaller size"
    assert ids(64, 2) == ids(64, 8)


def test_a_plan_says_at_which_sizes_its_cells_are_optimized() -> None:
    plan = small_plan(factors={"ratio": [1e-5]}, synthesis={"size": 64})
    assert summarize(plan)["coarse_sizes"] == [{"cells": 1, "sizes": []}, {"cells": 1, "sizes": [[32, 32]]}]

"""Style losses that are those of one filter or layer are told before a run, and by audits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import stimkit
from stimkit.images.regions import Window
from stimkit.network.losses import content_loss
from stimkit.network.region_losses import group_regions
from stimkit.network.sources import load_weights
from stimkit.running.events import Event
from stimkit.stimuli.dominance import find_dominance, split_content_loss, split_style_loss
from tests.conftest import small_plan


def test_shares_of_filters_and_layers() -> None:
    first = split_style_loss(torch.tensor([[4.0, 1, 0], [1, 0, 0], [0, 0, 1]]).square())
    parts = {"conv1_1": first, "conv2_1": split_style_loss(torch.ones(2, 2))}
    found = list(find_dominance("style", parts, (("conv1_1", 1.0), ("conv2_1", 1.0))))
    assert [(one.layer, one.filter, one.limit) for one in found] == [("conv1_1", 0, 0.6)]
    assert found[0].share == pytest.approx(17 / 19)
    found = list(find_dominance("style", parts, (("conv1_1", 1.0), ("conv2_1", 0.01))))
    assert (found[1].layer, found[1].filter, found[1].limit) == ("conv1_1", None, 0.99)
    assert found[1].share == pytest.approx((19 / 9) / (19 / 9 + 0.01))
    nothing = {"conv1_1": torch.zeros(3)}
    assert list(find_dominance("style", nothing, (("conv1_1", 1.0),))) == [], "there is nothing to share"


def test_regions_are_taken_together() -> None:
    halves = [[Window((0, 1, 0, 1), np.ones((1, 1)))], [Window((0, 1, 1, 2), np.ones((1, 1)))]]
    regions = group_regions(halves, 2, 2, torch.zeros(1), with_own_targets=False)
    maps = torch.tensor([[[[3.0, 0]], [[0, 3]]]])  # one filter responds in each
    parts = {"conv1_1": split_style_loss(regions.squared_differences(maps, regions.target(0 * maps)))}
    assert parts["conv1_1"].tolist() == [81 / 8, 81 / 8]
    assert list(find_dominance("style", parts, (("conv1_1", 1.0),))) == []


def test_parts_of_a_content_loss_add_up_to_it() -> None:
    maps, target = torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for convention in ("paper", "mean"):
        parts = split_content_loss(maps, target, convention)
        assert parts.shape == (4,)
        assert float(parts.sum()) == pytest.approx(float(content_loss(maps[None], target[None], convention)))


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of which one filter of conv1_1 is a hundred times as strong as it was learned."""
    tensors = {key: value.copy() for key, value in load_weights("pca").tensors.items()}
    for part in ("weight", "bias"):
        tensors[f"conv1_1.{part}"][5] *= np.float32(100)
    path = tmp_path_factory.mktemp("weights") / "loud.safetensors"
    save_file(tensors, path, {"preprocessing": "torchvision"})
    return path


@pytest.mark.parametrize("regions", [{}, pytest.param({"regions": "grid", "region_count": 2}, marks=pytest.mark.slow)])
def test_a_loud_filter_is_told(loud: Path, tmp_path: Path, regions: dict[str, object]) -> None:
    plan = small_plan(
        model={"weights": str(loud)}, synthesis=regions, factors={"ratio": [1e-5]}, layers={"content": ["conv1_1"]}
    )
    told: list[Event] = []
    stimkit.run(plan, tmp_path / "run", device="cpu", on_event=told.append)
    notes = [event.note for event in told if event.note]
    (note,) = (note for note in notes if "style cup: filter 5" in note)
    assert note.startswith("note: style cup: filter 5 of conv1_1 carries 100% of") and 'normalize = "layer"' in note
    assert any(note.startswith("note: content cat: filter 5 of conv1_1 carries") for note in notes)
    found = [one for one in stimkit.audit(tmp_path / "run", device="cpu").findings if one.name == "dominated"]
    for image in ("style cup", "content cat"):
        assert any(one.detail.startswith(f"{image}: filter 5 of conv1_1") for one in found)
    assert {one.severity for one in found} == {"warning"}
    assert all(one.value is not None and one.limit is not None and one.value > one.limit for one in found)


@pytest.mark.parametrize(("ratio", "term", "other"), [(0.0, "style", "content"), (float("inf"), "content", "style")])
def test_only_losses_that_weigh_something_are_told(
    loud: Path, tmp_path: Path, ratio: float, term: str, other: str
) -> None:
    plan = small_plan(
        model={"weights": str(loud)}, layers={"content": ["conv1_1"]}, factors={"ratio": [ratio]},
        synthesis={"max_evaluations": 1},
    )  # fmt: skip
    told: list[Event] = []
    stimkit.run(plan, tmp_path / "run", device="cpu", on_event=told.append)
    notes = [event.note for event in told if event.note and "carries" in event.note]
    assert any(note.startswith(f"note: {term} ") for note in notes)
    assert not any(note.startswith(f"note: {other} ") for note in notes)


def test_the_embedded_filters_are_not_dominated(tmp_path: Path) -> None:
    told: list[Event] = []
    stimkit.run(small_plan(), tmp_path / "run", device="cpu", on_event=told.append)
    assert not [event.note for event in told if "carries" in event.note]

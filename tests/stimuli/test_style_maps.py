"""Style maps: each style where its mask is white, and what a map of one style is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import stimkit
from stimkit.errors import ProtocolError
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.protocol.protocol import Protocol
from stimkit.stimuli.assembly import Assembly
from tests.conftest import document, small_plan

STYLES = {"cup": "skimage:coffee", "grass": "skimage:grass"}


def masks(folder: Path) -> dict[str, str]:
    """Masks of unequal size: the left quarter of the content image, and the rest."""
    content = PlanInputs(small_plan()).image("content", "cat")
    mask = np.zeros_like(content)
    mask[:, : mask.shape[1] // 4] = 255
    Image.fromarray(mask).save(folder / "left.png")
    Image.fromarray(255 - mask).save(folder / "right.png")
    return {"left": "left.png", "right": "right.png"}


def mapped(folder: Path, maps: Any, **sections: Any) -> Plan:
    images = {"root": str(folder), "style": STYLES, "mask": masks(folder), "style_maps": maps}
    images |= sections.pop("images", {})
    factors = {"style_layers": ["two"], "ratio": [0], "style": list(maps), **sections.pop("factors", {})}
    return small_plan(images=images, factors=factors, **sections)


def test_the_loss_is_the_mean_over_regions(tmp_path: Path) -> None:
    """Of each mask with its style, as cells of their own have it, whatever the sizes and the order of the masks."""
    styles = {"right": "grass", "left": "cup"}
    plan = mapped(tmp_path, {"both": styles})
    alone = mapped(tmp_path, {"a": {"left": "cup"}, "b": {"right": "grass"}})
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def losses(plan: Plan) -> list[list[float]]:
        batch = Assembly(PlanInputs(plan), torch.device("cpu")).batch(plan.cells)
        images = image.expand(len(plan.cells), -1, -1, -1)
        found: list[list[float]] = batch.objective.losses(
            batch.reference.features(images, batch.objective.layers)
        ).style.tolist()
        return found

    (both,), (one, other) = losses(plan), losses(alone)
    assert both == pytest.approx([(a + b) / 2 for a, b in zip(one, other, strict=True)], rel=1e-5)
    assert one[0] != pytest.approx(other[0], rel=0.1)


def test_a_style_is_sought_in_its_region_only(tmp_path: Path) -> None:
    plan = mapped(tmp_path, {"both": {"left": "cup", "right": "grass"}}, factors={"style_layers": ["one"]})
    inputs = PlanInputs(plan)
    batch = Assembly(inputs, torch.device("cpu")).batch(plan.cells)
    images = batch.initial.clone().requires_grad_()
    losses = batch.objective.losses(batch.reference.features(images, batch.objective.layers))
    (grad,) = torch.autograd.grad(batch.objective.total(losses).sum(), images)
    other = mapped(tmp_path, {"both": {"left": "grass", "right": "grass"}}, factors={"style_layers": ["one"]})
    again = Assembly(PlanInputs(other), torch.device("cpu")).batch(other.cells)
    losses = again.objective.losses(again.reference.features(images, again.objective.layers))
    (changed,) = torch.autograd.grad(again.objective.total(losses).sum(), images)
    difference = (grad - changed).abs().sum((0, 1, 2))
    assert difference[:6].min() > 0 and difference[12:].max() < 1e-6 * difference.max()


def test_a_map_of_one_style_is_a_mask(tmp_path: Path) -> None:
    plan = mapped(tmp_path, {"one": {"left": "cup"}})
    images = {"root": str(tmp_path), "style": {"cup": STYLES["cup"]}, "mask": {"left": "left.png"}}
    masked = small_plan(images=images, factors={"style_layers": ["two"], "ratio": [0]})
    assert [(cell.id, cell.seed) for cell in plan.cells] == [(cell.id, cell.seed) for cell in masked.cells]


def test_ids_follow_from_what_is_where(tmp_path: Path) -> None:
    maps = {"a": {"left": "cup", "right": "grass"}, "b": {"right": "cup", "left": "grass"}}
    one, other = mapped(tmp_path, maps).cells
    again = mapped(tmp_path, {"c": {"right": "grass", "left": "cup"}}).cells[0]
    assert one.id != other.id and one.id == again.id


def test_runs_with_maps_and_mixes_are_sound(tmp_path: Path) -> None:
    mixes = {"sm": {"of": ["cup", "grass"], "steps": 3}}
    maps = {"halves": {"left": "sm-2", "right": "grass"}}
    plan = mapped(
        tmp_path, maps, images={"mixes": mixes}, factors={"ratio": [1e-5]}, synthesis={"max_evaluations": 4},
        controls={"texture": True, "own_texture": True, "untouched": True},
    )  # fmt: skip
    stimkit.run(plan, tmp_path / "run", device="cpu", keep_inputs=True)
    assert stimkit.verify(tmp_path / "run").findings == ()
    found = stimkit.audit(tmp_path / "run", device="cpu").findings
    assert not [one for one in found if one.severity == "error"], found
    made = stimkit.regenerate(tmp_path / "run", tmp_path / "again", device="cpu")
    assert {one.tier for one in made} == {"identical_file"}
    row = pd.read_csv(tmp_path / "run/manifest.csv").iloc[0]
    with Image.open(tmp_path / "run/stimuli" / row["filename"]) as image:
        written = json.loads(image.info["stimkit"])["style_map"]
    assert [(one["mask"], one["style"]) for one in written] == [("left", "sm-2"), ("right", "grass")]
    assert written[0]["style_mix"]["weights"] == [0.5, 0.5] and "style_mix" not in written[1]
    assert row["style"] == row["style_id"] == "halves" and row["style_map"] == "left=sm-2;right=grass"
    assert row["mask_id"] == "left;right" and row["style_sha256"].count(";") == row["mask_sha256"].count(";") == 1


def test_masks_of_maps_are_not_levels(tmp_path: Path) -> None:
    maps = {"halves": {"left": "cup", "right": "grass"}}
    images = {"root": str(tmp_path), "style": STYLES, "mask": masks(tmp_path), "style_maps": maps}
    protocol = Protocol.from_dict(document(images=images))
    assert protocol.levels("mask") == (None,) and protocol.levels("style") == ("halves", "cup", "grass")
    asked = document(images=images, factors={"style": ["cup"], "mask": "*", "ratio": [0], "style_layers": ["one"]})
    assert [cell.mask for cell in stimkit.plan(Protocol.from_dict(asked)).cells] == ["left", "right"]


@pytest.mark.parametrize(
    ("maps", "further", "message"),
    [
        ({"cup": {"left": "grass"}}, {}, '"cup" is a style already'),
        ({"m": {}}, {}, "names a style for each mask"),
        ({"m": {"lft": "cup"}}, {}, '"lft" is not in images.mask (did you mean "left"?)'),
        ({"m": {"left": "cpu"}}, {}, '"cpu" is not a style (did you mean "cup"?)'),
        ({"m": {"left": "cup"}, "n": {"right": "m"}}, {}, '"m" is a style map; maps are of styles'),
        ({"m": {"left": "cup"}}, {"factors": {"mask": ["right"]}}, "has masks of its own"),
        ({"m_n": {"left": "cup"}}, {}, "a name consists of letters, digits and hyphens"),
        ({"m": {"left": "cup", "right": "grass"}}, {"synthesis": {"init": "style"}}, "has no one style image"),
        ({"m": {"left": "cup", "right": "grass"}}, {"synthesis": {"regions": "grid"}}, "is a region by itself"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, maps: Any, further: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        mapped(tmp_path, maps, **further)
    assert message in str(caught.value), str(caught.value)

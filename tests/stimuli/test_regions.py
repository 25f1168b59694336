"""Gram matrices of regions: grids, windows that grow with eccentricity, masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import stimkit
from stimkit.auditing.audit import audit
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import ImageError, ProtocolError
from stimkit.images.reading import read_source
from stimkit.images.regions import bounding_box, count_regions, region_maps, weights_of_positions
from stimkit.network.losses import gram_matrix, style_loss
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.protocol.settings import Settings
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.targets import build_regions
from tests.conftest import small_plan

ONE = {"style_layers": ["one"], "ratio": [1e-5]}


def test_a_grid_divides_the_image() -> None:
    maps = region_maps(Settings(size=(9, 12), regions="grid", region_count=3).region_shape)
    assert maps is not None and maps.shape == (9, 9, 12)
    assert (maps.sum(0) == 1).all() and set(maps.sum((1, 2))) == {12.0}
    assert maps[5, 3:6, 8:12].all() and maps[5].sum() == 12
    assert region_maps(Settings().region_shape) is None


@pytest.mark.parametrize(("size", "scaling"), [((64, 64), 0.5), ((48, 80), 0.3)])
def test_polar_windows_cover_the_image_and_grow_with_eccentricity(size: tuple[int, int], scaling: float) -> None:
    maps = region_maps(Settings(size=size, regions="polar", region_scaling=scaling).region_shape)
    assert maps is not None and (maps >= -1e-12).all()
    assert maps.sum(0) == pytest.approx(1, abs=0.1), "but for windows that only touch a corner"
    y, x = (np.arange(side) + 0.5 - side / 2 for side in size)
    distance = np.hypot(y[:, None], x[None])
    inside = [one for one in maps[1:] if distance[one > 0].max() < min(size) / 2]
    eccentricity = np.array([(one * distance).sum() / one.sum() for one in inside])
    spread = np.array(
        [np.sqrt((one * (distance - e) ** 2).sum() / one.sum()) for one, e in zip(inside, eccentricity, strict=True)]
    )
    far = eccentricity > 10
    assert far.sum() > 3
    # The raised cosine of unit spacing has a standard deviation of 0.36 spacings.
    step = np.log((1 + scaling / 2) / (1 - scaling / 2))
    assert spread[far] / eccentricity[far] == pytest.approx(0.36 * step, rel=0.25)


def test_weights_of_a_layer_are_means_over_its_pixels() -> None:
    maps = np.random.default_rng(0).uniform(0, 1, (2, 11, 8))
    found = weights_of_positions(maps, 4)
    assert found.shape == (2, 2, 2)
    expected = maps[1, 4:8, 0:4].mean()
    assert found[1, 1, 0] / found[1].sum() == pytest.approx(
        expected / sum(maps[1, a : a + 4, b : b + 4].mean() for a in (0, 4) for b in (0, 4))
    )
    assert found.sum((1, 2)) == pytest.approx(1)
    assert bounding_box(np.array([[0, 0, 0], [0, 2, 1]])) == (1, 2, 1, 3)
    assert bounding_box(np.zeros((2, 3))) == (0, 2, 0, 3)


@pytest.mark.parametrize("regions", ["grid", "polar"])
def test_the_loss_of_regions_is_that_of_numpy(regions: str) -> None:
    plan = small_plan(factors=ONE, synthesis={"regions": regions, "region_count": 3})
    like = torch.zeros(1, dtype=torch.float64)
    found = build_regions(plan.cells, ["conv2_1"], PlanInputs(plan), like)["conv2_1"]
    generator = np.random.default_rng(1)
    maps, others = (generator.normal(size=(2, 5, 16, 16)) for _ in range(2))
    weights = weights_of_positions(np.asarray(region_maps(plan.cells[0].settings.region_shape)), 2)
    grams, targets = (found.grams(torch.from_numpy(one)) for one in (maps, others))
    for row in range(2):
        squares = []
        for share in weights:
            one, other = (np.einsum("nhw,khw,hw->nk", each[row], each[row], share) for each in (maps, others))
            squares.append(((one - other) ** 2).mean())
        assert float(style_loss(grams, targets, "paper")[row]) == pytest.approx(np.mean(squares) / 4)
        assert float(style_loss(grams, targets, "mean")[row]) == pytest.approx(np.mean(squares))


def test_the_gradient_of_regions_is_exact() -> None:
    plan = small_plan(factors=ONE, synthesis={"regions": "grid", "size": 16})
    found = build_regions(plan.cells, ["conv2_1"], PlanInputs(plan), torch.zeros(1, dtype=torch.float64))["conv2_1"]
    maps = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda x: found.grams(x).square().sum(), (maps,))


def test_equal_regions_are_the_whole() -> None:
    """A feature map that repeats itself has the same Gram matrix in every cell of a grid as over all of it."""
    plan = small_plan(factors=ONE, synthesis={"regions": "grid"})
    found = build_regions(plan.cells, ["conv1_1"], PlanInputs(plan), torch.zeros(1))["conv1_1"]
    tile = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = tile.repeat(1, 1, 2, 2)
    assert torch.allclose(found.grams(maps), gram_matrix(maps)[:, None].expand(-1, 4, -1, -1), atol=1e-6)


# --- masks -----------------------------------------------------------------------------------------------------


def masked_plan(folder: Path, **sections: Any) -> Plan:
    """A mask that is white on the left half of the content image."""
    content = read_source("skimage:chelsea", folder).pixels
    mask = np.zeros_like(content)
    mask[:, : mask.shape[1] // 2] = 255
    Image.fromarray(mask).save(folder / "left.png")
    Image.fromarray(mask[:, ::-1].copy()).save(folder / "right.png")
    images = {"root": str(folder), "mask": {"left": "left.png", "right": "right.png"}}
    return small_plan(**{"images": images, "factors": ONE, **sections})


def test_a_mask_limits_the_style_to_a_region(tmp_path: Path) -> None:
    plan = masked_plan(tmp_path, factors={"style_layers": ["one"], "ratio": [0]})
    batch = Assembly(PlanInputs(plan), torch.device("cpu")).batch(plan.cells)
    images = batch.initial.clone().requires_grad_()
    losses = batch.objective.losses(batch.reference.features(images, batch.objective.layers))
    (grad,) = torch.autograd.grad(batch.objective.total(losses).sum(), images)
    left, right = grad.abs().sum((1, 2))  # by column
    assert left[:16].min() > 0 and left[21:].max() == 0, "the edge of the mask is smoothed, and filters reach further"
    assert right[16:].min() > 0 and right[:11].max() == 0


def test_runs_with_masks_and_regions_are_sound(tmp_path: Path) -> None:
    styles = {"cup": "skimage:coffee", "brick": "skimage:brick"}
    masked = masked_plan(tmp_path, synthesis={"max_evaluations": 4})
    both = small_plan(
        images={**masked.protocol.images.model_dump(include={"root", "mask"}), "style": styles},
        factors={"style_layers": ["two"], "ratio": [1e-5]},
        synthesis={"max_evaluations": 4},
    )
    regional = small_plan(
        factors={"style_layers": ["two"], "ratio": [1e-5], "regions": ["whole", "grid", "polar"]},
        synthesis={"max_evaluations": 4},
    )
    for name, plan in (("masked", masked), ("both", both), ("regional", regional)):
        stimkit.run(plan, tmp_path / name, device="cpu", keep_inputs=True)
        assert verify(tmp_path / name).findings == ()
        assert not [one for one in audit(tmp_path / name, device="cpu").findings if one.severity == "error"]
        made = regenerate(tmp_path / name, tmp_path / f"{name}-again", device="cpu")
        assert {one.tier for one in made} == {"identical_file"}
    table = pd.read_csv(tmp_path / "masked" / "manifest.csv")
    assert table["mask"].tolist() == table["mask_id"].tolist() == ["left", "right"]
    assert table["filename"].str.startswith(("cat_cup_left", "cat_cup_right")).all()
    assert pd.read_csv(tmp_path / "regional" / "manifest.csv")["regions"].tolist() == ["whole", "grid", "polar"]


def test_a_mask_is_part_of_the_identity(tmp_path: Path) -> None:
    one, other = masked_plan(tmp_path).cells
    assert one.id != other.id and one.seed != other.seed
    linked = masked_plan(tmp_path, factors={**ONE, "mask": ["left"]})
    assert [cell.id for cell in linked.cells] == [one.id]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"synthesis": {"regions": "grid"}}, "images.mask.left: is a region by itself; leave out `regions`"),
        ({"factors": {**ONE, "mask": ["middle"]}}, '"middle" is not in images.mask'),
        ({"images": {"mask": {"small": "small.png"}}}, "has 10 × 10 px, its content image cat 300 × 451"),
    ],
)
def test_masks_that_do_not_fit_are_refused(sections: Any, message: str, tmp_path: Path) -> None:
    Image.fromarray(np.full((10, 10, 3), 255, np.uint8)).save(tmp_path / "small.png")
    masked_plan(tmp_path)
    files = {"root": str(tmp_path), "mask": {"left": "left.png", "right": "right.png"}}
    sections = {**sections, "images": {**files, **sections.get("images", {})}}
    with pytest.raises(ProtocolError) as caught:
        small_plan(**{"factors": ONE, **sections})
    assert message in str(caught.value)


def test_a_black_mask_is_missing_its_purpose(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((300, 451, 3), np.uint8)).save(tmp_path / "black.png")
    plan = small_plan(images={"root": str(tmp_path), "mask": {"black": "black.png"}}, factors=ONE)
    assert [one.message for one in plan.missing] == ['mask "black.png" is black: it lets no style through']


def test_regions_need_style_images_of_the_same_size() -> None:
    with pytest.raises(ProtocolError, match="style_scale: must be 1 where regions"):
        small_plan(factors=ONE, synthesis={"regions": "polar", "style_scale": 2.0})


def test_a_mask_that_is_cut_away_is_told_before_anything_is_made(tmp_path: Path) -> None:
    mask = np.zeros((300, 451, 3), np.uint8)
    mask[:, :40] = 255
    Image.fromarray(mask).save(tmp_path / "edge.png")
    plan = small_plan(images={"root": str(tmp_path), "mask": {"edge": "edge.png"}}, factors=ONE)
    with pytest.raises(ImageError, match='mask "edge" is black in what is left of it after cropping'):
        stimkit.run(plan, tmp_path / "run", device="cpu")


def test_more_regions_than_positions_are_refused() -> None:
    with pytest.raises(ProtocolError, match="region_count: is more than the 2 positions of a side of the deepest"):
        small_plan(
            layers={"style": {"deep": ["conv5_1"]}},
            factors={"style_layers": ["deep"], "ratio": [1e-5]},
            synthesis={"regions": "grid", "region_count": 3},
        )


def test_regions_are_counted_without_their_maps() -> None:
    for size, changes in (((64, 64), {"regions": "grid", "region_count": 5}), ((96, 64), {"regions": "polar"})):
        settings = Settings(size=size, **changes)
        maps = region_maps(settings.region_shape)
        assert maps is not None and len(maps) <= count_regions(settings.region_shape) <= 1.2 * len(maps) + 15

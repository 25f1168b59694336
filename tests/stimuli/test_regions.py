"""Gram matrices of regions: grids, windows that grow with eccentricity, masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

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
from stimkit.images.light import Array
from stimkit.images.reading import read_source
from stimkit.images.regions import Window, count_regions, region_windows, whole_window
from stimkit.network.losses import gram_matrix, style_loss
from stimkit.network.region_losses import Regions, group_regions
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.protocol.settings import Settings
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.targets import build_regions
from tests.conftest import small_plan

ONE = {"style_layers": ["one"], "ratio": [1e-5]}


def maps_of(**changes: Any) -> Array:
    """Weights of all pixels in each region of some settings: (regions, height, width)."""
    shape = Settings(**changes).region_shape
    windows = region_windows(shape)
    assert windows is not None
    maps = np.zeros((len(windows), *shape.size))
    for one, window in zip(maps, windows, strict=True):
        top, bottom, left, right = window.box
        one[top:bottom, left:right] = window.weights
    return maps


def test_a_grid_divides_the_image() -> None:
    maps = maps_of(size=(9, 12), regions="grid", region_count=3)
    assert maps.shape == (9, 9, 12)
    assert (maps.sum(0) == 1).all() and set(maps.sum((1, 2))) == {12.0}
    assert maps[5, 3:6, 8:12].all() and maps[5].sum() == 12
    assert maps_of(size=(7, 5), regions="grid", region_count=4).sum(0) == pytest.approx(1)
    assert region_windows(Settings().region_shape) is None


POLAR = [
    {"size": (64, 64), "region_scaling": 0.5},
    {"size": (48, 80), "region_scaling": 0.3},
    {"size": (64, 64), "region_scaling": 0.05, "ppd": 8.0, "fixation_x": -12.0},
    {"size": (64, 48), "region_scaling": 0.25, "ppd": 10.0, "fixation_x": 1.5, "fixation_y": 2.0, "fovea": 1.2},
    {"size": (3, 2), "region_scaling": 0.3},
]


@pytest.mark.parametrize("changes", POLAR)
def test_polar_windows_are_raised_cosines_about_fixation(changes: dict[str, Any]) -> None:
    """Sum 1 at every pixel; each that lies within the image is the product of its ring and its sector."""
    settings = Settings(**changes, regions="polar")
    maps = maps_of(**changes, regions="polar")
    assert (maps >= 0).all() and maps.sum(0) == pytest.approx(1, abs=1e-12)
    assert len(maps) == count_regions(settings.region_shape) and (maps.sum((1, 2)) > 1).all()
    height, width = settings.size
    y = (height / 2 - settings.fixation_y * settings.ppd) - (np.arange(height) + 0.5)[:, None]
    x = (np.arange(width) + 0.5)[None] - (width / 2 + settings.fixation_x * settings.ppd)
    eccentricity, angle = np.hypot(x, y), np.arctan2(-y, x)
    radius, scaling = settings.region_shape.central_radius, settings.region_scaling
    assert radius == pytest.approx(max(settings.fovea * settings.ppd or 0.05 * min(height, width), 2 / scaling))
    step = np.log((1 + scaling / 2) / (1 - scaling / 2))
    around = round(2 * np.pi / scaling)
    found = 0
    for ring in range(1, 400):
        for sector in range(around):
            far = np.log(np.maximum(eccentricity, 1e-9) / radius) / step - ring
            turned = (angle / (2 * np.pi) * around - sector + around / 2) % around - around / 2
            parts = [np.where(np.abs(one) < 1, (1 + np.cos(np.pi * one)) / 2, 0) for one in (far, turned)]
            window = parts[0] * parts[1]
            inside = window[1:-1, 1:-1].sum() == window.sum() > 5  # which takes no neighbour's pixels
            if inside:
                assert np.abs(maps - window).max((1, 2)).min() < 1e-9
                found += 1
        if far.max() < -1:
            break
    assert found > 3 or settings.size == (3, 2)


def test_windows_at_a_layer_are_means_over_its_pixels() -> None:
    maps = np.random.default_rng(0).uniform(0, 1, (11, 8))
    found = whole_window(maps).at_stride((11, 8), 4)
    assert found.box == (0, 2, 0, 2) and found.weights.sum() == pytest.approx(1)
    means = np.array([[maps[a : a + 4, b : b + 4].mean() for b in (0, 4)] for a in (0, 4)])
    assert found.weights == pytest.approx(means / means.sum())
    part = Window((3, 6, 2, 5), maps[3:6, 2:5]).at_stride((11, 8), 4)
    outside = np.zeros_like(maps)
    outside[3:6, 2:5] = maps[3:6, 2:5]
    assert part.box == (0, 2, 0, 2)
    assert part.weights == pytest.approx(whole_window(outside).at_stride((11, 8), 4).weights)
    assert Window((4, 6, 5, 7), np.ones((2, 2))).at_stride((11, 8), 4).box == (1, 2, 1, 2)
    cut_off = Window((8, 11, 2, 5), np.ones((3, 3))).at_stride((11, 8), 4)
    assert cut_off.box == (0, 1, 0, 1) and not cut_off.weights.any()


def at_conv2_1(regions: Literal["grid", "polar"], channels: int, size: int = 32) -> Regions:
    """The regions of a layer of half the size; those of few positions are compared by rows if channels are many."""
    shape = Settings(size=(size, size), regions=regions, region_count=3, region_scaling=0.4).region_shape
    windows = [[window.at_stride((size, size), 2)] for window in region_windows(shape) or ()]
    like = torch.zeros(1, dtype=torch.float64)
    return group_regions(windows, size // 2, channels, like, with_own_targets=False)


@pytest.mark.parametrize("channels", [5, 128])
@pytest.mark.parametrize("regions", ["grid", "polar"])
def test_the_loss_of_regions_is_that_of_numpy(regions: Literal["grid", "polar"], channels: int) -> None:
    found = at_conv2_1(regions, channels)
    assert {group.by_rows for group in found.groups} == {channels == 128}
    generator = np.random.default_rng(1)
    maps, others = (generator.normal(size=(2, channels, 16, 16)) for _ in range(2))
    pixels = maps_of(size=(32, 32), regions=regions, region_count=3, region_scaling=0.4)
    weights = pixels.reshape(len(pixels), 16, 2, 16, 2).sum((2, 4)) / pixels.sum((1, 2))[:, None, None]
    target = found.target(torch.from_numpy(others))
    losses = found.loss(torch.from_numpy(maps), target)
    for row in range(2):
        squares = []
        for share in weights:
            one, other = (
                (each[row] * share).reshape(channels, -1) @ each[row].reshape(channels, -1).T for each in (maps, others)
            )
            squares.append((one - other) ** 2)
        assert float(losses[row]) == pytest.approx(np.mean(squares))
        both = found.squared_differences(torch.from_numpy(maps)[row : row + 1], target[row : row + 1])
        assert both.numpy() == pytest.approx(np.mean(squares, axis=0))
    with pytest.raises(ValueError, match="targets of regions have the shape"):
        found.loss(torch.from_numpy(maps), target[:1])


@pytest.mark.parametrize("channels", [2, 40])
def test_the_gradient_of_regions_is_exact(channels: int) -> None:
    found = at_conv2_1("polar", channels, size=16)
    assert {group.by_rows for group in found.groups} >= {channels == 40}
    generator = torch.Generator().manual_seed(0)
    maps, others = (torch.randn(2, channels, 8, 8, dtype=torch.float64, generator=generator) for _ in range(2))
    target = found.target(others)
    assert torch.autograd.gradcheck(lambda x: found.loss(x, target), (maps.requires_grad_(),), fast_mode=True)


def test_a_small_loss_of_rows_is_not_lost_in_rounding() -> None:
    """In float32, of maps that nearly match: the difference of large numbers is taken in float64."""
    found = at_conv2_1("polar", 128)
    others = torch.randn(1, 128, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = others * 1.0001
    grams = found.squared_differences(maps.double(), found.target(others.double())).mean()
    assert float(found.loss(maps, found.target(others))) == pytest.approx(float(grams), rel=0.02)


def test_equal_regions_are_the_whole() -> None:
    """A feature map that repeats itself has the same loss in every cell of a grid as over all of it."""
    plan = small_plan(factors=ONE, synthesis={"regions": "grid"})
    found = build_regions(plan.cells, ["conv1_1"], PlanInputs(plan), torch.zeros(1))["conv1_1"]
    generator = torch.Generator().manual_seed(0)
    maps, others = (torch.randn(1, 64, 16, 16, generator=generator).repeat(1, 1, 2, 2) for _ in range(2))
    whole = style_loss(gram_matrix(maps), gram_matrix(others), "mean")
    assert torch.allclose(found.loss(maps, found.target(others)), whole, rtol=1e-5)


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"synthesis": {"fixation_x": 3.0}}, 'fixation_x: is of windows; give regions = "polar" with it'),
        ({"synthesis": {"regions": "polar", "fovea": 1.0}}, "fovea: is in degrees of visual angle, which needs ppd"),
        (
            {"synthesis": {"regions": "polar", "fovea": 1.0}, "display": {"ppd": 2}},
            "fovea: must be 2 degrees at least, where windows of this scaling are 2 px wide",
        ),
        ({"synthesis": {"regions": "polar", "region_scaling": 0.01}}, "region_scaling: must be >= 0.05"),
    ],
)
def test_windows_that_cannot_be_are_refused(sections: Any, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        small_plan(**sections)
    assert message in str(caught.value)


def test_windows_are_listed_in_the_run_folder(tmp_path: Path) -> None:
    plan = small_plan(
        factors={"style_layers": ["one"], "ratio": [1e-5], "fixation_x": [0, 3]},
        synthesis={"regions": "polar", "fovea": 0.5, "max_evaluations": 1},
        display={"ppd": 10},
    )
    assert len({cell.id for cell in plan.cells}) == 2
    stimkit.run(plan, tmp_path / "run", device="cpu")
    table = pd.read_csv(tmp_path / "run" / "windows.csv")
    assert {*table["fixation_x"]} == {0, 3} and {*table["fovea"]} == {0.5}
    assert table.groupby("fixation_x")["area_px"].sum().to_list() == pytest.approx([32**2] * 2, abs=0.1)
    first = table[(table["fixation_x"] == 0) & (table["window"] == 0)].iloc[0]
    assert (first["x_px"], first["y_px"]) == (16, 16) and first["eccentricity_deg"] == 0
    one = table[table["fixation_x"] == 3].iloc[1]  # fixation is 30 px right of the middle
    assert one["eccentricity_px"] == pytest.approx(np.hypot(one["x_px"] - 46, one["y_px"] - 16), abs=0.002)
    assert one["eccentricity_deg"] == pytest.approx(one["eccentricity_px"] / 10, abs=1e-4)
    assert verify(tmp_path / "run").findings == ()
    table["area_px"] *= 2
    table.to_csv(tmp_path / "run" / "windows.csv", index=False)
    assert [(one.name, one.path) for one in verify(tmp_path / "run").findings] == [("table_altered", "windows.csv")]


def test_more_regions_than_positions_are_refused() -> None:
    with pytest.raises(ProtocolError, match="region_count: is more than the 2 positions of a side of the deepest"):
        small_plan(
            layers={"style": {"deep": ["conv5_1"]}},
            factors={"style_layers": ["deep"], "ratio": [1e-5]},
            synthesis={"regions": "grid", "region_count": 3},
        )

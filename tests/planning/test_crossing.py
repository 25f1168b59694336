"""Plans: cells, ids, seeds, and what is missing."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stimkit
from stimkit.errors import ProtocolError
from stimkit.planning.crossing import cross, default_layer_weight
from stimkit.planning.resolved import plan_from_resolved, resolve
from stimkit.planning.summary import paper_to_mean, summarize
from tests.conftest import document, small_plan


def test_cells_are_the_product_of_the_levels_in_order() -> None:
    plan = small_plan(factors={"replicate": 3, "pooling": ["max", "average"]})
    levels = [tuple(cell.levels.values()) for cell in plan.cells]
    expected = itertools.product(
        ["cat"], ["cup"], ["one", "two"], ["1e-05", "0.0001"], ["1", "2", "3"], ["max", "average"]
    )
    assert levels == list(expected)
    assert len(plan.by_id) == len(plan.cells) == 24
    assert len({cell.filename for cell in plan.cells}) == 24
    assert len({cell.seed for cell in plan.cells}) == 24


def test_adding_levels_changes_no_id() -> None:
    before = small_plan()
    after = small_plan(
        factors={"ratio": [1e-6, 1e-5, 1e-4], "replicate": 2, "precision": ["float32", "bfloat16"]},
        images={"content": {"extra": "skimage:rocket", "cat": "skimage:chelsea"}},
    )
    assert before.by_id.keys() < after.by_id.keys()


def test_ids_depend_on_pixels_not_on_names_or_paths(tmp_path: Path) -> None:
    ids = []
    for name in ("a.png", "b.bmp"):
        Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(tmp_path / name)
        images = {"root": str(tmp_path), "content": {name[0]: name}}
        ids.append([cell.id for cell in small_plan(images=images).cells])
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    "changed",
    [
        {"synthesis": {"size": 33}},
        {"synthesis": {"max_evaluations": 7}},
        {"synthesis": {"loss": "mean"}},
        {"synthesis": {"precision": "bfloat16"}},
        {"model": {"pooling": "max"}},
        {"layers": {"content": ["conv1_1"]}},
        {"images": {"content": {"cat": "skimage:rocket"}}},
    ],
)
def test_ids_depend_on_everything_that_changes_pixels(changed: dict[str, dict[str, object]]) -> None:
    assert not small_plan().by_id.keys() & small_plan(**changed).by_id.keys()


def test_shared_seeds_are_equal_within_a_replicate_only() -> None:
    protocol = stimkit.Protocol.from_dict({**document(factors={"replicate": 2}), "seeds": "shared"})
    cells = stimkit.plan(protocol).cells
    seeds = {replicate: {cell.seed for cell in cells if cell.replicate == replicate} for replicate in (1, 2)}
    assert len(seeds[1]) == len(seeds[2]) == 1
    assert seeds[1] != seeds[2]


def test_weights_and_their_preprocessing_may_be_factors() -> None:
    plan = small_plan(factors={"preprocessing": ["torchvision", "caffe"], "style_layers": ["one"], "ratio": [1e-5]})
    assert len(plan.by_id) == 2
    assert [plan.weights[cell.settings.source].preprocessing for cell in plan.cells] == [
        "torchvision",
        "caffe",
    ]


def test_another_seed_gives_other_noise() -> None:
    other = stimkit.plan(stimkit.Protocol.from_dict({**document(), "seed": 1}))
    assert not {cell.seed for cell in other.cells} & {cell.seed for cell in small_plan().cells}


def test_seeds_survive_spreadsheets() -> None:
    assert all(int(float(cell.seed)) == cell.seed for cell in small_plan(factors={"replicate": 50}).cells)


def test_ratio_alpha_and_beta() -> None:
    zero, some, pure = small_plan(factors={"ratio": [0, 1e-3, float("inf")], "style_layers": ["one"]}).cells
    assert (zero.alpha, zero.beta) == (0, 1)
    assert (some.alpha, some.beta, some.ratio) == (1e-3, 1, 1e-3)
    assert (pure.alpha, pure.beta) == (1, 0)
    both = small_plan(factors={"ratio": None, "alpha": [2.0], "beta": [4.0, 8.0], "style_layers": ["one"]}).cells
    assert [(cell.alpha, cell.beta, cell.ratio) for cell in both] == [(2, 4, 0.5), (2, 8, 0.25)]


def test_layer_weights_follow_the_convention() -> None:
    paper = small_plan(factors={"style_layers": ["two"], "ratio": [1]}).cells[0]
    mean = small_plan(factors={"style_layers": ["two"], "ratio": [1]}, synthesis={"loss": "mean"}).cells[0]
    assert dict(paper.style_layers) == {"conv1_1": 0.5, "conv2_1": 0.5}
    assert dict(mean.style_layers) == {"conv1_1": 1 / 64**2, "conv2_1": 1 / 128**2}
    assert default_layer_weight("conv4_2", 2, "mean", "content") == 0.5


@pytest.mark.parametrize(
    ("layer", "size", "fits"), [("conv5_1", 16, True), ("conv5_1", 15, False), ("pool5", 31, False)]
)
def test_size_must_reach_the_deepest_layer(layer: str, size: int, fits: bool) -> None:
    sections: dict[str, dict[str, Any]] = {"layers": {"content": [layer]}, "synthesis": {"size": size}}
    if fits:
        assert small_plan(**sections).cells
    else:
        with pytest.raises(ProtocolError, match=f"{size} px is too small for {layer}, which needs at least"):
            small_plan(**sections)


def test_equal_images_under_two_names_are_refused(tmp_path: Path, photograph: Path) -> None:
    images = {"root": str(tmp_path), "content": {"one": photograph.name, "two": photograph.name}}
    with pytest.raises(ProtocolError, match=r'factors\.content: "one" and "two" are the same image'):
        small_plan(images=images)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"ratio": [1.0, 1.0000000001]}, r'"1.0" and "1.0000000001" would both be called "1"'),
        ({"weights": ["a/net.pth", "b/net.pth"]}, r'"a/net.pth" and "b/net.pth" would both be called "net"'),
    ],
)
def test_levels_that_would_look_the_same_are_refused(factors: dict[str, object], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        small_plan(factors=factors)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"factors": {"replicate": 2}, "synthesis": {"init": "content"}}, 'and init = "content" has none'),
        ({"factors": {"gamma": [1.8, 2.2]}}, 'is the exponent of a display with transfer = "gamma", which no cell has'),
        ({"factors": {"content": ["cat", "cat"], "ratio": [1e-5, 1e-5]}, "design": {"zip": [["content", "ratio"]]}},
         "two cells have the levels style cup, style_layers one, ratio 1e-05, content cat"),
        ({"images": {"content": {"x" * 200: "skimage:rocket"}}}, "makes a file name of 2.. characters"),
        ({"factors": {"ratio": None, "titrate": ["none", "ssim_content"]}}, '"none" needs a ratio'),
    ],
)  # fmt: skip
def test_designs_that_cannot_mean_what_they_say_are_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        small_plan(**sections)


def test_a_gamma_goes_with_a_display_that_has_one() -> None:
    output = {"gamma": 2.0}
    assert len(small_plan(factors={"transfer": ["srgb", "gamma"]}, output=output).cells) == 8
    with pytest.raises(ProtocolError, match=r"output\.gamma"):
        small_plan(output=output)


def test_what_was_planned_before_a_rule_is_read_all_the_same() -> None:
    known = small_plan(synthesis={"init": "content"})
    document_of_then = document(factors={"replicate": 2, "gamma": [1.8, 2.2]}, synthesis={"init": "content"})
    made = cross(stimkit.Protocol.from_dict(document_of_then), known.inputs, known.weights, None)
    again = plan_from_resolved(json.loads(json.dumps(resolve(made))))
    assert [cell.id for cell in again.cells] == [cell.id for cell in made.cells] and len(made.cells) == 16


def test_replicates_without_noise_are_possible_with_dithering() -> None:
    plan = small_plan(factors={"replicate": 2}, synthesis={"init": "content"}, output={"rounding": "dither"})
    assert len(plan.cells) == len({cell.seed for cell in plan.cells}) == 8


def test_the_word_for_infinity_is_a_word_elsewhere() -> None:
    """A lock is JSON, which has no infinity of its own."""
    images = {"content": {"Infinity": "skimage:rocket"}}
    whole = {**document(images=images, factors={"ratio": [1e-5, float("inf")]}), "description": "Infinity"}
    whole["exclude"] = [{"ratio": float("inf"), "style_layers": "one"}]
    plan = stimkit.plan(stimkit.Protocol.from_dict(whole))
    again = plan_from_resolved(json.loads(json.dumps(resolve(plan))))
    assert [cell.id for cell in again.cells] == [cell.id for cell in plan.cells]
    assert again.protocol.description == "Infinity" and max(cell.ratio for cell in again.cells) == float("inf")


def test_a_plan_works_before_its_files_are_there(tmp_path: Path) -> None:
    plan = small_plan(
        images={"root": str(tmp_path), "content": {"cat": "cat.png"}}, model={"weights": "mine.safetensors"}
    )
    assert len(plan.cells) == 4
    told = [f"{problem.key}: {problem.message}" for problem in plan.missing]
    assert told[0].startswith('images.content.cat: image "cat.png" was not found at')
    assert told[1].startswith('model.weights: weights "mine.safetensors": no file')
    with pytest.raises(ProtocolError, match="was not found"):
        stimkit.run(plan, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_summary_converts_ratios_between_conventions() -> None:
    plan = small_plan()
    positions, filters = 16 * 16, 128
    assert paper_to_mean(plan.cells[0]) == 2 * filters * positions
    row = summarize(plan)["ratios"][0]
    assert row["mean"] == pytest.approx(1e-5 * 2 * filters * positions)
    other = summarize(small_plan(synthesis={"loss": "mean"}))["ratios"][0]
    assert (other["mean"], other["paper"]) == pytest.approx((1e-5, 1e-5 / (2 * filters * positions)))


def test_estimate_grows_with_cells_and_pixels() -> None:
    one, more, larger = (
        summarize(small_plan(**sections), "cpu")["estimate"]
        for sections in ({}, {"factors": {"replicate": 5}}, {"synthesis": {"size": 64}})
    )
    assert more["seconds"] == pytest.approx(5 * one["seconds"])
    assert more["evaluations"] == 5 * one["evaluations"]
    assert larger["seconds"] == pytest.approx(4 * one["seconds"])
    assert larger["memory_bytes"] > one["memory_bytes"]
    assert larger["disk_bytes"] > one["disk_bytes"]


def test_planning_and_the_command_line_load_no_torch() -> None:
    code = (
        "import sys, stimkit, stimkit.cli.main, stimkit.auditing.verification;"
        f"stimkit.plan(stimkit.Protocol.from_dict({document()!r}));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

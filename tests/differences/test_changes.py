"""Protocols and runs that differ in what is known: cells that came, went, changed, and stimuli made otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stimkit
from stimkit.differences.page import write_difference
from stimkit.errors import UsageError
from stimkit.runfolder.run import Run
from tests.conftest import forge, small_plan

Command = Callable[..., tuple[int, str, str]]


def test_a_run_does_not_differ_from_its_protocol(small_run: Run) -> None:
    found = stimkit.diff(small_plan(), small_run)
    assert not found.differ and found.same == 4 and found.protocol == {}


def test_levels_come_and_go() -> None:
    more = small_plan(factors={"ratio": [1e-5, 1e-3]})
    found = stimkit.diff(small_plan(), more)
    assert found.same == 2 and not found.changed
    assert {cell.levels["ratio"] for cell in found.came} == {"0.001"} and len(found.came) == 2
    assert {cell.levels["ratio"] for cell in found.went} == {"0.0001"} and len(found.went) == 2
    assert found.protocol == {"factors.ratio": ([1e-5, 1e-4], [1e-5, 1e-3])}
    back = stimkit.diff(more, small_plan())
    assert (len(back.came), len(back.went), back.same) == (2, 2, 2)


def test_settings_change_cells_where_they_are() -> None:
    other = small_plan(synthesis={"max_evaluations": 9}, layers={"style": {"one": ["conv1_1"], "two": ["conv1_2"]}})
    found = stimkit.diff(small_plan(), other)
    assert len(found.changed) == 4 and not (found.came or found.went or found.same)
    by_layers = {change.after.levels["style_layers"]: change.keys for change in found.changed}
    assert by_layers["one"] == {"max_evaluations": (6, 9)}
    assert set(by_layers["two"]) == {"max_evaluations", "style_layers"}
    assert found.protocol["synthesis.max_evaluations"] == (6, 9)


def test_a_further_factor_leaves_what_is_the_same() -> None:
    found = stimkit.diff(small_plan(), small_plan(factors={"replicate": 2}))
    assert found.same == 4 and len(found.came) == 4 and not found.changed
    sized = stimkit.diff(small_plan(), small_plan(factors={"size": [24, 40]}))
    assert len(sized.went) == 4 and len(sized.came) == 8, "none of two sizes is what the old cell became"


def test_another_image_of_the_same_name_is_a_change(tmp_path: Path) -> None:
    plans = []
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        folder = tmp_path / str(seed)
        folder.mkdir()
        Image.fromarray(pixels).save(folder / "cat.png")
        plans.append(small_plan(images={"root": str(folder), "content": {"cat": "cat.png"}}))
    found = stimkit.diff(*plans)
    assert len(found.changed) == 4 and all(set(change.keys) == {"content"} for change in found.changed)
    assert list(found.protocol) == ["images.root"]


def test_stimuli_that_were_made_otherwise_are_told(small_run: Run, tmp_path: Path, command: Command) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    first, second = list(small_run.records)[:2]
    forge(tmp_path / "run", first, pixel_sha256="0" * 64)
    forge(tmp_path / "run", second, status="rejected", status_reason="seen")
    found = stimkit.diff(small_run.path, tmp_path / "run")
    assert found.same == 2 and [change.after.id for change in found.remade] == [first, second]
    assert found.remade[0].keys["pixels"][1] == "0" * 12 and found.remade[1].keys["status"] == ("accepted", "rejected")
    code, said, _ = command("diff", small_run.path, tmp_path / "run")
    assert code == 1 and "2 cells as before, 0 changed, 2 made otherwise" in said


def test_the_command_ends_as_diff_does(small_run: Run, tmp_path: Path, command: Command) -> None:
    (tmp_path / "other.toml").write_text(
        small_plan(synthesis={"max_evaluations": 1}, factors={"ratio": [1e-5, 1e-2]}).protocol.text
    )
    code, said, _ = command("diff", small_run.path, small_run.path)
    assert code == 0 and "4 cells as before" in said
    page = tmp_path / "diff.html"
    code, said, _ = command("diff", small_run.path, tmp_path / "other.toml", "--out", page, "--json")
    values = json.loads(said)
    assert code == 1 and len(values["changed"]) == 2 and len(values["came"]) == len(values["went"]) == 2
    assert values["changed"][0]["keys"] == {"max_evaluations": [6, 1]}
    html = page.read_text()
    assert html.count("data:image/webp") == 4 and "max_evaluations: 6 → 1" in html and "not made" in html
    code, said, _ = command("diff", small_run.path, tmp_path / "other.toml")
    assert code == 1 and "2 × max_evaluations 6 → 1" in said and "came" in said and "protocol  factors.ratio" in said
    code, _, said = command("diff", small_run.path, tmp_path / "nowhere")
    assert code == 2 and "neither a protocol file nor a run folder" in said


def test_steps_of_mixes_say_how_they_changed(tmp_path: Path) -> None:
    def mixed(**mix: Any) -> stimkit.Plan:
        series = {"m": {"of": ["cup", "grass"], "spacing": "distance", "path": "geodesic", **mix}}
        images = {"style": {"cup": "skimage:coffee", "grass": "skimage:grass"}, "mixes": series}
        return small_plan(images=images, factors={"style": ["m-2"], "ratio": [0], "style_layers": ["one"]})

    (change,) = stimkit.diff(mixed(steps=3), mixed(steps=5)).changed
    before, after = change.keys["style_mix"]
    assert before.startswith("step 1 of 3 of an open series by distance, geodesic") and "step 1 of 5" in after


def test_another_pool_of_images_is_a_change() -> None:
    light = {"equalize_luminance": "styles"}
    more = {"style": {"cup": "skimage:coffee", "moon": "skimage:moon"}}
    one = small_plan(output=light, factors={"style": ["cup"]})
    other = small_plan(output=light, images=more)
    found = stimkit.diff(one, other)
    assert len(found.changed) == 4 and all(set(change.keys) == {"style_pool"} for change in found.changed)


def test_a_page_says_how_many_there_are(tmp_path: Path) -> None:
    found = stimkit.diff(small_plan(), small_plan(factors={"replicate": 80}))
    html = write_difference(found, tmp_path / "page.html").read_text()
    assert "316 came" in html and "the first 300 are shown" in html and html.count("<figure>") == 300


def test_names_of_files_are_text_in_the_page(tmp_path: Path) -> None:
    plan = small_plan()
    found = stimkit.diff(plan, small_plan(factors={"ratio": [1e-5]}))
    first, second = found.sides
    odd = replace(found, sides=(replace(first, name="<script>alert(1)</script>"), second))
    assert "<script>" not in write_difference(odd, tmp_path / "page.html").read_text()


def test_what_is_no_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither"):
        stimkit.diff(tmp_path / "a.toml", tmp_path / "b.toml")
    with pytest.raises(stimkit.StimkitError, match="not a run folder"):
        stimkit.diff(tmp_path, tmp_path)

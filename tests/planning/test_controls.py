"""Matched controls: what they are made from, how they are linked, and what becomes of them in a run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import stimkit
from stimkit.archiving.archive import archive
from stimkit.auditing.audit import audit
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import ProtocolError
from stimkit.images.light import to_linear
from stimkit.images.noise import scramble_phases
from stimkit.images.pixels import resize, to_float
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.planning.resolved import plan_from_resolved, resolve
from stimkit.runfolder.run import Run
from stimkit.stimuli.finishing import Finishings
from stimkit.stimuli.preparation import prepare_initial
from tests.conftest import small_plan

ALL: dict[str, Any] = {
    "texture": True,
    "subset": ["one"],
    "own_texture": True,
    "reconstruction": ["conv1_1", "conv2_1"],
    "scrambled": True,
    "untouched": True,
}
STYLES = {"cup": "skimage:coffee", "brick": "skimage:brick"}
TWO = {"style_layers": ["two"], "ratio": [1e-5]}


def controlled(controls: dict[str, Any], **sections: Any) -> Plan:
    return small_plan(controls=controls, **{"images": {"style": STYLES}, "factors": TWO, **sections})


def of_role(plan: Plan, role: str) -> list[Cell]:
    return [cell for cell in plan.cells if cell.role == role]


def test_every_stimulus_has_its_controls_and_they_are_shared() -> None:
    plan = controlled(ALL)
    mains = [cell.id for cell in plan.main_cells]
    assert Counter(cell.role for cell in plan.cells) == {
        "main": 2, "texture": 2, "subset": 2, "own_texture": 1, "reconstruction": 2, "scrambled": 1, "untouched": 1,
    }  # fmt: skip
    linked = {(cell.role, one) for cell in plan.cells for one in cell.control_of}
    assert linked == {(role, one) for role in {cell.role for cell in plan.cells} - {"main"} for one in mains}
    assert [cell.control_of for cell in of_role(plan, "texture")] == [(mains[0],), (mains[1],)]
    assert of_role(plan, "untouched")[0].control_of == tuple(mains)


def test_what_each_control_is_made_from() -> None:
    plan = controlled(ALL)
    main = plan.main_cells[0]
    texture, subset, own = (of_role(plan, role)[0] for role in ("texture", "subset", "own_texture"))
    assert (texture.content, texture.style, texture.alpha, texture.beta) == (None, main.style, 0, 1)
    assert texture.style_layers == main.style_layers and texture.content_layers == ()
    assert dict(subset.style_layers) == {"conv1_1": 1.0} and subset.levels["style_layers"] == "one"
    assert own.style == "cat(content)" and plan.input("style", "cat(content)") == plan.input("content", "cat")
    shallow, deep = of_role(plan, "reconstruction")
    assert (shallow.content_layers, deep.content_layers) == ((("conv1_1", 1.0),), (("conv2_1", 1.0),))
    assert (shallow.style, shallow.alpha, shallow.beta) == (None, 1, 0)
    for role, init in (("scrambled", "scrambled"), ("untouched", "content")):
        (cell,) = of_role(plan, role)
        assert (cell.settings.init, cell.settings.max_evaluations, cell.style) == (init, 0, None)
    assert texture.levels == {**main.levels, "content": "", "ratio": ""}
    assert texture.filename.startswith("texture_cup_two_r1_s")


def test_controls_change_no_id_of_the_design() -> None:
    with_controls, without = controlled(ALL), controlled({})
    assert [cell.id for cell in with_controls.main_cells] == [cell.id for cell in without.cells]
    assert with_controls.factors == without.factors
    again = plan_from_resolved(resolve(with_controls))
    assert again.cells == with_controls.cells


def test_a_texture_alone_has_no_texture_control() -> None:
    plan = controlled({"texture": True, "scrambled": True}, factors={**TWO, "ratio": [0, 1e-5]})
    assert len(of_role(plan, "texture")) == 2, "of the cells with content only"


def test_controls_keep_the_image_that_colours_or_light_follow() -> None:
    plan = controlled({"texture": True, "untouched": True}, synthesis={"colour": "covariance"})
    (texture, _) = of_role(plan, "texture")
    assert texture.content == "cat" and (texture.alpha, texture.beta) == (0, 1) and texture.levels["content"] == "cat"
    plan = controlled({"texture": True, "untouched": True}, output={"equalize_luminance": "style"})
    assert [cell.style for cell in of_role(plan, "untouched")] == ["cup", "brick"]
    assert [cell.content for cell in of_role(plan, "texture")] == [None, None]


def test_the_untouched_image_has_one_replicate() -> None:
    plan = controlled({"untouched": True, "scrambled": True}, factors={**TWO, "replicate": 3})
    assert len(of_role(plan, "untouched")) == 1 and len(of_role(plan, "scrambled")) == 3


@pytest.fixture(scope="module")
def controls_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "controls"
    stimkit.run(controlled(ALL, accept={"relative_style_loss": 1e-9}), folder, device="cpu")
    return stimkit.open_run(folder)


def test_the_manifest_links_controls_to_their_stimuli(controls_run: Run) -> None:
    table = pd.read_csv(controls_run.path / "manifest.csv", keep_default_na=False)
    mains = table[table["role"] == "main"]
    assert (mains["control_of"] == "").all() and (mains["status"] == "rejected").all()
    others = table[table["role"] != "main"]
    assert (others["status"] == "accepted").all(), "rules of acceptance are for the design"
    assert {one for value in others["control_of"] for one in value.split(";")} == set(mains["stimulus_id"])
    grid = controls_run.to_grid()
    assert dict(grid.sizes)["style"] == 2 and grid["loss_total"].notnull().all()


def test_the_untouched_image_is_the_photograph_itself(controls_run: Run) -> None:
    plan = controlled(ALL)
    (cell,) = of_role(plan, "untouched")
    photograph = resize(PlanInputs(plan).image("content", "cat"), (32, 32), "crop")
    assert np.array_equal(controls_run.image(cell.id), photograph)
    record = controls_run.records[cell.id]
    assert record.losses.file.content == 0 and record.evaluations == 0


def test_scrambling_keeps_amplitudes_and_means() -> None:
    image = to_float(resize(PlanInputs(controlled({})).image("content", "cat"), (32, 48), "crop"))
    found = scramble_phases(image, 5)
    assert found.mean((1, 2)) == pytest.approx(image.mean((1, 2)), abs=1e-6)
    before, after = (np.abs(np.fft.fft2(one)) for one in (image, found))
    assert after == pytest.approx(before, abs=2e-3)
    between = [np.angle(np.fft.fft2(one[0]) * np.conj(np.fft.fft2(one[1])))[1:8, 1:8] for one in (image, found)]
    assert np.abs(np.exp(1j * between[0]) - np.exp(1j * between[1])).max() < 1e-3, "channels keep their relation"
    assert abs(np.corrcoef(found[0].ravel(), image[0].ravel())[0, 1]) < 0.3
    assert not np.array_equal(found, scramble_phases(image, 6)) and np.array_equal(found, scramble_phases(image, 5))


def test_such_runs_are_sound_bundled_and_made_again(controls_run: Run, tmp_path: Path) -> None:
    assert verify(controls_run.path).findings == ()
    found = audit(controls_run.path, device="cpu")
    assert not [one for one in found.findings if one.severity == "error"]
    assert len(found.stimuli) == len(controls_run.records)
    made = regenerate(controls_run.path, tmp_path / "again", device="cpu")
    assert {one.tier for one in made} == {"identical_file"}
    assert archive(controls_run.path, tmp_path / "set.zip").files > len(made)
    (controls_run.path / "controls.png").rename(tmp_path / "controls.png")
    assert [one.path for one in verify(controls_run.path).findings] == ["controls.png"]
    (tmp_path / "controls.png").rename(controls_run.path / "controls.png")


def test_a_shared_control_belongs_to_stimuli_that_are_added_later(tmp_path: Path) -> None:
    controls = {"untouched": True}
    few = controlled(controls, synthesis={"max_evaluations": 2})
    stimkit.run(few, tmp_path / "run", device="cpu")
    more = controlled(controls, synthesis={"max_evaluations": 2}, factors={**TWO, "ratio": [1e-5, 1e-4]})
    summary = stimkit.run(more, tmp_path / "run", device="cpu")
    assert summary.made == 2, "the new stimuli, but not the photograph"
    assert verify(tmp_path / "run").findings == ()
    (untouched,) = of_role(more, "untouched")
    assert stimkit.open_run(tmp_path / "run").records[untouched.id].control_of.split(";") == list(untouched.control_of)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"controls": {"subset": ["ones"]}}, 'controls.subset[0]: "ones" is not in layers.style (did you mean "one"?)'),
        ({"controls": {"reconstruction": ["relu1_1"]}}, 'controls.reconstruction[0]: unknown layer "relu1_1"'),
        ({"controls": {"reconstruction": ["pool5"]}, "synthesis": {"size": 16}}, "16 px is too small for pool5"),
        ({"controls": {"textures": True}}, 'controls.textures: unknown key (did you mean "texture"?)'),
        (
            {"controls": {"untouched": True}, "images": {"content": None}, "factors": {"ratio": [0]}},
            "controls.untouched: needs content images",
        ),
        (
            {"synthesis": {"init": "scrambled"}, "images": {"content": None}, "factors": {"ratio": [0]}},
            "needs a content",
        ),
    ],
)
def test_controls_that_cannot_be_are_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        small_plan(**sections)
    assert message in str(caught.value)


def test_controls_of_masked_and_of_titrated_cells(tmp_path: Path) -> None:
    from PIL import Image

    mask = np.zeros((300, 451, 3), np.uint8)
    mask[:, 150:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    images = {"root": str(tmp_path), "mask": {"right": "mask.png"}}
    titration = {"titrate": "rms_contrast", "titrate_value": 0.4, "titrate_tolerance": 1.0, "max_evaluations": 2}
    plan = small_plan(
        images=images,
        controls={"texture": True, "reconstruction": ["conv2_1"], "scrambled": True},
        factors={"style_layers": ["two"], "ratio": None},
        synthesis=titration,
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    table = pd.read_csv(tmp_path / "run" / "manifest.csv", keep_default_na=False).set_index("role")
    assert table["mask"].to_dict() == {"main": "right", "texture": "right", "reconstruction": "", "scrambled": ""}
    assert table["titrate"].to_dict() == {"main": "rms_contrast"} | dict.fromkeys(table.index[1:], "none")
    assert table.loc["texture", "alpha"] == 0 and table.loc["reconstruction", "alpha"] == 1
    assert not [one for one in audit(tmp_path / "run", device="cpu").findings if one.severity == "error"]


def test_what_the_design_has_already_is_no_control() -> None:
    plan = small_plan(
        images={"content": None},
        factors={"style_layers": ["one", "two"], "ratio": None},
        layers={"content": None},
        controls={"subset": ["one"]},
    )
    assert [cell.role for cell in plan.cells] == ["main", "main"]


def test_controls_have_no_levels_of_settings_that_they_override() -> None:
    plan = controlled(
        {"texture": True, "untouched": True}, factors={**TWO, "max_evaluations": [1, 2], "init": ["content"]}
    )
    (untouched,) = of_role(plan, "untouched")
    assert (untouched.levels["max_evaluations"], untouched.levels["init"]) == ("", "content")
    assert {cell.levels["init"] for cell in of_role(plan, "texture")} == {""}


def test_numbers_stay_numbers_beside_controls(controls_run: Run) -> None:
    ratios = controls_run.dataset["ratio"].values
    assert ratios.dtype.kind == "f" and sorted(set(ratios[np.isfinite(ratios)])) == [1e-5]


def test_scrambled_photographs_have_scrambled_colours() -> None:
    plan = controlled({"scrambled": True, "untouched": True}, synthesis={"colour": "luminance", "size": 64})
    source = PlanInputs(plan)
    chroma = []
    for cell in (*of_role(plan, "scrambled"), *of_role(plan, "untouched")):
        found = to_linear(Finishings(source).of(cell).equalize(prepare_initial(cell, source)))
        chroma.append((found[0] - found[2]).ravel())
    assert abs(np.corrcoef(*chroma[:: len(chroma) - 1])[0, 1]) < 0.4

"""Designs: linked factors, tables, conditions, image sets by pattern, balanced sampling."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import stimkit
from stimkit.auditing.verification import verify
from stimkit.errors import ProtocolError, RunFolderError, UsageError
from stimkit.planning.cells import Plan
from stimkit.planning.combinations import sample_evenly
from stimkit.planning.resolved import plan_from_resolved, resolve
from stimkit.protocol.shorthand import read_table, series
from tests.conftest import ROOT, document, small_plan

SAMPLES = {"a": "skimage:chelsea", "b": "skimage:coffee", "c": "skimage:rocket"}


def combinations(plan: Plan, *factors: str) -> list[tuple[str, ...]]:
    return [tuple({**cell.levels, **cell.attributes}[name] for name in factors) for cell in plan.cells]


def designed(base: Path = Path(), **sections: Any) -> Plan:
    """The small protocol with three contents, one layer set, three ratios, and further sections."""
    whole = document(
        images={"content": SAMPLES},
        factors={"style_layers": ["one"], "ratio": [1e-6, 1e-5, 1e-4]},
        **sections.pop("of", {}),
    )
    return stimkit.plan(stimkit.Protocol.from_dict({**whole, **sections}, base=base))


# --- crossing --------------------------------------------------------------------------------------------------


def test_linked_factors_vary_together() -> None:
    plan = designed(design={"zip": [["content", "ratio"]]})
    assert combinations(plan, "content", "ratio") == [("a", "1e-06"), ("b", "1e-05"), ("c", "0.0001")]
    crossed = designed(design={"zip": [["content", "ratio"]]}, of={"synthesis": {"max_evaluations": 3}})
    assert len(crossed.cells) == 3


def test_conditions_include_and_exclude() -> None:
    plan = designed(exclude=[{"content": "a", "ratio": 1e-5}, {"content": ["b", "c"], "ratio": [1e-6, 1e-4]}])
    assert combinations(plan, "content", "ratio") == [("a", "1e-06"), ("a", "0.0001"), ("b", "1e-05"), ("c", "1e-05")]
    nested = designed(include=[{"content": "a", "ratio": 1e-6}, {"content": "b", "ratio": [1e-5, 1e-4]}])
    assert combinations(nested, "content", "ratio") == [("a", "1e-06"), ("b", "1e-05"), ("b", "0.0001")]


def test_attributes_are_compared_as_they_are_written() -> None:
    """Only names of files are made of letters, digits, hyphens and dots."""
    dose = {"a": "0.5 mg", "b": "0.7 mg", "c": "猫"}
    other = {"a": "0.9 mg", "b": "0.7 mg", "c": "犬"}
    images = {
        "content": SAMPLES,
        "attributes": {"content": {name: {"dose": dose[name], "other": other[name]} for name in SAMPLES}},
    }
    ratio = {"style_layers": ["one"], "ratio": [1e-5]}
    whole = {**document(images=images, factors=ratio), "design": {"marks": {"same": ["dose", "other"]}}}

    def planned(**sections: Any) -> Plan:
        return stimkit.plan(stimkit.Protocol.from_dict({**whole, **sections}))

    assert combinations(planned(), "same") == [("no",), ("yes",), ("no",)]
    assert combinations(planned(include=[{"dose": "0.5 mg"}]), "content") == [("a",)]
    assert combinations(planned(include=[{"same": True}]), "content") == [("b",)]
    assert len(planned(sample={"count": 1, "per": ["dose"]}).cells) == 3
    with pytest.raises(ProtocolError, match=r'"0.6 mg" is not a level of dose'):
        planned(include=[{"dose": "0.6 mg"}])


def test_conditions_change_no_id() -> None:
    assert designed(exclude=[{"content": "a"}]).by_id.keys() < designed().by_id.keys()


def test_a_table_gives_the_cells(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("content,ratio,pooling,normalize\na,1e-6,max,filter\nc,inf,average,none\n")
    whole = document(images={"content": SAMPLES}, factors={"ratio": None, "style_layers": ["one"], "replicate": 2})
    protocol = stimkit.Protocol.from_dict({**whole, "design": {"table": "cells.csv"}}, base=tmp_path)
    plan = stimkit.plan(protocol)
    found = combinations(plan, "content", "ratio", "pooling", "normalize", "replicate")
    first, second = ("a", "1e-06", "max", "filter"), ("c", "inf", "average", "none")
    assert found == [(*first, "1"), (*first, "2"), (*second, "1"), (*second, "2")]
    (tmp_path / "cells.csv").unlink()
    again = plan_from_resolved(resolve(plan), base=tmp_path)
    assert [cell.id for cell in again.cells] == [cell.id for cell in plan.cells]
    assert combinations(again, "content", "ratio", "replicate") == combinations(plan, "content", "ratio", "replicate")


def test_names_of_digits_are_names(tmp_path: Path) -> None:
    """In tables as well: no name becomes a number, and none another one's."""
    for index, name in enumerate(("001", "01", "20231105123456788", "20231105123456789")):
        Image.fromarray(np.full((32, 32, 3), 40 * index, np.uint8)).save(tmp_path / f"{name}.png")
    whole = document(images={"root": str(tmp_path), "content": "{n}.png"}, factors={"ratio": [1e-5]})
    plan = stimkit.plan(stimkit.Protocol.from_dict({**whole, "factors": {"ratio": [1e-5], "style_layers": ["one"]}}))
    stimkit.run(plan, tmp_path / "run", device="cpu")
    names = ["001", "01", "20231105123456788", "20231105123456789"]
    results = stimkit.open_run(tmp_path / "run")
    assert results.dataset["content"].values.tolist() == results.dataset["n"].values.tolist() == names
    grid = results.to_grid()
    assert grid.sizes["content"] == 4 and grid.sel(content="001")["mean_luminance"].notnull().all()
    frame = pd.read_csv(tmp_path / "run" / "manifest.csv", dtype=str)
    assert frame["content"].tolist() == frame["n"].tolist() == names


def test_a_series_of_sizes_is_of_whole_pixels() -> None:
    sizes = {"size": {"from": 32, "to": 64, "steps": 3}, "style_layers": ["one"], "ratio": [1e-5]}
    plan = small_plan(factors=sizes, synthesis={"size": None})
    assert [cell.settings.size for cell in plan.cells] == [(32, 32), (48, 48), (64, 64)]


def test_series_have_equal_steps_or_factors() -> None:
    assert series(0, 10, 5, logarithmic=False, whole=True) == [0, 2, 5, 8, 10]
    assert series(0.5, 1, 3, logarithmic=False) == [0.5, 0.75, 1.0]
    ratios = series(1e-6, 1e-3, 4, logarithmic=True)
    assert ratios == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3], rel=1e-12)
    plan = small_plan(factors={"ratio": {"from": 1e-6, "to": 1e-4, "steps": 3}, "style_layers": ["one"]})
    assert combinations(plan, "ratio") == [("1e-06",), ("1e-05",), ("0.0001",)]
    for wrong in ((0, 1, 3), (1, "2", 3), (1, 2, 1), (1, 2, 2.5), (1, float("inf"), 3)):
        with pytest.raises(UsageError):
            series(*wrong, logarithmic=True)


# --- image sets ------------------------------------------------------------------------------------------------

PATTERNS: dict[str, Any] = {
    "schema": 1,
    "name": "set",
    "images": {"content": "shapes/{shape}{i}.png", "style": "textures/{texture}{j}.png"},
    "factors": {"ratio": [1e-5]},
    "synthesis": {"size": 32},
}
LISTED = {
    **PATTERNS["images"],
    "groups": {"shape": ["cat", "car"], "i": 2, "texture": ["oak", "car"], "j": ["01", "2"]},
}


def test_patterns_find_images_and_their_attributes(tmp_path: Path) -> None:
    for index, name in enumerate(["shapes/cat1", "shapes/cat2", "shapes/car1", "textures/oak7", "textures/not-one"]):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), index, np.uint8)).save(path)
    plan = stimkit.plan(stimkit.Protocol.from_dict(PATTERNS, base=tmp_path))
    assert not plan.missing
    found = combinations(plan, "content", "style", "shape", "i", "texture", "j")
    assert found == [
        ("car1", "oak7", "car", "1", "oak", "7"),
        ("cat1", "oak7", "cat", "1", "oak", "7"),
        ("cat2", "oak7", "cat", "2", "oak", "7"),
    ]
    assert plan.cells[0].filename.startswith("car1_oak7_1e-05_r1_s"), "attributes follow from names"


def test_listed_images_are_planned_before_they_are_there(tmp_path: Path) -> None:
    plan = stimkit.plan(stimkit.Protocol.from_dict({**PATTERNS, "images": LISTED}, base=tmp_path))
    assert len(plan.cells) == 16
    assert [problem.key for problem in plan.missing][:2] == ["images.content.cat1", "images.content.cat2"]
    assert "textures/oak01.png" in plan.missing[4].message and len(plan.missing) == 8
    with pytest.raises(ProtocolError, match="was not found"):
        stimkit.run(plan, tmp_path / "run")


def test_marks_say_what_is_equal_and_can_be_excluded(tmp_path: Path) -> None:
    marked = {**PATTERNS, "images": LISTED, "design": {"marks": {"same": ["shape", "texture"]}}}
    plan = stimkit.plan(stimkit.Protocol.from_dict(marked, base=tmp_path))
    assert {(shape, texture, same) for shape, texture, same in combinations(plan, "shape", "texture", "same")} == {
        ("cat", "oak", "no"),
        ("cat", "car", "no"),
        ("car", "oak", "no"),
        ("car", "car", "yes"),
    }
    without = stimkit.plan(stimkit.Protocol.from_dict({**marked, "exclude": [{"same": True}]}, base=tmp_path))
    assert len(without.cells) == 12 and not any(cell.attributes["same"] == "yes" for cell in without.cells)


def test_attributes_are_columns_of_the_manifest(tmp_path: Path) -> None:
    images = {
        "content": {"a": SAMPLES["a"], "b": SAMPLES["b"]},
        "attributes": {"content": {"a": {"animate": "yes"}, "b": {"animate": "no"}}},
    }
    plan = small_plan(
        images=images, factors={"ratio": [1e-5], "style_layers": ["one"]}, synthesis={"max_evaluations": 2}
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    table = pd.read_csv(tmp_path / "run" / "manifest.csv")
    assert table["animate"].tolist() == ["yes", "no"]
    run = stimkit.open_run(tmp_path / "run")
    assert run.dataset["animate"].values.tolist() == ["yes", "no"]
    assert "animate" not in run.to_grid().dims
    assert run.to_grid()["loss_total"].sel(content="b", stage="file").notnull().all()


# --- sampling --------------------------------------------------------------------------------------------------


def test_the_cue_conflict_set_is_complete_and_balanced() -> None:
    plan = stimkit.plan(stimkit.Protocol.load(ROOT / "protocols" / "cue-conflict.toml"))
    pairs = Counter(combinations(plan, "shape", "texture"))
    assert len(plan.cells) == 1280 and len(pairs) == 256 and set(pairs.values()) == {5}
    assert len(set(combinations(plan, "content", "style"))) == 1280, "no pair of images twice"
    contents, styles = Counter(combinations(plan, "content")), Counter(combinations(plan, "style"))
    assert len(contents) == 160 and set(contents.values()) == {8}
    assert len(styles) == 48 and set(styles.values()) == {26, 27}
    same = [cell for cell in plan.cells if cell.attributes["same_category"] == "yes"]
    assert len(same) == 80 and all(cell.attributes["shape"] == cell.attributes["texture"] for cell in same)
    assert sum(problem.key.startswith("images.") for problem in plan.missing) == 208


def test_a_sample_follows_from_its_seed() -> None:
    strata = [[(content, style) for content in range(6) for style in range(4)]]
    one, again, other = (set(sample_evenly(strata, 12, seed)) for seed in (1, 1, 2))
    assert one == again != other
    assert set(Counter(content for content, _ in one).values()) == {2}
    assert set(Counter(style for _, style in one).values()) == {3}


def test_a_sample_is_crossed_with_the_other_factors() -> None:
    plan = designed(sample={"count": 2, "balance": ["content"]})
    chosen = {content for (content,) in combinations(plan, "content")}
    assert len(chosen) == 2 and len(plan.cells) == 2 * 3


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"design": {"zip": [["content", "style"]]}},
            r"design\.zip\[0\]: linked factors need equally many levels: content has 3",
        ),
        (
            {"design": {"zip": [["content", "ratios"]]}},
            r'design\.zip\[0\]\[1\]: "ratios" is not a factor or attribute \(did you',
        ),
        (
            {"design": {"zip": [["content", "ratio"], ["ratio", "content"]]}},
            r'design\.zip\[1\]: "ratio" is linked twice',
        ),
        (
            {"exclude": [{"contents": "a"}]},
            r'exclude\[0\]\.contents: "contents" is not a factor or attribute \(did you mean "con',
        ),
        ({"exclude": [{"content": "d"}]}, r'exclude\[0\]\.content: "d" is not a level of content'),
        ({"exclude": [{}]}, r"exclude\[0\]: does not name a factor"),
        ({"exclude": [{"content": ["a", "b", "c"]}]}, "exclude: no combination of levels is left"),
        ({"design": {"marks": {"same": ["content", "shape"]}}}, r'design\.marks\.same\[1\]: "shape" is not a factor'),
        ({"design": {"marks": {"seed": ["content", "style"]}}}, 'an attribute or mark cannot be called "seed"'),
        ({"sample": {"count": 4}}, "sample: 4 of each were asked for, but the design has 3"),
        (
            {"sample": {"count": 1, "per": ["ratio"]}},
            r'sample\.per\[0\]: "ratio" does not follow from what is sampled: content, style',
        ),
        ({"sample": {"count": 1, "balance": ["shape"]}}, r'sample\.balance\[0\]: "shape" is not a factor'),
        ({"design": {"table": "absent.csv"}}, r"design\.table: .*absent\.csv cannot be read"),
    ],
)
def test_impossible_designs_are_refused(sections: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=message):
        designed(base=tmp_path, **sections)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("content,ratio\n", "has no rows"),
        ("content,ratio\na\n", "row 2 has 1 values, the header 2"),
        ("content,content\na,b\n", "names a column twice"),
        ("content\n\xff\n", "cannot be read as a CSV table"),
    ],
)
def test_tables_of_another_form_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        read_table(tmp_path / "t.csv")


def test_a_table_names_what_images_and_factors_know(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("content,ratio,colour\nd,1e-5,red\nd,1e-5,red\n")
    with pytest.raises(ProtocolError) as caught:
        designed(base=tmp_path, design={"table": "t.csv"})
    told = str(caught.value)
    assert 'factors.content[0]: "d" is not in images.content' in told
    assert "factors.ratio: is also a column of design.table; name it once" in told
    assert "design.table: row 2 is the same as row 1" in told


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"content": "shapes/{shape}{i}.png"}, "to plan before the images are there, list what {shape} stands for in"),
        ({"content": "shapes/all.png"}, "has no {placeholder}"),
        ({**LISTED, "groups": {"shape": ["cat"]}}, "images.groups lists shape, but not i; list all of them, or none"),
        ({**LISTED, "groups": {**LISTED["groups"], "i": 0}}, "images.groups.i must be a list of names, or how many"),
        (
            {**LISTED, "groups": {**LISTED["groups"], "i": ["_", "-"]}},
            'two images of the pattern would be called "cat-"',
        ),
        (
            {**LISTED, "style": "textures/{seed}.png", "groups": {**LISTED["groups"], "seed": 2}},
            'cannot be called "seed"',
        ),
    ],
)
def test_patterns_that_lead_nowhere_are_refused(images: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError) as caught:
        stimkit.Protocol.from_dict({**PATTERNS, "images": images}, base=tmp_path)
    assert message in str(caught.value)


def test_conditions_compare_levels_and_attributes_as_they_are_written() -> None:
    sizes = document(factors={"style_layers": ["one"], "size": [32, 48]}, synthesis={"size": None})
    plan = stimkit.plan(stimkit.Protocol.from_dict({**sizes, "exclude": [{"size": 32}]}))
    assert {cell.settings.size for cell in plan.cells} == {(48, 48)}
    images = {
        "content": {"a": SAMPLES["a"], "b": SAMPLES["b"]},
        "attributes": {"content": {"a": {"kind": "old_cat"}, "b": {"kind": "a cup"}}},
    }
    plan = stimkit.plan(stimkit.Protocol.from_dict({**document(images=images), "exclude": [{"kind": "old_cat"}]}))
    assert {cell.content for cell in plan.cells} == {"b"}


def test_whole_numbers_of_a_factor_of_numbers_are_numbers(tmp_path: Path) -> None:
    """From a million on, a number of six digits is written otherwise than a whole one."""
    factors: dict[str, Any] = {"style_layers": ["one"], "ratio": None, "alpha": [1], "beta": [1000, 1000000, 10]}
    few = stimkit.Protocol.from_dict({**document(factors=factors), "include": [{"beta": [1000, 1000000]}]})
    assert {cell.beta for cell in stimkit.plan(few).cells} == {1000, 1000000}
    (tmp_path / "t.csv").write_text("beta,style_layers\n1000000,one\n10,two\n")
    table = {**document(factors={**factors, "beta": None, "style_layers": None}), "design": {"table": "t.csv"}}
    plan = stimkit.plan(stimkit.Protocol.from_dict(table, base=tmp_path))
    assert [(cell.beta, cell.levels["beta"]) for cell in plan.cells] == [(1000000, "1e06"), (10, "10")]


def test_levels_of_a_table_that_would_be_called_alike_are_refused(tmp_path: Path) -> None:
    rows = [{"beta": 1234567.0, "style_layers": "one"}, {"beta": 1234568.0, "style_layers": "one"}]
    table = {**document(factors={"ratio": None, "alpha": [1], "style_layers": None}), "design": {"table": rows}}
    with pytest.raises(ProtocolError, match=r'"1234567\.0" and "1234568.0" of beta would both be called "1.23457e06"'):
        stimkit.Protocol.from_dict(table)


def test_a_table_may_have_sizes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("size,ratio\n32,1e-5\n48,1e-6\n")
    whole = document(factors={"ratio": None, "style_layers": ["one"]}, synthesis={"size": None})
    plan = stimkit.plan(stimkit.Protocol.from_dict({**whole, "design": {"table": "t.csv"}}, base=tmp_path))
    assert [(cell.settings.size, cell.ratio) for cell in plan.cells] == [((32, 32), 1e-5), ((48, 48), 1e-6)]
    assert plan_from_resolved(resolve(plan), base=tmp_path).cells == plan.cells


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sample": {"counts": 1}}, 'sample.counts: unknown key (did you mean "count"?)'),
        ({"design": {"marks": {"loss_x": ["content", "style"]}}}, 'cannot be called "loss_x"'),
        ({"design": {"marks": {"stage": ["content", "style"]}}}, 'cannot be called "stage"'),
        ({"design": {"marks": {"entropy": ["content", "style"]}}}, 'cannot be called "entropy"'),
        ({"include": [{"content": "a"}], "exclude": [{"content": "a", "style": "cup"}]},
         "exclude: no combination of levels is left"),
        ({"design": {"zip": [["content", "ratio"]]}, "exclude": [{"content": "a", "ratio": 1e-4}]},
         "exclude[0]: no combination of levels meets it"),
    ],
)  # fmt: skip
def test_designs_that_say_nothing_are_told(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        designed(**sections)
    assert message in str(caught.value)


def test_attributes_belong_to_images_and_to_one_kind_of_them() -> None:
    attributes = {"content": {"dog": {"i": "1"}, "cat": {"i": "1"}}, "style": {"cup": {"i": "7"}}}
    with pytest.raises(ProtocolError) as caught:
        small_plan(images={"attributes": attributes})
    assert '"dog" is not in images.content' in str(caught.value)
    assert 'content and style images both have "i"; give them two names' in str(caught.value)


def test_a_lock_never_leads_to_other_files(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ratio\n1e-5\n")
    lock = resolve(small_plan())
    for change in ({"design": {"table": str(tmp_path / "t.csv")}}, {"images": {"content": "/etc/{x}"}}, {"design": 3}):
        forged = {**lock, "protocol": {**lock["protocol"], **change}}
        with pytest.raises(RunFolderError, match="the lock does not hold a protocol"):
            plan_from_resolved(forged)


def test_a_run_may_be_continued_with_marks_names_and_density_changed(tmp_path: Path) -> None:
    plan = small_plan(factors={"style_layers": ["one"], "ratio": [1e-5]}, synthesis={"max_evaluations": 2})
    stimkit.run(plan, tmp_path / "run", device="cpu")
    whole = document(
        images={"content": {"tom": "skimage:chelsea"}},
        factors={"style_layers": ["one"], "ratio": [1e-5]},
        synthesis={"max_evaluations": 2},
        display={"ppd": 16},
    )
    again = stimkit.plan(stimkit.Protocol.from_dict({**whole, "design": {"marks": {"same": ["content", "style"]}}}))
    assert stimkit.run(again, tmp_path / "run", device="cpu").made == 0
    assert verify(tmp_path / "run").findings == ()
    (row,) = pd.read_csv(tmp_path / "run" / "manifest.csv").to_dict("records")
    assert (row["content"], row["same"], row["height_deg"]) == ("tom", "no", 2.0)
    assert row["filename"].startswith("tom_cup") and (tmp_path / "run" / "stimuli" / row["filename"]).is_file()

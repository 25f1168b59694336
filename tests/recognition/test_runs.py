"""Stimuli that a classifier looks at: recorded, judged, titrated, audited, and looked at later."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import stimkit
from stimkit.errors import ProtocolError, RunFolderError
from stimkit.images.png import to_network_image
from stimkit.planning.recognition import cue_digest
from stimkit.planning.resolved import plan_from_resolved, resolve
from stimkit.recognition.decisions import Decision
from stimkit.records.methods import methods_paragraph
from stimkit.runfolder.run import Run
from stimkit.stimuli.recognition import Recognizer
from tests.conftest import forge, small_plan
from tests.recognition.classifiers import tensors_of, write_timm

Command = Callable[..., tuple[int, str, str]]
CATEGORIES = "class,category\n0,cat\n1,cat\n2,cup\n3,boat\n4,bird\n"
ATTRIBUTES = {"content": {"cat": {"object": "cat"}}, "style": {"cup": {"texture": "cup"}}}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a classifier of five classes and a map of them."""
    folder = tmp_path_factory.mktemp("recognition")
    write_timm(folder / "16.safetensors", *tensors_of(5))
    (folder / "map.csv").write_text(CATEGORIES)
    return folder


def planned(desk: Path, asked: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Any:
    request = {
        "weights": str(desk / "16.safetensors"), "network": "vgg16", "preprocessing": "torchvision",
        "categories": str(desk / "map.csv"), "content": "object", "style": "texture", **(asked or {}),
    }  # fmt: skip
    three = {"style_layers": ["one"], "ratio": [1e-5, 1e-4, 1e-3]}
    sections = {"images": {"attributes": ATTRIBUTES}, "factors": three, **sections}
    return small_plan(recognition=request, **sections)


@pytest.fixture(scope="module")
def run(desk: Path) -> Run:
    stimkit.run(planned(desk), desk / "run", device="cpu")
    return stimkit.open_run(desk / "run")


def decision_about(run: Run, stimulus_id: str) -> Decision:
    record = run.records[stimulus_id]
    image = to_network_image(run.image(stimulus_id), record.settings.encoding)
    return Recognizer(run.plan, torch.device("cpu")).decide(image)


def test_records_say_what_the_file_is_taken_for(run: Run) -> None:
    for stimulus_id, record in run.records.items():
        decision = decision_about(run, stimulus_id)
        assert record.recognized_as == decision.recognized
        assert (record.content_rank, record.style_rank) == (decision.rank("cat"), decision.rank("cup"))
        assert record.content_probability == pytest.approx(decision.probability("cat"), rel=1e-5)
        assert record.recognition_sha256 == cue_digest(run.plan, run.plan.by_id[stimulus_id])
    table = pd.read_csv(run.path / "manifest.csv")
    assert {"recognized_as", "content_rank", "style_probability"} <= set(table.columns)
    assert run.dataset["content_probability"].attrs["units"] == "1"
    assert stimkit.verify(run.path).findings == ()


def test_methods_say_which_classifier_looked(run: Run) -> None:
    text = methods_paragraph(run.plan, list(run.records.values()), run.environments)
    assert "A VGG16 with the weights" in text and "into the 4 categories" in text
    assert "the category of its content and style is in the manifest" in text


def test_the_audit_looks_again(run: Run, tmp_path: Path) -> None:
    found = stimkit.audit(run.path, device="cpu")
    assert not [one for one in found.findings if one.name.startswith("recognition")]
    assert found.images["name"].tolist() == ["cat", "cup"] and found.images["category"].tolist() == ["cat", "cup"]
    seen = [record.recognized_as for record in run.records.values()]
    assert found.cues is not None
    assert (found.cues.content, found.cues.style) == (seen.count("cat"), seen.count("cup"))
    assert found.cues.others == len(seen) - seen.count("cat") - seen.count("cup")
    ranks = dict(zip(found.images["name"], found.images["rank"], strict=True))
    told = {one.detail.split()[1] for one in found.findings if one.name == "not_recognized"}
    assert told == {name for name, rank in ranks.items() if rank > 1}
    assert "content_probability" in set(found.effects["variable"])


def test_a_recognition_that_was_forged_is_found(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    first, second = list(run.records)[:2]
    other = next(name for name in ("cat", "bird") if name != run.records[second].recognized_as)
    forge(tmp_path / "run", first, content_probability=0.987)
    forge(tmp_path / "run", second, recognized_as=other)
    found = stimkit.audit(tmp_path / "run", device="cpu").findings
    assert {one.stimulus_id for one in found if one.name == "recognition_mismatch"} == {first, second}


def test_rules_of_acceptance_about_ranks(desk: Path, run: Run, tmp_path: Path) -> None:
    ranks = {name: record.style_rank or 0 for name, record in run.records.items()}
    limit = max(1, min(ranks.values()))
    stimkit.run(planned(desk, accept={"style_rank": limit}), tmp_path / "run", device="cpu")
    for name, record in stimkit.open_run(tmp_path / "run").records.items():
        assert (record.status == "rejected") == (ranks[name] > limit)
        assert (f"style is recognized on rank {ranks[name]} > {limit}" in record.status_reason) == (ranks[name] > limit)
    again = planned(desk, accept={"style_rank": limit, "retries": 2})
    stimkit.run(again, tmp_path / "run", device="cpu")
    for record in stimkit.open_run(tmp_path / "run").records.values():
        assert record.attempt == 1 or all("rank" in one.status_reason for one in record.attempts[:-1])
        assert record.status == "accepted" or record.attempt == 3


def test_stimuli_that_were_there_before_are_looked_at(desk: Path, run: Run, tmp_path: Path) -> None:
    three = {"style_layers": ["one"], "ratio": [1e-5, 1e-4, 1e-3]}
    without = small_plan(images={"attributes": ATTRIBUTES}, factors=three)
    stimkit.run(without, tmp_path / "run", device="cpu")
    before = stimkit.open_run(tmp_path / "run").records
    assert {record.recognized_as for record in before.values()} == {""}
    summary = stimkit.run(planned(desk), tmp_path / "run", device="cpu")
    assert summary.made == 0 and len(before) == 3
    after = stimkit.open_run(tmp_path / "run").records
    assert {name: record.recognized_as for name, record in after.items()} == {
        name: record.recognized_as for name, record in run.records.items()
    }
    assert all(after[name].file_sha256 == record.file_sha256 for name, record in before.items())
    assert stimkit.verify(tmp_path / "run").findings == ()


def test_ratios_are_titrated_to_a_balance_of_cues(desk: Path, tmp_path: Path) -> None:
    settings = {
        "titrate": "cue_balance", "titrate_runs": 2, "titrate_lowest": 1e-6, "titrate_highest": 1e-2,
        "max_evaluations": 4, "size": 32, "titrate_tolerance": 100.0,
    }  # fmt: skip
    factors = {"ratio": None, "style_layers": ["one"]}
    plan = planned(desk, synthesis=settings, factors=factors)
    stimkit.run(plan, tmp_path / "run", device="cpu")
    (record,) = stimkit.open_run(tmp_path / "run").records.values()
    assert record.content_probability and record.style_probability and record.titrate_error is not None
    balance = math.log10(record.content_probability / record.style_probability)
    assert record.titrate_error == pytest.approx(balance, abs=1e-6) and 1e-6 <= record.alpha <= 1e-2
    other = {"content": {"cat": {"object": "boat"}}, "style": ATTRIBUTES["style"]}
    known = planned(desk, synthesis=settings, factors=factors, images={"attributes": other})
    assert known.cells[0].id != plan.cells[0].id  # its pixels depend on what it should be recognized as


def test_locks_hold_the_classifier_and_its_categories(desk: Path, run: Run) -> None:
    again = plan_from_resolved(json.loads(json.dumps(resolve(run.plan))))
    assert again.recognition is not None and again.recognition == run.plan.recognition
    assert [cell.id for cell in again.cells] == [cell.id for cell in run.plan.cells]


def test_what_has_no_classifier_is_told_before_anything_is_made(desk: Path, tmp_path: Path) -> None:
    plan = planned(desk, {"weights": "pca", "network": "vgg19"})
    assert [one.key for one in plan.missing] == ["recognition.weights"]
    with pytest.raises(ProtocolError, match="the weights pca have no classifier"):
        stimkit.run(plan, tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("asked", "sections", "words"),
    [
        ({"content": "objekt"}, {}, '"objekt" is not an attribute of the content images .did you mean "object"'),
        ({"content": "", "style": ""}, {}, "name the attribute that holds the category"),
        ({"categories": "imagenet"}, {}, 'images.attributes.content.cat.object: "cat" is not one of them'),
        ({"categories": "nowhere.csv"}, {}, "recognition.categories: .*cannot be read"),
        ({"style": ""}, {"accept": {"style_rank": 1}}, "accept.style_rank: needs .recognition. style"),
        (
            {"style": ""},
            {"synthesis": {"titrate": "cue_balance"}},
            '"cue_balance" needs .recognition. with',
        ),
        ({"weights": ""}, {"factors": {"weights": ["pca", "random:1"]}}, "which weights recognize the stimuli"),
    ],
)
def test_mistakes_in_the_request_are_told(
    asked: dict[str, Any], sections: dict[str, Any], words: str, desk: Path
) -> None:
    with pytest.raises(ProtocolError, match=words):
        planned(desk, asked, **sections)


def test_a_classifier_of_other_classes_is_refused(desk: Path) -> None:
    bottles = {**ATTRIBUTES, "style": {"cup": {"texture": "bottle"}}}
    with pytest.raises(ProtocolError, match=r"need the 1000 classes of ImageNet, and the classifier of .* has 5"):
        planned(desk, {"categories": "geirhos16"}, images={"attributes": bottles})


@pytest.mark.slow
def test_shards_recognize_alike(desk: Path, run: Run, tmp_path: Path) -> None:
    plan = planned(desk)
    for part in (1, 2):
        stimkit.run_shard(plan, tmp_path / "run", (part, 2), device="cpu")
    stimkit.collect(tmp_path / "run")
    again = stimkit.open_run(tmp_path / "run").records
    for name, record in run.records.items():
        assert again[name].recognized_as == record.recognized_as
        assert again[name].content_probability == pytest.approx(record.content_probability, rel=1e-3)


@pytest.mark.slow
def test_a_corrected_category_is_looked_at_again(desk: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    boats = {**ATTRIBUTES, "content": {"cat": {"object": "boat"}}}
    assert stimkit.run(planned(desk, images={"attributes": boats}), tmp_path / "run", device="cpu").made == 0
    after = stimkit.open_run(tmp_path / "run")
    for stimulus_id, record in after.records.items():
        decision = decision_about(run, stimulus_id)
        assert record.content_rank == decision.rank("boat") and record.attributes["object"] == "boat"
        assert record.content_probability == pytest.approx(decision.probability("boat"), rel=1e-5)
    assert not [one for one in stimkit.audit(after, device="cpu").findings if one.name == "recognition_mismatch"]


def test_a_stimulus_that_was_replaced_is_not_looked_at(desk: Path, tmp_path: Path) -> None:
    plan = small_plan(images={"attributes": ATTRIBUTES}, factors={"style_layers": ["one"]})
    stimkit.run(plan, tmp_path / "run", device="cpu")
    stimuli = sorted((tmp_path / "run/stimuli").iterdir())
    stimuli[0].write_bytes(stimuli[1].read_bytes())
    with pytest.raises(RunFolderError, match="is not the file of its record"):
        stimkit.run(planned(desk, factors={"style_layers": ["one"]}), tmp_path / "run", device="cpu")


def test_categories_of_levels_of_mixes_are_looked_at(desk: Path) -> None:
    images = {
        "style": {"cup": "skimage:coffee", "moon": "skimage:moon"},
        "mixes": {"cm": {"of": ["cup", "moon"], "steps": 3}},
        "attributes": {**ATTRIBUTES, "style": {"cup": {"texture": "cup"}, "cm-2": {"texture": "nonsense"}}},
    }  # fmt: skip
    with pytest.raises(ProtocolError, match='"nonsense" is not one of them'):
        planned(desk, images=images)


def test_a_balance_needs_both_cues(desk: Path) -> None:
    images = {"attributes": {"content": ATTRIBUTES["content"], "style": {"cup": {"texture": ""}}}}
    with pytest.raises(ProtocolError, match="needs a category of every image, and the style cup has none"):
        planned(desk, images=images, synthesis={"titrate": "cue_balance"}, factors={"ratio": None})


def test_a_lock_names_no_file_of_this_machine(run: Run) -> None:
    lock = json.loads(json.dumps(resolve(run.plan)))
    lock["recognition"].update(classes=None, categories="/etc/passwd")
    with pytest.raises(RunFolderError, match="have no classes"):
        plan_from_resolved(lock)

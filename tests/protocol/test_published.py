"""Protocols of published sets: they plan as the publications say, and their trials can be listed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stimkit
from stimkit.documents.template import published_protocol, published_sets
from stimkit.errors import UsageError

Command = Callable[..., tuple[int, str, str]]
CELLS = {
    "geirhos2019": (1280, {"main": 1280}),
    "geller2022": (150, {"main": 150}),
    "jagadeesh2022": (280, {"main": 240, "untouched": 40}),
    "vacher2020": (33, {"main": 33}),
    "wallis2017": (612, {"main": 600, "untouched": 12}),
    "yu2022": (5184, {"main": 5184}),
}


@pytest.mark.parametrize("like", CELLS)
def test_sets_plan_without_their_images(like: str, tmp_path: Path) -> None:
    plan = stimkit.plan(stimkit.Protocol.from_toml(published_protocol("mine", like)["mine.toml"], base=tmp_path))
    roles = [cell.role for cell in plan.cells]
    assert (len(roles), {role: roles.count(role) for role in dict.fromkeys(roles)}) == CELLS[like]
    assert len(plan.missing) >= len(plan.inputs) > 0, "what is needed is named"


def test_every_set_is_known_and_says_what_is_not() -> None:
    assert published_sets() == list(CELLS)
    for like in CELLS:
        head = published_protocol("mine", like)["mine.toml"].split("schema =")[0]
        assert "Not known" in head and re.search(r"Different here|Chosen here", head), like
    with pytest.raises(UsageError, match="did you mean"):
        published_protocol("mine", "geirhos2018")


def test_the_command_writes_protocol_and_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command("init", "mine", "--like", "yu2022")
    assert code == 0 and "mine.toml, mine-trials.toml" in out, err
    assert stimkit.Protocol.load("mine.toml").name == "mine"
    assert stimkit.TrialDesign.load("mine-trials.toml").trial.form == "adjust"
    code, out, err = command("init", "mine", "--like", "yu2022")
    assert code == 2 and "mine.toml exists already" in err
    code, out, err = command("init", "other", "--like", "yu")
    assert code == 2 and 'there is no published set "yu"' in err


SMALLER: dict[str, dict[str, str]] = {
    "geirhos2019": {
        r"shape = \[.*?\]": 'shape = ["cat", "dog"]',
        r"texture = \[.*?\]": 'texture = ["cat", "dog"]',
        "i = 10": "i = 2",
        "j = 3": "j = 2",
        "count = 5": "count = 2",
    },
    "geller2022": {"slope = 6": "slope = 2", r"(pattern_of|painting) = 25": r"\1 = 3"},
    "jagadeesh2022": {
        r"(object|sample_of) = 10": r"\1 = 2",
        r"region_count = \[2, 2, 3, 4\]": "region_count = [2, 2]",
        '"grid", "grid", "grid"': '"grid"',
    },
    "vacher2020": {},
    "wallis2017": {
        r"(texture|model_of) = 12": r"\1 = 2",
        "replicate = 10": "replicate = 2",
        r'aperture = "circle"\n.*?ppd = 41.0': "ppd = 5.0",
    },
    "yu2022": {"scene = 72": "scene = 2", "steps = 72": "steps = 8"},
}


@pytest.mark.slow
@pytest.mark.parametrize("like", CELLS)
def test_small_copies_are_made_and_their_trials_listed(like: str, tmp_path: Path) -> None:
    """With fewer and smaller pictures, embedded filters and one evaluation."""
    texts = published_protocol("mine", like)
    text = re.sub(r'weights = "\w+"', 'weights = "pca"', texts["mine.toml"])
    text = re.sub(r"\nsize = \d+", "\nsize = 32", re.sub(r"max_evaluations = \d+", "max_evaluations = 1", text))
    for pattern, other in SMALLER[like].items():
        text = re.sub(pattern, other, text, flags=re.DOTALL)
    protocol = stimkit.Protocol.from_toml(text, base=tmp_path)
    for number, image in enumerate(stimkit.plan(protocol).inputs):
        path = tmp_path / image.spec
        path.parent.mkdir(exist_ok=True, parents=True)
        pixels = np.random.default_rng(number).integers(0, 255, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(path)
    stimkit.run(stimkit.plan(protocol), tmp_path / "run", device="cpu")
    trials = texts["mine-trials.toml"]
    trials = re.sub(r"count = (360|240|72|84)", "count = 8", trials)
    trials = re.sub(r'keys = \["1".*?\]', 'keys = ["1", "2"]', trials)  # of as many categories
    found = stimkit.make_trials(tmp_path / "run", stimkit.TrialDesign.from_toml(trials))
    assert len(found.table) >= 10 and found.table["participant"].nunique() >= 10

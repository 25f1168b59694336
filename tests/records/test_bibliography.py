"""What is to be cited, as BibTeX that reads back, and files that say how to cite stimkit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import stimkit
from stimkit.records.bibliography import bibliography
from stimkit.runfolder.run import Run
from tests.conftest import ROOT, small_plan

Command = Callable[..., tuple[int, str, str]]


def entries(text: str) -> dict[str, dict[str, str]]:
    found = {}
    for kind, key, body in re.findall(r"@(\w+)\{([\w-]+),\n(.*?)\n\}", text, re.DOTALL):
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", body, re.MULTILINE))
        assert len(fields) == len(body.splitlines()), "one field a line"
        assert all(value.count("{") == value.count("}") for value in fields.values())
        found[key] = {"kind": kind, **fields}
    return found


def test_a_set_cites_what_it_was_made_and_measured_with() -> None:
    publication = {
        "title": "Cats & cups: 100 % {stylized}",
        "authors": [{"given": "Ada", "family": "Lovelace"}, {"given": "C.", "family": "B_b"}],
        "doi": "10.5281/zenodo.1",
    }
    plan = small_plan(publication=publication, factors={"optimizer": ["lbfgs", "adam"]})
    found = entries(bibliography(plan, ["similarity", "phog", "norm"]))
    assert list(found) == [
        "small", "stimkit", "gatys2015", "simonyan2015", "liu1989", "kingma2015", "wang2003", "zhang2018", "ding2022",
        "braun2013",
    ]  # fmt: skip
    assert found["small"]["title"] == r"Cats \& cups: 100 \% \{stylized\}"
    assert found["small"]["author"] == r"Lovelace, Ada and B\_b, C." and found["small"]["kind"] == "dataset"
    assert list(entries(bibliography(small_plan())))[:5] == ["small", "stimkit", "gatys2015", "simonyan2015", "liu1989"]


def test_the_command_and_the_report_name_them(small_run: Run, tmp_path: Path, command: Command) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    stimkit.measure_stimuli(tmp_path / "run", ["phog"])
    code, said, _ = command("cite", tmp_path / "run")
    assert code == 0 and list(entries(said))[-1] == "braun2013"
    html = stimkit.report(tmp_path / "run", device="cpu", losses=False).read_text()
    assert "@misc{gatys2015," in html and "@article{braun2013," in html


@pytest.mark.parametrize("name", ["CITATION.cff", "codemeta.json"])
def test_files_about_stimkit_are_of_its_version(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.search(rf'^\W*version\W+{re.escape(stimkit.__version__)}"?,?$', text, re.MULTILINE)
    if name.endswith(".json"):
        assert json.loads(text)["license"].endswith("MIT")

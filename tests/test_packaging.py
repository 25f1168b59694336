"""What the project says of itself in several places is the same in all of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import stimkit
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OF_CONDA = {"torch": "pytorch", "netcdf4": "netcdf4"}  # other names there


def requirement(text: str) -> tuple[str, str]:
    """Name and bound of a requirement of pip or conda."""
    found = re.fullmatch(r"\s*([A-Za-z0-9_.-]+)\s*(>=[\d.]+)?\s*", text)
    assert found, text
    name = found[1].lower()
    return OF_CONDA.get(name, name), found[2] or ""


def test_the_conda_recipe_asks_for_what_pip_asks_for() -> None:
    recipe = (ROOT / "packaging/conda/recipe.yaml").read_text()
    run = recipe.split("  run:\n")[1].split("\n\n")[0]
    found = {requirement(line.strip().removeprefix("- ")) for line in run.splitlines()}
    assert found == {*map(requirement, PROJECT["dependencies"]), ("python", PROJECT["requires-python"])}


def test_one_version_everywhere() -> None:
    said = {
        "CITATION.cff": re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE),
        "recipe.yaml": re.search(
            r"^  version: (.+)$", (ROOT / "packaging/conda/recipe.yaml").read_text(), re.MULTILINE
        ),
    }
    assert {name: match and match[1] for name, match in said.items()} == dict.fromkeys(said, stimkit.__version__)
    assert json.loads((ROOT / "codemeta.json").read_text())["version"] == stimkit.__version__
    assert f"[{stimkit.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_workflows_run_the_commands_of_the_house() -> None:
    text = (ROOT / ".github/workflows/checks.yml").read_text()
    parts = set(re.findall(r"scripts/check (\w+)", text))
    known = set(re.findall(r"^        (\w+)\)", (ROOT / "scripts/check").read_text(), re.MULTILINE))
    assert parts and parts <= known and "run: .ci/run" in text
    oldest = subprocess.run([sys.executable, ROOT / "scripts/oldest", "torch"], capture_output=True, text=True).stdout
    assert f"torch>={oldest.strip()}" in PROJECT["dependencies"]
    versions = re.findall(r'"(3\.\d+)"', text)
    assert f">={min(versions, key=lambda one: int(one[2:]))}" == PROJECT["requires-python"]

"""The structure that the code promises: imports go one way, the public names exist, examples run."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import stimkit
from stimkit.documents.messages import known_keys
from stimkit.experiment.trials.design import TrialDesign
from stimkit.protocol.protocol import Protocol
from tests.conftest import ROOT

ROOMS = (
    "errors", "version", "files", "columns", "documents", "images", "network", "protocol", "planning", "synthesis",
    "stimuli", "records", "runfolder", "running", "auditing", "reporting", "experiment", "cli", "__init__", "__main__",
)  # fmt: skip
"""In the order of imports: a module imports from its own room and from those before it."""
MODULES = {
    ".".join(path.relative_to(ROOT / "stimkit").with_suffix("").parts): path
    for path in sorted((ROOT / "stimkit").rglob("*.py"))
    if path.parent.name != "templates"
}
KNOWN = {*MODULES, *(name.removesuffix(".__init__") for name in MODULES)}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """The modules of stimkit that a module imports, also for type checks only, and the names that it takes of each."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "stimkit":
            module = (node.module or "").removeprefix("stimkit").removeprefix(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}".removeprefix(".")
                yield (inner, "") if inner in KNOWN else (module or "__init__", alias.name)


def room_of(module: str) -> int:
    return ROOMS.index(module.partition(".")[0])


def test_rooms_import_from_rooms_before_them() -> None:
    wrong = [
        (module, imported)
        for module, path in MODULES.items()
        for imported, _ in imports(path)
        if room_of(imported) > room_of(module)
    ]
    assert wrong == []


def test_modules_import_each_other_in_one_direction() -> None:
    graph = {module: {imported for imported, _ in imports(path)} - {module} for module, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())  # which raises CycleError


def test_no_module_takes_private_names_of_another() -> None:
    taken = [
        (module, imported, name)
        for module, path in MODULES.items()
        for imported, name in imports(path)
        if (name or imported.rpartition(".")[2]).startswith("_") and not name.startswith("__")
    ]
    assert taken == []


@pytest.mark.parametrize("name", stimkit.__all__)
def test_public_names_exist_and_are_documented(name: str) -> None:
    value = getattr(stimkit, name)
    assert isinstance(value, str) or value.__doc__


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = stimkit.nothing  # type: ignore[attr-defined]


def test_python_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples as they stand, but on fewer pixels and evaluations."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    quick = (ROOT / "protocols/quickstart.toml").read_text()
    quick = re.sub(r"size = \d+", "size = 32", re.sub(r"max_evaluations = \d+", "max_evaluations = 2", quick))
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols/quickstart.toml").write_text(quick)
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for block in blocks:
        exec(re.sub(r"size=\d+", "size=32, max_evaluations=2", block), space)
    assert (tmp_path / "runs/quickstart/manifest.nc").is_file()


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.stem
)
def test_protocols_in_the_documents_have_keys_that_exist(path: Path) -> None:
    for block in re.findall(r"```toml\n(.*?)```", path.read_text(), re.DOTALL):
        document = tomllib.loads(block)
        if "jobs" in document:  # of SLURM
            continue
        if "participants" in document:
            assert TrialDesign.from_toml(block).name == document["name"]
            continue
        assert set(document) <= set(known_keys(Protocol, ()))
        for section, table in document.items():
            if isinstance(table, dict) and section != "include":
                assert set(table) <= set(known_keys(Protocol, (section,))), f"[{section}] of {path.name}"


def test_pictures_of_the_documents_are_there() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for name in re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / name).exists(), f"{path.name} names {name}"

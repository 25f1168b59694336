"""The structure that the code promises: imports go one way, the public names exist, examples run."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import stimkit
from stimkit.protocol import Protocol
from stimkit.protocol_rules import known_keys
from stimkit.trials.design import TrialDesign
from tests.conftest import ROOT

# From the bottom up: a module imports only from rows above its own.
ORDER = [
    ["errors", "graph", "labels", "json_text"],
    ["migrations", "atomic", "name_patterns", "conditions", "response_files"],
    ["writer"],
    ["layers"],
    ["settings", "toml_lines", "photometry"],
    ["images", "weights", "template"],
    ["aperture", "equalize", "regions", "stimulus_file"],
    ["output_rules"],
    ["measures", "effects", "limits", "expansion"],
    ["columns", "protocol_rules"],
    ["design_rules", "tables", "documents"],
    ["protocol", "noise", "cost"],
    ["design"],
    ["winograd"],
    ["vgg"],
    ["cells"],
    ["identity"],
    ["controls"],
    ["planning"],
    ["lock"],
    ["summary", "fit", "losses", "lbfgs", "precondition", "precision"],
    ["environment", "inputs"],
    ["preparation"],
    ["finishing"],
    ["batch"],
    ["hold"],
    ["search"],
    ["synthesis"],
    ["stimulus", "single", "remeasure"],
    ["titration"],
    ["accept"],
    ["record"],
    ["record_form"],
    ["store", "contact_sheet", "doctor"],
    ["manifest"],
    ["table_agreement"],
    ["derived", "results", "verify", "regenerate", "methods"],
    ["findings"],
    ["audit_losses"],
    ["audit"],
    ["image_set", "report_data"],
    ["report"],
    ["bundle", "trials.design", "trials.squares", "trials.sequence"],
    ["trials.units", "responses"],
    ["trials.sampling", "trials.answers"],
    ["trials.material", "trials.showing"],
    ["trials.assignment"],
    ["trials.lists"],
    ["trials.balance"],
    ["trials.files"],
    ["export.stimulus_set", "export.jspsych_library"],
    ["export.dictionary", "export.settings"],
    ["export.tables", "export.jspsych"],
    ["export.bids", "export.brainio", "export.psychopy"],
    ["export.formats"],
    ["making", "pending", "places"],
    ["runner", "worker"],
    ["cluster"],
    ["display"],
    ["cli_weights", "cli_runs"],
    ["cli_audit", "cli_experiments", "cli_run"],
    ["cli"],
    ["__main__"],
]
LEVEL = {name: level for level, row in enumerate(ORDER) for name in row}
MODULES = sorted(path for path in (ROOT / "stimkit").rglob("*.py") if path.parent.name != "templates")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "stimkit").with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """Modules of stimkit that a module imports when it runs (not only for type checks)."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in guarded and (node.module or "").startswith("stimkit"):
            below = (node.module or "").removeprefix("stimkit").removeprefix(".")
            is_package = (ROOT / "stimkit" / below.replace(".", "/")).is_dir()
            names |= {f"{below}.{alias.name}".strip(".") for alias in node.names} if is_package else {below}
    return names - {"__version__"}


@pytest.mark.parametrize("path", [path for path in MODULES if path.stem != "__init__"], ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    wrong = {name for name in imported(path) if LEVEL[name] >= LEVEL[name_of(path)]}
    assert not wrong, f"{name_of(path)} imports {wrong}"


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

"""The structure that the code promises: imports go one way, the public names exist, examples run."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import stimkit
from stimkit.experiment.trials.design import TrialDesign
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.rules import known_keys
from tests.conftest import ROOT

# From the bottom up: a module imports only from rows above its own.
ORDER = [
    ["errors", "synthesis.cuda_graph", "protocol.labels", "json_text"],
    ["records.migrations", "files", "protocol.patterns", "records.selection", "experiment.response_files"],
    ["runfolder.locks"],
    ["network.layers"],
    ["protocol.settings", "documents.lines", "images.light"],
    ["images.reading", "network.weights", "protocol.template"],
    ["images.aperture", "images.equalization", "images.regions", "images.png"],
    ["planning.checks"],
    ["images.statistics", "auditing.effects", "protocol.limits", "protocol.shorthand"],
    ["columns", "protocol.rules"],
    ["protocol.design_rules", "protocol.sections", "documents.toml"],
    ["protocol.protocol", "images.noise", "planning.cost"],
    ["planning.combinations"],
    ["network.winograd"],
    ["network.vgg"],
    ["planning.cells"],
    ["planning.identity"],
    ["planning.controls"],
    ["planning.crossing"],
    ["planning.resolved"],
    [
        "planning.summary",
        "network.fitting",
        "network.losses",
        "synthesis.optimizers",
        "synthesis.preconditioners",
        "synthesis.devices",
    ],
    ["synthesis.environment", "planning.inputs"],
    ["stimuli.preparation"],
    ["stimuli.finishing"],
    ["stimuli.assembly"],
    ["synthesis.light_penalty"],
    ["synthesis.minimization"],
    ["synthesis.synthesis"],
    ["stimuli.stimulus", "stimuli.single", "auditing.remeasurement"],
    ["stimuli.titration"],
    ["records.acceptance"],
    ["records.record"],
    ["records.schema"],
    ["runfolder.store", "runfolder.contact_sheet", "cli.doctor"],
    ["records.tables"],
    ["auditing.table_agreement"],
    ["runfolder.derived", "runfolder.results", "auditing.verification", "auditing.regeneration", "records.methods"],
    ["auditing.findings"],
    ["auditing.losses"],
    ["auditing.audit"],
    ["auditing.image_set", "reporting.contents"],
    ["reporting.report"],
    ["reporting.archive", "experiment.trials.design", "experiment.trials.squares", "experiment.trials.sequence"],
    ["experiment.trials.units", "experiment.responses"],
    ["experiment.trials.sampling", "experiment.trials.answers"],
    ["experiment.trials.material", "experiment.trials.showing"],
    ["experiment.trials.assignment"],
    ["experiment.trials.lists"],
    ["experiment.trials.balance"],
    ["experiment.trials.saving"],
    ["experiment.export.stimulus_set", "experiment.export.jspsych_library"],
    ["experiment.export.data_dictionary", "experiment.export.presentation"],
    ["experiment.export.tables", "experiment.export.jspsych"],
    ["experiment.export.bids", "experiment.export.brainio", "experiment.export.psychopy"],
    ["experiment.export.formats"],
    ["running.maker", "running.pending", "running.clusters"],
    ["running.runner", "running.worker"],
    ["running.driver"],
    ["cli.display"],
    ["cli.weights", "cli.runs"],
    ["cli.audit", "cli.experiments", "cli.run"],
    ["cli.main"],
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

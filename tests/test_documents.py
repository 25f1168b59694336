"""What the documents and docstrings show is true: examples run, protocols are valid, pictures are there."""

from __future__ import annotations

import doctest
import re
import tomllib
from pathlib import Path

import pytest

import stimkit
from stimkit.documents.messages import known_keys
from stimkit.experiment.trials.design import TrialDesign
from stimkit.protocol.protocol import Protocol
from tests.conftest import ROOT

PAGES = [path for path in sorted((ROOT / "docs").rglob("*.md")) if not {"_build", "generated"} & set(path.parts)]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
EXAMPLES = (
    "Protocol", "plan", "preview", "run", "run_shard", "collect", "synthesize", "open_run", "verify", "audit",
    "audit_images", "regenerate", "report", "archive", "TrialDesign", "make_trials", "export", "join_responses",
    "norm", "diff", "simulate", "scale", "measure_features", "measure_stimuli", "compare_stimuli",
)  # fmt: skip
"""In an order in which each has what it needs of those before it."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository as a reader of the documents has it, but with a quickstart of fewer pixels and evaluations."""
    quick = (ROOT / "protocols/quickstart.toml").read_text()
    quick = re.sub(r"size = \d+", "size = 32", re.sub(r"max_evaluations = \d+", "max_evaluations = 2", quick))
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols/quickstart.toml").write_text(quick)
    (tmp_path / "protocols/trials").symlink_to(ROOT / "protocols/trials")
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_examples_of_the_docstrings_run(desk: Path) -> None:
    functions = {name for name in stimkit.__all__ if name.islower() and not name.startswith("_")}
    assert functions <= set(EXAMPLES)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    for name in EXAMPLES:
        value = getattr(stimkit, name)
        (example, *_) = doctest.DocTestFinder(recurse=False).find(value, name, globs={"stimkit": stimkit})
        assert example.examples, f"{name} has no example"
        runner.run(example, out=said.append)
    assert runner.failures == 0, "".join(said)


def test_python_examples_of_the_readme_run(desk: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    space: dict[str, object] = {}
    for block in blocks:
        exec(re.sub(r"size=\d+", "size=32, max_evaluations=2", block), space)
    assert (desk / "runs/quickstart/manifest.nc").is_file()


def test_protocols_in_the_documents_have_keys_that_exist() -> None:
    checked = dict.fromkeys((path.stem for path in DOCUMENTS), 0)
    for path in DOCUMENTS:
        for block in re.findall(r"```toml\n(.*?)```", path.read_text(), re.DOTALL):
            checked[path.stem] += 1
            document = tomllib.loads(block)
            if "jobs" in document:  # of SLURM
                continue
            if {"pages", "trial"} & document.keys() and "participants" not in document:  # a part of a trial design
                block = f'schema = 1\nname = "part"\nparticipants = 1\n{block}'
                document = tomllib.loads(block)
            if "participants" in document:
                assert TrialDesign.from_toml(block).name == document["name"]
                continue
            assert set(document) <= set(known_keys(Protocol, ()))
            for section, table in document.items():
                if section == "observers":  # by names
                    assert all(set(model) <= set(known_keys(Protocol, ("model",))) for model in table.values())
                elif isinstance(table, dict) and section != "include":
                    assert set(table) <= set(known_keys(Protocol, (section,))), f"[{section}] of {path.name}"
    assert all(checked[name] for name in ("README", "control", "experiments"))


def test_links_and_pictures_of_the_documents_are_there() -> None:
    found = 0
    for path in DOCUMENTS:
        for name in re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", path.read_text()):
            if "generated/" not in name:  # those the build of the site checks
                assert (path.parent / name).exists(), f"{path.name} names {name}"
            found += 1
    assert found > 10


def test_modules_that_are_named_anywhere_are_there() -> None:
    """In documents, but also in scripts that stand in a text, and in other languages."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "stimkit").rglob("*.py")}
    modules |= {name.removesuffix(".__init__") for name in modules}
    places = [*DOCUMENTS, *(path for name in ("stimkit", "tests", "benchmarks") for path in (ROOT / name).rglob("*.*"))]
    texts = {path: path.read_text() for path in places if path.suffix in (".md", ".py", ".js")}
    named = {(path.name, name) for path, text in texts.items() for name in re.findall(r"`(\w+/[\w/]+\.py)`", text)}
    assert [one for one in named if not any((ROOT / place / one[1]).is_file() for place in ("stimkit", "."))] == []
    dotted = {(path.name, one) for path, text in texts.items() for one in re.findall(r"\bstimkit(?:\.[a-z]\w+)+", text)}
    lost = []
    for file, name in dotted:
        inside = {name, name.rpartition(".")[0], name.rpartition(".")[0].rpartition(".")[0]}  # a name or a method of it
        if not (inside - {"stimkit", ""}) & modules and not hasattr(stimkit, name.split(".")[1]):
            lost.append((file, name))
    assert [one for one in lost if not one[1].endswith(".nothing")] == [] and len(named) > 10 < len(dotted)

"""The rules of the house: the order of rooms, what stands where, how large it may be, the public names."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

import stimkit
from tests.conftest import ROOT

ROOMS = (
    "errors", "version", "files", "downloads", "columns", "documents", "images", "network", "recognition", "protocol",
    "planning", "synthesis", "stimuli", "records", "runfolder", "running", "differences", "effects", "auditing",
    "reporting", "experiment", "scaling", "measures", "features", "archiving", "cli", "__init__", "__main__",
)  # fmt: skip
"""In the order of imports: a module imports from its own room and from those before it."""
MODULES = {
    ".".join(path.relative_to(ROOT / "stimkit").with_suffix("").parts): path
    for path in sorted((ROOT / "stimkit").rglob("*.py"))
    if path.parent.name != "templates"
}
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
KNOWN = {*MODULES, *(name.removesuffix(".__init__") for name in MODULES)}

PUBLIC = {
    "Comparisons", "Difference", "Observer", "Scales", "compare_stimuli", "diff", "measure_features", "measure_stimuli",
    "norm", "scale", "simulate",
    "Archive", "Audit", "Cell", "Comparison", "Event", "Finding", "Joined", "Plan", "Preview", "Protocol", "Run",
    "RunSummary", "StimkitError", "Synthesis", "TrialDesign", "TrialLists", "Verification", "__version__", "archive",
    "audit", "audit_images", "collect", "export", "join_responses", "make_trials", "open_run", "plan", "preview",
    "regenerate", "report", "run", "run_shard", "synthesize", "verify",
}  # fmt: skip
"""What stays from version to version. A name is added here with the changelog, and removed only there as well."""

WITH_TORCH = {
    "network.cudnn", "network.fitting", "network.losses", "network.region_losses", "network.vgg", "network.winograd",
    "recognition.classifier",
    "cli.doctor",
}  # fmt: skip
"""The modules that load torch, of rooms that otherwise do not: reading a run, and `--help`, must not wait for it."""
ROOMS_WITH_TORCH = {"features", "measures", "synthesis", "stimuli", "running", "auditing", "reporting", "archiving"}

MODULES_PER_ROOM = 12
LINES_PER_MODULE, LONGER_MODULES = 300, {"protocol.settings": 345}
LINES_PER_FUNCTION = 45  # without its docstring
PARAMETERS, MORE_PARAMETERS = 8, {"auditing.regeneration.regenerate": 9, "features.writing.measure_features": 11}
"""Parameters are counted without `progress`, which every long call has.

Exceptions are what was there when the rule was made: one may shrink or go, none may be added without a reason.

`measure_features` has the options of its command as keywords: what is measured, of what, and where."""


def imports(module: str) -> Iterator[tuple[str, str]]:
    """The modules of stimkit that a module imports, also for type checks only, and the names that it takes of each."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "stimkit":
            source = (node.module or "").removeprefix("stimkit").removeprefix(".")
            for alias in node.names:
                inner = f"{source}.{alias.name}".removeprefix(".")
                yield (inner, "") if inner in KNOWN else (source or "__init__", alias.name)


def room_of(module: str) -> int:
    return ROOMS.index(module.partition(".")[0])


def defined(tree: ast.Module) -> Iterator[str]:
    """The names that a module gives to functions, classes and constants of its own."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


# --- rooms ---------------------------------------------------------------------------------------------------


def test_rooms_import_from_rooms_before_them() -> None:
    wrong = [
        (module, imported)
        for module in MODULES
        for imported, _ in imports(module)
        if room_of(imported) > room_of(module)
    ]
    assert wrong == []


def test_modules_import_each_other_in_one_direction() -> None:
    graph = {module: {imported for imported, _ in imports(module)} - {module} for module in MODULES}
    assert list(TopologicalSorter(graph).static_order())  # which raises CycleError


def test_no_module_takes_private_names_of_another() -> None:
    taken = [
        (module, imported, name)
        for module in MODULES
        for imported, name in imports(module)
        if (name or imported.rpartition(".")[2]).startswith("_") and not name.startswith("__")
    ]
    assert taken == []


def test_tests_take_no_private_names() -> None:
    taken = []
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stimkit"):
                taken += [(path.name, alias.name) for alias in node.names if re.match("_[a-z]", alias.name)]
            if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                taken += [] if owner in ("self", "os") else [(path.name, node.attr)]
    assert taken == []


def test_what_reads_runs_does_not_load_torch() -> None:
    light = [
        "stimkit." + module.removesuffix(".__init__")
        for module in MODULES
        if "." in module and module.partition(".")[0] not in ROOMS_WITH_TORCH and module not in WITH_TORCH
    ]
    assert len(light) > 60
    script = f"import importlib, sys\nfor name in {light}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"


def test_commands_load_no_large_library_before_they_run() -> None:
    commands = ["stimkit." + module for module in MODULES if module.startswith("cli.") and module not in WITH_TORCH]
    heavy = ("torch", "pandas", "xarray", "scipy", "skimage")
    script = (
        f"import importlib, json, sys\nfor name in {commands}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {heavy} if name in sys.modules]))"
    )
    assert json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout) == []


@pytest.mark.parametrize("room", sorted(name for name in MODULES if name.endswith(".__init__")))
def test_the_docstring_of_a_room_lists_what_is_in_it(room: str) -> None:
    folder = MODULES[room].parent
    inside = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    inside |= {path.parent.name for path in folder.glob("*/__init__.py")}
    listing = (ast.get_docstring(TREES[room]) or "").partition("\n\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"^(\w+) {1,}\S", listing, re.MULTILINE)) == inside


# --- sizes and names -----------------------------------------------------------------------------------------


def test_rooms_and_modules_keep_their_size() -> None:
    rooms: dict[str, int] = defaultdict(int)
    for module in MODULES:
        if "." in module and not module.endswith("__init__"):
            rooms[module.rpartition(".")[0]] += 1
    assert {room: count for room, count in rooms.items() if count > MODULES_PER_ROOM} == {}
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {one for one, count in lines.items() if count > LONGER_MODULES.get(one, LINES_PER_MODULE)} == set()
    assert all(lines[module] > LINES_PER_MODULE for module in LONGER_MODULES), "an exception that is not needed"


def test_functions_keep_their_size() -> None:
    lines, parameters = {}, {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                name = f"{module}.{node.name}"
                documented = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
                first = node.body[0].end_lineno if documented and node.body[1:] else node.lineno - 1
                lines[name] = (node.end_lineno or 0) - (first or 0)
                arguments = node.args
                given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                parameters[name] = len([one for one in given if one.arg not in ("self", "cls", "progress")])
    commands = {name for name in lines if name.startswith("cli.")}  # whose parameters are the options of the program
    assert {one: count for one, count in lines.items() if count > LINES_PER_FUNCTION} == {}
    assert {
        one for one, count in parameters.items() if count > MORE_PARAMETERS.get(one, PARAMETERS) and one not in commands
    } == set()
    assert all(parameters[name] > PARAMETERS for name in MORE_PARAMETERS), "an exception that is not needed"


def test_a_public_name_stands_in_one_module() -> None:
    """Commands are called like what they call, and each format of export has its `write` and `README`."""
    places: dict[str, list[str]] = defaultdict(list)
    for module, tree in TREES.items():
        if not module.startswith(("cli.", "__init__")):
            for name in {name for name in defined(tree) if not name.startswith("_")}:
                places[name].append(module)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    for name in ("write", "README"):
        assert all(module.startswith("experiment.export.") for module in twice.pop(name))
    assert twice == {}


# --- what is public ------------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert set(stimkit.__all__) == PUBLIC and len(stimkit.__all__) == len(PUBLIC)
    assert not PUBLIC & {room.partition(".")[0] for room in ROOMS if not room.startswith("__")}
    described = re.findall(r"\w+", stimkit.__doc__ or "")
    assert {name for name in PUBLIC if name not in described} == {"__version__"}


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_public_names_exist_and_are_documented(name: str) -> None:
    value = getattr(stimkit, name)
    assert value.__doc__ and value.__name__ == name


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = stimkit.nothing


def test_import_stimkit_loads_nothing_else() -> None:
    script = "import sys, stimkit; print(sorted(name for name in sys.modules if name.startswith('stimkit.')))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "['stimkit.version']\n"

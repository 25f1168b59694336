"""Tables of measurements: the manifest and the rules use them, tampering is found, other files do not count."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import stimkit
from stimkit.columns import Column
from stimkit.errors import RunFolderError, UsageError
from stimkit.features.comparing import DISTANCE_TABLE
from stimkit.measures.measuring import GROUPS
from stimkit.records.measurements import OWN_TABLES, Measurements, read_measurements
from stimkit.records.tables import to_table
from stimkit.runfolder.measuring import enter_measurements
from stimkit.runfolder.run import Run
from tests.conftest import ROOT, document, small_plan

Command = Callable[..., tuple[int, str, str]]
BRIGHT = Column("bright", "1", "how bright it seems")


@pytest.fixture
def run(small_run: Run, tmp_path: Path) -> Run:
    """A copy that a test may change."""
    shutil.copytree(small_run.path, tmp_path / "run")
    return stimkit.open_run(tmp_path / "run")


def bright(run: Run, *values: float) -> dict[str, Mapping[str, float]]:
    return {name: {"bright": value} for name, value in zip(run.records, values, strict=False)}


def test_the_manifest_has_what_was_measured(run: Run) -> None:
    found = enter_measurements(run, "looks", [BRIGHT], bright(run, 0.25, 1 / 3), {"by": "a test"})
    table = pd.read_csv(run.path / "manifest.csv")
    assert table["bright"].tolist()[:2] == [0.25, 1 / 3] and table["bright"].isna().tolist() == [False] * 2 + [True] * 2
    manifest = xr.load_dataset(run.path / "manifest.nc")
    assert manifest["bright"].attrs == {"long_name": "how bright it seems", "units": "1"}
    assert found.measurements["looks"].made == {"by": "a test"}
    assert stimkit.verify(run.path).findings == ()
    again = enter_measurements(found, "looks", [BRIGHT], bright(run, 1.0), {})
    assert [list(one.measured.values()) for one in again.records.values()] == [[1.0], [], [], []]
    assert stimkit.verify(run.path).findings == ()


def test_conditions_and_audits_use_measurements(run: Run, tmp_path: Path) -> None:
    enter_measurements(run, "looks", [BRIGHT], bright(run, 0.0, 1.0, 0.0, 1.0), {})
    stimkit.export(run.path, "csv", tmp_path / "out", where="bright > 0.5", columns=["bright"])
    assert pd.read_csv(tmp_path / "out/stimuli.csv")["bright"].tolist() == [1.0, 1.0]
    effects = stimkit.audit(run.path, device="cpu", losses=False).effects
    (share,) = effects.query('variable == "bright" and factor == "ratio" and model == "alone"')["eta_squared"]
    assert share == pytest.approx(1.0)


def test_rules_of_acceptance_hold_for_what_is_measured(run: Run) -> None:
    rules = small_plan(accept={"measured": {"bright": [0.2, 0.9]}})
    stimkit.run(rules, run.path, device="cpu")
    assert {record.status for record in stimkit.open_run(run.path).records.values()} == {"accepted"}
    found = enter_measurements(stimkit.open_run(run.path), "looks", [BRIGHT], bright(run, 0.1, 0.5, np.nan), {})
    assert [record.status for record in found.records.values()] == ["rejected", *["accepted"] * 3]
    assert next(iter(found.records.values())).status_reason == "bright 0.1 is outside of 0.2 to 0.9"
    assert stimkit.verify(run.path).findings == ()
    stimkit.run(small_plan(), run.path, device="cpu")  # without the rule
    assert {record.status for record in stimkit.open_run(run.path).records.values()} == {"accepted"}


def test_what_was_measured_of_another_file_does_not_count(run: Run) -> None:
    first, *_ = run.records
    enter_measurements(run, "looks", [BRIGHT], bright(run, 0.1, 0.1, 0.1, 0.1), {})
    again = small_plan(accept={"measured": {"bright": [0.2, 0.9]}, "retries": 1})
    summary = stimkit.run(again, run.path, device="cpu")
    assert summary.made == 4 and not summary.rejected
    records = stimkit.open_run(run.path).records
    assert all(record.attempt == 2 and not record.measured for record in records.values())
    assert "bright" not in pd.read_csv(run.path / "manifest.csv")
    late = enter_measurements(run, "looks", [BRIGHT], {first: {"bright": 0.5}}, {})  # of the files as they were
    assert late.measurements["looks"].values == {}


@pytest.mark.alternating
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("looks.csv", lambda text: text.replace("0.25", "0.75")),
        ("looks.json", lambda text: text.replace("how bright", "how dark")),
        ("looks.csv", lambda text: text + "s0,x,not a number\n"),
        ("looks.csv", lambda text: text + text.splitlines()[1] + "\n"),
        ("looks.json", lambda text: text.replace('"bright"', '"__import__"')),
        ("looks.json", lambda text: "[" * 100_000),
        ("looks.csv", lambda text: ""),
    ],
)
def test_tampering_is_found(run: Run, name: str, change: object) -> None:
    enter_measurements(run, "looks", [BRIGHT], bright(run, 0.25), {})
    path = run.path / "measurements" / name
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    found = stimkit.verify(run.path)
    assert "measurements_altered" in {one.name for one in found.findings} and found.errors


def test_a_table_that_is_gone_is_found(run: Run) -> None:
    enter_measurements(run, "looks", [BRIGHT], bright(run, 0.25), {})
    shutil.rmtree(run.path / "measurements")
    names = [one.name for one in stimkit.verify(run.path).findings]
    assert names.count("measurements_altered") == 2


def test_what_was_tampered_with_is_not_used(run: Run, command: Command) -> None:
    plan = small_plan(accept={"measured": {"bright": [0.2, 0.9]}})
    stimkit.run(plan, run.path, device="cpu")
    enter_measurements(stimkit.open_run(run.path), "looks", [BRIGHT], bright(run, 0.1, 0.5), {})
    path = run.path / "measurements" / "looks.csv"
    path.write_text(path.read_text().replace("0.1", "0.3"))
    assert stimkit.open_run(run.path).measurements == {}
    with pytest.raises(RunFolderError, match=r"looks\.csv: it is not the one that was committed"):
        stimkit.run(plan, run.path, device="cpu")  # which would accept what was rejected by it
    code, _, said = command("measure", run.path, "--remove", "look")
    assert code == 2 and 'no measurements "look" (did you mean "looks"?)' in said
    code, said, _ = command("measure", run.path, "--remove", "looks")
    assert code == 0 and not path.exists()
    assert stimkit.verify(run.path).findings == ()
    assert {record.status for record in stimkit.open_run(run.path).records.values()} == {"accepted"}
    enter_measurements(stimkit.open_run(run.path), "looks", [BRIGHT], bright(run, 0.5), {})
    assert stimkit.verify(run.path).findings == ()


@pytest.mark.parametrize("taken", ["ratio", "seed", "bright"])
def test_columns_that_are_there_already_are_refused(run: Run, taken: str) -> None:
    enter_measurements(run, "others", [BRIGHT], {}, {})
    with pytest.raises(UsageError, match=f'have? a column "{taken}" already|has a column "{taken}" already'):
        enter_measurements(run, "looks", [Column(taken, "1", "")], {}, {})


def test_values_come_back_as_they_were() -> None:
    value = 0.1 + 0.2
    table = Measurements("looks", (BRIGHT,), {"s1": {"bright": value}}, {"s1": "ab"}, {"by": "a test"})
    files = table.to_files()
    assert read_measurements("looks", files["looks.csv"], files["looks.json"]) == table
    later = json.dumps({**json.loads(files["looks.json"]), "schema": 99}).encode()
    with pytest.raises(RunFolderError, match="schema 99"):
        read_measurements("looks", files["looks.csv"], later)


def test_protocols_say_what_is_wrong_with_a_rule() -> None:
    with pytest.raises(stimkit.StimkitError, match=r"accept.measured.bright.*lowest, highest"):
        stimkit.Protocol.from_dict(document(accept={"measured": {"bright": [2, 1]}}))


def test_a_run_without_a_journal_gets_one(tmp_path: Path) -> None:
    """It was made before stimkit kept journals."""
    with zipfile.ZipFile(ROOT / "tests/frozen/run-schema-4.zip") as archive:
        archive.extractall(tmp_path)
    run = stimkit.open_run(tmp_path / "run")
    before = {finding.name for finding in stimkit.verify(run.path).findings}
    enter_measurements(run, "looks", [BRIGHT], bright(run, 0.5), {})
    assert {finding.name for finding in stimkit.verify(run.path).findings} <= before
    assert (run.path / "journal.csv").is_file()


@pytest.mark.parametrize("name", ["status", "style_distance_cup", "stimulus_id"])
def test_a_table_cannot_take_the_place_of_a_column(run: Run, name: str) -> None:
    """Whoever made it also entered it in the journal."""
    table = Measurements("evil", (Column(name, "1", ""),), {one: {name: 0.5} for one in run.records}, {}, {})
    forged = replace(table, files={one: record.file_sha256 or "" for one, record in run.records.items()})
    run.store.write_measurements(forged)
    found = stimkit.verify(run.path)
    assert "measurements_altered" in {one.name for one in found.findings}
    assert {record.status for record in stimkit.open_run(run.path).records.values()} == {"accepted"}
    assert to_table(list(stimkit.open_run(run.path).records.values()))["status"].tolist() == ["accepted"] * 4


def test_a_table_cannot_take_the_place_of_a_factor(run: Run) -> None:
    values = {one: {"ratio": 0.5} for one in run.records}
    files = {one: record.file_sha256 or "" for one, record in run.records.items()}
    run.store.write_measurements(Measurements("evil", (Column("ratio", "1", ""),), values, files, {}))
    assert set(to_table(list(stimkit.open_run(run.path).records.values()))["ratio"]) == {1e-5, 1e-4}


def test_two_tables_of_one_column_are_told(run: Run) -> None:
    enter_measurements(run, "looks", [BRIGHT], bright(run, 0.5), {})
    run.store.write_measurements(Measurements("other", (BRIGHT,), {}, {}, {}))
    assert [one.path for one in stimkit.verify(run.path).findings if one.name == "measurements_altered"] == [
        "measurements/other.csv"
    ]


def test_names_of_own_tables_are_known() -> None:
    assert set(OWN_TABLES) == {*GROUPS, DISTANCE_TABLE}

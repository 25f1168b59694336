"""Run folders of older schemas are read, newer ones are refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import stimkit
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import RunFolderError
from stimkit.planning.resolved import RESOLVED, plan_from_resolved, resolve
from stimkit.protocol.limits import Accept
from stimkit.records import migrations
from stimkit.records.schema import read_record
from stimkit.runfolder.run import Run
from tests.conftest import ROOT, document

FROZEN = ROOT / "tests" / "frozen"


OLDER = [1, 2, 3, 4, 5, 6, 7, 8]  # schemas of records


@pytest.fixture(params=OLDER)
def old_run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run folder with records of an older schema, as they were written then."""
    return thawed(request.param, tmp_path)


def thawed(schema: int, folder: Path) -> Path:
    with zipfile.ZipFile(FROZEN / f"run-schema-{schema}.zip") as archive:
        archive.extractall(folder)
    return folder / "run"


def raw_record(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(next((run / "records").glob("s*.json")).read_bytes())
    return record


def test_every_older_schema_has_a_frozen_example(tmp_path: Path) -> None:
    kept = {number: thawed(number, tmp_path / str(number)) for number in OLDER}
    assert {number: raw_record(run)["schema"] for number, run in kept.items()} == {number: number for number in OLDER}
    assert [*OLDER, migrations.RECORD.current] == list(range(1, migrations.RECORD.current + 1))
    assert {raw_lock(run)["schema"] for run in kept.values()} >= set(range(1, RESOLVED.current))


def raw_lock(run: Path) -> dict[str, object]:
    lock: dict[str, object] = json.loads((run / "protocol.lock.json").read_bytes())
    return lock


def test_a_lock_of_schema_1_has_no_rules(tmp_path: Path) -> None:
    before = raw_lock(thawed(1, tmp_path))
    frozen = json.dumps(before)
    plan = plan_from_resolved(RESOLVED.read(before, "it"))
    assert json.dumps(before) == frozen and plan.protocol.accept == Accept()
    assert list(plan.by_id) == before["cells"]


def test_a_record_of_schema_1_gets_its_only_attempt(tmp_path: Path) -> None:
    before = raw_record(thawed(1, tmp_path))
    frozen = json.dumps(before)
    after = migrations.RECORD.read(before, "it")
    assert json.dumps(before) == frozen, "a step changes nothing that it is given"
    assert after["schema"] == migrations.RECORD.current and after["attempt"] == 1
    assert [attempt["seed"] for attempt in after["attempts"]] == [before["seed"]]
    assert {key: after[key] for key in before if key not in ("schema", "normalize")} == {
        key: value for key, value in before.items() if key not in ("schema", "normalize")
    }
    assert before["normalize"] is True and after["normalize"] == "filter"


def test_a_record_of_schema_2_has_factors_only(tmp_path: Path) -> None:
    record = read_record(raw_record(thawed(2, tmp_path)), "it")
    assert (record.attributes, record.role, record.control_of) == ({}, "main", "")
    assert record.settings.aperture == "none" and record.statistics["mean_luminance"] == record.mean_luminance_inside


def test_a_record_of_schema_3_began_with_white_noise(tmp_path: Path) -> None:
    record = read_record(raw_record(thawed(3, tmp_path)), "it")
    assert record.settings.init_slope == 0 and record.attributes == {"kind": "animal"}


@pytest.mark.parametrize(("schema", "key"), [(2, "attempt"), (3, "role"), (4, "rms_contrast_inside"), (4, "levels")])
def test_a_record_lacks_nothing_that_its_schema_has(small_run: Run, schema: int, key: str) -> None:
    flat = next(iter(small_run.records.values())).flat()
    del flat[key]
    with pytest.raises(RunFolderError, match=f"it lacks {key}"):
        read_record({**flat, "schema": schema}, "it")


def test_a_setting_that_a_record_does_not_name_had_its_default(small_run: Run) -> None:
    """As in records that were written before there was the setting; their tables may lack its column."""
    record = next(iter(small_run.records.values()))
    flat = record.flat()
    del flat["init_slope"]
    found = read_record(flat, "it")
    assert found.settings == record.settings and found.names == record.names - {"init_slope"}


def test_a_record_is_what_it_was_after_a_round_trip(small_run: Run) -> None:
    for stimulus_id, record in small_run.records.items():
        raw = json.loads((small_run.path / "records" / f"{stimulus_id}.json").read_bytes())
        assert raw == record.flat() and read_record(raw, "it") == record


@pytest.mark.alternating
def test_an_old_run_is_sound_and_its_tables_may_lack_later_columns(old_run: Path) -> None:
    assert verify(old_run).findings == ()
    table = pd.read_csv(old_run / "manifest.csv", dtype=str, keep_default_na=False)
    table.drop(columns="alpha").to_csv(old_run / "manifest.csv", index=False)
    assert [finding.name for finding in verify(old_run).findings] == ["table_altered"]


@pytest.mark.alternating
def test_an_old_run_is_made_again_and_continued(
    old_run: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    made = regenerate(old_run, tmp_path / "again", device="cpu")
    assert {one.batch for one in made} == {"recorded"}
    assert all(one.loss_again == pytest.approx(one.loss_recorded, rel=0.01) for one in made)
    protocol = tmp_path / "more.toml"
    more = (old_run / "protocol.toml").read_text().replace("ratio = [1e-5]", "ratio = [1e-5, 1e-4]")
    schema = raw_record(old_run)["schema"]
    before = 'scales = 1\nhistory = 10\nimage_range = "free"'
    earlier = {6: "scales = 1\nhistory = 10", 7: "", 8: ""}.get(schema, before)
    more = more.replace("max_evaluations = 6", f"max_evaluations = 6\n{earlier}")
    was, other = ("filter", "layer") if schema in (1, 2, 3, 4) else ("layer", "filter")
    protocol.write_text(more + f'[model]\nnormalize = "{other}"\n')
    code, out, err = command("run", protocol, "--out", old_run, "--device", "cpu")
    assert code == 2 and f'normalize was "{was}" in [model], and is "{other}"' in err
    protocol.write_text(more + f'[model]\nnormalize = "{was}"\n')
    code, out, err = command("run", protocol, "--out", old_run, "--device", "cpu")
    assert code == 0 and "2 of 4 cells made" in out, err
    assert verify(old_run).findings == ()
    assert stimkit.open_run(old_run).dataset["attempt"].values.tolist() == [1] * 4


@pytest.mark.parametrize("schema", [None, 0, -1, True, "2", 1.0, [2]])
def test_what_has_no_known_schema_is_refused(schema: object) -> None:
    with pytest.raises(RunFolderError, match="that file is not a record"):
        migrations.RECORD.read({"schema": schema}, "that file")


def test_a_later_schema_is_refused_with_the_version_that_reads_it() -> None:
    with pytest.raises(RunFolderError, match=r"of schema 10, written by stimkit 3\.2\.1; this one reads"):
        migrations.RECORD.read({"schema": 10, "stimkit_version": "3.2.1"}, "that file")


def test_a_lock_of_schema_2_said_whether_filters_were_rescaled() -> None:
    """As a setting, a factor, in a table or in a condition."""
    changes: dict[str, Any] = {
        "factors": {"normalize": ["filter", "none"]},
        "synthesis": {"image_range": "free", "scales": 1},
    }
    whole = {**document(**changes), "exclude": [{"normalize": "none", "ratio": 1e-4}]}
    plan = stimkit.plan(stimkit.Protocol.from_dict(whole))
    now = json.loads(json.dumps(resolve(plan)))
    assert {cell.settings.normalize for cell in plan.cells} == {"filter", "none"} and len(plan.cells) == 6
    words = {"filter": True, "none": False}

    def before(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: before(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [before(item, key) for item in value]
        return words.get(value, True) if key == "normalize" and value is not None else value

    old = {**now, "schema": 2, "protocol": before(now["protocol"])}
    del old["journal"]
    assert old["protocol"]["factors"]["normalize"] == [True, False]
    assert old["protocol"]["exclude"][0]["normalize"] == [False]
    read = plan_from_resolved(RESOLVED.read(old, "it"))
    assert read.cells == plan.cells

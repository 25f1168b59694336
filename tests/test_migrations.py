"""Run folders of older schemas are read, newer ones are refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import stimkit
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import RunFolderError
from stimkit.planning.resolved import LOCK, plan_of
from stimkit.protocol.limits import Accept
from stimkit.records import migrations
from tests.conftest import ROOT

FROZEN = ROOT / "tests" / "frozen"


OLDER = [1, 2, 3]  # schemas of records


@pytest.fixture(params=OLDER)
def old_run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run folder with records of an older schema, as they were written then."""
    return thawed(request.param, tmp_path)


def thawed(schema: int, folder: Path) -> Path:
    with zipfile.ZipFile(FROZEN / f"run-schema-{schema}.zip") as archive:
        archive.extractall(folder)
    return folder / "run"


def raw_record(run: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads(next((run / "records").glob("s*.json")).read_bytes())
    return record


def test_every_older_schema_has_a_frozen_example(tmp_path: Path) -> None:
    kept = {number: thawed(number, tmp_path / str(number)) for number in OLDER}
    assert [raw_record(run)["schema"] for run in kept.values()] == list(migrations.RECORD.steps)
    assert {raw_lock(run)["schema"] for run in kept.values()} >= set(LOCK.steps)
    for schema in (migrations.RECORD, LOCK):
        assert list(schema.steps) == list(range(1, schema.current))


def raw_lock(run: Path) -> dict[str, object]:
    lock: dict[str, object] = json.loads((run / "protocol.lock.json").read_bytes())
    return lock


def test_a_lock_of_schema_1_has_no_rules(tmp_path: Path) -> None:
    before = raw_lock(thawed(1, tmp_path))
    frozen = json.dumps(before)
    plan = plan_of(LOCK.read(before, "it"))
    assert json.dumps(before) == frozen and plan.protocol.accept == Accept()
    assert list(plan.by_id) == before["cells"]


def test_a_record_of_schema_1_gets_its_only_attempt(tmp_path: Path) -> None:
    before = raw_record(thawed(1, tmp_path))
    frozen = json.dumps(before)
    after = migrations.RECORD.read(before, "it")
    assert json.dumps(before) == frozen, "a step changes nothing that it is given"
    assert after["schema"] == migrations.RECORD.current and after["attempt"] == 1
    assert [attempt["seed"] for attempt in after["attempts"]] == [before["seed"]]
    assert {key: after[key] for key in before if key != "schema"} == {
        key: value for key, value in before.items() if key != "schema"
    }


def test_a_record_of_schema_2_has_factors_only(tmp_path: Path) -> None:
    after = migrations.RECORD.read(raw_record(thawed(2, tmp_path)), "it")
    assert after["attributes"] == {}


def test_a_record_of_schema_3_began_with_white_noise(tmp_path: Path) -> None:
    after = migrations.RECORD.read(raw_record(thawed(3, tmp_path)), "it")
    assert after["init_slope"] == 0 and after["attributes"] == {"kind": "animal"}


def test_an_old_run_is_sound_and_its_tables_may_lack_later_columns(old_run: Path) -> None:
    assert verify(old_run).findings == ()
    table = pd.read_csv(old_run / "manifest.csv", dtype=str, keep_default_na=False)
    table.drop(columns="alpha").to_csv(old_run / "manifest.csv", index=False)
    assert [finding.kind for finding in verify(old_run).findings] == ["table_altered"]


def test_an_old_run_is_made_again_and_continued(
    old_run: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    made = regenerate(old_run, tmp_path / "again", device="cpu")
    assert {one.batch for one in made} == {"recorded"}
    assert all(one.loss_again == pytest.approx(one.loss_recorded, rel=0.01) for one in made)
    protocol = tmp_path / "more.toml"
    protocol.write_text((old_run / "protocol.toml").read_text().replace("ratio = [1e-5]", "ratio = [1e-5, 1e-4]"))
    code, out, err = command("run", protocol, "--out", old_run, "--device", "cpu")
    assert code == 0 and "2 of 4 cells made" in out, err
    assert verify(old_run).findings == ()
    assert stimkit.open_run(old_run).dataset["attempt"].values.tolist() == [1] * 4


@pytest.mark.parametrize("schema", [None, 0, -1, True, "2", 1.0, [2]])
def test_what_has_no_known_schema_is_refused(schema: object) -> None:
    with pytest.raises(RunFolderError, match="that file is not a record"):
        migrations.RECORD.read({"schema": schema}, "that file")


def test_a_later_schema_is_refused_with_the_version_that_reads_it() -> None:
    with pytest.raises(RunFolderError, match=r"of schema 9, written by stimkit 3\.2\.1; this one reads"):
        migrations.RECORD.read({"schema": 9, "stimkit_version": "3.2.1"}, "that file")

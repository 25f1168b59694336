"""The journal: whatever is changed in a record is found, also after tables were made again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import stimkit
from stimkit.archiving.archive import archive
from stimkit.auditing.table_agreement import csv_agrees
from stimkit.auditing.verification import check_records, verify
from stimkit.errors import RunFolderError, WeightsError
from stimkit.network.sources import load_weights
from stimkit.network.weights import save_weights
from stimkit.planning.resolved import RESOLVED
from stimkit.records.tables import manifest_csv
from stimkit.runfolder.journal import HEADER, JOURNAL, extend_journal, lengthen, read_journal
from stimkit.runfolder.run import Run, read_run
from stimkit.runfolder.store import RunStore
from stimkit.running.events import Event
from stimkit.running.runner import collect
from tests.conftest import changed, document, small_plan


@pytest.fixture
def run(small_run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run.path, tmp_path / "run"))


def found(run: Path) -> set[tuple[str, str]]:
    return {(finding.name, finding.path) for finding in verify(run).findings}


def first_record(run: Path) -> Path:
    return min((run / "records").glob("*.json"))


def other(value: Any) -> Any:
    """A value of the same kind."""
    if isinstance(value, dict):
        return {**value, next(iter(value), "more"): other(next(iter(value.values()), ""))}
    if isinstance(value, list):
        return [*value[:-1], other(value[-1])]
    if isinstance(value, str):
        return f"{value[:-1]}{'0' if value[-1:] != '0' else '1'}"
    return not value if isinstance(value, bool) else 1 if value is None else value + 1


def test_a_change_of_any_field_is_found(run: Path) -> None:
    path = first_record(run)
    record = json.loads(path.read_text())
    assert list(check_records(read_run(run))) == []
    for key, value in record.items():
        path.write_text(json.dumps({**record, key: other(value)}))
        names = {(one.name, one.path) for one in check_records(read_run(run))}
        assert names & {(f"record_{what}", f"records/{path.name}") for what in ("altered", "damaged")}, key


@pytest.mark.alternating
@pytest.mark.parametrize(
    ("key", "beside"),
    [("mean_luminance", set()), ("file_sha256", {"stimulus_altered"}), ("trace_sha256", {"trace_altered"})],
)
def test_a_change_is_blamed_on_the_record_after_the_tables_were_made_again(
    run: Path, key: str, beside: set[str]
) -> None:
    path = first_record(run)
    whole = path.read_bytes()
    record = json.loads(whole)
    path.write_text(json.dumps({**record, key: other(record[key])}))
    collect(run)
    assert ("record_altered", f"records/{path.name}") in found(run)
    assert {name for name, _ in found(run)} - {"record_altered"} == beside
    path.write_bytes(whole)
    collect(run)
    assert found(run) == set()


def test_a_run_does_not_go_on_from_an_altered_record(run: Path) -> None:
    path = first_record(run)
    path.write_text(json.dumps({**json.loads(path.read_text()), "device": "another"}))
    before = {one.name: one.read_bytes() for one in run.rglob("*") if one.is_file() and not one.name.startswith(".")}
    with pytest.raises(RunFolderError, match="is not the one that was committed; restore it from a copy"):
        stimkit.run(small_plan(), run, device="cpu")
    after = {one.name: one.read_bytes() for one in run.rglob("*") if one.is_file() and not one.name.startswith(".")}
    assert after == before
    path.unlink()
    assert stimkit.run(small_plan(), run, device="cpu").made == 1
    assert found(run) == set()


def test_the_chain_is_what_its_description_says(run: Path) -> None:
    header, *lines = (run / JOURNAL).read_text().splitlines()
    assert f"{header}\n" == HEADER and len(lines) == 5
    chain = ""
    for line in lines:
        name, digest, after = line.split(",")
        assert hashlib.sha256((run / name).read_bytes()).hexdigest() == digest
        chain = hashlib.sha256(f"{chain},{name},{digest}".encode()).hexdigest()
        assert chain == after


@pytest.mark.parametrize("change", ["swap", "drop", "edit", "header", "gone", "binary"])
def test_a_changed_journal_is_found_and_nothing_goes_on_from_it(run: Path, change: str) -> None:
    path = run / JOURNAL
    lines = path.read_text().splitlines(keepends=True)
    changes = {
        "swap": [lines[0], lines[2], lines[1], *lines[3:]],
        "drop": [*lines[:2], *lines[3:]],
        "edit": [*lines[:2], lines[2].replace("records/", "record5/"), *lines[3:]],
        "header": ["file\n", *lines[1:]],
        "binary": ["\xff\x00"],
    }
    path.unlink()
    if change in changes:
        path.write_text("".join(changes[change]), encoding="latin1")
    assert ("journal_damaged", JOURNAL) in found(run)
    with pytest.raises(RunFolderError, match="restore it from a copy"):
        stimkit.run(small_plan(factors={"ratio": [1e-5, 1e-4, 1e-3]}), run, device="cpu")


def test_a_dropped_last_line_is_blamed_on_its_record(run: Path) -> None:
    lines = (run / JOURNAL).read_text().splitlines(keepends=True)
    (run / JOURNAL).write_text("".join(lines[:-1]))
    assert found(run) == {("record_altered", lines[-1].split(",")[0])}


def test_an_interrupted_line_does_no_harm(run: Path) -> None:
    before = read_journal(run)
    with (run / JOURNAL).open("a") as file:
        file.write("records/s0123456789.json,01")
    assert read_journal(run) == before and found(run) == set()
    extend_journal(run, "inputs/one.png", b"1")
    after = read_journal(run)
    assert after.damage == "" and after.digests.keys() - before.digests.keys() == {"inputs/one.png"}


def test_lines_follow_each_other_however_many_are_entered_at_once(tmp_path: Path) -> None:
    for number in range(60):
        extend_journal(tmp_path, f"records/{number}.json", b"%d" % number)
    entries = [(f"records/{number}.json", hashlib.sha256(b"%d" % number).hexdigest()) for number in range(60)]
    assert (tmp_path / JOURNAL).read_bytes() == lengthen(HEADER.encode(), entries)
    assert read_journal(tmp_path).digests == {name: [digest] for name, digest in entries}


def test_the_fields_of_a_lock_that_no_id_depends_on(run: Path) -> None:
    path = run / "protocol.lock.json"
    path.write_text(path.read_text().replace('"stimkit_version": "', '"stimkit_version": "9.'))
    assert ("lock_altered", path.name) in found(run)
    path.write_text(path.read_text().replace('"journal": true', '"journal": false'))
    assert ("lock_altered", path.name) in found(run)


# --- forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"status": "accepted", "status": "failed"}', "twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": 1e999}', "is not a number"),
        ('{"a": ' + "9" * 400 + "}", "is not a number"),
        ("[" * 100_000, "nested too deep"),
    ],
)
@pytest.mark.alternating
def test_json_that_readers_understand_differently_is_refused(run: Path, text: str, said: str) -> None:
    first_record(run).write_text(text)
    details = [one.detail for one in verify(run).findings if one.name == "record_damaged"]
    assert len(details) == 1 and said in details[0] and len(details[0]) < 300
    for name in ("protocol.lock.json", "environment.json"):
        whole = (run / name).read_bytes()
        (run / name).write_text(text)
        if name == "environment.json":
            assert any(said in one.detail for one in verify(run).findings if one.name == "environment_damaged")
        else:
            assert any(said in one.detail for one in verify(run).findings if one.name == "lock_altered")
        (run / name).write_bytes(whole)


def test_an_unknown_key_of_a_lock_is_refused(run: Path) -> None:
    path = run / "protocol.lock.json"
    path.write_text(path.read_text().replace('"journal": true', '"journal": true, "mood": "good"'))
    assert ("lock_altered", path.name) in found(run)
    with pytest.raises(RunFolderError, match="mood"):
        collect(run)


def test_links_and_files_of_other_kinds(run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.npy"
    trace = min((run / "traces").iterdir())
    shutil.move(trace, outside)
    trace.symlink_to(outside)
    assert found(run) == {("linked", f"traces/{trace.name}")}
    trace.unlink()
    os.link(outside, trace)
    assert found(run) == {("linked", f"traces/{trace.name}")}
    trace.unlink()
    os.mkfifo(trace)
    assert ("trace_missing", f"traces/{trace.name}") in found(run)


@pytest.mark.parametrize(
    "name", ["protocol.toml", "environment.json", "manifest.csv", "journal.csv", "contact_sheet.png"]
)
def test_pipes_and_devices_are_not_read(run: Path, name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    assert name in {path for _, path in found(run)}
    (run / name).unlink()
    (run / name).symlink_to("/dev/zero")
    assert ("linked", name) in found(run)


def test_other_files_beside_those_of_the_run_are_told_and_no_error(run: Path) -> None:
    (run / "notes.txt").touch()
    (run / ".git").mkdir()
    result = verify(run)
    assert [(one.name, one.severity, one.path) for one in result.findings] == [("extra_file", "notice", "notes.txt")]
    assert result.errors == 0


# --- tables ----------------------------------------------------------------------------------------------------


def test_dropped_columns_are_found(run: Path) -> None:
    import pandas as pd

    table = pd.read_csv(run / "manifest.csv", dtype=str, keep_default_na=False)
    table.drop(columns=["mean_luminance"]).to_csv(run / "manifest.csv", index=False, lineterminator="\n")
    assert ("table_altered", "manifest.csv") in found(run)
    records = list(read_run(run).records.values())
    whole = manifest_csv(records)
    assert csv_agrees(whole, whole, records)
    for name in table.columns:
        dropped = table.drop(columns=[name]).to_csv(index=False, lineterminator="\n").encode()
        assert not csv_agrees(dropped, whole, records), name


def test_forged_units_and_dropped_variables_are_found(run: Path) -> None:
    import netCDF4

    whole = (run / "manifest.nc").read_bytes()
    with netCDF4.Dataset(run / "manifest.nc") as table:
        units = {name: one.units for name, one in table.variables.items() if "units" in one.ncattrs()}
    assert len(units) > 20
    for name in list(units)[::12]:
        (run / "manifest.nc").write_bytes(whole)
        with netCDF4.Dataset(run / "manifest.nc", "a") as table:
            table[name].units = "furlong"
        assert ("table_altered", "manifest.nc") in found(run), name


# --- inputs and commits ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_kept_inputs_are_missed_and_left_out_of_archives_with_notice(tmp_path: Path, photograph: Path) -> None:
    images = {"root": str(tmp_path), "content": {"photo": photograph.name}}
    run = tmp_path / "run"
    stimkit.run(small_plan(images=images), run, device="cpu", keep_inputs=True)
    assert read_journal(run).last("inputs/content-photo.png") and found(run) == set()
    archive(run, tmp_path / "run.zip")
    subprocess.run(["unzip", "-q", tmp_path / "run.zip", "-d", tmp_path / "unpacked"], check=True)
    assert not (tmp_path / "unpacked/inputs").exists() and found(tmp_path / "unpacked") == set()
    (run / "inputs/content-photo.png").unlink()
    assert found(run) == {("input_missing", "inputs/content-photo.png")}


@pytest.mark.parametrize("name", ["stimuli", "traces", "records"])
def test_an_empty_file_is_made_again_and_told(run: Path, name: str) -> None:
    path = min((run / name).iterdir())
    path.write_bytes(b"")
    told: list[Event] = []
    assert stimkit.run(small_plan(), run, device="cpu", on_event=told.append).made == 1
    assert "1 cells are made again" in told[0].note
    assert found(run) == set() and path.stat().st_size > 0


def test_a_killed_renaming_makes_nothing_again(run: Path) -> None:
    """A stimulus has its new name, and its record still says the old one."""
    renamed = small_plan(images={"content": {"kitten": "skimage:chelsea"}})
    one = next(iter(read_run(run).records.values()))
    (run / "stimuli" / one.filename).rename(run / "stimuli" / renamed.by_id[one.stimulus_id].filename)
    assert stimkit.run(renamed, run, device="cpu").made == 0
    assert found(run) == set()


def test_what_an_interrupted_commit_left_is_pending_and_not_foreign(run: Path) -> None:
    first_record(run).unlink()
    collect(run)
    assert found(run) == set() and verify(run).complete == 3


def test_a_folder_without_a_journal_gets_one(tmp_path: Path) -> None:
    """As stimkit made them before: their records are entered as they are when the run goes on."""
    run, before = tmp_path / "run", small_plan(model={"normalize": "filter"}, synthesis={"image_range": "free"})
    stimkit.run(before, run, device="cpu")
    (run / JOURNAL).unlink()
    path = run / "protocol.lock.json"
    lock = json.loads(path.read_bytes())
    del lock["journal"]
    lock["protocol"]["model"]["normalize"] = True  # which was the default, and is given again below
    path.write_text(json.dumps({**lock, "schema": 2}))
    assert RunStore.open(run).journal() is None
    assert ("journal_damaged", JOURNAL) not in found(run)
    assert stimkit.run(before, run, device="cpu").made == 0
    assert json.loads(path.read_bytes())["schema"] == RESOLVED.current and len(read_journal(run).digests) == 5
    assert found(run) == set()


def test_a_record_written_anew_is_entered_again(run: Path) -> None:
    store = RunStore.open(run)
    record = next(iter(read_run(run).records.values()))
    store.rewrite(changed(record, torch_version="0"))
    assert len((run / JOURNAL).read_text().splitlines()) == 7
    assert read_run(run).altered == {}


def test_a_record_that_was_entered_and_not_written_is_written_by_the_next_run(run: Path) -> None:
    path = first_record(run)
    whole = path.read_bytes()
    extend_journal(run, f"records/{path.name}", whole.replace(b'"replicate": 1', b'"replicate": 2'))
    (finding,) = verify(run).findings
    assert finding.name == "record_altered" and "run the protocol again" in finding.detail
    assert stimkit.run(small_plan(), run, device="cpu").made == 0
    assert found(run) == set() and path.read_bytes() == whole


def test_a_lock_cannot_say_that_there_is_no_journal(run: Path) -> None:
    """A change of a record would go unseen without it."""
    lock = json.loads((run / "protocol.lock.json").read_text())
    (run / "protocol.lock.json").write_text(json.dumps({**lock, "journal": False}))
    (run / JOURNAL).unlink()
    assert "journal_damaged" in {name for name, _ in found(run)}
    with pytest.raises(RunFolderError, match="is not as it was written"):
        stimkit.run(small_plan(), run, device="cpu")


def test_inputs_of_a_lock_are_those_of_its_protocol(run: Path) -> None:
    """Their kinds and names become names of files."""
    path = run / "protocol.lock.json"
    lock = json.loads(path.read_text())
    for kind, name in (("/tmp/elsewhere", "x"), ("content", "../x"), ("style", "unknown")):
        path.write_text(
            json.dumps({**lock, "inputs": [*lock["inputs"], {**lock["inputs"][0], "kind": kind, "name": name}]})
        )
        with pytest.raises(RunFolderError, match="which its protocol does not name"):
            _ = read_run(run).plan


def test_weights_that_are_rescaled_otherwise_do_not_continue_a_run(tmp_path: Path) -> None:
    """Tensors, digest and ids are the same; the network is another one."""
    weights = load_weights("pca")
    save_weights(weights, tmp_path / "w.safetensors")

    def plan() -> stimkit.Plan:
        sections = document(model={"weights": "w.safetensors"}, factors={"style_layers": ["one"], "ratio": [1e-5]})
        return stimkit.plan(stimkit.Protocol.from_dict(sections, base=tmp_path))

    before = plan()
    stimkit.run(before, tmp_path / "run", device="cpu")
    save_weights(replace(weights, unit_mean_pooling=None), tmp_path / "w.safetensors")
    assert [cell.id for cell in plan().cells] == [cell.id for cell in before.cells]
    with pytest.raises(RunFolderError, match='had unit means for the pooling "average", and now for "none"'):
        stimkit.run(plan(), tmp_path / "run", device="cpu")
    with pytest.raises(WeightsError, match="were not found"):
        stimkit.open_run(tmp_path / "run").inputs().weights(before.cells[0].settings)

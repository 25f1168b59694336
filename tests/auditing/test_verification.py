"""`verify` and `status`: a run folder that is sound, and each way in which it may not be."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import stimkit
from stimkit.archiving.archive import archive
from stimkit.auditing.audit import audit
from stimkit.auditing.findings import FILE_FINDINGS
from stimkit.auditing.verification import verify
from stimkit.errors import RunFolderError, StimkitError
from stimkit.planning.resolved import plan_from_resolved, resolve
from stimkit.runfolder.run import Run, read_run
from stimkit.runfolder.store import RunStore
from stimkit.running.runner import collect
from tests.conftest import ROOT, small_plan


@pytest.fixture
def run(small_run: Run, tmp_path: Path) -> Path:
    """A copy of a finished run that may be damaged, at another place than it was made."""
    return Path(shutil.copytree(small_run.path, tmp_path / "moved"))


def found(run: Path) -> list[tuple[str, str]]:
    return [(finding.name, finding.stimulus_id) for finding in verify(run).findings]


def first(run: Path) -> tuple[str, Path, Path]:
    """Id, stimulus and record of the first cell."""
    record = next(iter(read_run(run).records.values()))
    return record.stimulus_id, run / "stimuli" / record.filename, run / f"records/{record.stimulus_id}.json"


def first_of(run: Path) -> tuple[str, Path, Path]:
    """Id, stimulus and record of a cell of a run whose lock cannot be read."""
    record = min((run / "records").iterdir())
    return record.stem, run / "stimuli" / json.loads(record.read_bytes())["filename"], record


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_a_moved_run_is_sound(run: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = verify(run, lambda done, total: seen.append((done, total)))
    assert result.findings == ()
    assert result.complete == result.planned == len(read_run(run).records)
    assert seen[-1] == (result.planned, result.planned)


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, trace=np.zeros((6, 3), np.float32))


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda run: np.save(next((run / "traces").iterdir()), np.zeros(5, np.float32)), "trace_altered"),
        (lambda run: npz(next((run / "traces").iterdir())), "trace_altered"),
        (lambda run: next((run / "traces").iterdir()).write_bytes(b""), "trace_altered"),
        (lambda run: shutil.rmtree(run / "traces"), "trace_missing"),
        (lambda run: shutil.rmtree(run / "stimuli"), "stimulus_missing"),
        (lambda run: half_a_stimulus(run), "stimulus_altered"),
        (lambda run: (run / "environment.json").unlink(), "record_altered"),
        (lambda run: edit(run / "environment.json", newer_torch), "environment_damaged"),
        (lambda run: (run / "environment.json").write_text('{"e": NaN}'), "environment_damaged"),
        (lambda run: (run / "environment.json").write_text("[]"), "environment_damaged"),
        (lambda run: (run / "contact_sheet.png").write_bytes(b"no picture"), "table_altered"),
    ],
)
@pytest.mark.alternating
def test_damage_is_found_and_reported_by_every_command(run: Path, damage: Callable[[Path], object], kind: str) -> None:
    damage(run)
    assert kind in {name for name, _ in found(run)}
    assert kind in {finding.name for finding in audit(run, device="cpu", losses=False).findings}
    with suppress(StimkitError):
        collect(run)
    if kind != "table_altered":  # tables are made again
        assert kind in {name for name, _ in found(run)}


def half_a_stimulus(run: Path) -> None:
    """With a record that says it is whole."""
    _, stimulus, record = first(run)
    stimulus.write_bytes(stimulus.read_bytes()[:400])
    edit(record, lambda one: one.update(file_sha256=hashlib.sha256(stimulus.read_bytes()).hexdigest()))


def newer_torch(environments: dict[str, Any]) -> None:
    for environment in environments.values():
        environment["packages"]["torch"] = "99"


@pytest.mark.parametrize("key", ["cells", "protocol_sha256", "protocol", "inputs", "factors"])
def test_a_lock_without_a_part_is_no_lock(run: Path, key: str) -> None:
    edit(run / "protocol.lock.json", lambda lock: lock.pop(key))
    with pytest.raises(RunFolderError, match=key):
        collect(run)
    _, stimulus, _ = first_of(run)
    stimulus.write_bytes(b"")
    findings = verify(run).findings
    assert [finding.name for finding in findings] == ["lock_altered", "stimulus_altered"], "one hides no other"
    assert key in findings[0].detail


@pytest.mark.parametrize("name", ["../../private.png", "/etc/private.png", "..\\private.png", "private.txt"])
def test_no_file_outside_of_the_run_is_shown_or_read(run: Path, name: str) -> None:
    Image.fromarray(np.full((32, 32, 3), (255, 0, 255), np.uint8)).save(run.parent / "private.png")
    _, _, record = first(run)
    edit(record, lambda one: one.update(filename=name))
    assert ("record_damaged", record.stem) in found(run)
    with pytest.raises(RunFolderError, match="filename"):
        collect(run)
    with pytest.raises(RunFolderError, match="filename"):
        stimkit.open_run(run).image(record.stem)


def test_what_file_managers_leave_is_no_damage(run: Path, tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "._x.png"):
        (run / "stimuli" / name).write_bytes(b"x")
    assert verify(run).findings == ()
    archive(run, tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "set.zip") as packed:
        assert not [name for name in packed.namelist() if "DS_Store" in name or "Thumbs" in name or "._" in name]


def test_one_pixel(run: Path) -> None:
    stimulus_id, stimulus, _ = first(run)
    pixels = np.asarray(Image.open(stimulus)).copy()
    pixels[3, 4, 1] ^= 1
    Image.fromarray(pixels).save(stimulus)
    (finding,) = verify(run).findings
    assert (finding.name, finding.stimulus_id) == ("stimulus_altered", stimulus_id)
    assert finding.detail == "its pixels differ" and finding.path == f"stimuli/{stimulus.name}"


def test_another_file_of_the_same_pixels(run: Path) -> None:
    stimulus_id, stimulus, _ = first(run)
    Image.open(stimulus).save(stimulus, compress_level=0)
    (finding,) = verify(run).findings
    assert (finding.name, finding.stimulus_id) == ("stimulus_altered", stimulus_id)
    assert finding.detail == "its bytes differ, its pixels are unchanged"


def test_half_a_file(run: Path) -> None:
    stimulus_id, stimulus, _ = first(run)
    stimulus.write_bytes(stimulus.read_bytes()[:100])
    assert found(run) == [("stimulus_altered", stimulus_id)]


def test_two_swapped_files(run: Path) -> None:
    one, other = sorted((run / "stimuli").iterdir())[:2]
    one.rename(run / "x")
    other.rename(one)
    (run / "x").rename(other)
    findings = verify(run).findings
    assert [finding.name for finding in findings] == ["stimulus_swapped"] * 2
    assert findings[0].detail == f"it is the stimulus of {findings[1].stimulus_id}"


def test_missing_files(run: Path) -> None:
    stimulus_id, stimulus, _ = first(run)
    stimulus.unlink()
    (run / "traces" / f"{stimulus_id}.npy").unlink()
    (run / "losses.csv").unlink()
    # manifest.nc cannot be made again without the trace, so it cannot be said to agree.
    assert [kind for kind, _ in found(run)] == ["stimulus_missing", "trace_missing", "table_missing", "table_altered"]


def test_extra_files(run: Path) -> None:
    (run / "stimuli" / "nice.png").write_bytes(b"")
    (run / "records" / "s0123456789.json").write_text("{}")
    findings = {(finding.name, finding.path) for finding in verify(run).findings}
    assert {("extra_file", "stimuli/nice.png"), ("extra_file", "records/s0123456789.json")} <= findings


def test_a_trace(run: Path) -> None:
    stimulus_id, *_ = first(run)
    path = run / "traces" / f"{stimulus_id}.npy"
    trace = np.load(path)
    trace[-1, 2] *= 1.01
    np.save(path, trace)
    assert found(run) == [("trace_altered", stimulus_id), ("table_altered", "")]


@pytest.mark.parametrize(
    ("key", "value"),
    [("alpha", 2.0), ("seed", 1), ("pooling", "max"), ("weights_sha256", "0" * 64), ("env_id", "e1")],
)
def test_one_parameter_of_a_record(run: Path, key: str, value: object) -> None:
    stimulus_id, _, record = first(run)
    edit(record, lambda one: one.update({key: value}))
    findings = verify(run).findings
    assert [(one.name, one.stimulus_id) for one in findings][:2] == [("record_altered", stimulus_id)] * 2
    details = " ".join(one.detail for one in findings[:2])
    assert "it is not the one that was committed" in details
    assert key.removesuffix("_id") in details or "environment" in details
    assert "table_altered" in {finding.name for finding in findings}


def test_a_loss_in_a_record_no_longer_agrees_with_the_tables(run: Path) -> None:
    _, _, record = first(run)
    edit(record, lambda one: one["losses"]["file"].update(total=1e-9))  # type: ignore[index]
    findings = verify(run).findings
    assert {finding.name for finding in findings} == {"record_altered", "table_altered"}
    tables = {finding.path for finding in findings if finding.name == "table_altered"}
    assert tables == {"manifest.csv", "losses.csv", "manifest.nc"}


def test_a_dropped_row_and_a_damaged_record(run: Path) -> None:
    rows = (run / "manifest.csv").read_text().splitlines(keepends=True)
    (run / "manifest.csv").write_text("".join(rows[:-1]))
    assert [finding.path for finding in verify(run).findings] == ["manifest.csv"]
    stimulus_id, _, record = first(run)
    record.write_text("{")
    assert ("record_damaged", stimulus_id) in found(run)


def test_the_protocol_and_its_lock(run: Path) -> None:
    with (run / "protocol.toml").open("a") as file:
        file.write("# a remark\n")
    assert found(run) == [("protocol_altered", ""), ("table_altered", "")]  # manifest.nc holds the protocol, too
    edit(run / "protocol.lock.json", lambda lock: lock["protocol"]["synthesis"].update(history=3))  # type: ignore[index]
    assert [kind for kind, _ in found(run)][:3] == ["lock_altered", "lock_altered", "protocol_altered"]


_SOURCES = ("verification.py", "evidence.py", "table_agreement.py")


def test_every_kind_of_finding_is_described() -> None:
    source = "".join((ROOT / "stimkit/auditing" / name).read_text() for name in _SOURCES)
    used = {kind for kind in FILE_FINDINGS if f'"{kind}"' in source}
    assert used == FILE_FINDINGS.keys()


@pytest.mark.parametrize("path", sorted((ROOT / "protocols").glob("*.toml")), ids=lambda path: path.stem)
def test_a_lock_is_enough_to_make_its_plan_again(path: Path) -> None:
    plan = stimkit.plan(stimkit.Protocol.load(path))
    again = plan_from_resolved(json.loads(json.dumps(resolve(plan))))
    assert again.cells == plan.cells
    assert again.inputs == tuple(dataclasses.replace(one, problem=None) for one in plan.inputs)
    assert [list(cell.levels) for cell in again.cells] == [list(cell.levels) for cell in plan.cells]


def test_locks_of_every_kind_of_factor_are_read() -> None:
    plan = small_plan(
        factors={
            "ratio": [0, 1e-5, float("inf")],
            "size": [32, [24, 40]],
            "pooling": ["max", "average"],
            "init": ["noise"],
        }
    )
    assert plan_from_resolved(json.loads(json.dumps(resolve(plan)))).cells == plan.cells


Command = Callable[..., tuple[int, str, str]]


def test_commands(run: Path, command: Command) -> None:
    code, out, _ = command("verify", run)
    assert code == 0 and "everything is as it was committed" in out
    state = json.loads(command("status", run, "--json")[1])
    assert state["pending"] == state["failed"] == [] and state["writer"] is None
    stimulus_id, stimulus, record = first(run)
    stimulus.unlink()
    code, out, _ = command("verify", run)
    assert code == 5 and f"stimulus_missing  stimuli/{stimulus.name}" in out
    record.unlink()
    code, out, _ = command("status", run)
    assert code == 0 and f"pending  {stimulus_id}" in out
    with RunStore.open(run).writing():
        assert "being written by process" in command("status", run)[1]


def test_a_newer_lock_is_refused(run: Path, command: Command) -> None:
    edit(run / "protocol.lock.json", lambda lock: lock.update(schema=99))
    code, _, err = command("verify", run)
    assert code == 2 and "is of schema 99, written by stimkit" in err


@pytest.mark.parametrize(
    "forged",
    [
        {"titrate_error": "x"},
        {"titrate_tolerance": None},
        {"content_layers_used": 3},
        {"role": 1},
        {"bits": 12.5},
        {"transfer": "log"},
        {"gamma": 0},
    ],
)
@pytest.mark.alternating
def test_records_with_values_of_another_kind_are_damaged(
    small_run: Run, tmp_path: Path, forged: dict[str, object]
) -> None:
    run = shutil.copytree(small_run.path, tmp_path / "run")
    path = next((run / "records").glob("*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **forged}))
    assert [(one.name, one.path) for one in verify(run).findings][:1] == [("record_damaged", f"records/{path.name}")]


@pytest.mark.parametrize("stages", [{"equalized": None}, {"shown": {}}])
def test_records_with_other_stages_are_damaged(small_run: Run, tmp_path: Path, stages: dict[str, object]) -> None:
    run = shutil.copytree(small_run.path, tmp_path / "run")
    path = next((run / "records").glob("*.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "losses": {**record["losses"], **stages}}))
    assert "record_damaged" in [one.name for one in verify(run).findings]

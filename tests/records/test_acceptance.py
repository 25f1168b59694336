"""Rules of acceptance: what they say about a stimulus, and what a run does with one that breaks them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import stimkit
from stimkit.auditing.audit import audit
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import ProtocolError, StimkitError
from stimkit.planning.cells import Plan
from stimkit.protocol.limits import Accept
from stimkit.records.acceptance import list_objections
from stimkit.records.methods import methods_paragraph
from stimkit.records.schema import Record, build_record
from stimkit.runfolder.run import Run, read_run
from tests.conftest import changed, document, small_plan

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def record(small_run: Run) -> Record:
    """The record of a stimulus, with round numbers where rules look."""
    record = next(iter(small_run.records.values()))
    flat = record.flat()
    flat |= {"clip_low_frac": 0.02, "clip_high_frac": 0.01, "mean_luminance_inside": 0.3, "rms_contrast_inside": 0.5}
    flat["stop_reason"] = "rtol"
    for stage, losses in (("initial", (8.0, 4.0, 10.0)), ("optimized", (1.9, 0.9, 2.0)), ("file", (2.0, 1.0, 2.5))):
        flat["losses"][stage] |= dict(zip(("content", "style", "total"), losses, strict=True))
    return build_record(flat, "it")


@pytest.mark.parametrize(
    ("rules", "objection"),
    [
        ({}, ""),
        ({"relative_content_loss": 0.25, "relative_style_loss": 0.25, "relative_total_loss": 0.25}, ""),
        ({"relative_content_loss": 0.2}, "relative content loss 0.25 > 0.2"),
        ({"relative_style_loss": 0.24}, "relative style loss 0.25 > 0.24"),
        ({"relative_total_loss": 0.1}, "relative total loss 0.25 > 0.1"),
        ({"loss_increase": 0.25}, ""),
        ({"loss_increase": 0.2}, "what follows the optimization increased the total loss by 0.25 > 0.2"),
        ({"clipping": 0.031}, ""),
        ({"clipping": 0.02}, "clipping 0.03 > 0.02"),
        ({"stop_reason": ["rtol", "target_style"]}, ""),
        ({"stop_reason": ["target_style"]}, "stop reason rtol is not among target_style"),
        ({"mean_luminance": [0.3, 0.4], "rms_contrast": [0.1, 0.5]}, ""),
        ({"mean_luminance": [0.31, 0.4]}, "mean_luminance 0.3 is outside of 0.31 to 0.4"),
        ({"rms_contrast": [0, 0.4], "clipping": 0}, "clipping 0.03 > 0; rms_contrast 0.5 is outside of 0 to 0.4"),
    ],
)
def test_every_rule(record: Record, rules: dict[str, Any], objection: str) -> None:
    assert list_objections(record, Accept.model_validate_json(json.dumps(rules))) == objection


@pytest.mark.parametrize(("weight", "term"), [("alpha", "content"), ("beta", "style")])
def test_a_term_that_is_not_optimized_breaks_no_rule(record: Record, weight: str, term: str) -> None:
    rules = Accept.model_validate({f"relative_{term}_loss": 0.01})
    assert list_objections(record, rules)
    assert list_objections(changed(record, **{weight: 0.0}), rules) == ""


def test_a_term_that_a_cell_does_not_have_breaks_no_rule(record: Record) -> None:
    flat = record.flat()
    for losses in flat["losses"].values():
        losses["content"] = None
    assert list_objections(build_record(flat, "it"), Accept(relative_content_loss=0.01)) == ""


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ({"clippping": 0.1}, 'accept.clippping: unknown key (did you mean "clipping"?)'),
        ({"clipping": 2}, "accept.clipping: must be <= 1 (got 2)"),
        ({"relative_style_loss": 0}, "accept.relative_style_loss: must be > 0 (got 0)"),
        ({"mean_luminance": [0.5, 0.2]}, "accept.mean_luminance: must be [lowest, highest] (got [0.5, 0.2])"),
        ({"stop_reason": ["converged"]}, "accept.stop_reason[0]: must be "),
        ({"retries": -1}, "accept.retries: must be >= 0 (got -1)"),
    ],
)
def test_mistakes_in_rules_are_told(accept: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        small_plan(accept=accept)
    assert message in str(caught.value)


def test_retries_need_noise() -> None:
    with pytest.raises(ProtocolError, match='another try differs in its noise, and init = "content" has none'):
        small_plan(accept={"retries": 1}, synthesis={"init": "content"})


@pytest.mark.parametrize("term", ["content", "style"])
def test_nothing_is_relative_to_an_initial_loss_of_zero(term: str) -> None:
    with pytest.raises(ProtocolError, match=f"the {term} loss of the initial image is zero"):
        small_plan(accept={f"relative_{term}_loss": 0.5}, synthesis={"init": term})


def test_retries_and_shared_noise_exclude_each_other() -> None:
    with pytest.raises(ProtocolError, match='seeds = "shared" asks for the same'):
        stimkit.plan(stimkit.Protocol.from_dict({**document(accept={"retries": 1}), "seeds": "shared"}))


def test_rules_and_labels_change_no_id() -> None:
    before = small_plan()
    after = small_plan(accept={"clipping": 0.1, "retries": 3}, images={"licence": {"cat": "CC0-1.0"}})
    described = stimkit.plan(stimkit.Protocol.from_dict({**document(), "description": "words", "name": "renamed"}))
    assert before.by_id.keys() == after.by_id.keys() == described.by_id.keys()


def test_attempts_have_seeds_of_their_own() -> None:
    cell = small_plan().cells[0]
    attempts = [cell.at_attempt(number) for number in (1, 2, 3)]
    assert attempts[0] == cell and len({one.seed for one in attempts}) == 3
    assert attempts[1].at_attempt(3) == attempts[2] and {one.id for one in attempts} == {cell.id}
    assert all(one.seed < 2**48 for one in attempts)


# --- runs ----------------------------------------------------------------------------------------------------


def strict_plan(limit: float, retries: int) -> Plan:
    """Eight cells, some of which break a rule on luminance, which the noise decides in so few evaluations."""
    return small_plan(
        accept={"mean_luminance": [limit, 1.0], "retries": retries},
        factors={"replicate": 4, "ratio": [1e-5], "style_layers": ["one", "two"]},
        synthesis={"max_evaluations": 2, "init_contrast": 1.0},
    )


@pytest.fixture(scope="module")
def limit(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The median luminance of the cells without a rule."""
    folder = tmp_path_factory.mktemp("free") / "run"
    stimkit.run(strict_plan(0.0, 0), folder, device="cpu")
    luminance = stimkit.open_run(folder).dataset["mean_luminance"]
    assert luminance.std() > 0
    return float(luminance.median())


def test_rejected_stimuli_stay_with_status_and_reason(limit: float, tmp_path: Path, command: Command) -> None:
    summary = stimkit.run(strict_plan(limit, 0), tmp_path / "run", device="cpu")
    assert len(summary.rejected) == 4 and summary.made == 8 and not summary.failed
    table = pd.read_csv(tmp_path / "run" / "manifest.csv")
    rejected = table[table["status"] == "rejected"]
    assert sorted(rejected["stimulus_id"]) == sorted(summary.rejected)
    assert rejected["status_reason"].str.startswith("mean_luminance ").all()
    assert (rejected["mean_luminance"] < limit).all() and (table["attempt"] == 1).all()
    assert all((tmp_path / "run" / "stimuli" / name).is_file() for name in rejected["filename"])
    code, out, _ = command("status", tmp_path / "run")
    assert code == 0 and "4 of 8 stimuli done, 0 pending, 4 rejected, 0 failed" in out
    assert verify(tmp_path / "run").findings == ()


def test_retries_are_recorded_and_can_be_made_again(limit: float, tmp_path: Path) -> None:
    run = tmp_path / "run"
    plan = strict_plan(limit, 3)
    stimkit.run(plan, run, device="cpu", batch_size=3)
    records = list(read_run(run).records.values())
    tried = [record for record in records if record.attempt > 1]
    assert tried, "some cell was not accepted at once"
    for record in records:
        reasons = [attempt.status_reason for attempt in record.attempts]
        assert len(reasons) == record.attempt <= 4
        assert all(reasons[:-1]) and (record.status == "rejected") == bool(reasons[-1])
        assert record.seed == plan.by_id[record.stimulus_id].at_attempt(record.attempt).seed
        assert record.seed == record.attempts[-1].seed
    assert verify(run).findings == ()
    made = regenerate(run, tmp_path / "again", device="cpu")
    assert {(one.tier, one.batch) for one in made} == {("identical_file", "recorded")}


def test_rules_that_change_judge_what_is_there(limit: float, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stimkit.run(strict_plan(0.0, 0), run, device="cpu")
    files = {path.name: path.stat().st_mtime_ns for path in (run / "stimuli").iterdir()}
    stricter = stimkit.run(strict_plan(limit, 0), run, device="cpu")
    assert stricter.made == 0 and len(stricter.rejected) == 4 and verify(run).findings == ()
    assert {path.name: path.stat().st_mtime_ns for path in (run / "stimuli").iterdir()} == files
    retried = stimkit.run(strict_plan(limit, 1), run, device="cpu")
    assert retried.made == 4 and verify(run).findings == ()
    for record in read_run(run).records.values():
        assert [bool(attempt.status_reason) for attempt in record.attempts][:-1] == [True] * (record.attempt - 1)
    attempts = {record.stimulus_id: record.attempt for record in read_run(run).records.values()}
    assert {one for one, attempt in attempts.items() if attempt == 2} == set(stricter.rejected)
    lenient = stimkit.run(strict_plan(0.0, 0), run, device="cpu")
    assert lenient.made == 0 and lenient.rejected == () and verify(run).findings == ()


def test_a_forged_status_is_found(limit: float, tmp_path: Path) -> None:
    run = tmp_path / "run"
    rejected = stimkit.run(strict_plan(limit, 0), run, device="cpu").rejected[0]
    path = run / "records" / f"{rejected}.json"
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "status": "accepted", "status_reason": ""}))
    found = [finding for finding in verify(run).findings if finding.name == "record_altered"]
    assert {finding.stimulus_id for finding in found} == {rejected}
    assert any("status is 'accepted'" in finding.detail for finding in found)


def test_the_methods_name_the_rules(limit: float, tmp_path: Path) -> None:
    plan = strict_plan(limit, 0)
    stimkit.run(plan, tmp_path / "run", device="cpu")
    run = read_run(tmp_path / "run")
    records = list(run.records.values())
    text = methods_paragraph(plan, records, run.environments)
    assert f"Stimuli were accepted by the rules: mean_luminance {limit:g} to 1. 4 of 8 were not accepted." in text
    without = replace(plan, protocol=small_plan().protocol)
    assert "accepted by" not in methods_paragraph(without, records[:1], {})


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda record: record["attempts"].append(record["attempts"][0]), "attempt is not the number"),
        (lambda record: record["attempts"][0].update(seed=1), "attempts is"),
        (lambda record: record["attempts"][0].update(stop_reason="rtol"), "attempts is"),
        (lambda record: record["losses"]["file"]["style_layers"].clear(), "losses.file are not of the style layers"),
        (lambda record: record["losses"]["file"].update(content=None), "table"),
        (lambda record: record.update(attempts=[]), "form of a record: attempts"),
        (lambda record: record.update(attempts="many"), "form of a record: attempts"),
        (lambda record: record.update(mean_luminance=None), "form of a record: mean_luminance"),
        (lambda record: record["losses"]["initial"].update(total=-1), "form of a record: losses.initial.total"),
        (lambda record: record["losses"]["initial"].update(total=10**400), "is not a number of JSON"),
        (lambda record: record["losses"]["file"].update(style="0.5"), "form of a record: losses.file.style"),
        (lambda record: record["losses"].pop("optimized"), "form of a record: losses.optimized"),
        (lambda record: record["attempts"][0].pop("batch_id"), "form of a record: attempts.0.batch_id"),
        (lambda record: record.pop("stop_reason"), "lacks stop_reason"),
        (lambda record: record.update(mood="good"), "has what no record has: mood"),
        (lambda record: record.update(rtol="small"), "form of a record: rtol"),
    ],
)
@pytest.mark.alternating
def test_forged_records_are_found_and_break_nothing(
    small_run: Run, tmp_path: Path, change: Callable[[dict[str, Any]], Any], detail: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run.path, run)
    path = next((run / "records").glob("s*.json"))
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps(record))
    found = verify(run).findings
    assert detail in " ".join(f"{finding.name} {finding.detail}" for finding in found)
    assert {finding.stimulus_id for finding in found} <= {path.stem, ""}
    assert audit(run, device="cpu", losses=False).failed
    with suppress(StimkitError):  # which is a plain message
        regenerate(run, tmp_path / "again", cells=[path.stem], device="cpu")

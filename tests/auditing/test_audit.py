"""Audits: a sound run passes, every kind of tampering is named, losses are measured again by another path."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import stimkit
from stimkit.auditing.audit import Audit, audit
from stimkit.auditing.findings import FILE_FINDINGS, FINDINGS, SEVERITIES, Finding, rank
from stimkit.auditing.remeasurement import Remeasurement
from stimkit.auditing.rules import among_replicates, find_confounds, find_outliers, judge_stimuli, robust_z
from stimkit.auditing.saving import audit_values, save_audit
from stimkit.errors import ProtocolError, RunFolderError
from stimkit.files import check_writable
from stimkit.images.pixels import pixel_digest, resize, to_float
from stimkit.images.png import encode_png
from stimkit.images.reading import decode_image
from stimkit.planning.inputs import PlanInputs
from stimkit.protocol.limits import AuditLimits
from stimkit.runfolder import derived
from stimkit.runfolder.run import Run, read_run
from tests.conftest import forge, small_plan

Command = Callable[..., tuple[int, str, str]]
CPU = torch.device("cpu")


@pytest.fixture
def run(small_run: Run, tmp_path: Path) -> Path:
    """A copy of the small run that may be changed."""
    shutil.copytree(small_run.path, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def sound(small_run: Run) -> Audit:
    return audit(small_run.path, device="cpu")


def errors(found: Audit) -> set[tuple[str, str]]:
    return {(one.name, one.stimulus_id) for one in found.findings if one.severity == "error"}


def edit(run: Path, change: Callable[[dict[str, Any]], Any], *, rebuild: bool) -> str:
    """Change the first record, hide that from the journal and with `rebuild` from the tables; return its id."""
    stimulus_id = one_of(run)
    record = json.loads((run / "records" / f"{stimulus_id}.json").read_text())
    change(record)
    forge(run, stimulus_id, **record)
    if rebuild:
        derived.rebuild(read_run(run))
    return stimulus_id


def scale(stage: str, factor: float) -> Callable[[dict[str, Any]], None]:
    """Change all losses of a stage so that they still add up."""

    def change(record: dict[str, Any]) -> None:
        losses = record["losses"][stage]
        for term in ("content", "style"):
            losses[f"{term}_layers"] = {name: factor * value for name, value in losses[f"{term}_layers"].items()}
        losses.update({term: factor * losses[term] for term in ("content", "style", "total")})

    return change


# --- runs ----------------------------------------------------------------------------------------------------


def test_a_sound_run_has_no_errors_and_its_losses_are_found_again(sound: Audit, small_run: Run) -> None:
    assert errors(sound) == set() and not sound.failed and sound.complete == sound.planned == 4
    table = sound.stimuli.set_index("stimulus_id")
    assert list(table.index) == list(small_run.records)
    for term in ("content", "style", "total"):
        assert np.allclose(table[f"loss_{term}_again"], table[f"loss_{term}_file"], rtol=1e-4)
    names = {finding.name for finding in sound.findings}
    assert "not_converged" in names, "six evaluations are too few"
    assert names <= FINDINGS.keys() and {finding.severity for finding in sound.findings} <= set(SEVERITIES)


def test_findings_come_by_severity_with_the_numbers_behind_them(sound: Audit) -> None:
    order = [SEVERITIES.index(finding.severity) for finding in sound.findings]
    assert order == sorted(order)
    for finding in sound.findings:
        if finding.limit is not None:
            assert finding.value is not None and finding.value > finding.limit


def test_one_changed_loss(run: Path) -> None:
    one = edit(run, lambda record: record["losses"]["file"]["style_layers"].update(conv1_1=1e-3), rebuild=True)
    assert errors(audit(run, device="cpu")) == {("loss_mismatch", one), ("loss_inconsistent", one)}


@pytest.mark.parametrize("stage", ["file", "initial", "optimized"])
@pytest.mark.parametrize("factor", [0.97, 1.1])
@pytest.mark.alternating
def test_losses_forged_so_that_they_add_up(run: Path, stage: str, factor: float) -> None:
    one = edit(run, scale(stage, factor), rebuild=True)
    expected = {
        "file": {("loss_mismatch", one)},
        "initial": {("loss_mismatch", one), ("loss_inconsistent", one)},  # the trace knows it, too
        "optimized": {("loss_inconsistent", one)},
    }
    assert errors(audit(run, device="cpu")) == expected[stage]


def test_one_parameter(run: Path) -> None:
    one = edit(run, lambda record: record.update(alpha=0.5), rebuild=True)
    assert errors(audit(run, device="cpu")) == {("record_altered", one)}


def test_one_statistic(run: Path) -> None:
    one = edit(run, lambda record: record.update(mean_luminance=record["mean_luminance"] + 1e-6), rebuild=True)
    assert errors(audit(run, device="cpu")) == {("statistic_mismatch", one)}


def test_one_pixel(run: Path) -> None:
    one, record = next(iter(stimkit.open_run(run).records.items()))
    path = run / "stimuli" / record.filename
    pixels = decode_image(path.read_bytes(), "it")
    pixels[3, 4, 1] ^= 1
    path.write_bytes(encode_png(pixels))
    assert errors(audit(run, device="cpu")) == {("stimulus_altered", one)}


def test_two_swapped_files(run: Path) -> None:
    (one, first), (two, second) = list(stimkit.open_run(run).records.items())[:2]
    paths = [run / "stimuli" / record.filename for record in (first, second)]
    before = [path.read_bytes() for path in paths]
    for path, data in zip(paths, reversed(before), strict=True):
        path.write_bytes(data)
    assert errors(audit(run, device="cpu")) == {("stimulus_swapped", one), ("stimulus_swapped", two)}


def test_a_dropped_row_and_a_dropped_record(run: Path) -> None:
    lines = (run / "manifest.csv").read_text().splitlines()
    (run / "manifest.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert errors(audit(run, device="cpu")) == {("table_altered", "")}
    gone = next(iter(stimkit.open_run(run).records))
    (run / "records" / f"{gone}.json").unlink()
    found = audit(run, device="cpu")
    assert {name for name, _ in errors(found)} == {"table_altered"}, "what is pending is not foreign"
    assert [finding.stimulus_id for finding in found.findings if finding.name == "pending"] == [gone]


def test_a_forged_stimulus_with_fresh_digests(run: Path) -> None:
    """Files and records agree, and so do the tables; only the picture is another one."""
    pixels = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = encode_png(pixels)
    (run / "stimuli" / read_run(run).records[one_of(run)].filename).write_bytes(data)
    digests = {"file_sha256": hashlib.sha256(data).hexdigest(), "pixel_sha256": pixel_digest(pixels)}
    one = edit(run, lambda record: record.update(digests), rebuild=True)
    assert errors(audit(run, device="cpu")) == {("loss_mismatch", one), ("statistic_mismatch", one)}


def one_of(run: Path) -> str:
    return next(iter(stimkit.open_run(run).records))


def test_an_altered_lock_leaves_nothing_to_audit(run: Path) -> None:
    path = run / "protocol.lock.json"
    lock = json.loads(path.read_bytes())
    lock["cells"].reverse()
    path.write_text(json.dumps(lock))
    found = audit(run, device="cpu")
    assert ("lock_altered", "") in errors(found) and found.stimuli.empty


def test_missing_inputs_are_said_and_the_rest_is_audited(tmp_path: Path, photograph: Path) -> None:
    plan = small_plan(images={"root": str(tmp_path), "content": {"photo": photograph.name}})
    stimkit.run(plan, tmp_path / "run", device="cpu")
    photograph.unlink()
    found = audit(tmp_path / "run", device="cpu")
    said = [finding for finding in found.findings if finding.name == "losses_not_checked"]
    assert len(said) == 1 and "--inputs" in said[0].detail and not found.failed
    assert found.stimuli["entropy"].notna().all() and found.stimuli["ssim_content"].isna().all()


def test_losses_are_checked_wherever_the_inputs_are_there(tmp_path: Path, photograph: Path) -> None:
    """As in an archive, which holds only the images that may be passed on."""
    images = {"root": str(tmp_path), "content": {"cat": "skimage:chelsea", "photo": photograph.name}}
    stimkit.run(small_plan(images=images), tmp_path / "run", device="cpu")
    photograph.unlink()
    found = audit(tmp_path / "run", device="cpu")
    checked = found.stimuli.set_index("content")["loss_total_again"]
    assert checked["cat"].notna().all() and checked["photo"].isna().all() and not found.failed
    (said,) = [finding for finding in found.findings if finding.name == "losses_not_checked"]
    assert 'content image "photo"' in said.detail


def test_what_cannot_be_written_is_told_before_anything_is_computed(
    run: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "file").touch()
    code, _, err = command("report", run, "--out", tmp_path / "file" / "report.html", "--device", "cpu")
    assert code == 6 and "cannot be written" in err
    before = sorted(run.iterdir())
    check_writable(run)
    assert sorted(run.iterdir()) == before


def test_failed_and_rejected_cells(run: Path) -> None:
    def failed(record: dict[str, Any]) -> None:
        reason = "the loss became non-finite and no shorter step helped"
        record.update(status="failed", status_reason=reason)
        record["attempts"][0]["status_reason"] = reason
        record["losses"]["optimized"]["total"] = None

    one = edit(run, failed, rebuild=False)
    (run / "stimuli" / read_run(run).records[one].filename).unlink()
    derived.rebuild(read_run(run))
    assert errors(audit(run, device="cpu")) == {("failed", one)}


def test_limits_of_the_protocol_fail_the_audit(tmp_path: Path, command: Command) -> None:
    limits = {"still_falling": 0.01, "confounds": {"mean_luminance": {"style_layers": 0.0}}}
    stimkit.run(small_plan(audit=limits), tmp_path / "run", device="cpu")
    found = audit(tmp_path / "run", device="cpu")
    assert {name for name, _ in errors(found)} <= {"not_converged", "confound"}
    assert "not_converged" in {name for name, _ in errors(found)} and found.failed
    code, out, _ = command("audit", tmp_path / "run", "--device", "cpu")
    assert code == 5 and "error    not_converged" in out


def test_command_writes_tables(run: Path, command: Command) -> None:
    code, out, err = command("audit", run, "--device", "cpu")
    assert code == 0 and "4 of 4 stimuli audited" in out, err
    findings, stimuli, effects = (
        pd.read_csv(run / "audit" / f"{name}.csv") for name in ("findings", "stimuli", "effects")
    )
    assert len(stimuli) == 4 and set(effects["model"]) >= {"alone"} and set(findings["severity"]) <= set(SEVERITIES)
    code, out, _ = command("audit", run, "--json", "--no-losses")
    found = json.loads(out)
    assert code == 0 and found["planned"] == 4 and not found["failed"] and len(found["stimuli"]) == 4
    assert "loss_total_again" not in found["stimuli"][0]
    assert command("verify", run)[0] == 0, "the tables of an audit are no foreign files"


@pytest.mark.parametrize(
    "sections",
    [
        {"synthesis": {"optimizer": "adam", "learning_rate": 0.5, "max_evaluations": 12}},
        {"synthesis": {"init": "content"}, "factors": {"ratio": [math.inf, 1e-5], "style_layers": ["one"]}},
        {"synthesis": {"init": "style"}, "factors": {"ratio": [0.0, 1e-5], "style_layers": ["one"]}},
        {"images": {"content": {"cup": "skimage:coffee"}}, "factors": {"loss": ["paper", "mean"], "ratio": [1e-5]}},
        {"images": {"content": None}, "factors": {"ratio": [0.0], "precision": ["float32", "float64"]}},
        {"factors": {"size": [6, 32], "ratio": [1e-5], "replicate": 3}, "layers": {"content": ["conv1_1"]}},
        {"factors": {"ratio": [1e39], "style_layers": ["one"]}},
    ],
    ids=["adam", "from content", "from style", "same picture", "style only", "tiny", "all fail"],
)
@pytest.mark.alternating
def test_sound_runs_of_unusual_designs_pass(sections: dict[str, Any], tmp_path: Path) -> None:
    stimkit.run(small_plan(**sections), tmp_path / "run", device="cpu")
    found = audit(tmp_path / "run", device="cpu")
    assert errors(found) <= {("failed", one) for one in stimkit.open_run(tmp_path / "run").records}


def test_an_audit_as_json_keeps_every_number(run: Path) -> None:
    edit(run, lambda record: record["losses"]["file"].update(total=None), rebuild=True)
    found = audit(run, device="cpu")
    found.effects["p"] = 1.2345e-14
    text = json.dumps(audit_values(found), allow_nan=False)
    assert json.loads(text)["effects"][0]["p"] == 1.2345e-14
    mismatch = next(one for one in json.loads(text)["findings"] if one["name"] == "loss_mismatch")
    assert mismatch["value"] is None


def test_a_damaged_environment_is_a_finding(run: Path) -> None:
    (run / "environment.json").write_text("{")
    assert errors(audit(run, device="cpu", losses=False)) >= {("environment_damaged", "")}


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        audit(tmp_path)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"confounds": {"luminance": 0.1}},
            '"luminance" is not a variable of every audit (did you mean "mean_luminance"?)',
        ),
        (
            {"confounds": {"entropy": {"styles": 0.1}}},
            '"styles" is not a factor or attribute of this protocol (did you mean "style"?)',
        ),
        ({"confounds": {"entropy": 2}}, "audit.confounds.entropy: must be <= 1 (got 2)"),
        ({"confounds": {"entropy": {"style": "x"}}}, 'audit.confounds.entropy.style: must be a number (got "x")'),
        ({"outlier": 0}, "audit.outlier: must be > 0 (got 0)"),
    ],
)
def test_mistakes_in_limits_are_told(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        small_plan(audit=limits)
    assert message in str(caught.value)


# --- losses again ----------------------------------------------------------------------------------------------


def test_targets_have_no_loss_and_company_changes_nothing() -> None:
    plan = small_plan(factors={"loss": ["paper", "mean"]})
    again = Remeasurement(plan, PlanInputs(plan), CPU)
    inputs = PlanInputs(plan)
    for convention in ("paper", "mean"):
        cells = [cell for cell in plan.cells if cell.settings.loss == convention]
        images = [
            to_float(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)) for seed in range(4)
        ]
        together = [own for own, *_ in again.losses(cells, images)]
        alone = [next(again.losses([cell], [image]))[0] for cell, image in zip(cells, images, strict=True)]
        for one, other in zip(together, alone, strict=True):
            assert one.total == pytest.approx(other.total, rel=1e-5)
        for term, name in (("content", "cat"), ("style", "cup")):
            target = to_float(resize(inputs.image(term, name), (32, 32), "crop"))
            assert getattr(next(again.losses(cells[:1], [target]))[0], term) == pytest.approx(0, abs=1e-9)


def test_chance_is_the_loss_of_the_other_pictures() -> None:
    images = {
        "content": {"cat": "skimage:chelsea", "man": "skimage:camera"},
        "style": {"cup": "skimage:coffee", "wall": "skimage:brick"},
    }
    plan = small_plan(images=images)
    inputs = PlanInputs(plan)
    again = Remeasurement(plan, inputs, CPU)
    cell = next(cell for cell in plan.cells if len(cell.style_layers) == 2)
    pictures = {
        (kind, name): to_float(resize(inputs.image(kind, name), (32, 32), "crop"))
        for kind in images
        for name in images[kind]
    }
    for term in ("content", "style"):
        own = (term, getattr(cell, term))
        expected = sorted(
            getattr(next(again.losses([cell], [one]))[0], term) for key, one in pictures.items() if key != own
        )
        chance = again.chance(term, cell)
        assert chance is not None and np.allclose(sorted(chance.values), expected, rtol=1e-5)
        assert chance.percentile(0.0) == 0 and chance.percentile(expected[-1]) == 100
        assert chance.percentile(expected[0]) == pytest.approx(100 / 3)
        assert chance.relative(expected[1]) == pytest.approx(1)


def test_an_image_has_no_chance_without_others() -> None:
    plan = small_plan(images={"content": {"cat": "skimage:coffee"}})
    assert Remeasurement(plan, PlanInputs(plan), CPU).chance("style", plan.cells[0]) is None


# --- rules ----------------------------------------------------------------------------------------------------


def stimuli(count: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "stimulus_id": [f"s{index}" for index in range(count)],
            "style": ["a", "b"] * (count // 2),
            "replicate": [1 + index // 2 for index in range(count)],
            "status": "accepted",
            "status_reason": "",
            "stop_reason": "rtol",
            "evaluations": 100,
            "rollbacks": 0,
            "clipped": 0.0,
            "loss_increase": 0.0,
            "still_falling": 0.0,
            "equalize_error": np.nan,
            "mean_luminance": rng.normal(0.4, 0.01, count),
            "rms_contrast": rng.normal(0.5, 0.01, count),
        }
    )


def names(table: pd.DataFrame, **limits: Any) -> list[tuple[str, str, str]]:
    made, of_set = table[table["status"] != "failed"], AuditLimits(**limits)
    found = [*judge_stimuli(table, of_set), *find_outliers(made, of_set, ("style", "replicate"))]
    return [(one.name, one.severity, one.stimulus_id) for one in found]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"clipped": 0.06}, ("clipping", "warning")),
        ({"loss_increase": 0.2}, ("loss_increase", "warning")),
        ({"still_falling": 0.2, "stop_reason": "max_evaluations"}, ("not_converged", "warning")),
        ({"stop_reason": "stalled"}, ("stalled", "notice")),
        ({"rollbacks": 2}, ("rolled_back", "warning")),
        ({"status": "rejected", "status_reason": "dark"}, ("rejected", "notice")),
        ({"status": "failed", "status_reason": "no"}, ("failed", "error")),
    ],
)
def test_each_rule_names_its_stimulus(values: dict[str, Any], expected: tuple[str, str]) -> None:
    table = stimuli()
    assert names(table) == []
    for name, value in values.items():
        table.loc[3, name] = value
    assert names(table, outlier=1e9) == [(*expected, "s3")]


def test_only_limits_of_the_protocol_are_errors() -> None:
    table = stimuli()
    table.loc[1, "clipped"] = 0.03
    assert names(table, outlier=1e9) == []
    assert names(table, outlier=1e9, clipping=0.02) == [("clipping", "error", "s1")]
    table.loc[2, "still_falling"] = 0.9
    assert names(table, outlier=1e9) == [], "it was not stopped by max_evaluations"


def test_clean_replicates_have_no_outliers() -> None:
    """A spread of five values by themselves would be unsure: of 600 groups about 70 would have one beyond 5."""
    rng = np.random.default_rng(0)
    groups = [rng.normal(size=5) * scale for scale in rng.uniform(1, 4, 600)]
    z = among_replicates(groups, 1.0).reshape(600, 5)
    assert (np.abs(z) > 5).any(1).sum() <= 6
    groups[7][2] += 60
    z = among_replicates(groups, 1.0).reshape(600, 5)
    assert np.abs(z[7, 2]) > 5 and np.abs(z[7, [0, 1, 3, 4]]).max() < 5


def test_an_outlier_in_a_small_set() -> None:
    table = stimuli(12)
    table["style"] = "a"
    assert set(names(table)) == set()
    table.loc[4, "mean_luminance"] = 5.0
    assert set(names(table)) == {("outlier", "warning", "s4")}


def test_an_outlier_among_replicates_and_in_the_design() -> None:
    table = stimuli(24)
    table.loc[4, "mean_luminance"] = 0.9
    assert set(names(table)) == {("outlier", "warning", "s4")}
    table["mean_luminance"] += 1.0 * (table["style"] == "a")
    assert set(names(table)) == {("outlier", "warning", "s4")}, "what a factor does is no outlier"
    assert set(names(table, outlier=2000.0)) == set()


def test_different_stimuli_are_no_replicates_and_rounding_is_no_spread() -> None:
    table = stimuli()
    table["style"] = [f"style{index}" for index in range(len(table))]
    table.loc[4, "mean_luminance"] = 0.9
    assert names(table) == []
    table = stimuli()
    table["evaluations"] = np.where(table["style"] == "a", 300.0, 10000.0) + 1e-9 * np.arange(len(table))
    table["evaluations"] += np.where(table.index == 2, 1e-7, 0.0)
    assert names(table) == []


def test_robust_z() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert robust_z(values, 100.0) == pytest.approx((values - 3) / 1.4826)
    assert robust_z(np.array([5.0, 5.0, 5.0, 9.0]), 9.0).tolist() == [0, 0, 0, 0]
    assert np.allclose(robust_z(7 * values + 2, 702.0), robust_z(values, 100.0))


def test_confounds_are_judged_by_omega_squared_alone() -> None:
    effects = pd.DataFrame(
        [
            {"variable": "entropy", "factor": "style", "model": "alone", "eta_squared": 0.5, "omega_squared": 0.4},
            {"variable": "entropy", "factor": "style", "model": "together", "eta_squared": 0.9, "omega_squared": 0.9},
            {
                "variable": "entropy",
                "factor": "content",
                "model": "alone",
                "eta_squared": 1.0,
                "omega_squared": math.nan,
            },
        ]
    ).assign(p_permutation=0.01, omega_squared_chance=0.15)

    def found(**limits: Any) -> list[tuple[float | None, float | None]]:
        return [(one.value, one.limit) for one in find_confounds(effects, limits)]

    assert found() == found(entropy={"*": 1.0}) == found(mean_luminance={"*": 0.0}) == []
    assert found(entropy={"*": 0.45}) == [(None, 0.45)], "without an error term it cannot be judged"
    assert found(entropy={"style": 0.3}) == [(0.4, 0.3)]
    assert found(entropy={"*": 0.1, "style": 0.5, "content": 1.0}) == []
    less = effects.assign(omega_squared=0.05)
    (chance,) = find_confounds(less, {"entropy": {"style": 0.1}})
    assert (chance.name, chance.value) == ("limit_within_chance", 0.15)


def test_ranking() -> None:
    base = Finding("clipping", "warning", "s1", "", 0.2, 0.1)
    worse, error = replace(base, stimulus_id="s2", value=0.4), replace(base, name="stimulus_altered", severity="error")
    assert rank([base, worse, error]) == [error, worse, base]
    assert list(FINDINGS)[: len(FILE_FINDINGS)] == list(FILE_FINDINGS)


def test_saved_tables_are_read_back(sound: Audit, tmp_path: Path) -> None:
    folder = save_audit(sound, tmp_path / "new" / "audit")
    table = pd.read_csv(folder / "stimuli.csv")
    assert np.array_equal(table["entropy"], sound.stimuli["entropy"])
    assert json.loads((folder / "audit.json").read_text())["schema"] == 1


def test_time_is_explained_only_where_the_protocol_limits_it(small_run: Run, tmp_path: Path) -> None:
    assert "wall_time_s" not in set(audit(small_run, device="cpu", losses=False).effects["variable"])
    limited = small_plan(audit={"confounds": {"wall_time_s": {"style_layers": 1.0}}})
    stimkit.run(limited, tmp_path / "run", device="cpu", batch_size=1)
    found = audit(tmp_path / "run", device="cpu", losses=False)
    assert "wall_time_s" in set(found.effects["variable"])


def test_stimuli_that_are_nearly_the_same_are_found(tmp_path: Path) -> None:
    """Content images as they are, in two cells that differ in what has no effect then."""
    plan = small_plan(
        synthesis={"init": "content", "max_evaluations": 0},
        factors={"style_layers": ["one", "two"], "ratio": [1e-5]},
        images={"content": {"cat": "skimage:chelsea", "moon": "skimage:moon"}},
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    found = [one for one in audit(tmp_path / "run", device="cpu", losses=False).findings if one.name == "nearly_same"]
    cats, moons = ([cell.id for cell in plan.cells if cell.content == name] for name in ("cat", "moon"))
    assert {(one.stimulus_id, one.detail.split()[6].rstrip(":")) for one in found} == {tuple(cats), tuple(moons)}
    assert all(one.value == 0 for one in found)

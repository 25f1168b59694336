"""Curated stimuli: files of verdicts are read strictly, applied to the files that were seen, and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stimkit
from stimkit.documents.curation import Curation, compare_curations, read_curation
from stimkit.errors import ProtocolError, UsageError
from stimkit.runfolder.run import Run
from tests.conftest import document, small_plan

AT = "2026-11-26T18:30:00.000Z"


def curation(verdicts: list[tuple[str, str, str]], curator: str = "Ada", **changes: Any) -> dict[str, Any]:
    """What a report saves, of stimulus ids, digests and verdicts."""
    rows = [{"stimulus_id": a, "file_sha256": b, "verdict": c, "note": "", "at": AT, **changes} for a, b, c in verdicts]
    return {"schema": 1, "set": "small", "curator": curator, "verdicts": rows}


def test_rejected_files_are_rejected_with_who_and_when(small_run: Run, tmp_path: Path) -> None:
    (first, one), (second, two), *_ = ((name, record.file_sha256 or "") for name, record in small_run.records.items())
    told = curation([(first, one, "reject"), (second, two, "keep")], note="rings")
    (tmp_path / "ada.json").write_text(json.dumps(told))
    asked = document(accept={"curation": "ada.json"})
    plan = stimkit.plan(stimkit.Protocol.from_dict(asked, base=tmp_path))
    stimkit.run(small_plan(), tmp_path / "run", device="cpu")
    stimkit.run(plan, tmp_path / "run", device="cpu")
    (tmp_path / "ada.json").unlink()  # the lock has what it said
    run = stimkit.open_run(tmp_path / "run")
    assert [record.status for record in run.records.values()] == ["rejected", "accepted", "accepted", "accepted"]
    assert run.records[first].status_reason == "rejected by Ada on 2026-11-26: rings"
    assert stimkit.verify(run).findings == ()
    with pytest.raises(ProtocolError, match=r"accept\.curation: .*ada\.json cannot be read"):
        stimkit.Protocol.from_dict(asked, base=tmp_path)


@pytest.mark.parametrize("wrong", [5, True, [5], {"a": 1}])
def test_curations_are_files(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match=r"accept\.curation: must be a file that a report saved"):
        stimkit.Protocol.from_dict(document(accept={"curation": wrong}), base=tmp_path)


def test_curations_of_another_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ada.json").write_text(json.dumps({**curation([]), "set": "other"}))
    with pytest.raises(ProtocolError, match='is about the set "other", not "small"'):
        stimkit.Protocol.from_dict(document(accept={"curation": "ada.json"}), base=tmp_path)


def test_controls_can_be_rejected(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"factors": {"ratio": [1e-5], "style_layers": ["one"]}, "controls": {"untouched": True}}
    stimkit.run(small_plan(**changes), tmp_path / "run", device="cpu")
    (control,) = (one for one in stimkit.open_run(tmp_path / "run").records.values() if one.role != "main")
    told = curation([(control.stimulus_id, control.file_sha256 or "", "reject")])
    (tmp_path / "ada.json").write_text(json.dumps(told))
    asked = document(**changes, accept={"curation": "ada.json"})
    stimkit.run(stimkit.plan(stimkit.Protocol.from_dict(asked, base=tmp_path)), tmp_path / "run", device="cpu")
    assert stimkit.open_run(tmp_path / "run").records[control.stimulus_id].status == "rejected"


def test_a_file_that_was_made_again_was_not_seen(tmp_path: Path, small_run: Run) -> None:
    (first, record), *_ = small_run.records.items()
    told = curation([(first, record.file_sha256 or "", "reject")])
    (tmp_path / "ada.json").write_text(json.dumps(told))
    asked = document(accept={"curation": ["ada.json"], "retries": 1})
    plan = stimkit.plan(stimkit.Protocol.from_dict(asked, base=tmp_path))
    stimkit.run(plan, tmp_path / "run", device="cpu")
    made = stimkit.open_run(tmp_path / "run").records[first]
    assert made.status == "accepted" and made.attempt == 2
    assert made.attempts[0].status_reason == "rejected by Ada on 2026-11-26"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schema": 2}, "schema: Input should be 1"),
        ({"curator": ""}, "curator"),
        ({"verdicts": [{"stimulus_id": "s1"}]}, r"verdicts\.0\.file_sha256: Field required"),
        ({"verdicts": curation([("s1", "0" * 64, "like")])["verdicts"]}, r"verdicts\.0\.verdict"),
        ({"verdicts": curation([("../x", "0" * 64, "keep")])["verdicts"]}, r"verdicts\.0\.stimulus_id"),
        ({"verdicts": curation([("s1", "0" * 64, "keep")], note="a\u202eb")["verdicts"]}, "cannot be seen"),
        ({"verdicts": curation([("s1", "0" * 64, "keep"), ("s1", "0" * 64, "reject")])["verdicts"]}, "two verdicts"),
        ({"more": 1}, "more: Extra inputs"),
    ],
)
def test_files_that_are_no_curation(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps({**curation([]), **changed}))
    with pytest.raises(UsageError, match=message):
        read_curation(tmp_path / "c.json")


def test_files_that_are_not_json(tmp_path: Path) -> None:
    for text in ("{", '{"schema": 1, "schema": 1}', "[" * 100_000):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(UsageError, match=r"c\.json"):
            read_curation(tmp_path / "c.json")


def test_agreement_is_cohens_kappa() -> None:
    generator = np.random.default_rng(1)
    words = np.array(["keep", "reject", "unsure"])
    first, second = words[generator.integers(0, 3, 60)], words[generator.integers(0, 3, 60)]
    second[:30] = first[:30]
    ids = [(f"s{number:x}", f"{number:064x}") for number in range(60)]
    made = [
        Curation.model_validate_json(
            json.dumps(curation([(*one, str(word)) for one, word in zip(ids, given, strict=True)], name))
        )
        for given, name in ((first, "Ada"), (second, "Bob"))
    ]
    found = compare_curations(*made)
    agreed = np.mean(first == second)
    chance = sum(np.mean(first == word) * np.mean(second == word) for word in words)
    assert found.agreed == pytest.approx(agreed) and found.kappa == pytest.approx((agreed - chance) / (1 - chance))
    assert len(found.differing) == np.sum(first != second) and found.only_one == 0
    assert compare_curations(made[0], made[0]).kappa == 1
    with pytest.raises(UsageError, match="same files"):
        compare_curations(made[0], Curation.model_validate_json(json.dumps(curation([]))))


def test_the_command_tells_where_they_differ(tmp_path: Path, command: Any) -> None:
    for name, words in (("Ada", ("keep", "reject")), ("Bob", ("keep", "unsure"))):
        told = curation([(f"s{at}", f"{at:064x}", word) for at, word in enumerate(words)], name)
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    code, out, _ = command("agree", tmp_path / "Ada.json", tmp_path / "Bob.json")
    assert code == 0 and out.splitlines() == [
        "Ada and Bob: 2 stimuli, the same of 50%; Cohen's kappa 0.33",
        "s1  reject / unsure",
    ]
    assert json.loads(command("agree", tmp_path / "Ada.json", tmp_path / "Bob.json", "--json")[1])["agreed"] == 0.5

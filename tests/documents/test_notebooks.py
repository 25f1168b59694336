"""What objects say of themselves, in a line and in notebooks."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import stimkit
from stimkit.auditing.findings import Finding
from stimkit.documents.notebooks import html_rows
from stimkit.runfolder.run import Run
from tests.conftest import small_plan


def shown(one: object) -> str:
    """What a notebook shows of an object."""
    html: str = getattr(one, "_repr_html_")()  # noqa: B009
    return html


def test_objects_are_short_in_a_line(small_run: Run) -> None:
    plan = small_plan()
    assert repr(plan) == "<Plan small: 4 cells, content (1) × style (1) × style_layers (2) × ratio (2) × replicate (1)>"
    assert repr(plan.protocol) == "<Protocol small of protocol>"
    assert repr(small_run) == f"<Run {small_run.path}: 4 of 4 cells, 4 accepted>"
    found = stimkit.audit(small_run, device="cpu", losses=False)
    assert re.fullmatch(r"<Audit of 4 of 4 stimuli: .*>", repr(found)) and "warning" in repr(found)
    assert repr(replace(found, findings=())) == "<Audit of 4 of 4 stimuli: nothing to object to>"


def test_runs_and_images_show_pictures(small_run: Run, tmp_path: Path) -> None:
    assert shown(small_run).count("data:image/png;base64,") == 1
    one = stimkit.synthesize("skimage:chelsea", "skimage:coffee", ratio=1e-4, size=32, max_evaluations=2, device="cpu")
    assert re.fullmatch(r"<Synthesis 32 × 32 px: total loss [\d.e+-]+ → [\d.e+-]+, 2 evaluations \(.*\)>", repr(one))
    assert 'width="192"' in shown(one) and "data:image/png" in shown(one)
    plan = small_plan(factors={"ratio": [1e-5], "style_layers": ["one"]})
    summary = stimkit.run(plan, tmp_path / "run", device="cpu")
    assert re.fullmatch(rf"<RunSummary {tmp_path}/run: 1 planned, 1 made; \d+ s on cpu.*>", repr(summary))
    assert "<td>made</td><td>1</td>" in shown(summary)


def test_what_others_wrote_is_text(small_run: Run) -> None:
    protocol = small_plan().protocol.model_copy(update={"description": "<script>alert(1)</script>"})
    assert "<script>" not in shown(protocol) and "&lt;script&gt;" in shown(protocol)
    found = stimkit.audit(small_run, device="cpu", losses=False)
    odd = replace(found, findings=(Finding("clipping", "warning", "s1", "<b>&"),) * 30)
    assert "&lt;b&gt;&amp;" in shown(odd) and "and 10 more" in shown(odd)


def test_tables_have_their_rows() -> None:
    head, row = "<tr><th>a</th><th>b</th></tr>", "<tr><td>1</td><td>x</td></tr>"
    assert html_rows(("a", "b"), [(1, "x")]) == f"<table>{head}{row}</table>"
    plan = small_plan(images={"content": {"cat": "nowhere.png"}})
    assert "1 missing" in repr(plan) and "images.content.cat" in shown(plan)

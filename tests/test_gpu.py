"""What only a CUDA device can show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import stimkit
from stimkit.results import Results
from stimkit.runner import choose_batch_size
from tests.conftest import small_plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_cuda_agrees_with_cpu(small_run: Results, tmp_path: Path) -> None:
    stimkit.run(small_plan(), tmp_path / "run", device="cuda")
    for stimulus_id, record in stimkit.open_run(tmp_path / "run").records.items():
        other = small_run.records[stimulus_id]
        assert record["init_sha256"] == other["init_sha256"]
        assert record["losses"]["initial"]["total"] == pytest.approx(other["losses"]["initial"]["total"], rel=1e-4)
        assert record["losses"]["file"]["total"] == pytest.approx(other["losses"]["file"]["total"], rel=5e-2)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float64"])
def test_every_precision_lowers_the_loss(precision: str, tmp_path: Path) -> None:
    stimkit.run(small_plan(synthesis={"precision": precision}), tmp_path / "run", device="cuda")
    for record in stimkit.open_run(tmp_path / "run").records.values():
        assert record["losses"]["optimized"]["total"] < 0.5 * record["losses"]["initial"]["total"]


def test_batch_size_fits_the_memory() -> None:
    settings = small_plan(synthesis={"size": 2048}).cells[0].settings
    assert 1 <= choose_batch_size(settings, "conv5_1", torch.device("cuda")) < 256

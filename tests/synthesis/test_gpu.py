"""What only a CUDA device can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import stimkit
from stimkit.auditing.audit import audit
from stimkit.network.cudnn import direct_convolve_relu
from stimkit.network.losses import gram_matrix
from stimkit.planning.inputs import PlanInputs
from stimkit.runfolder.run import Run
from stimkit.running.batching import choose_batch_size
from stimkit.stimuli.assembly import Assembly
from stimkit.synthesis.devices import determinism, network_arithmetic
from stimkit.synthesis.synthesis import Synthesis, synthesize_batch
from tests.conftest import small_plan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


def optimize(*, graph: bool, **synthesis: Any) -> list[Synthesis]:
    plan = small_plan(synthesis=synthesis)
    return synthesize_batch(Assembly(PlanInputs(plan), CUDA).batch(plan.cells), graph=graph)


def test_cuda_agrees_with_cpu(small_run: Run, tmp_path: Path) -> None:
    stimkit.run(small_plan(), tmp_path / "run", device="cuda")
    for stimulus_id, record in stimkit.open_run(tmp_path / "run").records.items():
        other = small_run.records[stimulus_id]
        assert record.init_sha256 == other.init_sha256
        assert record.losses.initial.total == pytest.approx(other.losses.initial.total, rel=1e-4)
        assert record.losses.file.total == pytest.approx(other.losses.file.total, rel=5e-2)


@pytest.mark.parametrize("precision", ["tf32", "bfloat16", "float64"])
def test_every_precision_lowers_the_loss(precision: str, tmp_path: Path) -> None:
    plan = small_plan(synthesis={"precision": precision, "max_evaluations": 30})
    stimkit.run(plan, tmp_path / "run", device="cuda")
    for record in stimkit.open_run(tmp_path / "run").records.values():
        first, last = record.losses.initial.total, record.losses.optimized.total
        assert first is not None and last is not None and last < 0.5 * first


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_replayed_graph_gives_what_eager_execution_gives(precision: str, optimizer: str) -> None:
    """pytest turns the warning of a graph that could not be recorded into an error."""
    changes = {"precision": precision, "optimizer": optimizer, "max_evaluations": 24, "rtol": 0.05, "window": 3}
    with determinism(True):
        eager, replayed = (optimize(graph=graph, **changes) for graph in (False, True))
    for first, second in zip(eager, replayed, strict=True):
        assert (first.evaluations, first.stop_reason) == (second.evaluations, second.stop_reason)
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.trace, second.trace)


def test_deterministic_runs_are_identical() -> None:
    with determinism(True):
        first, second = (optimize(graph=True, max_evaluations=30) for _ in range(2))
    assert all(np.array_equal(one.image, other.image) for one, other in zip(first, second, strict=True))


def test_gram_products_of_bfloat16_maps_are_summed_in_float32() -> None:
    maps = torch.randn(3, 64, 40, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    product = gram_matrix(maps.cuda())
    assert product.dtype == torch.float32
    assert torch.allclose(product.cpu(), gram_matrix(maps.double()).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_convolutions_with_bias_and_relu_are_the_direct_ones(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, grad = (
        torch.randn(*shape, generator=generator).cuda() for shape in ((2, 8, 9, 7), (64, 8, 3, 3), (64,), (2, 64, 9, 7))
    )
    x, weight = (one.contiguous(memory_format=layout) for one in (x, weight))
    x.requires_grad_()
    with network_arithmetic("float32"):
        mine, direct = direct_convolve_relu(x, weight, bias), F.relu(F.conv2d(x, weight, bias, padding=1))
        first, second = (torch.autograd.grad(one, x, grad)[0] for one in (mine, direct))
    assert torch.allclose(mine, direct, rtol=1e-5, atol=1e-5)
    assert torch.allclose(first, second, rtol=1e-4, atol=1e-4)


def test_losses_are_found_again_on_a_gpu(small_run: Run) -> None:
    on_gpu, on_cpu = (audit(small_run.path, device=device) for device in ("cuda", "cpu"))
    assert not on_gpu.failed
    for name in ("loss_total_again", "style_chance_relative"):
        assert np.allclose(on_gpu.stimuli[name], on_cpu.stimuli[name], rtol=1e-4, equal_nan=True)


def test_batch_size_fits_the_memory() -> None:
    settings = small_plan(synthesis={"size": 2048}).cells[0].settings
    assert 1 <= choose_batch_size(settings, "conv5_1", CUDA) < 256

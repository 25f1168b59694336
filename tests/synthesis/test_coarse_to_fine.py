"""Coarse to fine: a cell is optimized at smaller sizes first, and all that holds for one size holds for several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import stimkit
from stimkit.auditing.losses import check_sums
from stimkit.auditing.regeneration import regenerate
from stimkit.images.noise import draw_white_noise
from stimkit.planning.inputs import PlanInputs
from stimkit.stimuli.assembly import Assembly
from stimkit.synthesis.minimization import Progress
from stimkit.synthesis.synthesis import enlarge, measure, synthesize_batch
from tests.bench import Bench
from tests.conftest import document, small_plan

ONE = {"style_layers": ["two"], "ratio": [0]}


def texture(limit: int, scales: int) -> stimkit.Synthesis:
    layers = {"style": {"two": ["conv1_1", "conv2_1", "conv3_1"]}}
    synthesis = {"size": 128, "max_evaluations": limit, "scales": scales, "rtol": 0.0}
    return Bench(layers=layers, factors=ONE, synthesis=synthesis).run()[0]


@pytest.mark.slow
def test_as_much_work_gives_a_lower_loss() -> None:
    several, one = texture(24, 8), texture(24, 1)
    assert several.coarse_evaluations == (24, 12) and several.work == pytest.approx(24, abs=1)
    assert one.coarse_evaluations == () and one.work == one.evaluations == 24
    assert several.initial.style == pytest.approx(one.initial.style, rel=0.05), "of other seeds"
    assert several.optimized.style < 0.7 * one.optimized.style
    assert len(several.trace) == 24 + 12 + several.evaluations
    own = several.trace[-several.evaluations :]
    assert several.optimized.total == pytest.approx(own[:, 2].min(), rel=1e-3)


def test_enlarged_images_keep_the_details_of_the_initial_image() -> None:
    noise = torch.from_numpy(draw_white_noise(3, 40, 60, 1.0))[None]
    ramp = torch.linspace(0.2, 0.8, 30).expand(1, 3, 20, 30)
    fine = enlarge(ramp, noise)
    smooth = torch.nn.functional.avg_pool2d(fine, 4)
    expected = torch.nn.functional.avg_pool2d(torch.linspace(0.195, 0.805, 60).expand(1, 3, 40, 60), 4)
    assert (smooth - expected)[:, :, 1:-1, 1:-1].abs().max() < 0.12, "of the noise, only what 20 px cannot hold"
    assert (smooth - expected)[:, :, 1:-1, 1:-1].abs().mean() < 0.5 * (torch.nn.functional.avg_pool2d(noise, 4) - 0.5)[
        :, :, 1:-1, 1:-1
    ].abs().mean()
    assert float(fine.std()) > 0.8 * float(noise.std())
    flat = torch.full((1, 3, 40, 60), 0.5)
    assert (enlarge(torch.full((1, 3, 20, 30), 0.25), flat) - 0.25).abs().max() < 1e-6


@pytest.mark.slow
def test_a_batch_gives_what_its_cells_give_alone() -> None:
    synthesis = {"size": 64, "max_evaluations": 12, "precision": "float64"}
    bench = Bench(factors={"style_layers": ["two"], "ratio": [0, 1e-4]}, synthesis=synthesis)
    together = bench.run()
    for cell, result in zip(bench.plan.cells, together, strict=True):
        alone = bench.run(cell)[0]
        assert np.abs(alone.image - result.image).max() < 1e-4
        assert alone.coarse_evaluations == result.coarse_evaluations == (6,)


def test_cells_of_other_numbers_of_sizes_are_not_in_one_batch() -> None:
    plan = small_plan(factors={"ratio": [1e-5, float("inf")]}, synthesis={"size": 64, "max_evaluations": 4})
    made = {}
    for cell in plan.cells:
        (one,) = Assembly(PlanInputs(plan), torch.device("cpu")).make([cell])
        made[cell.levels["style_layers"], cell.ratio] = one.synthesis.coarse_evaluations
    assert made == {("one", 1e-5): (), ("two", 1e-5): (2,), ("one", np.inf): (), ("two", np.inf): ()}


def test_progress_counts_in_evaluations_of_the_full_size() -> None:
    seen: list[Progress] = []
    synthesize_batch(
        Bench(factors=ONE, synthesis={"size": 64, "max_evaluations": 16, "rtol": 0.0}).batch(), seen.append
    )
    numbers = [one.evaluation for one in seen]
    assert numbers == sorted(numbers) and numbers[-1] == 16 and {one.max_evaluations for one in seen} == {16}
    assert len(seen) == 8 + 14


def test_targets_are_parts_of_the_initial_image_of_the_full_size() -> None:
    synthesis = {"size": 64, "max_evaluations": 200, "target_style": 0.02}
    result = Bench(factors=ONE, synthesis=synthesis).run()[0]
    assert result.stop_reason == "target_style" and result.coarse_evaluations[0] < 100
    assert 0.002 < result.optimized.style / result.initial.style < 0.02


def test_where_there_is_nothing_to_do_nothing_is_done_at_any_size() -> None:
    """The style image is its own texture; smaller ones would not be, since they start from other values."""
    same = {"content": None, "style": {"cup": "skimage:coffee"}}
    bench = Bench(images=same, factors=ONE, synthesis={"size": 64, "init": "style", "max_evaluations": 10})
    batch = bench.batch()
    result = synthesize_batch(batch)[0]
    assert (result.stop_reason, result.evaluations, result.coarse_evaluations) == ("zero_loss", 0, (0,))
    assert np.array_equal(result.image, batch.initial[0].numpy())


def test_an_image_that_is_optimized_on_keeps_what_only_its_own_size_holds() -> None:
    synthesis = {"size": 64, "init": "content", "max_evaluations": 1, "rtol": 0.0}
    batch = Bench(factors={"style_layers": ["two"], "ratio": [1]}, synthesis=synthesis).batch()
    assert len(batch.coarser) == 1
    start = enlarge(batch.coarser[0].initial, batch.initial)
    before = measure(batch.reference, batch.objective, start)[0]
    flat = measure(batch.reference, batch.objective, torch.full_like(start, 0.5))[0]
    assert before.content < 0.05 * flat.content


SETTINGS: dict[str, dict[str, Any]] = {
    "grid": {"synthesis": {"regions": "grid"}},
    "polar": {"synthesis": {"regions": "polar"}},
    "light": {"output": {"equalize_luminance": 0.3, "equalize_contrast": 0.4}},
    "aperture": {"output": {"aperture": "circle", "equalize_luminance": 0.3}},
    "grey": {"synthesis": {"colour": "grey"}},
    "titration": {"synthesis": {"titrate": "ssim_content", "titrate_value": 0.3, "titrate_runs": 1}},
    "adam": {"synthesis": {"optimizer": "adam"}},
    "free": {"synthesis": {"image_range": "free"}},
}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one cell at two sizes for each kind of setting."""
    folder = tmp_path_factory.mktemp("several")
    for name, sections in SETTINGS.items():
        synthesis = {"size": 64, "max_evaluations": 5, **sections.get("synthesis", {})}
        ratio = {} if "titrate" in synthesis else {"ratio": [1e-5]}
        changed = {"factors": {"style_layers": ["two"], "ratio": None, **ratio}, "synthesis": synthesis}
        protocol = stimkit.Protocol.from_dict(document(**changed, output=sections.get("output", {})))
        stimkit.run(stimkit.plan(protocol), folder / name, device="cpu")
    return folder


@pytest.mark.alternating
@pytest.mark.parametrize("name", SETTINGS)
def test_runs_at_several_sizes_are_sound_and_can_be_made_again(several: Path, name: str, tmp_path: Path) -> None:
    run = stimkit.open_run(several / name)
    (record,) = run.records.values()
    assert record.coarse_evaluations == "3" and record.evaluations <= 4
    assert len(run.trace(record.stimulus_id)) == 3 + record.evaluations
    assert [found for found in stimkit.audit(run.path, device="cpu").findings if found.severity == "error"] == []
    (again,) = regenerate(several / name, tmp_path / "again", device="cpu")
    assert again.tier == "identical_file"


def test_a_record_of_other_evaluations_than_its_trace_is_a_finding(several: Path, tmp_path: Path) -> None:
    run = stimkit.open_run(several / "grey")
    (record,) = run.records.values()
    cell, trace = run.plan.cells[0], run.trace(record.stimulus_id)
    assert list(check_sums(record, cell, trace)) == []
    altered = record.model_copy(update={"coarse_evaluations": "2"})
    assert [found.name for found in check_sums(altered, cell, trace)] == ["loss_inconsistent"]


def test_a_part_without_pixels_in_the_aperture_holds_no_light() -> None:
    output = {"aperture": "circle", "aperture_diameter": 2.0, "equalize_luminance": 0.3}
    bench = Bench(factors=ONE, synthesis={"size": 64, "max_evaluations": 4}, output=output, display={"ppd": 1.0})
    batch = bench.batch()
    assert batch.light is not None and batch.coarser[0].light is None
    result = synthesize_batch(replace(batch, light=None))[0]
    assert np.isfinite(result.image).all()

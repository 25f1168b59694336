"""Synthesis of batches: independence, invariances, stop reasons, trouble."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import stimkit
from stimkit.errors import DeviceError, ImageError, ProtocolError, UsageError
from stimkit.images.noise import draw_white_noise
from stimkit.images.pixels import quantize, resize, to_float
from stimkit.images.png import encode_png
from stimkit.images.reading import decode_image
from stimkit.planning.inputs import PlanInputs
from stimkit.synthesis.devices import check_precision, choose_device, network_arithmetic
from stimkit.synthesis.preconditioners import Fourier, make_preconditioner
from stimkit.synthesis.synthesis import measure, synthesize_batch
from tests.bench import Bench
from tests.conftest import ROOT

CPU = torch.device("cpu")
EXACT = {"precision": "float64", "max_evaluations": 8, "rtol": 0.0}


def test_loss_falls_and_everything_is_reported() -> None:
    for result in Bench(synthesis={"max_evaluations": 30}).run():
        assert result.optimized.total < 0.5 * result.initial.total
        assert result.trace.shape == (30, 3) and result.evaluations == 30
        assert result.trace[0, 2] == pytest.approx(result.initial.total, rel=1e-4)
        assert result.stop_reason == "max_evaluations"
        assert result.image.shape == (3, 32, 32) and result.image.dtype == np.float32


def test_a_cell_is_the_same_alone_and_in_a_batch() -> None:
    bench = Bench(synthesis=EXACT)
    together = bench.run()
    alone = [bench.run(cell)[0] for cell in bench.plan.cells]
    for first, second in zip(together, alone, strict=True):
        assert np.abs(first.image - second.image).max() < 1e-6
        assert first.optimized.total == pytest.approx(second.optimized.total, rel=1e-8)


def test_first_evaluation_of_a_cell_does_not_depend_on_its_batch_in_float32() -> None:
    bench = Bench(synthesis={"max_evaluations": 1})
    together, alone = bench.run(), bench.run(bench.plan.cells[2])[0]
    assert together[2].initial.total == pytest.approx(alone.initial.total, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_the_scale_of_alpha_and_beta_changes_nothing(scale: float) -> None:
    bench = Bench(synthesis=EXACT)
    batch = bench.batch()
    goal = batch.objective
    plain = synthesize_batch(batch)
    scaled = synthesize_batch(replace(batch, objective=replace(goal, alpha=scale * goal.alpha, beta=scale * goal.beta)))
    for first, second in zip(plain, scaled, strict=True):
        assert np.abs(first.image - second.image).max() < 1e-6
        assert second.optimized.total == pytest.approx(scale * first.optimized.total, rel=1e-8)


def test_content_only_and_style_only_are_ordinary_cells() -> None:
    factors = {"ratio": [float("inf"), 0], "style_layers": ["two"]}
    pure, texture = Bench(factors=factors, synthesis={"max_evaluations": 60, "rtol": 0.0}).run()
    assert pure.optimized.total == pytest.approx(pure.optimized.content)
    assert texture.optimized.total == pytest.approx(texture.optimized.style)
    assert pure.optimized.style > 10 * texture.optimized.style
    assert texture.optimized.content > 10 * pure.optimized.content


def test_cells_without_content_or_style_image() -> None:
    longer = {"max_evaluations": 30}
    factors = {"ratio": [0], "style_layers": ["one"]}
    texture = Bench(images={"content": None}, factors=factors, synthesis=longer).run()[0]
    assert texture.optimized.style < 0.2 * texture.initial.style and texture.optimized.content == 0
    factors = {"ratio": [float("inf")], "style_layers": ["one"]}
    content = Bench(images={"style": None}, factors=factors, synthesis=longer).run()[0]
    assert content.optimized.content < 0.2 * content.initial.content


def test_initial_images() -> None:
    bench = Bench(factors={"init": ["noise", "content", "style"], "style_layers": ["one"], "ratio": [1e-5]})
    noise, content, style = (bench.batch(cell).initial[0].numpy() for cell in bench.plan.cells)
    assert np.array_equal(noise, draw_white_noise(bench.plan.cells[0].seed, 32, 32, 0.1))
    inputs = PlanInputs(bench.plan)
    assert np.array_equal(content, to_float(resize(inputs.image("content", "cat"), (32, 32), "crop")))
    assert np.array_equal(style, to_float(resize(inputs.image("style", "cup"), (32, 32), "crop")))


def test_nothing_to_do_is_said() -> None:
    result = Bench(factors={"ratio": [float("inf")], "style_layers": ["one"]}, synthesis={"init": "content"}).run()[0]
    assert (result.stop_reason, result.evaluations, result.optimized.content) == ("zero_loss", 0, 0)


def test_stop_rules_end_each_cell_on_its_own() -> None:
    bench = Bench(synthesis={**EXACT, "max_evaluations": 300, "rtol": 0.05, "window": 5})
    together = bench.run()
    assert {result.stop_reason for result in together} == {"rtol"}
    assert len({result.evaluations for result in together}) > 1
    for cell, result in zip(bench.plan.cells, together, strict=True):
        alone = bench.run(cell)[0]
        assert alone.evaluations == result.evaluations
        assert result.trace.shape[0] == result.evaluations
        assert np.isfinite(result.trace).all()


@pytest.mark.parametrize(("term", "ratio"), [("style", 1e-6), ("content", 1e-2)])
def test_target_losses(term: str, ratio: float) -> None:
    result = Bench(factors={"ratio": [ratio]}, synthesis={"max_evaluations": 90, f"target_{term}": 0.3}).run()[0]
    first, last = getattr(result.initial, term), getattr(result.optimized, term)
    assert result.stop_reason == f"target_{term}"
    assert last < 0.3 * first
    column = {"content": 0, "style": 1}[term]
    assert (result.trace[:-1, column] >= 0.3 * first * 0.999).all()


def test_a_non_finite_cell_among_good_ones() -> None:
    batch = Bench().batch()
    targets = {name: one.clone() for name, one in batch.objective.style_targets.items()}
    targets["conv1_1"][1] = torch.nan
    bad = replace(batch, objective=replace(batch.objective, style_targets=targets))
    together, good = synthesize_batch(bad), synthesize_batch(batch)
    assert [result.stop_reason for result in together].count("non_finite") == 1
    assert together[1].stop_reason == "non_finite"
    assert np.isfinite(together[1].image).all()
    for index in (0, 2, 3):
        assert together[index].optimized.total == pytest.approx(good[index].optimized.total, rel=1e-3)


def test_noise_with_a_slope_keeps_textures_even() -> None:
    """From faint white noise, shallow textures gather their lights in the middle of the image, for every seed alike."""
    excess = {}
    for slope, contrast in ((0.0, 0.1), (1.0, 0.3)):
        bench = Bench(
            images={"content": None, "style": {"swirl": str(ROOT / "data/styles/swirl.png")}, "root": "/"},
            factors={"ratio": [0], "style_layers": ["one"], "replicate": 8},
            synthesis={"size": 64, "max_evaluations": 40, "rtol": 0.0, "init_slope": slope, "init_contrast": contrast},
        )
        light = np.mean([result.image.clip(0, 1).mean(0) for result in bench.run()], axis=0)
        excess[slope] = light[16:-16, 16:-16].mean() - light[:8].mean()
    assert excess[0.0] > 0.1 and excess[1.0] < 0.5 * excess[0.0]


def test_adam_and_plain_pixels_and_bfloat16_also_lower_the_loss() -> None:
    for changes in (
        {"optimizer": "adam", "max_evaluations": 60},
        {"preconditioner": "none", "max_evaluations": 30},
        {"precision": "bfloat16", "max_evaluations": 12},
        {"loss": "mean", "max_evaluations": 12},
    ):
        ratio = [1.0] if "loss" in changes else [1e-5]
        result = Bench(synthesis=changes, factors={"ratio": ratio}).run()[0]
        assert result.optimized.total < 0.5 * result.initial.total, changes


def test_fourier_preconditioner_is_linear_invertible_and_has_its_adjoint() -> None:
    generator = torch.Generator().manual_seed(0)
    for height, width in ((16, 16), (15, 21)):
        z, x = (torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64) for _ in range(2))
        g = Fourier(height, width, z)
        assert torch.allclose(g.inverse(g.forward(z)), z)
        assert float((g.forward(z) * x).sum()) == pytest.approx(float((z * g.adjoint(x)).sum()), rel=1e-10)
        assert torch.allclose(g.forward(2 * z + x), 2 * g.forward(z) + g.forward(x))
    assert torch.equal(make_preconditioner("none", z).forward(z), z)


def test_measure_agrees_with_the_png_as_read_again() -> None:
    bench = Bench()
    batch = bench.batch(bench.plan.cells[0])
    result = synthesize_batch(batch)[0]
    pixels = decode_image(encode_png(quantize(result.image)), "x")
    again = measure(batch.reference, batch.objective, torch.from_numpy(to_float(pixels))[None])[0]
    assert again.total == pytest.approx(result.optimized.total, rel=0.2)
    assert again.total != result.optimized.total


# --- one image without files ---------------------------------------------------------------------------------


def test_synthesize_takes_arrays_names_and_settings() -> None:
    style = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    result = stimkit.synthesize(
        "skimage:chelsea", style, ratio=1e-5, style_layers=["conv1_1"], content_layers=["conv2_1"], size=(24, 32),
        max_evaluations=5, device="cpu",
    )  # fmt: skip
    assert result.pixels.shape == (24, 32, 3) and result.pixels.dtype == np.uint8
    assert result.optimized.total < result.initial.total
    assert set(result.optimized.style_layers) == {"conv1_1"}


def test_a_pillow_image_is_taken_as_its_file_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    colours = rng.integers(0, 256, (40, 64, 4), dtype=np.uint8)
    Image.fromarray(colours[..., :3]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(colours).save(tmp_path / "clear.png")
    Image.fromarray(rng.integers(0, 65536, (40, 40), dtype=np.uint16)).save(tmp_path / "wide.png")
    as_it_is: dict[str, Any] = {
        "ratio": float("inf"),
        "init": "content",
        "size": 32,
        "max_evaluations": 0,
        "content_layers": ["conv1_1"],
    }
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as image:
            first, second = (stimkit.synthesize(one, None, device="cpu", **as_it_is) for one in (path, image))
        assert np.array_equal(first.image, second.image), path.name


def test_a_converted_image_forgets_its_profile() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(np.full((32, 32, 3), 100, np.uint8))
    image.info["icc_profile"] = srgb
    result = stimkit.synthesize(
        image.convert("CMYK"), None, ratio=float("inf"), init="content", size=32, max_evaluations=0,
        content_layers=["conv1_1"], device="cpu",
    )  # fmt: skip
    assert abs(int(result.pixels[0, 0, 0]) - 100) <= 2


def test_synthesize_explains_mistakes() -> None:
    broken = Image.open(io.BytesIO(encode_png(np.zeros((64, 64, 3), np.uint8))[:80]))
    with pytest.raises(ImageError, match="given is damaged"):
        stimkit.synthesize(broken, None, ratio=float("inf"))
    with pytest.raises(UsageError, match="an image array must be"):
        stimkit.synthesize(np.zeros((0, 8, 3), np.uint8), None, ratio=float("inf"))
    with pytest.raises(ProtocolError, match=r'synthesis\.sizes: unknown key.*"size"'):
        stimkit.synthesize("skimage:chelsea", "skimage:coffee", ratio=1, sizes=32)
    with pytest.raises(UsageError, match=r"uint8 of shape \(height, width, 3\)"):
        stimkit.synthesize(np.zeros((3, 8, 8)).astype(object), None, ratio=float("inf"))


# --- devices -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_a_missing_gpu_is_said() -> None:
    with pytest.raises(DeviceError, match=r"no CUDA device can be used: .*--device cpu"):
        choose_device("cuda")


def test_unknown_devices_and_precisions() -> None:
    with pytest.raises(DeviceError, match='unknown device "gpu"'):
        choose_device("gpu")
    with pytest.raises(DeviceError, match='"tf32" exists on NVIDIA GPUs only'):
        check_precision("tf32", CPU)


def test_arithmetic_settings_are_restored() -> None:
    def state() -> tuple[str, str]:
        convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        return convolutions.fp32_precision, torch.backends.cuda.matmul.fp32_precision

    before = state()
    with pytest.raises(RuntimeError), network_arithmetic("tf32"):
        assert state() == ("tf32", "tf32")
        raise RuntimeError
    assert state() == before

"""From the optimized image to the stimulus: colours, apertures, equalization in a run, degrees of visual angle."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.exposure import match_histograms

import stimkit
from stimkit.auditing.audit import audit
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import ImageError, ProtocolError
from stimkit.images.aperture import aperture_weights, lay_on_background
from stimkit.images.equalization import measure_light
from stimkit.images.light import LUMINANCE_WEIGHTS, luminance, to_linear, to_srgb
from stimkit.images.pixels import resize, to_float
from stimkit.images.png import decode_values, encode_values, to_file_values, to_network_image, values_digest
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.protocol.settings import Settings
from stimkit.reporting.report import report
from stimkit.runfolder.run import Run
from stimkit.stimuli.finishing import Finishings
from stimkit.stimuli.preparation import prepare_image, prepare_initial
from stimkit.synthesis.light_penalty import LightPenalty
from stimkit.synthesis.preconditioners import make_preconditioner
from tests.conftest import small_plan

OUTPUT: dict[str, Any] = {
    "equalize_luminance": 0.2,
    "equalize_contrast": 0.5,
    "aperture": "circle",
    "aperture_ramp": 0.5,
    "rounding": "dither",
}
ONE = {"style_layers": ["two"], "ratio": [1e-5]}


# --- apertures -------------------------------------------------------------------------------------------------


def test_a_circle_has_a_raised_cosine_ramp() -> None:
    settings = Settings(size=(40, 60), aperture="circle", aperture_diameter=3.0, aperture_ramp=0.5, ppd=10.0)
    found = aperture_weights(settings.aperture_shape)
    assert found is not None and found.shape == (40, 60)
    for row, column in ((20, 30), (20, 43), (5, 30), (29, 41), (0, 0), (20, 44), (20, 45), (33, 36)):
        r = np.hypot(row + 0.5 - 20, column + 0.5 - 30)
        expected = 1.0 if r <= 10 else 0.0 if r > 15 else 0.5 * (1 + np.cos(np.pi * (r - 10) / 5))
        assert found[row, column] == pytest.approx(expected)
    assert np.array_equal(found, found[::-1]) and np.array_equal(found, found[:, ::-1])


def test_a_gaussian_ends_at_its_diameter() -> None:
    settings = Settings(size=(32, 32), aperture="gaussian", aperture_sigma=0.4, aperture_diameter=2.0, ppd=15.0)
    found = aperture_weights(settings.aperture_shape)
    assert found is not None
    assert found[16, 20] == pytest.approx(np.exp(-((0.5**2 + 4.5**2) / (2 * 6.0**2))))
    assert found[16, 31] == 0 and found[0, 0] == 0
    assert aperture_weights(Settings(size=(8, 8)).aperture_shape) is None


def test_the_background_is_mixed_in_linear_light() -> None:
    image = np.full((3, 2, 2), 1.0)
    weights = np.array([[0.0, 0.25], [0.5, 1.0]])
    found = to_linear(lay_on_background(image, weights, 0.2))
    assert found[0] == pytest.approx(np.array([[0.2, 0.4], [0.6, 1.0]]))


# --- colours ---------------------------------------------------------------------------------------------------


def colour_plan(colour: str, **synthesis: Any) -> Plan:
    return small_plan(factors=ONE, synthesis={"colour": colour, **synthesis})


def inputs_of(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    source, cell = PlanInputs(plan), plan.cells[0]
    return prepare_image(cell, "content", source), prepare_image(cell, "style", source)


def test_grey_images_keep_their_luminance() -> None:
    free, grey = inputs_of(colour_plan("free"))[1], inputs_of(colour_plan("grey"))[1]
    assert (grey == grey[..., :1]).all() and not (free == free[..., :1]).all()
    before, after = (luminance(to_linear(to_float(one))) for one in (free, grey))
    assert after == pytest.approx(before, abs=0.005)
    plan = colour_plan("grey")
    noise = prepare_initial(plan.cells[0], PlanInputs(plan))
    assert (noise == noise[:1]).all() and noise.std() > 0.02


def test_covariance_is_matched_to_the_content() -> None:
    content, style = inputs_of(colour_plan("covariance"))
    plain = inputs_of(colour_plan("free"))[1]
    one, other = (image.reshape(-1, 3).astype(float) for image in (content, style))
    assert other.mean(0) == pytest.approx(one.mean(0), abs=4)
    assert np.abs(np.cov(other.T) - np.cov(one.T)).max() < 0.15 * np.cov(one.T).max()
    unmatched = plain.reshape(-1, 3).astype(float)
    assert np.abs(np.cov(unmatched.T) - np.cov(one.T)).max() > 0.5 * np.cov(one.T).max()


def test_histograms_are_matched_as_scikit_image_does() -> None:
    content, style = inputs_of(colour_plan("histogram"))
    plain = inputs_of(colour_plan("free"))[1]
    expected = match_histograms(plain, content, channel_axis=-1)
    assert np.abs(style - expected).max() <= 0.5


def test_an_image_of_one_colour_can_be_matched(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((40, 40, 3), (200, 30, 30), np.uint8)).save(tmp_path / "red.png")
    images = {"root": str(tmp_path), "style": {"red": "red.png"}}
    plan = small_plan(images=images, factors=ONE, synthesis={"colour": "covariance"})
    content, style = inputs_of(plan)
    assert style.reshape(-1, 3).std(0).max() == 0
    assert style[0, 0] == pytest.approx(content.reshape(-1, 3).mean(0), abs=0.51)


def test_the_grey_map_has_its_adjoint_and_its_inverse() -> None:
    generator = torch.Generator().manual_seed(0)
    z, x = (torch.randn(2, 3, 12, 10, generator=generator, dtype=torch.float64) for _ in range(2))
    grey = make_preconditioner("fourier", z, grey=True)
    assert torch.equal(grey.forward(z)[:, 0], grey.forward(z)[:, 2])
    assert float((grey.forward(z) * x).sum()) == pytest.approx(float((z * grey.adjoint(x)).sum()), rel=1e-10)
    image = x[:, :1].repeat(1, 3, 1, 1)
    assert torch.allclose(grey.forward(grey.inverse(image)), image)


def test_luminance_transfer_has_the_colours_of_the_content() -> None:
    plan = colour_plan("luminance")
    cell, source = plan.cells[0], PlanInputs(plan)
    finishing = Finishings(source).of(cell)
    content = to_linear(to_float(resize(source.image("content", "cat"), (32, 32), "crop")))
    wanted = np.clip(0.5 * luminance(content), 0, 1)
    found = to_linear(finishing.equalize(np.repeat(to_srgb(wanted)[None], 3, axis=0).astype(np.float32)))
    assert luminance(found) == pytest.approx(wanted, abs=1e-6)
    assert found == pytest.approx(0.5 * content, abs=1e-6)


# --- in a run --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def output_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Cells in grey and in luminance transfer, equalized, behind a circle, dithered."""
    plan = small_plan(factors={**ONE, "colour": ["free", "grey", "luminance"]}, output=OUTPUT, display={"ppd": 8})
    folder = tmp_path_factory.mktemp("runs") / "output"
    stimkit.run(plan, folder, device="cpu")
    return stimkit.open_run(folder)


def test_the_manifest_tells_what_was_done_and_what_it_cost(output_run: Run) -> None:
    table = pd.read_csv(output_run.path / "manifest.csv")
    assert table["equalize_luminance"].tolist() == [0.2] * 3
    assert (table["equalize_error"] < 0.01).all()
    assert (abs(table["rms_contrast_optimized"] - 0.5) > 0.01).all()
    assert (abs(table["loss_total_equalized"] / table["loss_total_optimized"] - 1) > 0.01).all()
    assert table["height_deg"].tolist() == [4.0] * 3
    dataset = output_run.dataset
    assert dataset["stage"].values.tolist() == ["initial", "optimized", "equalized", "file"]
    assert dataset["loss_total"].sel(stage="equalized").notnull().all()


def test_the_files_have_the_light_that_was_asked_for(output_run: Run) -> None:
    y, x = np.mgrid[:32, :32] + 0.5 - 16
    middle, outside = np.hypot(x, y) <= 12, np.hypot(x, y) > 16
    for one, record in output_run.records.items():
        pixels = output_run.image(one)
        values = luminance(to_linear(to_float(pixels)))
        weights = np.clip((np.hypot(x, y) - 12) / 4, 0, 1)
        weights = np.where(outside, 0, (1 + np.cos(np.pi * weights)) / 2)
        assert values[outside] == pytest.approx(0.2159, abs=0.006)
        assert measure_light(values, np.where(middle, 1.0, 0)).mean == pytest.approx(0.2, rel=0.15)
        if record.levels["colour"] == "grey":
            assert (np.ptp(pixels.astype(int), axis=2) <= 1).all(), "but for the dither"


def test_such_runs_are_sound_and_can_be_made_again(output_run: Run, tmp_path: Path) -> None:
    assert verify(output_run.path).findings == ()
    found = audit(output_run.path, device="cpu")
    assert not [one for one in found.findings if one.severity == "error"]
    made = regenerate(output_run.path, tmp_path / "again", device="cpu")
    assert {one.tier for one in made} == {"identical_file"}


def test_holding_light_during_the_optimization_costs_less_than_equalizing_afterwards(tmp_path: Path) -> None:
    equalize = {"equalize_luminance": 0.35, "equalize_contrast": 0.3}
    plan = small_plan(
        factors={**ONE, "equalize_weight": [0.0, 1.0]}, output=equalize, synthesis={"max_evaluations": 40}
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    after, during = pd.read_csv(tmp_path / "run" / "manifest.csv").to_dict("records")
    assert abs(during["mean_luminance_optimized"] - 0.35) < 0.2 * abs(after["mean_luminance_optimized"] - 0.35)
    assert during["loss_total_file"] < 0.8 * after["loss_total_file"]
    assert during["equalize_error"] < 0.01 and after["equalize_error"] < 0.01
    assert not [one for one in audit(tmp_path / "run", device="cpu").findings if one.severity == "error"]


def test_the_penalty_is_that_of_numpy_and_has_its_gradient() -> None:
    generator = np.random.default_rng(0)
    images = generator.uniform(0.02, 0.98, (2, 3, 6, 5))
    weights = generator.uniform(0, 1, (6, 5))
    hold = LightPenalty(
        2.0, torch.tensor([0.3, 0.2]).double(), torch.tensor([0.5, 0.4]).double(),
        torch.from_numpy(LUMINANCE_WEIGHTS), torch.from_numpy((weights / weights.sum()).ravel()),
    )  # fmt: skip
    values = torch.from_numpy(images).requires_grad_()
    found = hold(values)
    for row, (mean, contrast) in enumerate(((0.3, 0.5), (0.2, 0.4))):
        light = measure_light(luminance(to_linear(images[row])), weights)
        expected = 2 * ((light.mean / mean - 1) ** 2 + (light.contrast / contrast - 1) ** 2)
        assert float(found[row].detach()) == pytest.approx(expected, rel=1e-4)
    assert torch.autograd.gradcheck(hold, (values,))
    assert torch.equal(hold.select(torch.tensor([1]))(values[1:]), found[1:])


def test_what_is_inside_an_aperture_is_recorded_and_judged(tmp_path: Path) -> None:
    plan = small_plan(
        factors=ONE,
        output={"equalize_luminance": 0.2, "equalize_contrast": 0.4, "aperture": "circle", "background": 0.5},
        accept={"mean_luminance": [0.19, 0.21], "rms_contrast": [0.38, 0.42]},
    )
    summary = stimkit.run(plan, tmp_path / "run", device="cpu")
    assert not summary.rejected and summary.made
    for record in stimkit.open_run(tmp_path / "run").records.values():
        assert record.mean_luminance_inside == pytest.approx(0.2, rel=0.02)
        assert record.rms_contrast_inside == pytest.approx(0.4, rel=0.02)
        assert record.statistics["mean_luminance"] > 0.23, "the background is part of the whole file"
        values = luminance(to_linear(to_float(stimkit.open_run(tmp_path / "run").image(record.stimulus_id))))
        seen = values[aperture_weights(plan.cells[0].settings.aperture_shape) == 1]
        assert record.mean_luminance_inside == pytest.approx(seen.mean(), rel=0.05)
    assert verify(tmp_path / "run").findings == ()


def test_targets_are_taken_from_images() -> None:
    images = {"content": {"cat": "skimage:chelsea", "cup": "skimage:coffee"}}
    plan = small_plan(
        images=images, factors=ONE, output={"equalize_luminance": "contents", "equalize_contrast": "content"}
    )
    finishings = [Finishings(PlanInputs(plan)).of(cell) for cell in plan.cells]
    source = PlanInputs(plan)
    pixels = [resize(source.image("content", name), (32, 32), "crop") for name in images["content"]]
    lights = [measure_light(luminance(to_linear(to_float(one))), None) for one in pixels]
    assert [one.target.luminance for one in finishings] == pytest.approx(
        [np.mean([light.mean for light in lights])] * 2
    )
    assert [one.target.contrast for one in finishings] == pytest.approx([light.contrast for light in lights])
    fewer = small_plan(factors=ONE, output={"equalize_luminance": "contents", "equalize_contrast": "content"})
    assert not plan.by_id.keys() & fewer.by_id.keys(), "another set of images, other stimuli"


# --- degrees ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("display", "size", "expected"),
    [
        ({"visual_size": 3.2, "ppd": 10}, None, ((32, 32), 10.0)),
        ({"visual_size": [2.0, 4.0], "ppd": 16}, None, ((32, 64), 16.0)),
        ({"visual_size": 4}, 48, ((48, 48), 12.0)),
        ({"ppd": 20}, 40, ((40, 40), 20.0)),
        ({"visual_size": 3.21, "ppd": 10}, 32, ((32, 32), 10.0)),
    ],
)
def test_of_size_degrees_and_density_two_give_the_third(display: Any, size: Any, expected: Any) -> None:
    settings = small_plan(display=display, synthesis={"size": size}).cells[0].settings
    assert (settings.size, settings.ppd) == expected
    assert settings.degrees == (expected[0][0] / expected[1], expected[0][1] / expected[1])


def test_density_alone_changes_no_id_but_with_an_aperture_it_does() -> None:
    assert small_plan(display={"ppd": 20}).by_id.keys() == small_plan().by_id.keys()
    circle = {"aperture": "circle", "aperture_diameter": 1.0}
    one, other = (small_plan(display={"ppd": ppd}, output=circle) for ppd in (20, 25))
    assert not one.by_id.keys() & other.by_id.keys()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"output": {"aperture": "circle", "aperture_ramp": 0.2}},
            "aperture_ramp: is in degrees of visual angle, which needs ppd",
        ),
        (
            {"output": {"aperture": "gaussian"}, "display": {"ppd": 10}},
            "aperture_sigma: is needed by a gaussian aperture",
        ),
        ({"output": {"aperture_ramp": 0.2}}, "aperture_ramp: is given without an aperture"),
        (
            {"output": {"aperture": "circle", "aperture_diameter": 4}, "display": {"ppd": 10}},
            "is 40 px, more than the 32 px",
        ),
        (
            {"output": {"aperture": "circle", "aperture_ramp": 2}, "display": {"ppd": 10}},
            "is wider than half of the aperture",
        ),
        (
            {"output": {"equalize_luminance": 0.5, "equalize_contrast": 1.5}},
            "no image of mean luminance 0.5 has an RMS contrast above 1",
        ),
        (
            {"output": {"equalize_histogram": "styles", "equalize_luminance": 0.5}},
            "sets mean and contrast of luminance as well",
        ),
        (
            {"output": {"equalize_luminance": "image"}},
            'equalize_luminance: must be a number between 0 and 1, "content"',
        ),
        ({"output": {"equalize_luminance": 1.5}}, "equalize_luminance: must be a number between 0 and 1"),
        (
            {"output": {"equalize_spectrum": "content"}, "images": {"content": None}, "factors": {"ratio": [0]}},
            "there is no content image",
        ),
        (
            {"synthesis": {"colour": "covariance"}, "images": {"content": None}, "factors": {"ratio": [0]}},
            "needs a content and a style",
        ),
        (
            {"display": {"visual_size": 3.2, "ppd": 20}},
            "3.2 × 3.2 degrees at 20 pixels per degree are 64 × 64 px, but size is 32 × 32",
        ),
        ({"display": {"visual_size": 3.2}, "synthesis": {"size": None}}, "needs ppd, or the size in pixels"),
        ({"display": {"visual_size": 3.2}, "factors": {"size": [32]}}, "size is a factor; give ppd only"),
        ({"display": {"ppd": 0}}, "display.ppd: must be > 0 (got 0)"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(sections: Any, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        small_plan(**sections)
    assert message in str(caught.value)


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("transfer", "exponent"), [("srgb", None), ("gamma", 2.4), ("linear", 1.0)])
def test_files_for_other_displays_show_the_same(bits: int, transfer: str, exponent: float | None) -> None:
    settings = Settings(size=(12, 10), bits=bits, transfer=transfer, gamma=exponent if transfer == "gamma" else 2.2)
    image = np.random.default_rng(0).uniform(0, 1, (3, 12, 10)).astype(np.float32)
    values = to_file_values(image, settings.encoding, 0)
    assert values.dtype == (np.uint8 if bits == 8 else np.uint16)
    light = to_linear(image)
    expected = to_srgb(light) if exponent is None else light ** (1 / exponent)
    assert values.transpose(2, 0, 1) / (2**bits - 1) == pytest.approx(expected, abs=0.5001 / (2**bits - 1))
    data = encode_values(values, settings.encoding, {"stimulus_id": "s1"})
    again = decode_values(data, "it")
    assert np.array_equal(again, values) and values_digest(again) == values_digest(values)
    # Half a step in the dark is most where light is coded linearly.
    error = np.abs(to_linear(to_network_image(again, settings.encoding)) - light).max()
    assert error < {8: 0.006, 16: 3e-5}[bits]
    chunk = b"sRGB" if exponent is None else b"gAMA" + round(100_000 / exponent).to_bytes(4, "big")
    assert chunk in data and b"tEXt" + b"stimulus_id\0s1" in data


def test_sixteen_bits_are_read_by_another_program_too() -> None:
    settings = Settings(size=(4, 5), bits=16)
    values = to_file_values(np.random.default_rng(0).uniform(0, 1, (3, 4, 5)).astype(np.float32), settings.encoding, 0)
    from PIL import Image

    with Image.open(io.BytesIO(encode_values(values, settings.encoding, {}))) as image:
        assert image.mode == "RGB"
        assert np.asarray(image) == pytest.approx(values / 257, abs=1), "Pillow keeps the upper eight bits"


def test_damaged_files_of_sixteen_bits_are_told() -> None:
    settings = Settings(size=(8, 8), bits=16)
    data = encode_values(np.zeros((8, 8, 3), np.uint16), settings.encoding, {})
    for wrong in (data[:60], data[:-30], data[:40] + b"\xff" * 20 + data[60:]):
        with pytest.raises(ImageError, match="is damaged"):
            decode_values(wrong, "it")
    large = data[:16] + (100_000).to_bytes(4, "big") * 2 + data[24:]
    with pytest.raises(ImageError, match="at most 64,000,000 are accepted"):
        decode_values(large, "it")


def test_the_dither_keeps_the_mean() -> None:
    image = np.full((3, 64, 64), 100.3 / 255, np.float32)
    assert to_file_values(image, Settings(size=(64, 64)).encoding, 1).mean() == 100
    dithered = to_file_values(image, Settings(size=(64, 64), rounding="dither").encoding, 1)
    assert set(np.unique(dithered)) == {100, 101} and dithered.mean() == pytest.approx(100.3, abs=0.02)
    assert not np.array_equal(dithered, to_file_values(image, Settings(size=(64, 64), rounding="dither").encoding, 2))


def test_a_run_for_a_linearized_display(tmp_path: Path) -> None:
    plan = small_plan(
        factors={**ONE, "transfer": ["srgb", "linear"], "bits": [8, 16]},
        output={"equalize_luminance": 0.1},
        synthesis={"max_evaluations": 3},
    )
    run = tmp_path / "run"
    stimkit.run(plan, run, device="cpu")
    table = pd.read_csv(run / "manifest.csv")
    assert table["mean_luminance"].tolist() == pytest.approx([0.1] * 4, abs=0.003)
    assert (table["equalize_error"][table["bits"] == 16] < 1e-4).all()
    assert verify(run).findings == ()
    assert not [one for one in audit(run, device="cpu").findings if one.severity == "error"]
    made = regenerate(run, tmp_path / "again", device="cpu")
    assert {one.tier for one in made} == {"identical_file"}
    sixteen = stimkit.open_run(run).image(table["stimulus_id"][3])
    assert sixteen.dtype == np.uint16
    light = sixteen.astype(float) / 65535
    assert light.mean((0, 1)) @ [0.2126, 0.7152, 0.0722] == pytest.approx(0.1, abs=1e-4)
    page = report(run, device="cpu", losses=False)
    assert page.stat().st_size > 1000


def test_a_black_photograph_as_target_breaks_nothing(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "black.png")
    plan = small_plan(
        images={"root": str(tmp_path), "content": {"black": "black.png"}},
        factors=ONE,
        output={"equalize_luminance": "content", "equalize_contrast": "content", "equalize_weight": 0.3},
        synthesis={"max_evaluations": 2},
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    assert verify(tmp_path / "run").findings == ()


def test_images_that_cannot_be_equalized_are_named(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((40, 40, 3), 60, np.uint8)).save(tmp_path / "flat.png")
    plan = small_plan(
        images={"root": str(tmp_path), "content": {"flat": "flat.png"}},
        factors=ONE,
        output={"equalize_luminance": 0.3, "equalize_contrast": 0.5},
        controls={"untouched": True},
        synthesis={"max_evaluations": 3},
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    found = audit(tmp_path / "run", device="cpu", losses=False).findings
    missed = [(one.stimulus_id, one.value) for one in found if one.name == "not_equalized"]
    assert missed == [(plan.cells[1].id, pytest.approx(1.0))], "a uniform image has no contrast to change"


def test_an_aperture_without_a_pixel_is_refused() -> None:
    with pytest.raises(ProtocolError, match="aperture_diameter: lets no pixel through"):
        small_plan(display={"ppd": 10}, output={"aperture": "circle", "aperture_diameter": 0.05})

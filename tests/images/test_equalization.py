"""Equalization of luminance, contrast, histogram and spectrum, against NumPy and what no image can exceed."""

from __future__ import annotations

import importlib

import numpy as np
import pandas as pd
import pytest
from skimage.exposure import match_histograms

from stimkit.images.equalization import (
    EqualizationTarget,
    equalize,
    mean_histogram,
    mean_spectrum,
    measure_light,
    set_histogram,
    set_spectrum,
)
from stimkit.images.light import Array, luminance, set_luminance, to_linear, to_srgb
from stimkit.images.pixels import Pixels, quantize, resize, to_float
from stimkit.images.statistics import measure_basics

# A quantum of the output: half a step of 8 bits, as luminance, at the brightest.
QUANTUM = float(to_linear(np.array(1.0)) - to_linear(np.array(254.5 / 255)))


def photograph(name: str, side: int = 48) -> Pixels:
    return resize(getattr(importlib.import_module("skimage.data"), name)(), (side, side), "crop")


def images() -> dict[str, Array]:
    """Linear RGB: photographs, one nearly black, one nearly white, and one of saturated colours."""
    cat = to_linear(to_float(photograph("chelsea")))
    hues = np.zeros((48, 48, 3), np.uint8)
    for index in range(6):
        hues[:, 8 * index : 8 * index + 8] = [255 * (index & 1), 255 * (index >> 1 & 1), 255 * (index >> 2 & 1)]
    hues[:, :8] = [255, 128, 0]
    noise = np.random.default_rng(0).uniform(0, 1, (3, 48, 48))
    return {
        "cat": cat,
        "coffee": to_linear(to_float(photograph("coffee"))),
        "dark": 0.01 * cat,
        "bright": 1 - 0.02 * noise,
        "saturated": to_linear(to_float(hues)),
    }


def shown(linear: Array) -> tuple[float, float]:
    """Mean and contrast of luminance of the 8-bit file."""
    found = measure_basics(quantize(to_srgb(linear).astype(np.float32)))
    return found["mean_luminance"], found["rms_contrast"]


@pytest.mark.parametrize("name", images())
@pytest.mark.parametrize(("mean", "contrast"), [(0.2, 0.5), (0.4, 0.3), (0.05, 1.0)])
def test_luminance_and_contrast_are_hit_within_the_rounding_of_the_file(
    name: str, mean: float, contrast: float
) -> None:
    result = equalize(images()[name], EqualizationTarget(luminance=mean, contrast=contrast), "iterate", None)
    assert result.min() >= 0 and result.max() <= 1
    exact = measure_light(luminance(result), None)
    assert (exact.mean, exact.contrast) == pytest.approx((mean, contrast), rel=1e-6)
    found = shown(result)
    assert abs(found[0] - mean) < QUANTUM and abs(found[1] - contrast) < 2 * QUANTUM / mean


def test_the_order_of_luminance_and_hue_are_kept() -> None:
    cat = images()["cat"]
    result = equalize(cat, EqualizationTarget(luminance=0.3, contrast=0.2), "iterate", None)
    before, after = luminance(cat).ravel(), luminance(result).ravel()
    assert (np.diff(after[np.argsort(before)]) >= -1e-12).all()
    unclipped = (result > 0.001).all(0) & (result < 0.999).all(0)
    one, other = cat - luminance(cat), result - luminance(result)
    cosine = (one * other).sum(0) / np.maximum(np.linalg.norm(one, axis=0) * np.linalg.norm(other, axis=0), 1e-12)
    assert cosine[unclipped & (np.linalg.norm(one, axis=0) > 0.01)].min() > 0.999999


def test_a_mean_alone_keeps_the_contrast_and_a_contrast_alone_the_mean() -> None:
    cat = images()["cat"]
    before = measure_light(luminance(cat), None)
    dimmed = measure_light(luminance(equalize(cat, EqualizationTarget(luminance=0.1), "iterate", None)), None)
    assert (dimmed.mean, dimmed.contrast) == pytest.approx((0.1, before.contrast), rel=1e-6)
    flatter = measure_light(luminance(equalize(cat, EqualizationTarget(contrast=0.2), "iterate", None)), None)
    assert (flatter.mean, flatter.contrast) == pytest.approx((before.mean, 0.2), rel=1e-6)


def test_what_cannot_be_reached_is_approached() -> None:
    flat = np.full((3, 8, 8), 0.3)
    result = measure_light(
        luminance(equalize(flat, EqualizationTarget(luminance=0.2, contrast=0.5), "iterate", None)), None
    )
    assert (result.mean, result.contrast) == pytest.approx((0.2, 0))
    halves = np.concatenate([np.zeros((3, 8, 4)), np.full((3, 8, 4), 0.9)], axis=2)
    result = measure_light(
        luminance(equalize(halves, EqualizationTarget(luminance=0.5, contrast=1.0), "iterate", None)), None
    )
    assert (result.mean, result.contrast) == pytest.approx((0.5, 1.0)), "half black and half white has no more"
    black = equalize(np.zeros((3, 8, 8)), EqualizationTarget(luminance=0.2), "iterate", None)
    assert black == pytest.approx(0.2)


@pytest.mark.parametrize("gamut", ["clip", "compress", "iterate"])
def test_rules_of_the_gamut(gamut: str) -> None:
    cat = images()["cat"]
    result = equalize(cat, EqualizationTarget(luminance=0.3, contrast=1.3), gamut, None)
    found = measure_light(luminance(result), None)
    assert result.min() >= 0 and result.max() <= 1
    if gamut == "clip":
        assert found.contrast < 1.29 and (result == 0).any()
    elif gamut == "compress":
        assert found.mean == pytest.approx(0.3) and found.contrast < 1.29
        gain = np.polyfit(luminance(cat).ravel(), luminance(result).ravel(), 1)
        residual = luminance(result) - np.polyval(gain, luminance(cat))
        assert np.abs(residual).max() < 1e-9, "luminance is changed linearly, nothing is clipped"
    else:
        assert (found.mean, found.contrast) == pytest.approx((0.3, 1.3), rel=1e-6)


def test_inside_an_aperture_only_what_is_seen_counts() -> None:
    weights = np.zeros((48, 48))
    weights[12:36, 12:36] = np.linspace(0.2, 1, 24)
    result = luminance(
        equalize(images()["coffee"], EqualizationTarget(luminance=0.3, contrast=0.4), "iterate", weights)
    )
    mean = (weights * result).sum() / weights.sum()
    spread = np.sqrt((weights * (result - mean) ** 2).sum() / weights.sum())
    assert (mean, spread / mean) == pytest.approx((0.3, 0.4), rel=1e-6)
    assert measure_light(result, None).mean != pytest.approx(0.3, rel=0.01)


def test_the_gamut_is_that_of_what_is_seen() -> None:
    """A white corner outside of the aperture does not lower the contrast inside."""
    weights = np.zeros((48, 48))
    weights[12:36, 12:36] = 1
    plain = np.random.default_rng(0).uniform(0.2, 0.4, (1, 48, 48)).repeat(3, 0)
    corner = plain.copy()
    corner[:, :3, :3] = 1
    for target in (EqualizationTarget(luminance=0.3, contrast=0.3), EqualizationTarget(luminance=0.5)):
        first, second = (luminance(equalize(one, target, "compress", weights)) for one in (plain, corner))
        assert np.allclose(first[weights > 0], second[weights > 0])
        assert measure_light(second, weights).mean == pytest.approx(target.luminance)


def test_desaturation_keeps_luminance_and_clipping_does_not() -> None:
    red = np.array([0.9, 0.1, 0.0]).reshape(3, 1, 1)
    wanted = np.full((1, 1), 0.6)
    kept = set_luminance(red, wanted, gain=3.0)
    assert luminance(kept) == pytest.approx(0.6) and kept.max() <= 1 and kept[0] > kept[1] > kept[2]
    assert luminance(set_luminance(red, wanted, gain=3.0, desaturate=False)) != pytest.approx(0.6, rel=0.01)


# --- histogram -------------------------------------------------------------------------------------------------


def test_the_histogram_is_exact() -> None:
    values, wanted = (luminance(images()[name]) for name in ("cat", "coffee"))
    result = set_histogram(values, np.sort(wanted, axis=None))
    assert np.array_equal(np.sort(result, axis=None), np.sort(wanted, axis=None))
    groups = pd.Series(result.ravel()).groupby(values.ravel())
    assert (groups.max().to_numpy()[:-1] <= groups.min().to_numpy()[1:]).all(), "the order of the pixels is kept"
    assert result == pytest.approx(match_histograms(values, wanted), abs=0.02)


def test_ties_go_to_brighter_surroundings_then_to_the_top_left() -> None:
    values = np.zeros((1, 6))
    values[0, 5] = 1.0  # the fifth pixel has a bright neighbour
    result = set_histogram(values, np.arange(6) / 10)
    assert result[0].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    result = set_histogram(values[:, ::-1].copy(), np.arange(6) / 10)
    assert result[0].tolist() == pytest.approx([0.5, 0.4, 0.0, 0.1, 0.2, 0.3])


def test_the_mean_histogram_lies_between() -> None:
    one, other = np.full((4, 4), 0.2), np.full((4, 4), 0.4)
    assert mean_histogram([one, other]) == pytest.approx(0.3)


@pytest.mark.parametrize("name", images())
def test_images_with_the_same_histogram_have_the_same_light(name: str) -> None:
    target = EqualizationTarget(histogram=mean_histogram([luminance(one) for one in images().values()]))
    result = equalize(images()[name], target, "iterate", None)
    wanted = measure_light(np.asarray(target.histogram), None)
    found = shown(result)
    assert abs(found[0] - wanted.mean) < QUANTUM and abs(found[1] - wanted.contrast) < 2 * QUANTUM / wanted.mean


# --- spectrum --------------------------------------------------------------------------------------------------


def test_the_spectrum_is_imposed_and_phases_are_kept() -> None:
    values, other = (0.4 + 0.1 * luminance(images()[name]) for name in ("cat", "coffee"))
    wanted = mean_spectrum([other])
    result = set_spectrum(values, wanted, "clip")
    assert result.min() > 0 and result.max() < 1, "nothing was clipped here"
    assert np.abs(np.fft.fft2(result)) == pytest.approx(wanted, abs=1e-9)
    turned = np.angle(np.fft.fft2(result) * np.conj(np.fft.fft2(values)))
    strong = wanted > 1e-3
    assert np.abs(turned[strong]).max() < 1e-6
    assert result.mean() == pytest.approx(other.mean())


def test_iterating_comes_closer_to_a_spectrum_than_clipping() -> None:
    cat, coffee = (luminance(images()[name]) for name in ("dark", "coffee"))
    wanted = mean_spectrum([coffee])
    errors = {
        gamut: np.abs(mean_spectrum([set_spectrum(cat, wanted, gamut)]) - wanted).mean()
        for gamut in ("clip", "compress", "iterate")
    }
    assert errors["iterate"] < errors["clip"]
    assert errors["compress"] > 0


def test_encoding_is_the_inverse_of_decoding() -> None:
    values = np.linspace(0, 1, 1001)
    assert to_srgb(to_linear(values)) == pytest.approx(values, abs=1e-12)
    assert float(to_linear(np.array(0.5))) == pytest.approx(0.21404114)  # IEC 61966-2-1
    assert to_linear(np.array([-0.3, 1.7])).tolist() == [0, 1]


def test_clipping_changes_only_channels_that_leave_the_range() -> None:
    """Twice the light of (0.2, 0.5, 1) is (0.4, 1, 2), also where its luminance leaves the range."""
    linear = np.array([[[0.2, 0.2]], [[0.5, 1.0]], [[1.0, 1.0]]])
    mean = float(luminance(linear).mean())
    found = equalize(linear, EqualizationTarget(luminance=2 * mean), "clip", None)
    assert found[:, 0, 0] == pytest.approx([0.4, 1, 1]) and found[:, 0, 1] == pytest.approx([0.4, 1, 1])

"""Image statistics against known answers and other libraries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import skimage.color
import skimage.data
import skimage.measure

from stimkit.columns import BASIC, MEASURES
from stimkit.images.pixels import Pixels, resize
from stimkit.images.statistics import (
    LUMA_WEIGHTS,
    luminance_of_pixels,
    measure_basics,
    measure_colourfulness,
    measure_edges,
    measure_image,
    measure_similarity,
    measure_slope,
)


@pytest.fixture(scope="module")
def photograph() -> Pixels:
    return resize(skimage.data.astronaut(), (64, 48), "crop")


def grey(values: np.ndarray) -> Pixels:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def test_similarity_is_that_of_its_authors(photograph: Pixels) -> None:
    """Wang et al. (2004): a Gaussian window of 11 × 11 pixels and sigma 1.5, in NumPy."""
    other = np.clip(photograph + np.random.default_rng(0).normal(0, 25, photograph.shape), 0, 255).astype(np.uint8)
    places = np.arange(-5, 6)
    line = np.exp(-(places**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def local(values: np.ndarray) -> Any:
        return np.einsum("ijkl,kl->ij", np.lib.stride_tricks.sliding_window_view(values, (11, 11)), window)

    found = []
    for channel in range(3):
        x, y = (image[..., channel].astype(float) for image in (photograph, other))
        mx, my = local(x), local(y)
        vx, vy, xy = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        found.append(((2 * mx * my + c1) * (2 * xy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
    assert measure_similarity(photograph, other) == pytest.approx(np.mean(found), rel=1e-6)
    assert measure_similarity(photograph[:10], other[:10]) is None


def test_every_measure_is_given_and_described(photograph: Pixels) -> None:
    found = measure_image(photograph)
    assert list(found) == [measure.name for measure in MEASURES]
    assert all(math.isfinite(value) for value in found.values())
    assert measure_basics(photograph) == {name: found[name] for name in BASIC}


def test_luminance_is_y_of_xyz(photograph: Pixels) -> None:
    expected = skimage.color.rgb2xyz(photograph)[..., 1]
    assert np.allclose(luminance_of_pixels(photograph), expected, atol=3e-4)  # whose matrix is rounded otherwise
    found = measure_basics(photograph)
    assert found["mean_luminance"] == pytest.approx(expected.mean(), abs=3e-4)
    assert found["rms_contrast"] == pytest.approx(expected.std() / expected.mean(), rel=1e-3)


@pytest.mark.parametrize("value", [0, 255])
def test_a_uniform_image(value: int) -> None:
    found = measure_image(grey(np.full((32, 32), value)))
    assert found["saturated_frac"] == 1 and found["entropy"] == 0 and found["colourfulness"] == 0
    assert found["michelson"] == found["rms_contrast"] == found["edge_density"] == 0
    assert math.isnan(found["spectral_slope"])


def test_michelson_of_two_levels() -> None:
    values = np.full((16, 16), 100)
    values[:, 8:] = 200
    low, high = (((level / 255 + 0.055) / 1.055) ** 2.4 for level in (100, 200))
    assert measure_image(grey(values))["michelson"] == pytest.approx((high - low) / (high + low))


def test_colourfulness_of_two_colours() -> None:
    """Half red, half green: rg is ±255, yb is 127.5 everywhere."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :, 0] = pixels[4:, :, 1] = 255
    assert measure_colourfulness(pixels) == pytest.approx(255 + 0.3 * 127.5)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("shape", [(128, 128), (96, 128)])
def test_spectral_slope_of_noise_with_a_known_spectrum(exponent: float, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None, :])
    frequency[0, 0] = 1
    spectra = [np.fft.fft2(rng.normal(size=shape)) / frequency**exponent for _ in range(20)]
    slopes = [measure_slope(np.fft.ifft2(spectrum).real) for spectrum in spectra]
    assert np.mean(slopes) == pytest.approx(-exponent, abs=0.06)


def test_spectral_slope_does_not_depend_on_contrast_or_mean(photograph: Pixels) -> None:
    light = luminance_of_pixels(photograph)
    assert measure_slope(0.25 * light + 0.3) == pytest.approx(measure_slope(light), abs=1e-9)


def test_edge_density_of_one_edge() -> None:
    values = np.zeros((40, 50))
    values[:, 25:] = 200.0
    # One column of edge pixels; the detector leaves out the border of the image.
    assert measure_edges(values) == pytest.approx(1 / 50, rel=0.15)


def test_entropy_is_that_of_scikit_image(photograph: Pixels) -> None:
    luma = np.rint(photograph @ LUMA_WEIGHTS).astype(np.uint8)
    assert measure_image(photograph)["entropy"] == pytest.approx(skimage.measure.shannon_entropy(luma), abs=1e-9)
    assert measure_image(grey(np.arange(256).reshape(16, 16)))["entropy"] == pytest.approx(8)


def test_a_tiny_image_has_no_spectrum() -> None:
    assert math.isnan(measure_image(grey(np.arange(16).reshape(4, 4)))["spectral_slope"])


def test_luminance_statistics_against_known_answers() -> None:
    grey = measure_basics(np.full((4, 4, 3), 188, np.uint8))
    assert grey["mean_luminance"] == pytest.approx(0.5029, abs=1e-4)  # IEC 61966-2-1
    assert grey["rms_contrast"] == pytest.approx(0, abs=1e-12)
    half = np.zeros((2, 2, 3), np.uint8)
    half[0] = 255
    assert measure_basics(half) == pytest.approx(
        {"mean_luminance": 0.5, "rms_contrast": 1.0, "mean_r": 0.5, "mean_g": 0.5, "mean_b": 0.5}
    )

"""Initial images of noise that depend on a seed alone."""

from __future__ import annotations

import numpy as np

from stimkit.images.pixels import FloatImage


def draw_white_noise(seed: int, height: int, width: int, contrast: float = 1.0) -> FloatImage:
    """Uniform white noise around mid-grey, (3, height, width) float32 within 0.5 ± contrast / 2.

    Made from raw 64-bit words of the counter-based generator Philox (Salmon et al. 2011), 24 bits of each,
    on the CPU: the same values on every machine, device and version, whatever else is in the batch.
    """
    words = np.random.Philox(key=seed).random_raw(3 * height * width)
    uniform = (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    noise = np.float32(0.5) + np.float32(contrast) * (uniform - np.float32(0.5))
    return noise.reshape(3, height, width)


def draw_sloped_noise(seed: int, height: int, width: int, contrast: float, slope: float) -> FloatImage:
    """White noise of a seed whose amplitudes are made to fall as 1 / frequency^slope; channels keep their variance.

    (3, height, width) float32 around mid-grey; values may leave 0 to 1. They are whole multiples of 2^-20, so that the
    last digits of a Fourier transform, which differ between machines, do not.
    """
    noise = draw_white_noise(seed, height, width, contrast).astype(np.float64) - 0.5
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    sloped = np.fft.irfft2(np.fft.rfft2(noise) * frequency**-slope, s=(height, width))
    sloped *= (noise.std((1, 2)) / sloped.std((1, 2)))[:, None, None]
    return (0.5 + np.round(sloped * 2.0**20) * 2.0**-20).astype(np.float32)


def scramble_phases(image: FloatImage, seed: int) -> FloatImage:
    """The amplitude spectrum of an image (3, height, width) with random phases, the same added to all channels.

    Phases are those of white noise of the seed, so that the result is real; their sum with the image's own keeps how
    the channels go together. Means are kept. Values may leave 0 to 1, and are clipped in the file.
    """
    noise = draw_white_noise(seed, *image.shape[1:])[0].astype(np.float64)
    spectrum = np.fft.fft2(noise)
    turned = np.where(np.abs(spectrum) > 0, spectrum / np.maximum(np.abs(spectrum), 1e-300), 1.0)
    turned[0, 0] = 1.0
    return np.fft.ifft2(np.fft.fft2(image.astype(np.float64)) * turned).real.astype(np.float32)

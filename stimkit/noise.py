"""White-noise initial images that depend on a seed alone."""

from __future__ import annotations

import numpy as np

from stimkit.images import FloatImage


def white_noise(seed: int, height: int, width: int, contrast: float = 1.0) -> FloatImage:
    """Uniform white noise around mid-grey, (3, height, width) float32 within 0.5 ± contrast / 2.

    Made from raw 64-bit words of the counter-based generator Philox (Salmon et al. 2011), 24 bits of each,
    on the CPU: the same values on every machine, device and version, whatever else is in the batch.
    """
    words = np.random.Philox(key=seed).random_raw(3 * height * width)
    uniform = (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
    noise = np.float32(0.5) + np.float32(contrast) * (uniform - np.float32(0.5))
    return noise.reshape(3, height, width)

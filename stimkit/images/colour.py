"""Colours of one image made those of another."""

from __future__ import annotations

import numpy as np

from stimkit.images import light as photometry
from stimkit.images.pixels import Pixels


def match_histograms(style: Pixels, content: Pixels) -> Pixels:
    """The style image with the histograms of the content image's channels (scikit-image)."""
    from skimage.exposure import match_histograms

    matched = match_histograms(style, content, channel_axis=-1)
    return np.asarray(np.round(np.clip(matched, 0, 255)), np.uint8)


def match_covariance(style: Pixels, content: Pixels) -> Pixels:
    """The style image with the mean and covariance of the content image's colours.

    x' = A (x - mean) + mean of the content, A = Σc^½ Σs^-½ (Gatys et al. 2016, Preserving color in neural artistic
    style transfer: the transformation of image analogies). Values are clipped and rounded to 8 bits.
    """
    values, others = (image.reshape(-1, 3).astype(np.float64) for image in (style, content))
    transform = _power(np.cov(others.T), 0.5) @ _power(np.cov(values.T), -0.5)
    matched = (values - values.mean(0)) @ transform.T + others.mean(0)
    return np.asarray(np.round(np.clip(matched, 0, 255)), np.uint8).reshape(style.shape)


def _power(covariance: photometry.Array, exponent: float) -> photometry.Array:
    """Power of a symmetric matrix; directions without variance stay without."""
    variances, directions = np.linalg.eigh(covariance)
    there = variances > 1e-6 * max(float(variances.max()), 1e-6)
    powers = np.where(there, np.where(there, variances, 1.0) ** exponent, 0.0)
    return np.asarray(directions * powers @ directions.T)

"""What cannot be asked of finished images: apertures that do not fit, targets that no image can have."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stimkit.images.aperture import aperture, diameter_px
from stimkit.protocol.settings import POOLS, Settings

EQUALIZE_KEYS = ("equalize_luminance", "equalize_contrast", "equalize_histogram", "equalize_spectrum")


def impossible(
    settings: Settings, has_content: bool, has_style: bool, deepest_stride: int
) -> Iterator[tuple[str, str]]:
    """Settings that contradict each other or cannot be met, with what to do about it.

    `deepest_stride` is that of the deepest style layer.
    """
    has = {"content": has_content, "style": has_style}
    yield from _of_aperture(settings)
    if settings.titrate != "none":
        if settings.titrate_lowest >= settings.titrate_highest:
            yield "titrate_lowest", "must be below titrate_highest"
        if not (has_content and has_style):
            yield "titrate", "looks for a ratio, which needs a content and a style image in every cell"
    if settings.regions != "whole" and settings.style_scale != 1:
        yield "style_scale", "must be 1 where regions of the stimulus are compared with those of the style image"
    if settings.regions == "grid" and min(settings.size) // deepest_stride < settings.region_count:
        positions = min(settings.size) // deepest_stride
        yield "region_count", f"is more than the {positions} positions of a side of the deepest style layer"
    for key in EQUALIZE_KEYS:
        wanted = getattr(settings, key)
        kind = POOLS.get(wanted, wanted) if isinstance(wanted, str) else "none"
        if kind != "none" and not has[kind]:
            yield key, f"there is no {kind} image to take it from in some cells; give a number, or leave them out"
    by_hand = (settings.equalize_luminance, settings.equalize_contrast) != ("none", "none")
    if settings.equalize_histogram != "none" and by_hand:
        yield "equalize_histogram", "sets mean and contrast of luminance as well; give either it or those"
    mean, contrast = settings.equalize_luminance, settings.equalize_contrast
    if isinstance(mean, float) and isinstance(contrast, float) and contrast > _largest_contrast(mean):
        yield (
            "equalize_contrast",
            (
                f"no image of mean luminance {mean:g} has an RMS contrast above {_largest_contrast(mean):.3g}"
                f" (got {contrast:g}): luminance is between 0 and 1"
            ),
        )
    if settings.colour in ("luminance", "covariance", "histogram") and not (has_content and has_style):
        yield "colour", f'"{settings.colour}" needs a content and a style image in every cell'


def _largest_contrast(mean: float) -> float:
    """SD / mean of an image that is black and white only."""
    return math.sqrt((1 - mean) / mean)


def _of_aperture(settings: Settings) -> Iterator[tuple[str, str]]:
    degrees = {key: getattr(settings, key) for key in ("aperture_diameter", "aperture_ramp", "aperture_sigma")}
    if settings.aperture == "none":
        for key in (key for key, value in degrees.items() if value):
            yield key, "is given without an aperture"
        return
    if any(degrees.values()) and not settings.ppd:
        key = next(key for key, value in degrees.items() if value)
        yield key, "is in degrees of visual angle, which needs ppd (or visual_size) in [display]"
        return
    if settings.aperture == "gaussian" and not settings.aperture_sigma:
        yield "aperture_sigma", "is needed by a gaussian aperture"
        return
    for key in ("aperture_ramp",) if settings.aperture == "gaussian" else ("aperture_sigma",):
        if degrees[key]:
            yield key, f"is not for a {settings.aperture} aperture"
    diameter = diameter_px(settings)
    if diameter > min(settings.size):
        yield "aperture_diameter", f"is {diameter:g} px, more than the {min(settings.size)} px of the stimulus"
    weights = aperture(settings)
    if weights is not None and not weights.any():
        yield "aperture_diameter", "lets no pixel through"
    if 2 * settings.aperture_ramp * settings.ppd > diameter:
        yield "aperture_ramp", "is wider than half of the aperture"

"""What cannot be planned: levels that look the same, sizes without positions, images that nothing can be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from stimkit.errors import Problem, ProtocolError
from stimkit.images.aperture import aperture_weights
from stimkit.images.regions import SMALLEST
from stimkit.network.layers import LAYERS, deepest
from stimkit.planning.cells import Cell, Input
from stimkit.protocol.labels import label
from stimkit.protocol.mixes import KEY_OF
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.settings import POOLS, SECTION_OF, Settings

EQUALIZE_KEYS = ("equalize_luminance", "equalize_contrast", "equalize_histogram", "equalize_spectrum")
MAX_FILENAME = 200


def check_levels(protocol: Protocol) -> None:
    """Raise `ProtocolError` where levels would look the same in tables, or sizes are too small for the layers."""
    _check_labels(protocol)
    _check_sizes(protocol)


def check_cells(cells: Sequence[Cell], protocol: Protocol, inputs: Sequence[Input]) -> None:
    """Raise `ProtocolError` where cells ask for what no image can be, or two of them are the same stimulus."""
    _check_outputs(cells, protocol, inputs)
    _check_distinct(cells, protocol)


def check_new_cells(cells: Sequence[Cell], protocol: Protocol) -> None:
    """Raise `ProtocolError` where cells break rules of later versions, which run folders of earlier ones may break."""
    _check_names(cells, protocol)
    _check_replicates(cells, protocol)
    _check_gamma(protocol)


def _contradictions(
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
    yield from _of_windows(settings)
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


def _of_windows(settings: Settings) -> Iterator[tuple[str, str]]:
    given = [key for key in ("fixation_x", "fixation_y", "fovea") if getattr(settings, key)]
    if given and settings.regions != "polar":
        yield given[0], 'is of windows; give regions = "polar" with it'
    elif given and not settings.ppd:
        yield given[0], "is in degrees of visual angle, which needs ppd (or visual_size) in [display]"
    elif settings.fovea and settings.region_shape.fovea < settings.region_shape.smallest_fovea:
        least = settings.region_shape.smallest_fovea / settings.ppd
        yield "fovea", f"must be {least:.4g} degrees at least, where windows of this scaling are {SMALLEST:g} px wide"


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
    diameter = settings.aperture_shape.diameter
    if diameter > min(settings.size):
        yield "aperture_diameter", f"is {diameter:g} px, more than the {min(settings.size)} px of the stimulus"
    weights = aperture_weights(settings.aperture_shape)
    if weights is not None and not weights.any():
        yield "aperture_diameter", "lets no pixel through"
    if 2 * settings.aperture_ramp * settings.ppd > diameter:
        yield "aperture_ramp", "is wider than half of the aperture"


def _check_sizes(protocol: Protocol) -> None:
    sets = [protocol.layers.content[name] for name in protocol.levels("content_layers") if protocol.images.content]
    sets += [protocol.layers.style[name] for name in protocol.levels("style_layers") if protocol.images.style]
    sets += [protocol.layers.style[name] for name in protocol.controls.subset]
    layer = deepest((*(name for layers in sets for name in layers), *protocol.controls.reconstruction))
    problems = []
    for index, size in enumerate(protocol.levels("size")):
        for scale in protocol.levels("style_scale"):
            side = min(*size, *Settings(size=size, style_scale=scale).style_size)
            if side < layer.stride:
                varied = getattr(protocol.factors, "size", None) is not None
                key = f"factors.size[{index}]" if varied else "synthesis.size"
                line = protocol.line("factors", "size", index) if varied else protocol.line("synthesis", "size")
                message = f"{side} px is too small for {layer.name}, which needs at least {layer.stride} px"
                problems.append(Problem(key, message, line))
    if problems:
        raise ProtocolError(set(problems), protocol.file)


def _check_outputs(cells: Sequence[Cell], protocol: Protocol, inputs: Sequence[Input]) -> None:
    """What is asked of the finished images must be possible, as far as that can be known before they are made."""
    _check_masks(cells, protocol, inputs)
    _check_mixes(cells, protocol, inputs)
    kinds = {(cell.settings, cell.content is not None, cell.style is not None, _style_stride(cell)) for cell in cells}
    found = {one for kind in kinds for one in _contradictions(*kind)}
    if found:
        problems = [
            Problem(f"{section}.{key}", message, protocol.line(section, key))
            for key, message in found
            for section in ["factors" if getattr(protocol.factors, key) is not None else SECTION_OF[key]]
        ]
        raise ProtocolError(problems, protocol.file)


def _style_stride(cell: Cell) -> int:
    return max((LAYERS[name].stride for name, _ in cell.style_layers), default=1)


def _check_masks(cells: Sequence[Cell], protocol: Protocol, inputs: Sequence[Input]) -> None:
    """A mask is laid on its content image, so it has the same size; and it is a region by itself."""
    sizes = {(image.kind, image.name): (image.height, image.width) for image in inputs if image.height}
    problems = set()
    for cell in cells:
        for mask in cell.images("mask"):
            size, line = sizes.get(("mask", mask)), protocol.line("images", "mask", mask)
            for name in cell.images("content") if size else ():
                other = sizes.get(("content", name), size)
                if size and other and size != other:
                    words = f"has {size[0]} × {size[1]} px, its content image {name} {other[0]} × {other[1]}"
                    problems.add(Problem(f"images.mask.{mask}", words, line))
            if cell.settings.regions != "whole":
                problems.add(Problem(f"images.mask.{mask}", "is a region by itself; leave out `regions`", line))
        if cell.style_map and (cell.settings.init == "style" or "style" in cell.settings.equalize_targets):
            line = protocol.line("images", "style_maps", cell.style or "")
            words = 'has no one style image, which init = "style" and equalization to "style" need'
            problems.add(Problem(f"images.style_maps.{cell.style}", words, line))
    if problems:
        raise ProtocolError(problems, protocol.file)


def _check_mixes(cells: Sequence[Cell], protocol: Protocol, inputs: Sequence[Input]) -> None:
    """Mixes are of different pictures, and of whole ones."""
    digests: dict[tuple[str, str], str] = {(image.kind, image.name): image.pixel_sha256 for image in inputs}
    problems = set()
    for kind, key in KEY_OF.items():
        for name, mix in protocol.mixes(kind).items():
            seen: dict[str, str] = {}
            for image in (*mix.of, *mix.mean_of):
                twin = seen.setdefault(digests.get((kind, image), image), image)
                if twin != image:
                    line = protocol.line("images", key, name)
                    problems.add(Problem(f"images.{key}.{name}", f'"{twin}" and "{image}" are the same picture', line))
    if any(cell.style_mix and cell.settings.regions != "whole" for cell in cells):
        message = "compares regions of the stimulus with those of one style image; a mix of styles has none"
        section = "factors" if getattr(protocol.factors, "regions", None) is not None else "synthesis"
        problems.add(Problem(f"{section}.regions", message, protocol.line(section, "regions")))
    if problems:
        raise ProtocolError(problems, protocol.file)


def _check_labels(protocol: Protocol) -> None:
    """Levels that would look the same in file names and tables are refused."""
    problems = []
    for factor in protocol.factor_names:
        seen: dict[str, Any] = {}
        for index, level in enumerate(protocol.levels(factor)):
            if seen.setdefault(label(level), level) != level:
                line = protocol.line("factors", factor, index)
                message = f'"{seen[label(level)]}" and "{level}" would both be called "{label(level)}"'
                problems.append(Problem(f"factors.{factor}[{index}]", message, line))
    if problems:
        raise ProtocolError(problems, protocol.file)


def _check_names(cells: Sequence[Cell], protocol: Protocol) -> None:
    """File systems have names of 255 bytes at most; a file that is being written has a longer one for a moment."""
    longest = max(cells, key=lambda cell: len(cell.filename))
    if len(longest.filename) > MAX_FILENAME:
        factor = max(longest.levels, key=lambda name: len(longest.levels[name]))
        message = (
            f"makes a file name of {len(longest.filename)} characters, {longest.filename}; at most {MAX_FILENAME} are"
            " possible: give shorter names"
        )
        raise _factor_problem(protocol, factor, message)


def _check_distinct(cells: Sequence[Cell], protocol: Protocol) -> None:
    """No two cells are the same stimulus, whatever their names."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        twin = seen.setdefault(cell.id, cell)
        if twin is not cell:
            if cell.seed != twin.seed and protocol.seeds == "unique":
                message = f"two of {len(cells):,} cells have the id {cell.id} by chance: give another seed"
                raise ProtocolError([Problem("seed", message, protocol.line("seed"))], protocol.file)
            differing = [factor for factor in cell.levels if cell.levels[factor] != twin.levels[factor]]
            if not differing:
                words = ", ".join(f"{factor} {level}" for factor, level in cell.levels.items() if level)
                raise _factor_problem(protocol, next(iter(cell.levels)), f"two cells have the levels {words}; keep one")
            first, other = twin.levels[differing[0]], cell.levels[differing[0]]
            message = f'"{first}" and "{other}" are the same image or value; keep one'
            raise _factor_problem(protocol, differing[0], message)


def _check_replicates(cells: Sequence[Cell], protocol: Protocol) -> None:
    for cell in cells:
        if cell.replicate > 1 and not cell.settings.draws_noise:
            message = f'replicates differ in their noise, and init = "{cell.settings.init}" has none: leave them out'
            raise _factor_problem(protocol, "replicate", message)


def _check_gamma(protocol: Protocol) -> None:
    if protocol.levels("gamma") != (Settings().gamma,) and "gamma" not in protocol.levels("transfer"):
        section = "factors" if getattr(protocol.factors, "gamma", None) is not None else SECTION_OF["gamma"]
        message = 'is the exponent of a display with transfer = "gamma", which no cell has'
        raise ProtocolError([Problem(f"{section}.gamma", message, protocol.line(section, "gamma"))], protocol.file)


def _factor_problem(protocol: Protocol, factor: str, message: str) -> ProtocolError:
    return ProtocolError([Problem(f"factors.{factor}", message, protocol.line("factors", factor))], protocol.file)

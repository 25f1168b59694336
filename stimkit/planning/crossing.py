"""Plans: a protocol and the digests of its inputs, crossed into cells with ids and seeds. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from stimkit.errors import ImageError, Problem, ProtocolError, WeightsError
from stimkit.images.reading import read_source
from stimkit.network import weights as weights_module
from stimkit.network.layers import LAYERS, deepest
from stimkit.planning.cells import Cell, Input, LayerWeights, Plan, WeightsSource
from stimkit.planning.checks import impossible
from stimkit.planning.combinations import points
from stimkit.planning.controls import controls
from stimkit.planning.identity import Identities
from stimkit.protocol.labels import label
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.settings import SECTION_OF, Convention, Settings


def plan(protocol: Protocol | str | Path) -> Plan:
    """Cross the factors of a protocol, or of a protocol file, into cells.

    Reads the input images and weights for their digests, which the ids of the cells contain. What is
    missing or damaged is listed in `Plan.missing`; `run` refuses such a plan. Raises `ProtocolError`
    where a size is too small for the layers, or two cells are the same.
    """
    if not isinstance(protocol, Protocol):
        protocol = Protocol.load(protocol)
    names = [(kind, name) for kind in ("content", "style", "mask") for name in protocol.levels(kind) if name]
    inputs = tuple(_identify(protocol, kind, name) for kind, name in names)
    sources = {
        (spec, preprocessing): _identify_weights(protocol, spec, preprocessing)
        for spec in protocol.levels("weights")
        for preprocessing in protocol.levels("preprocessing")
    }
    made = cross(protocol, inputs, sources)
    # What was made before these rules were known is still what it is, so that locks are not held to them.
    _check_names(made.design, protocol)
    _check_replicates(made.design, protocol)
    _check_gamma(protocol)
    return made


def cross(protocol: Protocol, inputs: tuple[Input, ...], sources: Mapping[tuple[str, str], WeightsSource]) -> Plan:
    """Cross a protocol's factors into cells, with inputs and weights that are identified already."""
    _check_labels(protocol)
    _check_sizes(protocol)
    identities = Identities(protocol, inputs, sources)
    cells = list(_cells(protocol, identities))
    _check_outputs(cells, protocol, inputs)
    _check_distinct(cells, protocol)
    subsets = {
        (name, loss): _weighted(protocol.layers.style[name], loss, "style")
        for name in protocol.controls.subset
        for loss in protocol.levels("loss")
    }
    return Plan(protocol, inputs, sources, (*cells, *controls(cells, protocol, identities, subsets)))


def _identify(protocol: Protocol, kind: Any, name: str) -> Input:
    spec = getattr(protocol.images, kind)[name]
    try:
        source = read_source(spec, protocol.root)
    except ImageError as error:
        return Input(kind, name, spec, f"missing:{spec}", None, 0, 0, str(error))
    height, width = source.pixels.shape[:2]
    problem = None if kind != "mask" or source.pixels.any() else f'mask "{spec}" is black: it lets no style through'
    return Input(kind, name, spec, source.pixel_sha256, source.file_sha256, height, width, problem)


def _identify_weights(protocol: Protocol, spec: str, preprocessing: str) -> WeightsSource:
    try:
        found = weights_module.load(spec, base=protocol.base, preprocessing=preprocessing)
    except WeightsError as error:
        return WeightsSource(spec, f"missing:{spec}", preprocessing, "", str(error))
    return WeightsSource(spec, found.digest, found.preprocessing, found.description)


# --- crossing --------------------------------------------------------------------------------------------------

MAX_FILENAME = 200
_CROSSED = ("content", "style", "mask", "content_layers", "style_layers", "ratio", "alpha", "beta", *SECTION_OF)


def _cells(protocol: Protocol, identities: Identities) -> Iterator[Cell]:
    named = protocol.factor_names
    order = (*named, *(key for key in _CROSSED if key not in named))
    settings_of = lru_cache(maxsize=None)(lambda *values: Settings(**dict(zip(SECTION_OF, values, strict=True))))
    for point in points(protocol, order):
        at = point.levels
        settings = settings_of(*(at[name] for name in SECTION_OF))
        alpha, beta = _alpha_beta(at, protocol)
        if settings.titrate != "none":
            alpha = settings.titrate_lowest  # until it is found
        content_layers = _weighted(protocol.layers.content[at["content_layers"]], settings.loss, "content")
        style_layers = _weighted(protocol.layers.style[at["style_layers"]], settings.loss, "style")
        parts: dict[str, Any] = {
            "content": at["content"],
            "style": at["style"],
            "mask": at["mask"] if at["style"] else None,
            "content_layers": content_layers if at["content"] else (),
            "style_layers": style_layers if at["style"] else (),
            "alpha": alpha,
            "beta": beta,
            "replicate": at["replicate"],
        }
        identity, seed = identities.of(settings, **parts)
        levels = {factor: label(at[factor]) for factor in named}
        yield Cell(id=identity, levels=levels, attributes=point.attributes, seed=seed, settings=settings, **parts)


def _alpha_beta(at: Mapping[str, Any], protocol: Protocol) -> tuple[float, float]:
    if at["ratio"] is not None:
        return (1.0, 0.0) if math.isinf(at["ratio"]) else (at["ratio"], 1.0)
    default_alpha = 1.0 if protocol.images.content else 0.0
    default_beta = 1.0 if protocol.images.style else 0.0
    alpha = default_alpha if at["alpha"] is None else at["alpha"]
    return alpha, default_beta if at["beta"] is None else at["beta"]


def _weighted(layers: Mapping[str, float | None], loss: Convention, term: str) -> LayerWeights:
    """Fill in the layer weights of the convention: 1/L, but 1/N² for style under `mean`."""
    return tuple(
        (name, weight if weight is not None else default_layer_weight(name, len(layers), loss, term))
        for name, weight in layers.items()
    )


def default_layer_weight(name: str, count: int, loss: Convention, term: str) -> float:
    """w_l of a layer set of `count` layers: 1/count (Gatys et al. 2015), or 1/N² for the style term under `mean`."""
    if loss == "mean" and term == "style":
        return 1.0 / LAYERS[name].channels ** 2
    return 1.0 / count


# --- checks ----------------------------------------------------------------------------------------------------


def _check_sizes(protocol: Protocol) -> None:
    sets = [protocol.layers.content[name] for name in protocol.levels("content_layers") if protocol.images.content]
    sets += [protocol.layers.style[name] for name in protocol.levels("style_layers") if protocol.images.style]
    sets += [protocol.layers.style[name] for name in protocol.controls.subset]
    layer = deepest((*(name for one in sets for name in one), *protocol.controls.reconstruction))
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
    kinds = {(cell.settings, cell.content is not None, cell.style is not None, _style_stride(cell)) for cell in cells}
    found = {one for kind in kinds for one in impossible(*kind)}
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
    sizes = {(one.kind, one.name): (one.height, one.width) for one in inputs if one.height}
    problems = set()
    for cell in cells:
        size, other = sizes.get(("mask", cell.mask or "")), sizes.get(("content", cell.content or ""))
        line = protocol.line("images", "mask", cell.mask or "")
        if size and other and size != other:
            told = f"has {size[0]} × {size[1]} px, its content image {cell.content} {other[0]} × {other[1]}"
            problems.add(Problem(f"images.mask.{cell.mask}", told, line))
        if cell.mask and cell.settings.regions != "whole":
            problems.add(Problem(f"images.mask.{cell.mask}", "is a region by itself; leave out `regions`", line))
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
            differing = [factor for factor in cell.levels if cell.levels[factor] != twin.levels[factor]]
            if not differing:
                told = ", ".join(f"{factor} {level}" for factor, level in cell.levels.items() if level)
                raise _factor_problem(protocol, next(iter(cell.levels)), f"two cells have the levels {told}; keep one")
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

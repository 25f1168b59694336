"""Plans: a protocol and the digests of its inputs, crossed into cells with ids and seeds. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from stimkit.errors import ImageError, WeightsError
from stimkit.images.reading import read_source
from stimkit.network.layers import LAYERS, Convention, NetworkName
from stimkit.network.sources import load_weights
from stimkit.planning.cells import Cell, Input, LayerWeights, Plan, RecognitionSource, WeightsSource
from stimkit.planning.checks import check_cells, check_levels, check_new_cells
from stimkit.planning.combinations import Point, cross_levels
from stimkit.planning.controls import make_controls
from stimkit.planning.identity import Identities
from stimkit.planning.recognition import check_cues, identify_recognition
from stimkit.protocol.labels import label
from stimkit.protocol.mixes import KEY_OF, AnyMixture, steps_of
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.rules import IMAGE_KINDS
from stimkit.protocol.settings import SECTION_OF, Settings, Source
from stimkit.protocol.style_maps import StyleRegion


def plan(protocol: Protocol | str | Path) -> Plan:
    """Cross the factors of a protocol, or of a protocol file, into cells.

    >>> plan = stimkit.plan("protocols/quickstart.toml")
    >>> plan.factors["style_layers"], len(plan.cells), plan.missing
    (('fine', 'full'), 8, ())

    Reads the input images and weights for their digests, which the ids of the cells contain. What is
    missing or damaged is listed in `Plan.missing`; `run` refuses such a plan. Raises `ProtocolError`
    where a size is too small for the layers, or two cells are the same.
    """
    if not isinstance(protocol, Protocol):
        protocol = Protocol.load(protocol)
    names = [(kind, name) for kind in IMAGE_KINDS for name in _images_of(protocol, kind)]
    known: dict[tuple[str, str], Input] = {}  # several names may be of one file
    inputs = tuple(_identify(protocol, kind, name, known) for kind, name in names)
    sources = {
        source: _identify_weights(protocol, *source)
        for source in product(*(protocol.levels(name) for name in ("weights", "preprocessing", "network")))
    }
    made = cross(protocol, inputs, sources, identify_recognition(protocol))
    # What was made before these rules were known is still what it is, so that locks are not held to them.
    check_new_cells(made.main_cells, protocol)
    check_cues(made)
    return made


def cross(
    protocol: Protocol,
    inputs: tuple[Input, ...],
    sources: Mapping[Source, WeightsSource],
    recognition: RecognitionSource | None,
) -> Plan:
    """Cross a protocol's factors into cells, with inputs, weights and classifier that are identified already."""
    check_levels(protocol)
    identities = Identities(protocol, inputs, sources, recognition)
    named = protocol.factor_names
    order = (*named, *(key for key in _CROSSED if key not in named))
    found = cross_levels(protocol, order)
    cells = list(_cells(protocol, identities, found.points))
    check_cells(cells, protocol, inputs)
    subsets = {
        (name, loss): _weighted(protocol.layers.style[name], loss, "style")
        for name in protocol.controls.subset
        for loss in protocol.levels("loss")
    }
    made = (*cells, *make_controls(cells, protocol, identities, subsets))
    return Plan(protocol, inputs, sources, made, found.excluded, found.not_sampled, recognition)


def _images_of(protocol: Protocol, kind: str) -> tuple[str, ...]:
    """The images that the levels of a factor are made from or compared with, each once."""
    mixtures, series = protocol.mixtures(kind), _images_of_series(protocol, kind)
    found: dict[str, None] = {}
    maps = protocol.style_maps
    regions = [one for level in protocol.levels("style") for one in maps.get(level or "", ())]
    of_maps = [getattr(one, kind) for one in regions if kind != "content"]
    for level in filter(None, (*(one for one in protocol.levels(kind) if one not in maps), *of_maps)):
        found |= dict.fromkeys(mixtures[level].parts if level in mixtures else (level,))
        found |= dict.fromkeys(name for _, name in series.get(level, ()))
    return tuple(found)


def _identify(protocol: Protocol, kind: Any, name: str, known: dict[tuple[str, str], Input]) -> Input:
    spec = getattr(protocol.images, kind)[name]
    if (kind, spec) not in known:
        known[kind, spec] = _read_input(protocol, kind, name, spec)
    return replace(known[kind, spec], name=name)


def _read_input(protocol: Protocol, kind: Any, name: str, spec: str) -> Input:
    try:
        source = read_source(spec, protocol.root, follow_links=protocol.images.follow_links)
    except ImageError as error:
        return Input(kind, name, spec, f"missing:{spec}", None, 0, 0, str(error))
    height, width = source.pixels.shape[:2]
    problem = None if kind != "mask" or source.pixels.any() else f'mask "{spec}" is black: it lets no style through'
    return Input(kind, name, spec, source.pixel_sha256, source.file_sha256, height, width, problem)


def _identify_weights(protocol: Protocol, spec: str, preprocessing: str, network: NetworkName) -> WeightsSource:
    try:
        found = load_weights(spec, base=protocol.base, preprocessing=preprocessing, network=network)
    except WeightsError as error:
        return WeightsSource(spec, f"missing:{spec}", preprocessing, "", problem=str(error))
    return WeightsSource(spec, found.digest, found.preprocessing, found.description, found.unit_mean_pooling or "none")


# --- crossing --------------------------------------------------------------------------------------------------

_CROSSED = ("content", "style", "mask", "content_layers", "style_layers", "ratio", "alpha", "beta", *SECTION_OF)


def _cells(protocol: Protocol, identities: Identities, points: Sequence[Point]) -> Iterator[Cell]:
    named = protocol.factor_names
    varied = [name for name in SECTION_OF if name in points[0].varying]
    constant = {name: points[0].level(name) for name in SECTION_OF if name not in varied}
    mixtures = {kind: protocol.mixtures(kind) for kind in KEY_OF}
    series = {kind: _images_of_series(protocol, kind) for kind in KEY_OF}
    maps = protocol.style_maps

    @cache
    def settings_of(*levels: Any) -> Settings:
        return Settings(**constant, **dict(zip(varied, levels, strict=True)))

    @cache
    def layers_of(term: str, name: str, loss: Convention) -> LayerWeights:
        return _weighted(getattr(protocol.layers, term)[name], loss, term)

    @cache
    def label_of(level: Any, _kind: str) -> str:  # of its kind: 1 and true are equal
        return label(level)

    for point in points:
        at = point.level
        content, style = at("content"), at("style")
        settings = settings_of(*(point.varying[name] for name in varied))
        alpha, beta = _alpha_beta(at("ratio"), at("alpha"), at("beta"), protocol)
        if settings.titrate != "none":
            alpha = settings.titrate_lowest  # until it is found
        parts: dict[str, Any] = {
            "content": content,
            **_styles(style, at("mask") if style else None, mixtures["style"], maps),
            "content_mix": mixtures["content"].get(content),
            "content_layers": layers_of("content", at("content_layers"), settings.loss) if content else (),
            "style_layers": layers_of("style", at("style_layers"), settings.loss) if style else (),
            "alpha": alpha,
            "beta": beta,
            "replicate": at("replicate"),
        }
        identity, seed = identities.of(settings, **parts)
        levels = {factor: label_of(level := at(factor), type(level).__name__) for factor in named}
        compared = (*series["content"].get(content, ()), *series["style"].get(style, ()))
        yield Cell(
            id=identity, levels=levels, attributes=point.attributes, seed=seed, settings=settings, compared=compared,
            **parts,
        )  # fmt: skip


def _styles(
    level: str | None, mask: str | None, mixtures: Mapping[str, AnyMixture], maps: Mapping[str, tuple[StyleRegion, ...]]
) -> dict[str, Any]:
    """What a level of the factor style is: an image, a mixture, or a map; of a map of one style this and its mask."""
    regions = maps.get(level or "", ())
    if len(regions) == 1:
        mask, level, _ = regions[0]
    elif regions:
        return {"style": level, "style_mix": None, "mask": None, "style_map": regions}
    return {"style": level, "style_mix": mixtures.get(level or ""), "mask": mask, "style_map": ()}


def _images_of_series(protocol: Protocol, kind: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """For each level of a series, the images that its series goes through, by kind and name."""
    found: dict[str, dict[tuple[str, str], None]] = {}
    mixes = protocol.mixes(kind)
    for name, steps in steps_of(mixes).items():
        for step in steps:
            found.setdefault(step.level, {}).update(dict.fromkeys((kind, image) for image in mixes[name].of))
    return {level: tuple(images) for level, images in found.items()}


def _alpha_beta(
    ratio: float | None, alpha: float | None, beta: float | None, protocol: Protocol
) -> tuple[float, float]:
    if ratio is not None:
        return (1.0, 0.0) if math.isinf(ratio) else (ratio, 1.0)
    default_alpha = 1.0 if protocol.images.content else 0.0
    default_beta = 1.0 if protocol.images.style else 0.0
    return default_alpha if alpha is None else alpha, default_beta if beta is None else beta


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

"""What a plan amounts to: factors, cells, estimated time, memory and disk. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from stimkit.network.layers import LAYERS
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.checks import EQUALIZE_KEYS
from stimkit.planning.cost import estimate
from stimkit.planning.scales import scale_sizes
from stimkit.protocol.limits import Accept
from stimkit.protocol.settings import BY_CONTENT, Settings

TITRATION_KEYS = ("titrate", "titrate_value", "titrate_lowest", "titrate_highest")


def summarize(plan: Plan, device: str | None = None, done: Container[str] = ()) -> dict[str, Any]:
    """Return a plan's summary as JSON values; what it costs is without the cells that are `done`."""
    pending = [cell for cell in plan.cells if cell.id not in done]
    kinds = {cell.settings for cell in plan.cells}
    of_design = {cell.settings for cell in plan.main_cells}
    titrated = {settings for settings in of_design if settings.titrate != "none"}
    return {
        "name": plan.protocol.name,
        "cells": len(plan.cells),
        "controls": Counter(cell.role for cell in plan.cells if cell.role != "main"),
        "excluded": plan.excluded,
        "not_sampled": plan.not_sampled,
        "factors": {name: list(levels) for name, levels in plan.factors.items()},
        "sizes": sorted({settings.size for settings in kinds}),
        "coarse_sizes": coarse_sizes(plan),
        "degrees": sorted({settings.degrees for settings in kinds if settings.degrees}),
        "loss_convention": sorted({settings.loss for settings in kinds}),
        "output": _unusual(_levels(of_design, ("aperture", *EQUALIZE_KEYS, "colour", "transfer", "bits"))),
        "titration": _levels(titrated, TITRATION_KEYS) if titrated else {},
        "accept": _rules(plan.protocol.accept),
        "inputs": [
            {
                "kind": image.kind,
                "name": image.name,
                "spec": image.spec,
                "size": [image.height, image.width],
                "problem": image.problem,
            }
            for image in plan.inputs
        ],
        "weights": [asdict(source) for source in plan.weights.values()],
        "pending": len(pending),
        "estimate": asdict(estimate(pending, device, retries=plan.protocol.accept.retries)),
        "ratios": ratio_table(plan),
        "same_textures": same_textures(plan),
        "ids_are_provisional": bool(plan.missing),
    }


def coarse_sizes(plan: Plan) -> list[dict[str, Any]]:
    """How many cells are optimized at which smaller sizes before their own."""
    kinds = Counter((cell.settings, cell.style_layers, cell.beta) for cell in plan.cells)
    found: Counter[tuple[tuple[int, int], ...]] = Counter()
    for (settings, style_layers, beta), count in kinds.items():
        found[scale_sizes(settings, style_layers, beta)[:-1]] += count
    return [{"cells": count, "sizes": [list(size) for size in sizes]} for sizes, count in sorted(found.items())]


def _levels(kinds: Iterable[Settings], names: Iterable[str]) -> dict[str, list[Any]]:
    """The different values of settings."""
    kinds = list(kinds)
    return {name: sorted({getattr(settings, name) for settings in kinds}, key=str) for name in names}


def _unusual(levels: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Settings that are not at their default everywhere."""
    return {name: values for name, values in levels.items() if values != [Settings.model_fields[name].default]}


def same_textures(plan: Plan) -> int:
    """How many cells have a content image of weight 0: those of other contents differ from them in their noise only."""
    contents: dict[tuple[Any, ...], set[str]] = {}
    cells = [cell for cell in plan.main_cells if cell.alpha == 0 and cell.content and cell.settings.init == "noise"]
    cells = [cell for cell in cells if not _needs_content(cell)]
    for cell in cells:
        contents.setdefault(_texture(cell), set()).add(cell.content or "")
    return sum(len(contents[_texture(cell)]) > 1 for cell in cells)


def _texture(cell: Cell) -> tuple[Any, ...]:
    return cell.style, cell.style_layers, cell.settings, cell.mask


def _needs_content(cell: Cell) -> bool:
    """Whether colours or light follow the content image."""
    return cell.settings.colour in BY_CONTENT or "content" in cell.settings.equalize_targets


def ratio_table(plan: Plan) -> list[dict[str, Any]]:
    """Return every ratio of the plan in both loss conventions; those that titration finds are not known yet."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in plan.cells:
        if not cell.content_layers or not cell.style_layers or cell.settings.titrate != "none":
            continue
        factor = paper_to_mean(cell)
        paper = cell.ratio if cell.settings.loss == "paper" else cell.ratio / factor
        key = (cell.ratio, cell.settings.loss, cell.settings.size, cell.content_layers)
        rows[key] = {"size": list(cell.settings.size), "paper": paper, "mean": paper * factor}
    return list(rows.values())


def paper_to_mean(cell: Cell) -> float:
    """Factor from a ratio under `paper` to the same balance under `mean`, with the same layer weights.

    Content: ½ Σ (F − P)² = ½ N M · mean (F − P)². Style: E_l = ¼ · mean (G/M − A/M)². Hence 2 N M, with
    N filters and M positions of the content layer (their weighted mean where there are several).
    """
    weights: Mapping[str, float] = dict(cell.content_layers)
    sizes = {name: LAYERS[name].channels * LAYERS[name].positions(*cell.settings.size) for name in weights}
    return 2 * sum(weights[name] * sizes[name] for name in weights) / sum(weights.values())


def _rules(accept: Accept) -> dict[str, Any]:
    """The rules that are given; of what curators decided, who they are."""
    rules: dict[str, Any] = accept.model_dump(mode="json", exclude_defaults=True, exclude={"curation"})
    return rules | ({"curation": [one.curator for one in accept.curation]} if accept.curation else {})

"""What a plan amounts to: factors, cells, estimated time, memory and disk. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from stimkit.network.layers import LAYERS
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.checks import EQUALIZE_KEYS
from stimkit.planning.cost import estimate
from stimkit.protocol.settings import BY_CONTENT, Settings


def summarize(plan: Plan, device: str | None = None, done: Container[str] = ()) -> dict[str, Any]:
    """Return a plan's summary as JSON values; what it costs is without the cells that are `done`."""
    pending = [cell for cell in plan.cells if cell.id not in done]
    return {
        "name": plan.protocol.name,
        "cells": len(plan.cells),
        "controls": Counter(cell.role for cell in plan.cells if cell.role != "main"),
        "excluded": plan.excluded,
        "not_sampled": plan.not_sampled,
        "factors": {name: list(levels) for name, levels in plan.factors.items()},
        "sizes": sorted({cell.settings.size for cell in plan.cells}),
        "degrees": sorted({cell.settings.degrees for cell in plan.cells if cell.settings.degrees}),
        "loss_convention": sorted({cell.settings.loss for cell in plan.cells}),
        "output": _settings_used(plan, ("aperture", *EQUALIZE_KEYS, "colour", "transfer", "bits")),
        "titration": _settings_used(plan, ("titrate", "titrate_value", "titrate_lowest", "titrate_highest")),
        "accept": plan.protocol.accept.model_dump(mode="json", exclude_defaults=True),
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


def _settings_used(plan: Plan, names: Sequence[str]) -> dict[str, list[Any]]:
    """Values of settings in the cells of the design, where any is not the default; titration's where there is any."""
    kinds = {cell.settings for cell in plan.main_cells}
    if names[0] == "titrate" and not any(settings.titrate != "none" for settings in kinds):
        return {}
    found = {name: list(dict.fromkeys(getattr(settings, name) for settings in kinds)) for name in names}
    defaults = Settings()
    return {
        name: sorted(values, key=str)
        for name, values in found.items()
        if values != [getattr(defaults, name)] or names[0] == "titrate"
    }


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

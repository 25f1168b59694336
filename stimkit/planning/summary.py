"""What a plan amounts to: factors, cells, estimated time, memory and disk. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from stimkit.network.layers import LAYERS
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.cost import estimate


def summarize(plan: Plan, device: str | None = None) -> dict[str, Any]:
    """Return a plan's summary as JSON values."""
    return {
        "name": plan.protocol.name,
        "cells": len(plan.cells),
        "controls": Counter(cell.role for cell in plan.cells if cell.role != "main"),
        "factors": {name: list(levels) for name, levels in plan.factors.items()},
        "sizes": sorted({cell.settings.size for cell in plan.cells}),
        "loss_convention": sorted({cell.settings.loss for cell in plan.cells}),
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
        "estimate": asdict(estimate(plan.cells, device)),
        "ratios": ratio_table(plan),
        "ids_are_provisional": bool(plan.missing),
    }


def ratio_table(plan: Plan) -> list[dict[str, Any]]:
    """Return every ratio of the plan in both loss conventions."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in plan.cells:
        if not cell.content_layers or not cell.style_layers:
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

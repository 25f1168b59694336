"""How far stimuli are from the images that their series go through: content and style losses of files to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from stimkit.images.png import to_network_image
from stimkit.network.losses import Objective
from stimkit.planning.cells import Cell
from stimkit.stimuli.stimulus import Distances, Stimulus
from stimkit.synthesis.batch import Batch
from stimkit.synthesis.synthesis import measure


def measure_distances(
    cells: Sequence[Cell], stimuli: Sequence[Stimulus], batch: Batch, objective_of: Callable[[list[Cell]], Objective]
) -> list[Distances]:
    """Measure the losses of files to the images that their cells are compared with."""
    found: list[dict[str, dict[str, dict[str, float]]]] = [{} for _ in cells]
    shown = [to_network_image(stimulus.values, batch.settings.encoding) for stimulus in stimuli]
    images = torch.from_numpy(np.stack(shown)).to(batch.initial)
    for index in range(max(len(cell.compared) for cell in cells)):
        there = [cell.with_image(*cell.compared[index]) if index < len(cell.compared) else cell for cell in cells]
        measured = measure(batch.reference, objective_of(there), images)
        for cell, losses, distances in zip(cells, measured, found, strict=True):
            if index < len(cell.compared):
                kind, name = cell.compared[index]
                layers = cell.content_layers if kind == "content" else cell.style_layers
                by_layer = losses.content_layers if kind == "content" else losses.style_layers
                distances.setdefault(kind, {})[name] = {layer: by_layer[layer] for layer, _ in layers}
    return list(found)

"""Assemble batches: cells and their images to initial images, targets and weights on a device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stimkit.images.light import LUMINANCE_WEIGHTS
from stimkit.images.png import to_network_image
from stimkit.network.layers import LAYERS
from stimkit.network.losses import Objective
from stimkit.network.vgg import VGG
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.planning.scales import at_size, scale_limits, scale_sizes
from stimkit.protocol.settings import Settings
from stimkit.recognition.decisions import Recognition
from stimkit.stimuli.distances import measure_distances
from stimkit.stimuli.dominance import find_dominance, split_content_loss, split_style_loss
from stimkit.stimuli.finishing import Finishing, Finishings
from stimkit.stimuli.networks import Networks
from stimkit.stimuli.preparation import prepare_initial
from stimkit.stimuli.recognition import Recognize
from stimkit.stimuli.stimulus import Made, Stimulus, finish
from stimkit.stimuli.targets import TargetCache, build_regions, check_masks
from stimkit.synthesis.batch import Batch
from stimkit.synthesis.devices import image_dtype, network_arithmetic, network_layout
from stimkit.synthesis.light_penalty import LightPenalty
from stimkit.synthesis.minimization import OnProgress
from stimkit.synthesis.synthesis import synthesize_batch


def build_objective(
    cells: Sequence[Cell], targets: TargetCache, inputs: InputSource, device: torch.device
) -> Objective:
    """Targets and weights of a batch. Layers that a cell does not use have weight 0 and zero targets."""
    settings = cells[0].settings
    layout = network_layout(settings.precision, device)
    dtype = image_dtype(settings.precision)

    def column(values: Iterable[object]) -> Tensor:
        return torch.tensor(list(values), dtype=dtype, device=device)

    def weights(term: str, layers: Sequence[str]) -> Tensor:
        rows = [dict(getattr(cell, f"{term}_layers")) for cell in cells]
        return column([[row.get(layer, 0.0) for layer in layers] for row in rows]).view(len(cells), len(layers))

    content_layers, style_layers = (_union(cells, term) for term in ("content", "style"))
    content = [
        targets.content(cell, [name for name, _ in cell.content_layers]) if cell.content else {} for cell in cells
    ]
    style = [targets.style(cell, [name for name, _ in cell.style_layers]) if cell.style else {} for cell in cells]
    return Objective(
        convention=settings.loss,
        alpha=column(cell.alpha for cell in cells),
        beta=column(cell.beta for cell in cells),
        content_weights=weights("content", content_layers),
        style_weights=weights("style", style_layers),
        content_targets={layer: _stack(content, layer).contiguous(memory_format=layout) for layer in content_layers},
        style_targets={layer: _stack(style, layer) for layer in style_layers},
        regions=build_regions(cells, style_layers, inputs, torch.empty(0, dtype=dtype, device=device)),
    )


def build_initial(cells: Sequence[Cell], inputs: InputSource, device: torch.device) -> Tensor:
    """Initial images (batch, 3, height, width): white noise of each cell's seed, its content or its style image."""
    initial = torch.from_numpy(np.stack([prepare_initial(cell, inputs) for cell in cells]))
    return initial.to(device, image_dtype(cells[0].settings.precision))


class Assembly:
    """Puts batches together on one device; networks and targets are made once and kept for the next batch."""

    def __init__(self, inputs: InputSource, device: torch.device, recognize: Recognize | None = None) -> None:
        self.inputs, self._device, self._recognize = inputs, device, recognize
        self._networks = Networks(inputs, device)
        self._targets: dict[VGG, TargetCache] = {}
        self._finishings = Finishings(inputs)

    def make(self, cells: Sequence[Cell], on_progress: OnProgress | None = None) -> list[Made]:
        """Optimize cells of equal settings as one batch, and finish their stimuli."""
        cells = self._resolved(cells)
        finishings = [self._finishings.of(cell) for cell in cells]
        batch = self._batch(cells, finishings)
        results = synthesize_batch(batch, on_progress)
        stimuli = finish(results, batch, finishings)
        targets = self._targets_for(batch.settings)
        distances = measure_distances(
            cells, stimuli, batch, lambda there: build_objective(there, targets, self.inputs, self._device)
        )
        seen = [self._seen(cell, stimulus) for cell, stimulus in zip(cells, stimuli, strict=True)]
        return [Made(*parts) for parts in zip(cells, results, stimuli, distances, seen, strict=True)]

    def _seen(self, cell: Cell, stimulus: Stimulus) -> Recognition | None:
        if self._recognize is None:
            return None
        return self._recognize(cell, to_network_image(stimulus.values, cell.settings.encoding))

    @network_arithmetic("float32")
    def dominance(self, cell: Cell) -> list[str]:
        """What dominates the losses of a cell that have a weight in its total loss, in words."""
        cells = self._resolved([cell])
        batch = self._problem(cells, [self._finishings.of(one) for one in cells], 0)
        objective = batch.objective
        with torch.no_grad():
            maps = batch.reference.features(batch.initial, cell.layers)
            style = {
                name: split_style_loss(objective.squared_differences(name, maps[name]))
                for name in objective.style_targets
            }
            content = {
                name: split_content_loss(maps[name][0], target[0], objective.convention)
                for name, target in objective.content_targets.items()
            }
        terms = {
            "style": (cell.style, style, cell.style_layers, cell.beta),
            "content": (cell.content, content, cell.content_layers, cell.alpha),
        }
        return [
            f"{term} {name}: {one}"
            for term, (name, parts, layers, weight) in terms.items()
            if weight > 0
            for one in find_dominance(term, parts, layers)
        ]

    def batch(self, cells: Sequence[Cell]) -> Batch:
        """Assemble cells of equal settings, ready to be optimized."""
        cells = self._resolved(cells)
        return self._batch(cells, [self._finishings.of(cell) for cell in cells])

    def _resolved(self, cells: Sequence[Cell]) -> list[Cell]:
        """Cells of equal settings whose mixtures have weights."""
        targets = self._targets_for(cells[0].settings)
        return [targets.resolve(cell) for cell in cells]

    def _targets_for(self, settings: Settings) -> TargetCache:
        reference = self._networks.reference(settings)
        return self._targets.setdefault(reference, TargetCache(reference, self.inputs))

    def _batch(self, cells: Sequence[Cell], finishings: Sequence[Finishing]) -> Batch:
        check_masks(cells, self.inputs)
        settings = cells[0].settings
        sizes = scale_sizes(settings, cells[0].style_layers, cells[0].beta)
        *limits, limit = scale_limits(settings, sizes)
        coarser = []
        for size, limit_there in zip(sizes[:-1], limits, strict=True):
            there = [at_size(cell, size) for cell in cells]
            held = [self._finishings.of(cell) for cell in there] if settings.holds_light else finishings
            coarser.append(self._problem(there, held, limit_there))
        return replace(self._problem(cells, finishings, limit), coarser=tuple(coarser))

    def _problem(self, cells: Sequence[Cell], finishings: Sequence[Finishing], limit: int) -> Batch:
        """Cells at one size."""
        settings = cells[0].settings
        reference = self._networks.reference(settings)
        objective = build_objective(cells, self._targets_for(settings), self.inputs, self._device)
        initial = build_initial(cells, self.inputs, self._device)
        light = build_light_penalty(finishings, initial)
        return Batch(settings, self._networks.network(settings), reference, objective, initial, limit, light)


def _union(cells: Sequence[Cell], term: str) -> list[str]:
    names = {name for cell in cells for name, _ in getattr(cell, f"{term}_layers")}
    return [name for name in LAYERS if name in names]


def _stack(targets: Sequence[dict[str, Tensor]], layer: str) -> Tensor:
    like = next(target[layer] for target in targets if layer in target)
    return torch.stack([target.get(layer, torch.zeros_like(like)) for target in targets])


def build_light_penalty(finishings: Sequence[Finishing], like: Tensor) -> LightPenalty | None:
    """Build what holds the light of cells of equal settings, on the device and dtype of `like`; None for nothing."""
    first = finishings[0]
    if not first.settings.holds_light:
        return None
    targets = [finishing.target for finishing in finishings]
    pixels = like.new_ones(like.shape[-2:]) if first.aperture is None else torch.from_numpy(first.aperture).to(like)
    if not pixels.any():  # at a size where the aperture lets no pixel through
        return None
    return LightPenalty(
        weight=first.settings.equalize_weight,
        mean=None if first.target.luminance is None else like.new_tensor([target.luminance for target in targets]),
        contrast=None if first.target.contrast is None else like.new_tensor([target.contrast for target in targets]),
        colours=like.new_tensor(LUMINANCE_WEIGHTS.tolist()),
        pixels=(pixels / pixels.sum()).flatten(),
    )

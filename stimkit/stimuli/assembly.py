"""Assemble batches: cells and their images to initial images, targets and weights on a device."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stimkit.errors import ImageError
from stimkit.images import reading as images
from stimkit.images.reading import Pixels
from stimkit.images.regions import bounding_box, region_maps, shrunk
from stimkit.network.layers import LAYERS
from stimkit.network.losses import Objective, Regions, gram_matrix
from stimkit.network.vgg import VGG19, unit_mean
from stimkit.network.weights import Weights
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import Inputs
from stimkit.protocol.settings import Settings
from stimkit.stimuli.finishing import Finishing, Finishings
from stimkit.stimuli.preparation import initial_image, mask_of, preparation_key, prepared
from stimkit.synthesis.devices import NETWORK_DTYPE, image_dtype, network_arithmetic

CACHE_BYTES = 1_500_000_000


class Networks:
    """The networks of some weights and settings on one device, each made once."""

    def __init__(self, inputs: Inputs, device: torch.device) -> None:
        self._inputs, self._device = inputs, device
        self._weights: dict[tuple[object, ...], Weights] = {}
        self._made: dict[tuple[object, ...], VGG19] = {}

    def network(self, settings: Settings) -> VGG19:
        """The network that a cell of these settings is optimized with."""
        return self._get(settings, NETWORK_DTYPE[settings.precision], fast=True)

    def reference(self, settings: Settings) -> VGG19:
        """The network that losses are measured with: float32, or float64 for float64 cells."""
        return self._get(settings, image_dtype(settings.precision), fast=False)

    def _get(self, settings: Settings, dtype: torch.dtype, *, fast: bool) -> VGG19:
        source = (settings.weights, settings.preprocessing, settings.pooling, settings.normalize)
        if source not in self._weights:
            weights = self._inputs.weights(settings)
            self._weights[source] = unit_mean(weights, settings.pooling) if settings.normalize else weights
        key = (*source, dtype, fast)
        if key not in self._made:
            weights = self._weights[source]
            self._made[key] = VGG19(
                weights, pooling=settings.pooling, normalize=False, dtype=dtype, device=self._device, fast=fast
            )
        return self._made[key]


class Targets:
    """Feature maps of content images and Gram matrices of style images, each computed once.

    The least recently used ones are dropped beyond `CACHE_BYTES`.
    """

    def __init__(self, reference: VGG19, inputs: Inputs) -> None:
        self._network, self._inputs = reference, inputs
        self._cache: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
        self._bytes = 0

    def content(self, cell: Cell, layers: Sequence[str]) -> dict[str, Tensor]:
        """Feature maps P of the cell's content image: layer to (N, height, width)."""
        return self._get("content", cell, layers)

    def style(self, cell: Cell, layers: Sequence[str]) -> dict[str, Tensor]:
        """Gram matrices A / M of the cell's style image: layer to (N, N)."""
        return self._get("style", cell, layers)

    def image(self, pixels: Pixels) -> Tensor:
        """An image as (3, height, width) on the device of the network."""
        dtype = torch.float64 if self._network.dtype == torch.float64 else torch.float32
        return torch.from_numpy(images.to_float(pixels)).to(self._network.device, dtype)

    def _get(self, kind: str, cell: Cell, layers: Sequence[str]) -> dict[str, Tensor]:
        keys = {layer: (*preparation_key(cell, kind), layer) for layer in layers}
        absent = [layer for layer, key in keys.items() if key not in self._cache]
        if absent:
            with torch.no_grad(), network_arithmetic("float32"):
                image = self.image(prepared(cell, kind, self._inputs))
                maps = self._network.features(image[None], absent)
                for layer, features in maps.items():
                    self._put(keys[layer], features[0] if kind == "content" else self._gram(features, cell, layer)[0])
        for key in keys.values():
            self._cache.move_to_end(key)
        found = {layer: self._cache[key] for layer, key in keys.items()}
        self._trim()
        return found

    def _gram(self, features: Tensor, cell: Cell, layer: str) -> Tensor:
        """Of the regions of the stimulus, but of the whole style image where a mask says where it goes."""
        if cell.mask:
            return gram_matrix(features)[:, None]
        regions = build_regions([cell], [layer], self._inputs, features).get(layer)
        return gram_matrix(features) if regions is None else regions.grams(features)

    def _put(self, key: tuple[object, ...], value: Tensor) -> None:
        self._cache[key] = value
        self._bytes += value.nbytes

    def _trim(self) -> None:
        while self._bytes > CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._bytes -= dropped.nbytes


def build_regions(cells: Sequence[Cell], layers: Sequence[str], inputs: Inputs, like: Tensor) -> dict[str, Regions]:
    """Where the Gram matrices of each layer are taken for cells of equal settings; empty for the whole image."""
    settings = cells[0].settings
    if cells[0].mask:
        maps = np.stack([mask_of(cell, inputs) for cell in cells])
        stride = max((LAYERS[layer].stride for layer in layers), default=1)
        for cell, weights in zip(cells, shrunk(maps, stride), strict=True):
            if not weights.any():
                raise ImageError(f'mask "{cell.mask}" is black in what is left of it after cropping to the stimulus')
    elif (found := region_maps(settings)) is not None:
        maps = found
    else:
        return {}
    regions = {}
    for layer in layers:
        weights = shrunk(maps, LAYERS[layer].stride)
        if cells[0].mask:  # one region for each cell
            whole = (0, weights.shape[1], 0, weights.shape[2])
            boxes, inside = [whole], [weights.reshape(len(cells), -1)]
        else:
            boxes = [bounding_box(one) for one in weights]
            cut = [one[top:bottom, left:right] for one, (top, bottom, left, right) in zip(weights, boxes, strict=True)]
            inside = [one.reshape(1, -1) for one in cut]
        dtype = torch.float32 if like.dtype == torch.bfloat16 else like.dtype
        roots = [torch.from_numpy(np.sqrt(one)).to(dtype).to(like.device) for one in inside]
        regions[layer] = Regions(tuple(boxes), tuple(roots))
    return regions


def build_objective(cells: Sequence[Cell], targets: Targets, inputs: Inputs, device: torch.device) -> Objective:
    """Targets and weights of a batch. Layers that a cell does not use have weight 0 and zero targets."""
    settings = cells[0].settings
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
        content_targets={
            layer: _stack(content, layer).contiguous(memory_format=torch.channels_last) for layer in content_layers
        },
        style_targets={layer: _stack(style, layer) for layer in style_layers},
        regions=build_regions(cells, style_layers, inputs, torch.empty(0, dtype=dtype, device=device)),
    )


def build_initial(cells: Sequence[Cell], inputs: Inputs, device: torch.device) -> Tensor:
    """Initial images (batch, 3, height, width): white noise of each cell's seed, its content or its style image."""
    initial = torch.from_numpy(np.stack([initial_image(cell, inputs) for cell in cells]))
    return initial.to(device, image_dtype(cells[0].settings.precision))


@dataclass(frozen=True)
class Batch:
    """Cells of equal settings, ready to be optimized."""

    settings: Settings
    network: VGG19
    """Evaluates in the precision of the settings."""
    reference: VGG19
    """Measures, in float32 (or float64)."""
    objective: Objective
    initial: Tensor
    """(batch, 3, height, width)"""
    finishings: Sequence[Finishing] = ()
    """What becomes of the optimized image of each cell."""


class Assembly:
    """Puts batches together on one device; networks and targets are made once and kept for the next batch."""

    def __init__(self, inputs: Inputs, device: torch.device) -> None:
        self._inputs, self._device = inputs, device
        self._networks = Networks(inputs, device)
        self._targets: dict[VGG19, Targets] = {}
        self._finishings = Finishings(inputs)

    def batch(self, cells: Sequence[Cell]) -> Batch:
        settings = cells[0].settings
        reference = self._networks.reference(settings)
        targets = self._targets.setdefault(reference, Targets(reference, self._inputs))
        objective = build_objective(cells, targets, self._inputs, self._device)
        initial = build_initial(cells, self._inputs, self._device)
        finishings = [self._finishings.of(cell) for cell in cells]
        return Batch(settings, self._networks.network(settings), reference, objective, initial, finishings)


def _union(cells: Sequence[Cell], term: str) -> list[str]:
    names = {name for cell in cells for name, _ in getattr(cell, f"{term}_layers")}
    return [name for name in LAYERS if name in names]


def _stack(targets: Sequence[dict[str, Tensor]], layer: str) -> Tensor:
    like = next(one[layer] for one in targets if layer in one)
    return torch.stack([one.get(layer, torch.zeros_like(like)) for one in targets])

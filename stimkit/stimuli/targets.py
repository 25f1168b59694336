"""What stimuli are to match: feature maps and Gram matrices of input images, and where these are taken."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stimkit.errors import ImageError
from stimkit.images.pixels import Pixels, to_float
from stimkit.images.regions import bounding_box, region_maps, weights_of_positions
from stimkit.network.layers import LAYERS
from stimkit.network.losses import Regions, gram_matrix
from stimkit.network.vgg import VGG
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.stimuli.preparation import preparation_key, prepare_image, prepare_mask
from stimkit.synthesis.devices import network_arithmetic

CACHE_BYTES = 1_500_000_000  # of targets that are kept: as much as optimizing one cell of 128 px takes on a CPU


class TargetCache:
    """Feature maps of content images and Gram matrices of style images, each computed once.

    The least recently used ones are dropped beyond `CACHE_BYTES`.
    """

    def __init__(self, reference: VGG, inputs: InputSource) -> None:
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
        return torch.from_numpy(to_float(pixels)).to(self._network.device, dtype)

    def _get(self, kind: str, cell: Cell, layers: Sequence[str]) -> dict[str, Tensor]:
        keys = {layer: (*preparation_key(cell, kind), layer) for layer in layers}
        absent = [layer for layer, key in keys.items() if key not in self._cache]
        if absent:
            with torch.no_grad(), network_arithmetic("float32"):
                image = self.image(prepare_image(cell, kind, self._inputs))
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


def check_masks(cells: Sequence[Cell], inputs: InputSource) -> None:
    """Raise `ImageError` where a mask leaves no place for the style of its cell."""
    for cell in cells:
        if cell.mask:
            stride = max((LAYERS[name].stride for name, _ in cell.style_layers), default=1)
            if not weights_of_positions(prepare_mask(cell, inputs)[None], stride).any():
                raise ImageError(f'mask "{cell.mask}" is black in what is left of it after cropping to the stimulus')


def build_regions(
    cells: Sequence[Cell], layers: Sequence[str], inputs: InputSource, like: Tensor
) -> dict[str, Regions]:
    """Where the Gram matrices of each layer are taken for cells of equal settings; empty for the whole image."""
    settings = cells[0].settings
    if cells[0].mask:
        maps = np.stack([prepare_mask(cell, inputs) for cell in cells])
    elif (found := region_maps(settings.region_shape)) is not None:
        maps = found
    else:
        return {}
    regions = {}
    for layer in layers:
        weights = weights_of_positions(maps, LAYERS[layer].stride)
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

"""What stimuli are to match: feature maps and Gram matrices of input images, and where these are taken."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from stimkit.errors import ImageError
from stimkit.images.light import Array
from stimkit.images.pixels import Pixels, to_float
from stimkit.images.regions import Window, region_windows, whole_window
from stimkit.network.layers import LAYERS
from stimkit.network.losses import gram_matrix
from stimkit.network.region_losses import Regions, group_regions
from stimkit.network.vgg import VGG
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.protocol.mixes import AnyMixture, Mixture, Spaced
from stimkit.stimuli.mixtures import Moments, Series, cross_term, mixture_at, shares_of, to_target
from stimkit.stimuli.preparation import preparation_key, prepare_image, prepare_mask
from stimkit.synthesis.devices import network_arithmetic

CACHE_BYTES = 1_500_000_000  # of targets that are kept: as much as optimizing one cell of 128 px takes on a CPU
ByLayer = dict[str, Tensor]


class TargetCache:
    """Feature maps of content images and Gram matrices of style images, each computed once.

    The least recently used ones are dropped beyond `CACHE_BYTES`.
    """

    def __init__(self, reference: VGG, inputs: InputSource) -> None:
        self._network, self._inputs = reference, inputs
        self._cache: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
        self._bytes = 0
        self._places: dict[tuple[object, ...], list[float]] = {}

    def content(self, cell: Cell, layers: Sequence[str]) -> ByLayer:
        """Feature maps P of the cell's content image: layer to (N, height, width); of a mixture their mean."""
        if cell.content_mix is None:
            return self._get("content", cell, layers)
        mixture = _resolved(cell.content_mix)
        parts = [self._get("content", cell.with_image("content", name), layers) for name in mixture.parts]
        return _weighted_sum(parts, mixture.weights)

    def style(self, cell: Cell, layers: Sequence[str]) -> ByLayer:
        """Gram matrices A / M of the cell's style image: layer to (N, N), or what its regions are compared by."""
        if cell.style_map:  # the targets of its regions, one after the other
            regions = [self.style(one, layers) for one in cell.in_regions()]
            return {layer: torch.cat([one[layer] for one in regions]) for layer in layers}
        if cell.style_mix is None:
            return self._get("style", cell, layers)
        mixture = _resolved(cell.style_mix)
        parts = [self._get("style", cell.with_image("style", name), layers) for name in mixture.parts]
        weights, of_cross = shares_of(mixture)
        if of_cross:
            parts.append(self.cross_terms(cell, mixture.parts, layers))
            weights.append(of_cross)
        return _weighted_sum(parts, weights)

    def resolve(self, cell: Cell) -> Cell:
        """A cell whose mixture has weights: those where the series has equal distances between its steps."""
        if cell.style_map:
            resolved = (self.resolve(one).style_mix for one in cell.in_regions())
            regions = zip(cell.style_map, resolved, strict=True)
            return replace(cell, style_map=tuple(one._replace(mixture=mixture) for one, mixture in regions))
        spaced = cell.style_mix
        if not isinstance(spaced, Spaced):
            return cell
        alone = [cell.with_image("style", name) for name in spaced.parts]
        keys = tuple(preparation_key(one, "style") for one in alone)
        key = (keys, spaced.steps, spaced.closed, spaced.path, cell.style_layers)
        if key not in self._places:
            weights = dict(cell.style_layers)
            nodes = [_as_matrices(self._get("style", one, list(weights))) for one in alone]
            pairs = list(pairwise(spaced.parts)) + ([(spaced.parts[-1], spaced.parts[0])] if spaced.closed else [])
            bent = pairs if spaced.path == "geodesic" else []
            crosses = [_as_matrices(self.cross_terms(cell, pair, list(weights))) for pair in bent]
            series = Series.through(nodes, crosses, weights, closed=spaced.closed)
            self._places[key] = series.places(spaced.steps)
        return replace(cell, style_mix=mixture_at(spaced, self._places[key][spaced.number]))

    def cross_terms(self, cell: Cell, pair: Sequence[str], layers: Sequence[str]) -> ByLayer:
        """The cross terms of the geodesic between two style images, in the form of their targets."""
        alone = [cell.with_image("style", name) for name in pair]
        keys = {layer: ("cross", *(preparation_key(one, "style") for one in alone), layer) for layer in layers}
        found = {layer: self._cache[key] for layer, key in keys.items() if key in self._cache}
        absent = [layer for layer in layers if layer not in found]
        if absent:
            first, second = (self._features(one, "style", absent) for one in alone)
            like = self._get("style", alone[0], absent)
            for layer in absent:
                term = cross_term(Moments.of(first[layer][0]), Moments.of(second[layer][0]))
                found[layer] = to_target(term, like[layer])
                self._put(keys[layer], found[layer])
        return found

    def image(self, pixels: Pixels) -> Tensor:
        """An image as (3, height, width) on the device of the network."""
        dtype = torch.float64 if self._network.dtype == torch.float64 else torch.float32
        return torch.from_numpy(to_float(pixels)).to(self._network.device, dtype)

    def _get(self, kind: str, cell: Cell, layers: Sequence[str]) -> ByLayer:
        keys = {layer: (*preparation_key(cell, kind), layer) for layer in layers}
        absent = [layer for layer, key in keys.items() if key not in self._cache]
        if absent:
            with torch.no_grad():
                for layer, features in self._features(cell, kind, absent).items():
                    self._put(keys[layer], features[0] if kind == "content" else self._gram(features, cell, layer)[0])
        for key in keys.values():
            self._cache.move_to_end(key)
        found = {layer: self._cache[key] for layer, key in keys.items()}
        self._trim()
        return found

    @torch.no_grad()
    def _features(self, cell: Cell, kind: str, layers: Sequence[str]) -> ByLayer:
        """Feature maps of an image: layer to (1, N, height, width)."""
        with network_arithmetic("float32"):
            return self._network.features(self.image(prepare_image(cell, kind, self._inputs))[None], layers)

    @network_arithmetic("float32")
    def _gram(self, features: Tensor, cell: Cell, layer: str) -> Tensor:
        """Of the regions of the stimulus, but of the whole style image where a mask says where it goes."""
        if cell.mask:
            return gram_matrix(features).flatten(1)
        regions = build_regions([cell], [layer], self._inputs, features).get(layer)
        return gram_matrix(features) if regions is None else regions.target(features)

    def _put(self, key: tuple[object, ...], value: Tensor) -> None:
        self._cache[key] = value
        self._bytes += value.nbytes

    def _trim(self) -> None:
        while self._bytes > CACHE_BYTES and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._bytes -= dropped.nbytes


def _resolved(mixture: AnyMixture) -> Mixture:
    assert isinstance(mixture, Mixture), "distances are resolved before anything is made"
    return mixture


def _weighted_sum(parts: Sequence[ByLayer], weights: Sequence[float]) -> ByLayer:
    """Of targets by layer."""
    return {
        layer: torch.stack([weight * part[layer] for part, weight in zip(parts, weights, strict=True)]).sum(0)
        for layer in parts[0]
    }


def _as_matrices(targets: ByLayer) -> dict[str, Array]:
    return {layer: target.cpu().double().numpy() for layer, target in targets.items()}


def check_masks(cells: Sequence[Cell], inputs: InputSource) -> None:
    """Raise `ImageError` where a mask leaves no place for the style of its cell."""
    for cell in (region for whole in cells for region in whole.in_regions()):
        if cell.mask:
            stride = max((LAYERS[name].stride for name, _ in cell.style_layers), default=1)
            if not whole_window(prepare_mask(cell, inputs)).at_stride(cell.settings.size, stride).weights.any():
                raise ImageError(f'mask "{cell.mask}" is black in what is left of it after cropping to the stimulus')


def build_regions(
    cells: Sequence[Cell], layers: Sequence[str], inputs: InputSource, like: Tensor
) -> dict[str, Regions]:
    """Where the Gram matrices of each layer are taken for cells of equal settings; empty for the whole image."""
    settings = cells[0].settings
    regions: Sequence[Sequence[Window]]  # for each region, the windows of the cells that differ in it
    has_masks = bool(cells[0].images("mask"))
    if has_masks:
        of_cells = [[whole_window(prepare_mask(one, inputs)) for one in cell.in_regions()] for cell in cells]
        regions = [list(windows) for windows in zip(*of_cells, strict=True)]
    elif (windows := region_windows(settings.region_shape)) is not None:
        regions = [[window] for window in windows]
    else:
        return {}
    found = {}
    for layer in layers:
        kind, width = LAYERS[layer], settings.width // LAYERS[layer].stride
        spaced = [[window.at_stride(settings.size, kind.stride) for window in region] for region in regions]
        found[layer] = group_regions(spaced, width, kind.channels, like, with_own_targets=has_masks)
    return found

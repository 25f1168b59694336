"""Losses of finished images, measured anew: one pass through the network, then the formulas as they are printed.

Nothing here is shared with the optimization but the network itself, and what lies between style images: where a series
has its steps, and the cross terms of geodesics. Losses of pairs of unrelated images say what
a loss means: how much closer a stimulus is to its target than another picture of the set.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stimkit.images.pixels import Pixels, resize, to_float
from stimkit.images.regions import Window, count_regions, region_windows, whole_window
from stimkit.network.layers import LAYERS, Convention
from stimkit.network.vgg import VGG
from stimkit.planning.cells import Cell, Input, LayerWeights, Plan
from stimkit.planning.inputs import InputSource
from stimkit.protocol.mixes import Mixture
from stimkit.protocol.settings import Settings
from stimkit.stimuli.dominance import Dominance, find_dominance, split_content_loss, split_style_loss
from stimkit.stimuli.mixtures import shares_of
from stimkit.stimuli.networks import Networks
from stimkit.stimuli.preparation import preparation_key, prepare_image, prepare_mask, to_grey_if_asked
from stimkit.stimuli.targets import TargetCache
from stimkit.synthesis.devices import exact, network_arithmetic
from stimkit.synthesis.synthesis import Measured

# Pixels of images that are measured together, without gradients: on a CPU losses measured again take 1.15 of the bare
# network's time (RESULTS.md, Audit). Those of GPUs bound memory, and have not been measured.
BATCH_PIXELS = {"cpu": 4 * 256 * 256, "cuda": 64 * 256 * 256, "mps": 16 * 256 * 256}
POOL_IMAGES = 100  # unrelated images that a target is compared with, at most
POOL_REGIONS = 10_000  # of all these images together: their Gram matrices are made for every comparison
POOL_BYTES = 1_500_000_000  # of their feature maps and Gram matrices, which are in memory at a time
MAX_TARGETS = 500  # Gram matrices that are kept, by image and size
Layered = dict[str, Tensor]


def content_term(features: Tensor, target: Tensor, convention: Convention) -> float:
    """Content loss of one layer from feature maps F, P (N, height, width): ½ Σ (F − P)², or its mean square."""
    squares = exact(features - target).square()
    return float(squares.sum() / 2 if convention == "paper" else squares.mean())


def style_term(one: Tensor, other: Tensor, windows: Sequence[Window] | None, convention: Convention) -> float:
    """E_l of one layer: Σ (G − A)² / (4 N² M²), or the mean square of G/M − A/M; the mean over regions."""
    mean_square = float(squared_differences(one, other, windows).mean())
    return mean_square / 4 if convention == "paper" else mean_square


def squared_differences(one: Tensor, other: Tensor, windows: Sequence[Window] | None) -> Tensor:
    """(G/M − A/M)², the mean over regions: (N, N), in float64.

    Both images are given by their feature maps (N, height, width), or by a Gram matrix G/M (N, N).
    """
    first, *others = [None] if windows is None else windows
    squares = exact(gram(one, first) - gram(other, first)).square()
    for window in others:
        squares += exact(gram(one, window) - gram(other, window)).square()
    return squares / (1 + len(others))


def gram(features: Tensor, window: Window | None) -> Tensor:
    """F Fᵀ / M of feature maps (N, height, width), or Σ T F Fᵀ with the weights T of a window, of sum 1: (N, N).

    A Gram matrix is taken as it is.
    """
    if features.ndim == 2:
        return features
    if window is None:
        flat = features.flatten(1)
        return flat @ flat.T / flat.shape[1]
    top, bottom, left, right = window.box
    inside = features[:, top:bottom, left:right].flatten(1)
    return (inside * torch.from_numpy(window.weights).flatten().to(inside)) @ inside.T


@dataclass(frozen=True)
class Chance:
    """Losses of unrelated images to the target of a cell's term."""

    values: NDArray[np.float64]

    def percentile(self, loss: float) -> float:
        """How many percent of unrelated images are at least as close to the target as an image of this loss."""
        return float(100 * (self.values <= loss).mean())

    def relative(self, loss: float) -> float:
        """The loss relative to that of the median unrelated image."""
        return float(loss / np.median(self.values))


class Remeasurement:
    """Measures images for the cells of a plan on one device."""

    def __init__(
        self, plan: Plan, inputs: InputSource, device: torch.device, *, without: Container[tuple[str, str]] = ()
    ) -> None:
        self.plan, self.inputs, self._device = plan, inputs, device
        self._without = without  # images that are not there, by kind and name
        self._networks = Networks(inputs, device)
        self._targets: dict[tuple[object, ...], Layered] = {}
        self._made: dict[VGG, TargetCache] = {}
        self._chance: dict[tuple[object, ...], dict[str, NDArray[np.float64]]] = {}
        self._pools: dict[tuple[object, ...], tuple[list[Input], list[Layered], list[Layered]]] = {}

    def resolve(self, cell: Cell) -> Cell:
        """A cell whose mixture has weights."""
        return self._made_targets(cell.settings).resolve(cell)

    def losses(self, cells: Sequence[Cell], pixels: Sequence[NDArray[np.float32]]) -> Iterator[list[Measured]]:
        """Losses of images (3, height, width), one for each cell of equal settings: to its own targets, then others."""
        settings = cells[0].settings
        layers = sorted({name for cell in cells for name in cell.layers})
        step = max(1, BATCH_PIXELS[self._device.type] // (settings.height * settings.width))
        for start in range(0, len(cells), step):
            maps = self._features(settings, np.stack(pixels[start : start + step]), layers)
            for row, cell in enumerate(cells[start : start + step]):
                own = {name: one[row] for name, one in maps.items()}
                yield [self._of_cell(one, own) for one in (cell, *(cell.with_image(*other) for other in cell.compared))]

    @network_arithmetic("float32")
    def _of_cell(self, cell: Cell, maps: Mapping[str, Tensor] | None) -> Measured:
        """Losses of feature maps by layer; None for those of an image without any response."""
        convention = cell.settings.loss
        content: dict[str, float] = {}
        style: dict[str, float] = {}
        if cell.content:
            for name, target in self._target("content", cell).items():
                content[name] = content_term(_or_nothing(maps, name, target), target, convention)
        for region in cell.in_regions() if cell.style else ():
            for name, target in self._target("style", region).items():
                one = _or_nothing(maps, name, target)
                loss = style_term(one, target, self._regions(region, name), convention)
                style[name] = style.get(name, 0.0) + loss / len(cell.in_regions())
        return self._summed(cell, content, style)

    def _regions(self, cell: Cell, layer: str) -> list[Window] | None:
        """Weights of the positions of a layer in each region of a stimulus."""
        if cell.mask:
            return [whole_window(prepare_mask(cell, self.inputs)).at_stride(cell.settings.size, LAYERS[layer].stride)]
        return _windows(cell.settings, layer)

    @staticmethod
    def _summed(cell: Cell, content: dict[str, float], style: dict[str, float]) -> Measured:
        content_sum = sum(weight * content[name] for name, weight in cell.content_layers)
        style_sum = sum(weight * style[name] for name, weight in cell.style_layers)
        return Measured(content, style, content_sum, style_sum, cell.alpha * content_sum + cell.beta * style_sum)

    @network_arithmetic("float32")
    def dominance(self, term: str, cell: Cell, initial: NDArray[np.float32]) -> list[Dominance]:
        """What dominates the content or style loss of a cell's initial image, (3, height, width)."""
        layers, parts = cell.content_layers if term == "content" else cell.style_layers, dict[str, Tensor]()
        maps = self._features(cell.settings, initial[None], [name for name, _ in layers])
        for region in cell.in_regions():
            target = self._target(term, region)
            for name, one in maps.items():
                if term == "content":
                    parts[name] = split_content_loss(one[0], target[name], cell.settings.loss)
                else:
                    squares = squared_differences(one[0], target[name], self._regions(region, name))
                    parts[name] = parts.get(name, 0) + split_style_loss(squares)
        return list(find_dominance(term, parts, layers))

    def scale(self, cell: Cell) -> Measured:
        """Losses of an image without any response: the size of the targets, to which rounding is relative."""
        return self._of_cell(cell, None)

    def chance(self, term: str, cell: Cell) -> Chance | None:
        """Losses of unrelated images of the set for one term of a cell; None where there are none."""
        weights = cell.content_layers if term == "content" else cell.style_layers
        if not cell.images(term) or (term == "style" and cell.style_map):  # of which no one target is known
            return None
        by_layer = self._chance_by_layer(term, cell, weights)
        values = np.sum([weight * by_layer[layer] for layer, weight in weights], axis=0)
        return Chance(values) if values.size and np.median(values) > 0 else None

    @network_arithmetic("float32")
    def _chance_by_layer(self, term: str, cell: Cell, weights: LayerWeights) -> dict[str, NDArray[np.float64]]:
        key = (*preparation_key(cell, term), cell.mixture(term), *self._key(cell.settings), cell.settings.loss)
        known = self._chance.setdefault(key, {})
        absent = [layer for layer, _ in weights if layer not in known]
        if absent:
            target = self._target(term, cell)
            sources, features, styles = self._pool(cell.settings)
            own = {self.plan.input(term, name).pixel_sha256 for name in cell.images(term)}
            others = [index for index, source in enumerate(sources) if source.pixel_sha256 not in own]
            for layer in absent:
                if term == "content":
                    found = [content_term(features[i][layer], target[layer], cell.settings.loss) for i in others]
                else:
                    windows = _windows(cell.settings, layer)
                    found = [style_term(styles[i][layer], target[layer], windows, cell.settings.loss) for i in others]
                known[layer] = np.array(found)
        return known

    def _pool(self, settings: Settings) -> tuple[list[Input], list[Layered], list[Layered]]:
        """Pictures of the set, each once, with what content and style losses of all layers in use need of them."""
        key = self._key(settings)
        if key not in self._pools:
            cells = [cell for cell in self.plan.cells if self._key(cell.settings) == key]
            content = sorted({name for cell in cells for name, _ in cell.content_layers})
            style = sorted({name for cell in cells for name, _ in cell.style_layers})
            pictures = (
                image
                for image in self.plan.inputs
                if image.kind != "mask" and (image.kind, image.name) not in self._without
            )
            every = list({picture.pixel_sha256: picture for picture in pictures}.values())
            sources: list[Input] = []
            features: list[Layered] = []
            styles: list[Layered] = []
            room = POOL_BYTES
            limit = max(5, min(POOL_IMAGES, POOL_REGIONS // count_regions(settings.region_shape)))
            for index in np.unique(np.linspace(0, len(every) - 1, min(len(every), limit)).astype(int)):
                one = every[index]
                pixels = to_grey_if_asked(
                    resize(self.inputs.image(one.kind, one.name), settings.size, settings.fit), settings
                )
                maps = self._features_of(pixels, settings, [*content, *style])
                features.append({name: maps[name] for name in content})
                styles.append({name: _of_style(maps[name], settings) for name in style})
                sources.append(one)
                room -= sum(tensor.nbytes for layered in (features[-1], styles[-1]) for tensor in layered.values())
                if room < 0:
                    break
            self._pools = {key: (sources, features, styles)}  # that of earlier settings is not needed any more
        return self._pools[key]

    def _made_targets(self, settings: Settings) -> TargetCache:
        """The targets of the optimization, of which those of mixtures need parts."""
        reference = self._networks.reference(settings)
        return self._made.setdefault(reference, TargetCache(reference, self.inputs))

    def _target(self, term: str, cell: Cell) -> Layered:
        weights = cell.content_layers if term == "content" else cell.style_layers
        mixture = cell.mixture(term)
        if not isinstance(mixture, Mixture):
            return self._target_of_image(term, cell, weights)
        parts = [self._target_of_image(term, cell.with_image(term, name), weights) for name in mixture.parts]
        shares, of_cross = shares_of(mixture)
        if of_cross:
            crosses = self._made_targets(cell.settings).cross_terms(cell, mixture.parts, list(parts[0]))
            parts, shares = [*parts, crosses], [*shares, of_cross]
        pairs = list(zip(shares, parts, strict=True))
        like = parts[0]
        return {name: torch.stack([w * part[name].view_as(like[name]) for w, part in pairs]).sum(0) for name in like}

    def _target_of_image(self, term: str, cell: Cell, weights: LayerWeights) -> Layered:
        settings = cell.settings
        key = (*preparation_key(cell, term), *self._key(settings))
        if not {layer for layer, _ in weights} <= self._targets.get(key, {}).keys():
            layers = sorted({layer for layer, _ in weights} | self._targets.get(key, {}).keys())
            maps = self._features_of(prepare_image(cell, term, self.inputs), settings, layers)
            found = maps if term == "content" else {name: _of_style(one, settings) for name, one in maps.items()}
            # Feature maps are large: cells had better come in the order of their contents.
            full = len(self._targets) >= MAX_TARGETS
            self._targets = {key: target for key, target in self._targets.items() if key[0] != "content" and not full}
            self._targets[key] = found
        return {layer: self._targets[key][layer] for layer, _ in weights}

    def _features_of(self, pixels: Pixels, settings: Settings, layers: Sequence[str]) -> Layered:
        maps = self._features(settings, to_float(pixels)[None], layers)
        return {layer: features[0].clone() for layer, features in maps.items()}

    @torch.no_grad()
    def _features(self, settings: Settings, batch: NDArray[np.float32], layers: Sequence[str]) -> Layered:
        network = self._networks.reference(settings)
        dtype = torch.float64 if network.dtype == torch.float64 else torch.float32
        with network_arithmetic("float32"):
            return network.features(torch.from_numpy(batch).to(self._device, dtype), layers)

    @staticmethod
    def _key(settings: Settings) -> tuple[object, ...]:
        """What feature maps depend on, but for the image."""
        model = (*settings.source, settings.pooling, settings.normalize)
        image = (settings.size, settings.fit, settings.colour)
        return (*model, *image, settings.region_shape, settings.precision == "float64")


def _or_nothing(maps: Mapping[str, Tensor] | None, layer: str, target: Tensor) -> Tensor:
    return torch.zeros_like(target) if maps is None else maps[layer]


def _of_style(maps: Tensor, settings: Settings) -> Tensor:
    """The Gram matrix of an image, also where a mask says where it goes; feature maps where there are regions."""
    return gram(maps, None) if settings.regions == "whole" else maps


def _windows(settings: Settings, layer: str) -> list[Window] | None:
    """Weights of the positions of a layer in each region; None for the whole image."""
    windows = region_windows(settings.region_shape)
    return None if windows is None else [one.at_stride(settings.size, LAYERS[layer].stride) for one in windows]

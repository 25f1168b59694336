"""Losses of finished images, measured anew: one pass through the network, then the formulas as they are printed.

Nothing here is shared with the optimization but the network itself. Losses of pairs of unrelated images say what
a loss means: how much closer a stimulus is to its target than another picture of the set.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stimkit.images.light import Array
from stimkit.images.pixels import Pixels, resize, to_float
from stimkit.images.regions import region_maps, weights_of_positions
from stimkit.network.layers import LAYERS, Convention
from stimkit.planning.cells import Cell, Input, LayerWeights, Plan
from stimkit.planning.inputs import InputSource
from stimkit.protocol.settings import Settings
from stimkit.stimuli.dominance import Dominance, find_dominance, split_content_loss, split_style_loss
from stimkit.stimuli.networks import Networks
from stimkit.stimuli.preparation import preparation_key, prepare_image, prepare_mask, to_grey_if_asked
from stimkit.synthesis.devices import network_arithmetic
from stimkit.synthesis.synthesis import Measured

# Pixels of images that are measured together, without gradients: on a CPU losses measured again take 1.15 of the bare
# network's time (RESULTS.md, Audit). Those of GPUs bound memory, and have not been measured.
BATCH_PIXELS = {"cpu": 4 * 256 * 256, "cuda": 64 * 256 * 256, "mps": 16 * 256 * 256}
POOL_IMAGES = 100  # unrelated images that a target is compared with, at most
POOL_BYTES = 1_500_000_000  # of their feature maps and Gram matrices, which are in memory at a time
MAX_TARGETS = 500  # Gram matrices that are kept, by image and size
Layered = dict[str, Tensor]


def content_term(features: Tensor, target: Tensor, convention: Convention) -> float:
    """Content loss of one layer from feature maps F, P (N, height, width): ½ Σ (F − P)², or its mean square."""
    squares = _exact(features - target).square()
    return float(squares.sum() / 2 if convention == "paper" else squares.mean())


def style_term(grams: Tensor, targets: Tensor, convention: Convention) -> float:
    """E_l of one layer from Gram matrices G/M, A/M, (regions, N, N): Σ (G − A)² / (4 N² M²), or the mean square of
    G/M − A/M; the mean over regions."""
    squares = _exact(grams - targets).square().sum() / targets.numel()
    return float(squares / 4 if convention == "paper" else squares)


def _exact(difference: Tensor) -> Tensor:
    """In float64, on the CPU where the device has none."""
    return (difference.cpu() if difference.device.type == "mps" else difference).double()


def grams(features: Tensor, weights: Array | None) -> Tensor:
    """F Fᵀ / M of feature maps (N, height, width), or Σ T F Fᵀ with weights T of sum 1: (regions, N, N)."""
    flat = features.flatten(1)
    if weights is None:
        return (flat @ flat.T / flat.shape[1])[None]
    shares = torch.from_numpy(weights).flatten(1).to(flat.dtype).to(flat.device)
    return torch.stack([(flat * share) @ flat.T for share in shares])


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
        self._chance: dict[tuple[object, ...], dict[str, NDArray[np.float64]]] = {}
        self._pools: dict[tuple[object, ...], tuple[list[Input], list[Layered], list[Layered]]] = {}

    def losses(self, cells: Sequence[Cell], pixels: Sequence[NDArray[np.float32]]) -> Iterator[Measured]:
        """Losses of images (3, height, width), one for each cell. All cells have the same settings."""
        settings = cells[0].settings
        layers = sorted({name for cell in cells for name in cell.layers})
        step = max(1, BATCH_PIXELS[self._device.type] // (settings.height * settings.width))
        for start in range(0, len(cells), step):
            maps = self._features(settings, np.stack(pixels[start : start + step]), layers)
            for row, cell in enumerate(cells[start : start + step]):
                yield self._of_cell(cell, {name: one[row] for name, one in maps.items()})

    def _of_cell(self, cell: Cell, maps: Mapping[str, Tensor]) -> Measured:
        convention = cell.settings.loss
        content: dict[str, float] = {}
        style: dict[str, float] = {}
        if cell.content:
            target = self._target("content", cell)
            content = {name: content_term(maps[name], target[name], convention) for name, _ in cell.content_layers}
        if cell.style:
            target = self._target("style", cell)
            style = {
                name: style_term(grams(maps[name], self._regions(cell, name)), target[name], convention)
                for name, _ in cell.style_layers
            }
        return self._summed(cell, content, style)

    def _regions(self, cell: Cell, layer: str) -> Array | None:
        """Weights of the positions of a layer in each region of a stimulus."""
        return _shares(
            prepare_mask(cell, self.inputs)[None] if cell.mask else region_maps(cell.settings.region_shape), layer
        )

    @staticmethod
    def _summed(cell: Cell, content: dict[str, float], style: dict[str, float]) -> Measured:
        content_sum = sum(weight * content[name] for name, weight in cell.content_layers)
        style_sum = sum(weight * style[name] for name, weight in cell.style_layers)
        return Measured(content, style, content_sum, style_sum, cell.alpha * content_sum + cell.beta * style_sum)

    def dominance(self, term: str, cell: Cell, initial: NDArray[np.float32]) -> list[Dominance]:
        """What dominates the content or style loss of a cell's initial image, (3, height, width)."""
        layers = cell.content_layers if term == "content" else cell.style_layers
        maps = self._features(cell.settings, initial[None], [name for name, _ in layers])
        target = self._target(term, cell)
        if term == "content":
            parts = {name: split_content_loss(one[0], target[name], cell.settings.loss) for name, one in maps.items()}
        else:
            parts = {
                name: split_style_loss(grams(one[0], self._regions(cell, name)), target[name])
                for name, one in maps.items()
            }
        return list(find_dominance(term, parts, layers))

    def scale(self, cell: Cell) -> Measured:
        """Losses of an image without any response: the size of the targets, to which rounding is relative."""
        convention = cell.settings.loss
        content: dict[str, float] = {}
        style: dict[str, float] = {}
        if cell.content:
            target = self._target("content", cell)
            content = {
                name: content_term(torch.zeros_like(target[name]), target[name], convention)
                for name, _ in cell.content_layers
            }
        if cell.style:
            target = self._target("style", cell)
            style = {
                name: style_term(torch.zeros_like(target[name]), target[name], convention)
                for name, _ in cell.style_layers
            }
        return self._summed(cell, content, style)

    def chance(self, term: str, cell: Cell) -> Chance | None:
        """Losses of unrelated images of the set for one term of a cell; None where there are none."""
        name, weights = (cell.content, cell.content_layers) if term == "content" else (cell.style, cell.style_layers)
        if name is None:
            return None
        by_layer = self._chance_by_layer(term, name, cell, weights)
        values = np.sum([weight * by_layer[layer] for layer, weight in weights], axis=0)
        return Chance(values) if values.size and np.median(values) > 0 else None

    def _chance_by_layer(
        self, term: str, name: str, cell: Cell, weights: LayerWeights
    ) -> dict[str, NDArray[np.float64]]:
        key = (*preparation_key(cell, term), *self._key(cell.settings), cell.settings.loss)
        known = self._chance.setdefault(key, {})
        absent = [layer for layer, _ in weights if layer not in known]
        if absent:
            target = self._target(term, cell)
            sources, features, matrices = self._pool(cell.settings)
            digest = self.plan.input(term, name).pixel_sha256
            others = [index for index, source in enumerate(sources) if source.pixel_sha256 != digest]
            for layer in absent:
                if term == "content":
                    found = [content_term(features[i][layer], target[layer], cell.settings.loss) for i in others]
                else:
                    found = [style_term(matrices[i][layer], target[layer], cell.settings.loss) for i in others]
                known[layer] = np.array(found)
        return known

    def _pool(self, settings: Settings) -> tuple[list[Input], list[Layered], list[Layered]]:
        """Pictures of the set, each once, with the feature maps and Gram matrices of all layers in use."""
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
            matrices: list[Layered] = []
            regions = region_maps(settings.region_shape)
            room = POOL_BYTES
            for index in np.unique(np.linspace(0, len(every) - 1, min(len(every), POOL_IMAGES)).astype(int)):
                one = every[index]
                pixels = to_grey_if_asked(
                    resize(self.inputs.image(one.kind, one.name), settings.size, settings.fit), settings
                )
                maps = self._features_of(pixels, settings, [*content, *style])
                features.append({name: maps[name] for name in content})
                matrices.append({name: grams(maps[name], _shares(regions, name)) for name in style})
                sources.append(one)
                room -= sum(tensor.nbytes for layered in (features[-1], matrices[-1]) for tensor in layered.values())
                if room < 0:
                    break
            self._pools = {key: (sources, features, matrices)}  # that of earlier settings is not needed any more
        return self._pools[key]

    def _target(self, term: str, cell: Cell) -> Layered:
        settings = cell.settings
        weights = cell.content_layers if term == "content" else cell.style_layers
        key = (*preparation_key(cell, term), *self._key(settings))
        if not {layer for layer, _ in weights} <= self._targets.get(key, {}).keys():
            layers = sorted({layer for layer, _ in weights} | self._targets.get(key, {}).keys())
            maps = self._features_of(prepare_image(cell, term, self.inputs), settings, layers)
            found = maps if term == "content" else self._style_target(cell, maps)
            # Feature maps are large: cells had better come in the order of their contents.
            full = len(self._targets) >= MAX_TARGETS
            self._targets = {key: target for key, target in self._targets.items() if key[0] != "content" and not full}
            self._targets[key] = found
        return self._targets[key]

    def _style_target(self, cell: Cell, maps: Layered) -> Layered:
        """Gram matrices of a style image: of the stimulus's regions, of the whole image where there is a mask."""
        regions = None if cell.mask else region_maps(cell.settings.region_shape)
        return {name: grams(one, _shares(regions, name)) for name, one in maps.items()}

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
        regions = (settings.regions, settings.region_count, settings.region_scaling)
        return (*model, *image, *regions, settings.precision == "float64")


def _shares(maps: Array | None, layer: str) -> Array | None:
    return None if maps is None else weights_of_positions(maps, LAYERS[layer].stride)

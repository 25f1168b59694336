"""Fit VGG19-shaped filters to photographs, without training: the `pca` weights.

Layer by layer, the filters are the leading principal components of the layer's 3 × 3 input patches,
partially whitened (divided by eigenvalue^0.35), rotated, and kept with both signs [B; −B], so that the
ReLU loses nothing. In conv1_1 the rotation is an independent component analysis (Hyvärinen 1999), which
gives oriented, localized filters and with them crisp strokes and edges; above, it is random, which keeps
feature maps of content images invertible. Where the input has too few dimensions to fill a layer, random
mixtures of the components fill it. Every filter is scaled to unit mean activation.

Such a network has seen no labels. It is for demonstrations, tests, and as a control observer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stimkit.images.pixels import resize, to_float
from stimkit.images.reading import SKIMAGE_SAMPLES, read_source
from stimkit.network.layers import LAYERS, Layer
from stimkit.network.vgg import calibration_images, rescale, standardize
from stimkit.network.weights import Weights, expand_sign_pairs, save_weights, tensor_digest

DEFAULT_IMAGES = tuple(f"skimage:{name}" for name in SKIMAGE_SAMPLES if name not in ("horse", "page", "text"))
PATCHES = 20_000  # from which the covariance of 3 × 3 neighbourhoods in every layer is estimated
SIZE = 192  # pixels a side, of square photographs
# How far components are whitened, as the exponent of their variances: 0 is not at all, 0.5 fully. Chosen by eye, from
# textures at 0.15 to 0.5: with 0.15 they become gratings of the strongest components, with 0.5 they are noisy and take
# many more evaluations.
WHITENING = 0.35
Packed = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class _Filters:
    """Filters of one layer: [B; −B; rest], before their scale."""

    pairs: Tensor  # B: (n, channels, 3, 3)
    rest: Tensor
    bias: Tensor

    @property
    def weight(self) -> Tensor:
        return torch.cat([self.pairs, -self.pairs, self.rest])


def read_images(specs: Sequence[str], root: Path) -> Tensor:
    """Read images for fitting: (images, 3, 192, 192), cut to squares."""
    pixels = [resize(read_source(spec, root).pixels, (SIZE, SIZE), "crop") for spec in specs]
    return torch.from_numpy(np.stack([to_float(one) for one in pixels]))


@torch.no_grad()
def fit_weights(
    images: Tensor, name: str, progress: Callable[[str], None] | None = None, *, patches: int = PATCHES
) -> tuple[Weights, Packed]:
    """Fit weights to images (images, 3, height, width) in 0 … 1; also in the packed layout for `save_file`.

    Each layer is fitted to about `patches` of its input patches.

    The same images give the same digest on the same machine with the same number of threads.
    """
    generator = torch.Generator().manual_seed(0)
    packed: Packed = {}
    maps, calibration = standardize(images), standardize(calibration_images())
    for layer in LAYERS.values():
        if layer.is_pool:
            maps, calibration = F.avg_pool2d(maps, 2), F.avg_pool2d(calibration, 2)
            continue
        filters = _fit_layer(maps, layer, patches, generator)
        mean = F.relu(F.conv2d(calibration, filters.weight, filters.bias, padding=1)).mean((0, 2, 3))
        scale = 1 / torch.where(mean > 1e-6 * mean.mean(), mean, torch.ones(()))
        weight, bias = filters.weight * scale[:, None, None, None], filters.bias * scale
        maps = F.relu(F.conv2d(maps, weight, bias, padding=1))
        calibration = F.relu(F.conv2d(calibration, weight, bias, padding=1))
        parts = {"pairs": filters.pairs.half(), "rest": filters.rest.half(), "scale": scale, "bias": bias}
        packed |= {f"{layer.name}.{part}": tensor.numpy() for part, tensor in parts.items()}
        if progress:
            progress(layer.name)
    tensors = expand_sign_pairs(packed)
    description = "principal components of photographs, fitted without training; not an object recognizer"
    return Weights(name, tensors, "torchvision", tensor_digest(tensors), "average", description), packed


def fit_to_file(specs: Sequence[str], root: Path, out: Path, progress: Callable[[str], None] | None = None) -> Weights:
    """Fit weights to named images and write them as safetensors, float16, about 20 MB."""
    weights, packed = fit_weights(read_images(specs, root), out.stem, progress)
    save_weights(weights, out, packed)
    return weights


def normalize_to_file(
    weights: Weights, specs: Sequence[str], root: Path, out: Path, *, by: str, pooling: str
) -> Weights:
    """Rescale weights to unit mean activation over named images, by layer or filter, and write them as safetensors.

    Raises `WeightsError` where a layer does not respond to any of the images.
    """
    given = replace(weights, unit_mean_pooling=None)  # what they were rescaled by before does not matter
    scaled = rescale(given, pooling, by, read_images(specs, root))
    made = replace(
        scaled,
        name=out.stem,
        digest=tensor_digest(scaled.tensors),
        description=f"{weights.description or weights.name}, rescaled by {by} over {len(specs)} images",
    )
    save_weights(made, out)
    return made


def _fit_layer(maps: Tensor, layer: Layer, count: int, generator: torch.Generator) -> _Filters:
    patches = torch.cat(list(_patches(maps, count, generator)), dim=1)
    center = patches.mean(1, keepdim=True)
    patches = patches - center
    values, vectors = _principal_components(patches, min(layer.channels // 2, len(patches)))
    n = len(values)
    if layer.name == "conv1_1":
        rotation = _independent_components((vectors / values.sqrt()).T @ patches, generator)
    else:
        rotation = torch.linalg.qr(torch.randn(n, n, generator=generator))[0]
    basis = rotation @ (vectors / values**WHITENING).T
    mixing = torch.randn(layer.channels - 2 * n, n, generator=generator)
    rest = (mixing / mixing.norm(dim=1, keepdim=True)) @ basis
    basis, rest = basis.half().float(), rest.half().float()  # what the file keeps
    offset = (torch.cat([basis, -basis, rest]) @ center)[:, 0]
    shape = (-1, layer.in_channels, 3, 3)
    return _Filters(basis.view(shape), rest.view(shape), -offset)


def _patches(maps: Tensor, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Random 3 × 3 patches of every image, (9 channels, patches); reflected at the border."""
    for one in maps:
        columns = F.unfold(F.pad(one[None], (1, 1, 1, 1), mode="reflect"), 3)[0]
        yield columns[:, torch.randint(0, columns.shape[1], (count // len(maps),), generator=generator)]


def _principal_components(patches: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvalues and eigenvectors of the covariance of (dimensions, patches)."""
    if len(patches) <= 1200:
        values, vectors = torch.linalg.eigh(patches @ patches.T / patches.shape[1])
        values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # svd_lowrank draws from the global generator
            vectors, singular, _ = torch.svd_lowrank(patches, q=count + 40, niter=3)
        values, vectors = singular[:count].square() / patches.shape[1], vectors[:, :count]
    n = int((values > values[0] * 1e-6).sum())
    return values[:n], vectors[:, :n]


def _independent_components(white: Tensor, generator: torch.Generator, iterations: int = 40) -> Tensor:
    """Symmetric FastICA with tanh: the rotation of white data (dimensions, samples) to independence."""
    rotation: Tensor = torch.linalg.qr(torch.randn(len(white), len(white), generator=generator))[0]
    for _ in range(iterations):
        response = torch.tanh(rotation @ white)
        slope = (1 - response.square()).mean(1)
        left, _, right = torch.linalg.svd(response @ white.T / white.shape[1] - slope[:, None] * rotation)
        rotation = left @ right
    return rotation

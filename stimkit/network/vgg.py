"""VGG networks: a batch of images to the feature maps of named layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stimkit.errors import StimkitError, WeightsError
from stimkit.images.pixels import resize, to_float
from stimkit.images.reading import read_source
from stimkit.network import cudnn, winograd
from stimkit.network.layers import Layer, convolutions, deepest, up_to
from stimkit.network.weights import Weights

CALIBRATION_IMAGES = ("astronaut", "chelsea", "coffee", "rocket", "gravel", "brick", "hubble_deep_field", "motorcycle")
CALIBRATION_SIZE = 128

# Channel means (and deviations) that the networks were trained with.
_TORCHVISION_MEAN, _TORCHVISION_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red, for values 0 to 255
Kernels = dict[str, tuple[Tensor, Tensor]]


class VGG:
    """The convolutional part of VGG19 or VGG16, up to the deepest layer that is asked for.

    Zero padding; ReLU after every convolution, so that `convX_Y` is the rectified response; pooling
    `"average"` (Gatys et al. 2015), `"max"`, or `"l2"` as in DISTS. `normalize`: see `rescale`.

    `fast` computes float32 convolutions on a CPU by Winograd's method, nearly twice as fast with slightly larger
    rounding errors, and on an NVIDIA GPU with bias and ReLU in one pass. It is for optimizing, not for measuring.
    `layout` is that of feature maps in memory, which changes nothing but the speed.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        pooling: str = "average",
        normalize: str = "layer",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        layout: torch.memory_format = torch.channels_last,
        fast: bool = False,
    ) -> None:
        self.pooling, self.dtype, self.device, self.layout = pooling, dtype, torch.device(device), layout
        self.digest, self._network = weights.digest, weights.network
        self._preprocessing = weights.preprocessing
        self._winograd = fast and dtype == torch.float32 and self.device.type == "cpu"
        self._cudnn = fast and dtype != torch.float64 and cudnn.usable(self.device)
        self._pad = self._cudnn and layout == torch.channels_last
        self._kernels = {
            name: (self._arranged(weight), bias.to(self.device, dtype))
            for name, (weight, bias) in _kernels(rescale(weights, pooling, normalize)).items()
        }
        self._pool = cudnn.average_pool if self._cudnn and pooling == "average" else _POOLS[pooling]
        self._transformed: dict[str, winograd.Kernel] = {}

    def features(self, images: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Return the feature maps (batch, filters, height, width) of the named layers.

        `images` has shape (batch, 3, height, width), RGB, 0 to 1 in sRGB encoding; float32 or float64.
        """
        wanted = set(layers)
        x = self._arranged(preprocess(images, self._preprocessing))
        return _forward(x, self._convolve_relu, self._pool, up_to(deepest(wanted).name, self._network), wanted)

    def _arranged(self, values: Tensor) -> Tensor:
        """Images or kernels as the convolutions want them."""
        values = values.to(self.device, self.dtype)
        return (cudnn.pad_channels(values) if self._pad else values).contiguous(memory_format=self.layout)

    def _convolve_relu(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._kernels[name]
        if self._cudnn:
            return cudnn.direct_convolve_relu(x, weight, bias)
        if not (self._winograd and winograd.worthwhile(weight, *x.shape[2:])):
            return _convolve_relu(x, weight, bias)
        if name not in self._transformed:
            self._transformed[name] = winograd.Kernel(weight, bias)
        return winograd.convolve_relu(x, self._transformed[name])


def preprocess(images: Tensor, preprocessing: str) -> Tensor:
    """Turn RGB images in 0 … 1 into what the network was trained on: torchvision's or caffe's input."""
    if preprocessing == "caffe":
        return images.flip(1) * 255 - _channels(_CAFFE_MEAN, images)
    return standardize(images)


def standardize(images: Tensor) -> Tensor:
    """Subtract torchvision's channel means and divide by its deviations."""
    return (images - _channels(_TORCHVISION_MEAN, images)) / _channels(_TORCHVISION_STD, images)


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    return _constant(values, like.dtype, like.device)


@lru_cache(maxsize=16)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


def _kernels(weights: Weights) -> Kernels:
    tensors = weights.tensors
    return {
        layer.name: (torch.from_numpy(tensors[f"{layer.name}.weight"]), torch.from_numpy(tensors[f"{layer.name}.bias"]))
        for layer in convolutions(weights.network)
    }


def _convolve_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.relu(F.conv2d(x, weight, bias, padding=1))


def _l2_pool(x: Tensor) -> Tensor:
    """Root of the mean of squares under a Hann window of 3 × 3 (Ding et al. 2022, section 3.1)."""
    window = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype, device=x.device) / 4
    kernel = (window[:, None] * window[None]).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()


_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "average": partial(F.avg_pool2d, kernel_size=2),
    "max": partial(F.max_pool2d, kernel_size=2),
    "l2": _l2_pool,
}


def _forward(
    x: Tensor,
    convolve_relu: Callable[[Tensor, str], Tensor],
    pool: Callable[[Tensor], Tensor],
    layers: Iterable[Layer],
    wanted: set[str],
) -> dict[str, Tensor]:
    maps: dict[str, Tensor] = {}
    for layer in layers:
        if min(x.shape[-2:]) < (2 if layer.is_pool else 1):
            raise StimkitError(f"an image of this size has no positions left at {layer.name}")
        x = pool(x) if layer.is_pool else convolve_relu(x, layer.name)
        if layer.name in wanted:
            maps[layer.name] = x
    return maps


def rescale(weights: Weights, pooling: str, by: str, images: Tensor | None = None) -> Weights:
    """Rescale a network to unit mean activation over images, by default the calibration images; the same function.

    By `"filter"`, as Gatys et al. (2015, section 2) describe it, every filter is divided by its mean activation over
    images and positions, and the next layer's input weights are multiplied by it. They took the mean over the images
    of ImageNet, to some of which every filter responds. To a few photographs, filters of saturated colours hardly
    respond: divided by that, a single one makes nearly all of the style loss (docs/explanation/losses.md). By `"layer"`
    all filters of a layer are divided by the mean of their means, which leaves their proportions as they were learned.
    `"none"` changes nothing.

    A filter that (almost) never responds keeps its scale. Weights that were rescaled for this pooling already are
    returned as they are. The result keeps the digest: it is made from these weights. Raises `WeightsError` where a
    layer does not respond to any of the images.
    """
    if by == "none" or weights.unit_mean_pooling == pooling:
        return weights
    kernels = _kernels(weights)
    means = _mean_activations(kernels, weights, pooling, calibration_images() if images is None else images)
    scaled: dict[str, NDArray[np.float32]] = {}
    before = torch.ones(3)
    for layer in convolutions(weights.network):
        weight, bias = kernels[layer.name]
        mean = means[layer.name]
        if not mean.mean() > 0:
            raise WeightsError(f"{layer.name} does not respond to any of the images that the network is rescaled by")
        if by == "layer":
            mean = mean.mean().expand(len(mean))
        mean = torch.where(mean > 1e-6 * mean.mean(), mean, torch.ones(()))
        scaled[f"{layer.name}.weight"] = (weight / mean[:, None, None, None] * before[None, :, None, None]).numpy()
        scaled[f"{layer.name}.bias"] = (bias / mean).numpy()
        before = mean
    return replace(weights, tensors=scaled, unit_mean_pooling=pooling)


@torch.no_grad()
def _mean_activations(kernels: Kernels, weights: Weights, pooling: str, images: Tensor) -> Mapping[str, Tensor]:
    sums = {layer.name: torch.zeros(layer.channels) for layer in convolutions(weights.network)}
    layers = up_to(list(sums)[-1], weights.network)
    for image in images:
        x = preprocess(image[None], weights.preprocessing)
        maps = _forward(x, lambda x, name: _convolve_relu(x, *kernels[name]), _POOLS[pooling], layers, set(sums))
        for name, features in maps.items():
            sums[name] += features.mean((0, 2, 3)) / len(images)
    return sums


@lru_cache(maxsize=1)
def calibration_images() -> Tensor:
    """The photographs (from scikit-image) over which mean activations are taken, (images, 3, 128, 128)."""
    size = (CALIBRATION_SIZE, CALIBRATION_SIZE)
    pixels = [resize(read_source(f"skimage:{name}", Path()).pixels, size, "crop") for name in CALIBRATION_IMAGES]
    return torch.from_numpy(np.stack([to_float(one) for one in pixels]))

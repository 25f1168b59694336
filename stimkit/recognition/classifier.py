"""A whole VGG network, as it was trained: images to the outputs of its classifier."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stimkit.images.pixels import FloatImage
from stimkit.network.classifiers import CLASSIFIER_SIDE, Classifier
from stimkit.network.formats import FULLY_CONNECTED
from stimkit.network.vgg import VGG

INPUT_SIDE = 224  # pixels, of the images that VGG networks were trained with


class ClassifyingNetwork:
    """A classifier on one device: max pooling and filters as they were trained, whatever stimuli were made with."""

    def __init__(self, classifier: Classifier, device: torch.device) -> None:
        self._network = VGG(classifier.weights, pooling="max", normalize="none", device=device)
        self._device = device
        self._layers = [
            tuple(torch.from_numpy(classifier.tensors[f"{name}.{part}"]).to(device) for part in ("weight", "bias"))
            for name in FULLY_CONNECTED
        ]

    @torch.no_grad()
    def logits(self, image: FloatImage) -> NDArray[np.float64]:
        """Outputs (classes,), before softmax, for an image (3, height, width), sRGB encoded, 0 to 1.

        The image is brought to 224 × 224 pixels: its shorter side by bilinear interpolation with antialiasing, as
        torchvision does it, then the middle of the longer one.
        """
        x = self._network.features(to_input(torch.from_numpy(image)).to(self._device), ["pool5"])["pool5"].flatten(1)
        assert x.shape[1] == self._layers[0][0].shape[1], f"pool5 has {CLASSIFIER_SIDE} positions a side"
        *hidden, last = self._layers
        for weight, bias in hidden:
            x = F.relu(F.linear(x, weight, bias))
        return np.asarray(F.linear(x, *last)[0].double().cpu().numpy())


def to_input(image: Tensor) -> Tensor:
    """An image (3, height, width) as a batch (1, 3, 224, 224)."""
    height, width = image.shape[1:]
    scale = INPUT_SIDE / min(height, width)
    size = (max(INPUT_SIDE, int(height * scale)), max(INPUT_SIDE, int(width * scale)))
    if size != (height, width):
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0].clamp(0, 1)
    top, left = ((side - INPUT_SIDE) // 2 for side in size)
    return image[None, :, top : top + INPUT_SIDE, left : left + INPUT_SIDE]

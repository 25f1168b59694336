"""Classifiers of VGG networks: the three fully connected layers of a weights file, checked, with their digest.

Most users need none, and they are the larger part of a network: 124 million of VGG19's 144 million parameters. They are
read only where stimuli are to be recognized.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stimkit.errors import WeightsError
from stimkit.network.formats import FULLY_CONNECTED, Raw, read_file_of_weights
from stimkit.network.layers import FILTERS
from stimkit.network.weights import Tensors, Weights

CLASSIFIER_SIDE = 7  # positions of pool5, of an image of 224 pixels
CLASSIFIER_INPUTS = FILTERS[-1] * CLASSIFIER_SIDE**2


@dataclass(frozen=True)
class Classifier:
    """A whole network: its convolutions, and `fc6`, `fc7`, `fc8` with weights (units, inputs) and biases."""

    weights: Weights
    tensors: Tensors = field(repr=False)

    @property
    def classes(self) -> int:
        return len(self.tensors["fc8.bias"])

    @property
    def digest(self) -> str:
        """sha256 of the digest of the convolutions, and of names, shapes and float32 values of the classifier."""
        digest = hashlib.sha256(self.weights.digest.encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name}{tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor, "<f4").data)
        return digest.hexdigest()


def read_classifier(path: Path) -> Tensors:
    """Read the fully connected layers of a weights file; empty where it has none.

    Raises `WeightsError` where the file is damaged, or they are not those of a VGG network for images of 224 pixels.
    """
    raw, _ = read_file_of_weights(path, "classifier")
    return _checked(raw, path) if raw else {}


def find_classifier(path: Path) -> tuple[Tensors, str]:
    """The fully connected layers of a weights file, and why they are left out where they are of another network."""
    try:
        return read_classifier(path), ""
    except WeightsError as error:
        return {}, str(error)


def _checked(raw: Raw, path: Path) -> Tensors:
    tensors: Tensors = {}
    inputs = CLASSIFIER_INPUTS
    for layer in FULLY_CONNECTED:
        weight, bias = raw.get(f"{layer}.weight"), raw.get(f"{layer}.bias")
        if weight is None or bias is None or not len(weight):
            raise WeightsError(f"{path} does not hold a whole classifier: {layer} is missing")
        weight, bias = weight.reshape(len(weight), -1), bias.reshape(-1)
        if weight.shape[1] != inputs or len(bias) != len(weight):
            raise WeightsError(
                f"{path} does not hold the classifier of a VGG network: {layer} has {weight.shape[1]} inputs and"
                f" {len(bias)} biases for {len(weight)} units, and {inputs} inputs are expected"
            )
        for part, values in (("weight", weight), ("bias", bias)):
            with np.errstate(over="ignore"):
                tensors[f"{layer}.{part}"] = np.ascontiguousarray(values, np.float32)
            if not np.isfinite(tensors[f"{layer}.{part}"]).all():
                raise WeightsError(f"{path}: {layer} has values that are not finite")
        inputs = len(weight)
    return tensors

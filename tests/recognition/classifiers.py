"""Small classifiers of the real names and shapes: few units, but all inputs; random filters below them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.numpy import save_file
from scipy.io import savemat

from stimkit.network.layers import convolutions
from stimkit.network.sources import load_weights
from stimkit.network.weights import Tensors

UNITS = 8


def tensors_of(classes: int = 1000, seed: int = 0) -> tuple[Tensors, Tensors]:
    """Convolutions of an untrained VGG16, and a classifier, of a seed."""
    generator = np.random.default_rng(seed)
    shapes = {"fc6": (UNITS, 25088), "fc7": (UNITS, UNITS), "fc8": (classes, UNITS)}
    classifier: Tensors = {}
    for name, shape in shapes.items():
        classifier[f"{name}.weight"] = generator.normal(0, (2 / shape[1]) ** 0.5, shape).astype(np.float32)
        classifier[f"{name}.bias"] = generator.normal(0, 0.1, shape[0]).astype(np.float32)
    return dict(load_weights("random:5", network="vgg16").tensors), classifier


def torchvision_names(convolutional: Tensors, classifier: Tensors) -> Tensors:
    names = {f"{layer.name}.": f"features.{layer.torchvision_index}." for layer in convolutions("vgg16")}
    names |= {"fc6.": "classifier.0.", "fc7.": "classifier.3.", "fc8.": "classifier.6."}
    both = {**convolutional, **classifier}
    return {names[key[: key.index(".") + 1]] + key.rpartition(".")[2]: value for key, value in both.items()}


def timm_names(convolutional: Tensors, classifier: Tensors) -> Tensors:
    found = torchvision_names(convolutional, {})
    found["pre_logits.fc1.weight"] = classifier["fc6.weight"].reshape(UNITS, 512, 7, 7)
    found["pre_logits.fc2.weight"] = classifier["fc7.weight"].reshape(UNITS, UNITS, 1, 1)
    found["head.fc.weight"] = classifier["fc8.weight"]
    biases = {"pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7", "head.fc": "fc8"}
    return found | {f"{name}.bias": classifier[f"{own}.bias"] for name, own in biases.items()}


def write_state_dict(path: Path, convolutional: Tensors, classifier: Tensors) -> None:
    named = torchvision_names(convolutional, classifier)
    torch.save({key: torch.from_numpy(value) for key, value in named.items()}, path)


def write_timm(path: Path, convolutional: Tensors, classifier: Tensors) -> None:
    save_file(timm_names(convolutional, classifier), path)


def write_keras(path: Path, convolutional: Tensors, classifier: Tensors) -> None:
    with h5py.File(path, "w") as file:
        for layer in convolutions("vgg16"):
            group = file.create_group(f"block{layer.name[4]}_conv{layer.name[6]}")
            group["kernel:0"] = convolutional[f"{layer.name}.weight"].transpose(2, 3, 1, 0)
            group["bias:0"] = convolutional[f"{layer.name}.bias"]
        for name, own in (("fc1", "fc6"), ("fc2", "fc7"), ("predictions", "fc8")):
            weight = classifier[f"{own}.weight"]
            if own == "fc6":  # channels last
                weight = weight.reshape(-1, 512, 7, 7).transpose(0, 2, 3, 1).reshape(len(weight), -1)
            group = file.create_group(name).create_group(name)
            group["kernel:0"], group["bias:0"] = weight.T, classifier[f"{own}.bias"]


def write_matconvnet(path: Path, convolutional: Tensors, classifier: Tensors) -> None:
    both = {**convolutional, **classifier, "fc6.weight": classifier["fc6.weight"].reshape(-1, 512, 7, 7)}
    layers = np.empty((1, 16), object)
    names = [*(layer.name for layer in convolutions("vgg16")), "fc6", "fc7", "fc8"]
    for index, name in enumerate(names):
        weight = both[f"{name}.weight"]
        weight = weight.reshape(*weight.shape, 1, 1) if weight.ndim == 2 else weight
        parts = np.empty((1, 2), object)
        parts[0, 0], parts[0, 1] = weight.transpose(2, 3, 1, 0), both[f"{name}.bias"][:, None]
        if name == "conv1_1":  # its channels are red, green, blue
            parts[0, 0] = parts[0, 0][:, :, ::-1]
        layers[0, index] = {"name": name, "weights": parts}
    savemat(path, {"layers": layers})

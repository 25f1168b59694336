"""Formats of weights files: each to arrays by name, without running anything that is in the file.

A file is read for its convolutions or for its classifier. Convolutions are `convX_Y.weight` and `convX_Y.bias`, or
torchvision's `features.N.weight`, with kernels (filters, channels, height, width); the layers of a classifier are
`fc6`, `fc7` and `fc8`, with weights (units, …, inputs in the order channels, height, width). Torch is imported only to
read what NumPy does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from stimkit.errors import WeightsError

Raw = dict[str, NDArray[Any]]
Part = Literal["convolutions", "classifier"]
FULLY_CONNECTED = ("fc6", "fc7", "fc8")
_CLASSIFIERS = {
    **{name: name for name in FULLY_CONNECTED},
    "classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8",  # torchvision's
    "pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7", "head.fc": "fc8",  # timm's
}  # fmt: skip
_PRECISIONS = ("F64", "F32", "F16", "BF16")  # of safetensors; less does not hold a filter
_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")
_KERAS_LAYER = re.compile(r"block([1-5])_conv([1-4])")
_KERAS_CLASSIFIER = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
_MATCONVNET_LAYER: dict[Part, re.Pattern[str]] = {
    "convolutions": re.compile(r"conv[1-5]_[1-4]"),
    "classifier": re.compile(r"fc[678]"),
}
_LARGEST: dict[Part, int] = {"convolutions": 512 * 512 * 9, "classifier": 2**28}  # values of a tensor
_NOT_READ = {
    ".onnx": "export it to safetensors; the model zoo's vgg19-7.onnx is a training of MXNet's, not the paper's network",
    ".caffemodel": '`weights = "oxford"` is the same network as Keras distributes it',
    ".pkl": "reading a pickle can run code that is in it",
}


def read_file_of_weights(path: Path, part: Part = "convolutions") -> tuple[Raw, dict[str, str]]:
    """Arrays of a part of a weights file by name, and what the file says of them.

    Raises `WeightsError` where it is of another format, damaged, or holds more than tensors.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        advice = f"; {_NOT_READ[suffix]}" if suffix in _NOT_READ else ""
        raise WeightsError(f"{path}: weights are read from {', '.join(READERS)} files{advice}")
    if path.exists() and not path.is_file():  # which is what reading one that is not there says itself
        raise WeightsError(f"{path} is not a regular file")
    return READERS[suffix](path, part)


def _read_safetensors(path: Path, part: Part) -> tuple[Raw, dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            wanted = {key: name for key in file.keys() if (name := _plain_name(key, part))}  # noqa: SIM118
            types = {key: file.get_slice(key).get_dtype() for key in wanted}
            if other := next((key for key, kind in types.items() if kind not in _PRECISIONS), None):
                raise WeightsError(
                    f"{path}: {other} has values of type {types[other]}; weights are read as {', '.join(_PRECISIONS)}"
                )
            if "BF16" not in types.values():
                return {name: file.get_tensor(key) for key, name in wanted.items()}, metadata
        return _read_bfloat16(path, wanted), metadata
    except (SafetensorError, OSError, TypeError) as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file: {error}") from error


def _read_bfloat16(path: Path, wanted: Mapping[str, str]) -> Raw:
    """Tensors of a type that NumPy does not have, in float32, which has all of its values."""
    with safe_open(path, framework="pt") as file:  # which loads torch
        return {name: file.get_tensor(key).float().numpy() for key, name in wanted.items()}


def _plain_name(key: str, part: Part) -> str:
    """The name of a tensor of a part without what training in parallel puts before it; empty for others."""
    plain = key.removeprefix("module.").replace("features.module.", "features.", 1)
    if part == "convolutions":
        return plain if plain.startswith(("features.", "conv")) else ""
    layer, _, kind = plain.rpartition(".")
    return f"{_CLASSIFIERS[layer]}.{kind}" if layer in _CLASSIFIERS and kind in ("weight", "bias") else ""


def _read_state_dict(path: Path, part: Part) -> tuple[Raw, dict[str, str]]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler meets
        raise WeightsError(
            f"{path} is damaged or not a plain state dict; files that hold more than tensors are refused,"
            f" since reading them could run code ({str(error).splitlines()[0][:200]})"
        ) from error
    if isinstance(state, Mapping):  # checkpoints of a training have it beside the epoch and the optimizer
        state = next((state[key] for key in _CHECKPOINT_KEYS if isinstance(state.get(key), Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} does not hold a state dict of tensors")
    wanted = {name: value for key, value in state.items() if (name := _plain_name(str(key), part))}
    if any(value.is_complex() or value.layout != torch.strided or value.is_meta for value in wanted.values()):
        raise WeightsError(f"{path} holds tensors that are not plain arrays of real numbers")
    return {key: value.detach().float().numpy() for key, value in wanted.items()}, {}


def _read_keras(path: Path, part: Part) -> tuple[Raw, dict[str, str]]:
    """Weights as Keras' applications keep them: groups `blockX_convY` of a kernel (height, width, in, out) and a bias.

    Links, and data outside of the file, are not followed.
    """
    try:
        import h5py
    except ImportError:
        raise WeightsError(f'{path}: reading Keras\' files needs h5py: pip install "stimkit[keras]"') from None
    raw: Raw = {}

    def take(name: str, item: Any) -> None:
        layer = "" if name.startswith("optimizer") else _keras_layer(name, part)
        if not layer or not isinstance(item, h5py.Dataset):
            return
        if item.external or item.is_virtual:
            raise WeightsError(f"{path}: {name} is kept in another file, which is not read")
        if item.ndim in (1, 2, 4) and item.size <= _LARGEST[part]:
            kind = "bias" if item.ndim == 1 else "weight"
            raw[f"{layer}.{kind}"] = _from_keras(np.asarray(item[()], np.float32), layer)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} is damaged or not a file of Keras: {error}") from error
    return raw, {}


def _keras_layer(name: str, part: Part) -> str:
    """The layer that an array of Keras' is of; empty for those of the other part."""
    if part == "classifier":
        return next((_KERAS_CLASSIFIER[one] for one in name.split("/") if one in _KERAS_CLASSIFIER), "")
    match = _KERAS_LAYER.search(name)
    return f"conv{match[1]}_{match[2]}" if match else ""


def _from_keras(values: NDArray[np.float32], layer: str) -> NDArray[np.float32]:
    """Kernels (height, width, in, out), weights (in, out) and biases, with the outputs first."""
    if values.ndim == 2 and layer == "fc6" and len(values) % 49 == 0:  # 7 × 7 positions, of which channels come last
        values = values.reshape(7, 7, -1, values.shape[1])
    return values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T


def _read_matconvnet(path: Path, part: Part) -> tuple[Raw, dict[str, str]]:
    """Weights as MatConvNet keeps them: `layers` with a kernel (height, width, in, out) and a bias.

    Its networks take what Caffe's take, but with the channels red, green, blue.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(path, simplify_cells=True, variable_names=["layers", "net"])
        layers = found["layers"] if "layers" in found else found["net"]["layers"]
        raw = dict(_of_matconvnet(layers, part))
    except NotImplementedError:  # MATLAB 7.3's files are HDF5
        raise WeightsError(f"{path} is of MATLAB 7.3, which is not read; save it with -v7") from None
    except Exception as error:  # scipy raises whatever its parser meets
        raise WeightsError(f"{path} is damaged or not a network of MatConvNet: {error}") from error
    return raw, {"channels": "rgb"}


def _of_matconvnet(layers: Sequence[Mapping[str, Any]], part: Part) -> Iterator[tuple[str, NDArray[Any]]]:
    for layer in layers:
        name = str(layer["name"])
        if _MATCONVNET_LAYER[part].fullmatch(name):
            kernel, bias = layer["weights"] if "weights" in layer else (layer["filters"], layer["biases"])
            yield f"{name}.weight", _from_matconvnet(kernel)
            yield f"{name}.bias", np.asarray(bias, np.float32).reshape(-1)


def _from_matconvnet(kernel: Any) -> NDArray[np.float32]:
    """A kernel (height, width, in, out), of which loading drops sides of 1, with the outputs first."""
    values = np.asarray(kernel, np.float32)
    return values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T


READERS: dict[str, Callable[[Path, Part], tuple[Raw, dict[str, str]]]] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_state_dict,
    ".pt": _read_state_dict,
    ".h5": _read_keras,
    ".mat": _read_matconvnet,
}
"""By the suffixes of their files."""

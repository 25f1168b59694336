"""VGG19 weights: names and files to arrays with their preprocessing and digest.

Three kinds: `pca` (embedded, fitted to photographs without training, see `fit.py`), `imagenet`
(torchvision's own file, converted once and kept in the user's cache) and files. Torch is imported only
to read a `.pth` file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from stimkit.errors import WeightsError
from stimkit.files import storage_errors, write_atomically
from stimkit.network.layers import CONVOLUTIONS, Preprocessing

Tensors = dict[str, NDArray[np.float32]]
SUFFIXES = (".safetensors", ".pth", ".pt")
_PRECISIONS = ("F64", "F32", "F16", "BF16")  # of safetensors; less does not hold a filter
_CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model")
FORMAT = "1"
TORCHVISION_FILE = "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
KNOWN_FILES: dict[str, Preprocessing] = {
    TORCHVISION_FILE: "torchvision",  # vgg19-dcbb9e9d.pth
    "11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669": "torchvision",  # timm/vgg19.tv_in1k
}
"""Published files with the names of torchvision, by their sha256."""


@dataclass(frozen=True)
class Weights:
    """The convolutions of a VGG19: `convX_Y.weight` (filters, channels, 3, 3) and `convX_Y.bias`."""

    name: str
    tensors: Tensors = field(repr=False)
    preprocessing: Preprocessing
    digest: str
    """sha256 over the float32 tensors in the order of the network."""
    unit_mean_pooling: str | None = None
    """The pooling under which every filter already has unit mean activation, if any."""
    description: str = ""


def read_weights(path: Path, *, name: str | None = None, preprocessing: str = "auto") -> Weights:
    """Read a weights file: safetensors, or a torch state dict (read without running any code in it).

    Tensors are named as in torchvision (`features.N.weight`) or `convX_Y.weight`, also behind the `module.` of training
    in parallel or inside a checkpoint (`state_dict`); those of classifiers are not read. `preprocessing` is what the
    network takes; "auto" is what the file says, or caffe for the latter kind, which is taken for Gatys'
    `vgg_conv.pth`. Raises `WeightsError` where the file is damaged, of other names or shapes, or where nothing says
    what the network takes: conversions of Caffe's network, too, have torchvision's names, and with the wrong
    preprocessing every number of a stimulus is wrong without a sign of it.
    """
    metadata: dict[str, str] = {}
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise WeightsError(f"{path}: weights are read from {', '.join(SUFFIXES)} files")
    if path.exists() and not path.is_file():  # which is what reading one that is not there says itself
        raise WeightsError(f"{path} is not a regular file")
    if suffix == ".safetensors":
        raw, metadata = _read_safetensors(path)
    else:
        raw = _read_state_dict(path)
    if preprocessing == "auto":
        preprocessing = metadata.get("preprocessing") or _preprocessing_of(raw, path)
    if preprocessing not in ("torchvision", "caffe"):
        raise WeightsError(f'{path}: unknown preprocessing "{preprocessing}"; it can be torchvision or caffe')
    tensors = _named(_expanded(raw, path) if metadata.get("layout") == "sign-pairs" else raw, path)
    digest = tensor_digest(tensors)
    if "sha256" in metadata and metadata["sha256"] != digest:
        raise WeightsError(
            f"{path} is damaged: its tensors have sha256 {digest[:12]}…, it says {metadata['sha256'][:12]}…"
        )
    return Weights(
        name=name or path.stem,
        tensors=tensors,
        preprocessing=preprocessing,  # type: ignore[arg-type]
        digest=digest,
        unit_mean_pooling=metadata.get("unit_mean_pooling"),
        description=metadata.get("description", ""),
    )


def _preprocessing_of(raw: Mapping[str, NDArray[Any]], path: Path) -> Preprocessing:
    """What a file that does not say it is known to take, by its names or its digest."""
    if "features.0.weight" not in raw:
        return "caffe"
    with path.open("rb") as file:
        known = KNOWN_FILES.get(hashlib.file_digest(file, "sha256").hexdigest())
    if known is None:
        raise WeightsError(
            f"{path} has torchvision's names, which conversions of Caffe's network have, too, and is not a file that"
            ' stimkit knows; say what it takes: preprocessing = "torchvision" or "caffe" in [model], or with'
            " --preprocessing of `stimkit weights import`"
        )
    return known


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            wanted = [key for key in file.keys() if _plain_name(key)]  # noqa: SIM118
            types = {key: file.get_slice(key).get_dtype() for key in wanted}
            if other := next((key for key, kind in types.items() if kind not in _PRECISIONS), None):
                raise WeightsError(
                    f"{path}: {other} has values of type {types[other]}; weights are read as {', '.join(_PRECISIONS)}"
                )
            if "BF16" not in types.values():
                return {_plain_name(key): file.get_tensor(key) for key in types}, metadata
        return _read_bfloat16(path, wanted), metadata
    except (SafetensorError, OSError, TypeError) as error:
        raise WeightsError(f"{path} is damaged or not a safetensors file: {error}") from error


def _read_bfloat16(path: Path, wanted: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Tensors of a type that NumPy does not have, in float32, which has all of its values."""
    with safe_open(path, framework="pt") as file:  # which loads torch
        return {_plain_name(key): file.get_tensor(key).float().numpy() for key in wanted}


def _plain_name(key: str) -> str:
    """The name of a tensor of the convolutions without what training in parallel puts before it; empty for others."""
    plain = key.removeprefix("module.").replace("features.module.", "features.", 1)
    return plain if plain.startswith(("features.", "conv")) else ""


def _read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
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
    wanted = {_plain_name(str(key)): value for key, value in state.items() if _plain_name(str(key))}
    return {key: value.detach().float().numpy() for key, value in wanted.items()}


def _expanded(raw: Mapping[str, NDArray[Any]], path: Path) -> Tensors:
    try:
        return expand_sign_pairs(raw)
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"{path} does not hold a VGG19 in sign pairs, as it says: {error}") from error


def _named(raw: Mapping[str, NDArray[Any]], path: Path) -> Tensors:
    tensors: Tensors = {}
    complaints: list[str] = []
    for layer in CONVOLUTIONS:
        shapes = {"weight": (layer.channels, layer.in_channels, 3, 3), "bias": (layer.channels,)}
        for part, shape in shapes.items():
            key = f"{layer.name}.{part}"
            found = raw.get(key, raw.get(f"features.{layer.torchvision_index}.{part}"))
            if found is None:
                complaints.append(f"{key} is missing")
            elif found.shape != shape:
                complaints.append(f"{key} has shape {found.shape}, not {shape}")
            elif not np.isfinite(found).all():
                complaints.append(f"{key} has values that are not finite")
            else:
                tensors[key] = np.ascontiguousarray(found, dtype=np.float32)
    if complaints:
        more = f" and {len(complaints) - 3} more" if len(complaints) > 3 else ""
        raise WeightsError(f"{path} does not hold a VGG19: {'; '.join(complaints[:3])}{more}")
    return tensors


def expand_sign_pairs(raw: Mapping[str, NDArray[Any]]) -> Tensors:
    """Undo the sign-pair layout: filters are [B; −B; rest], each times its own scale; B is stored once."""
    tensors: Tensors = {}
    for layer in CONVOLUTIONS:
        pairs, rest = (raw[f"{layer.name}.{part}"].astype(np.float32) for part in ("pairs", "rest"))
        scale = raw[f"{layer.name}.scale"].astype(np.float32)
        tensors[f"{layer.name}.weight"] = np.concatenate([pairs, -pairs, rest]) * scale[:, None, None, None]
        tensors[f"{layer.name}.bias"] = raw[f"{layer.name}.bias"].astype(np.float32)
    return tensors


def tensor_digest(tensors: Tensors) -> str:
    """sha256 of names, shapes and float32 values, in the order of the network."""
    digest = hashlib.sha256()
    for layer in CONVOLUTIONS:
        for part in ("weight", "bias"):
            tensor = tensors[f"{layer.name}.{part}"]
            digest.update(f"{layer.name}.{part}{tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
    return digest.hexdigest()


def weights_bytes(weights: Weights, packed: Mapping[str, NDArray[Any]] | None = None) -> bytes:
    """Weights as a safetensors file; `packed` gives them in the sign-pair layout instead."""
    metadata = {
        "stimkit_format": FORMAT,
        "preprocessing": weights.preprocessing,
        "sha256": weights.digest,
        "description": weights.description,
    }
    if weights.unit_mean_pooling is not None:
        metadata["unit_mean_pooling"] = weights.unit_mean_pooling
    if packed is not None:
        metadata["layout"] = "sign-pairs"
    return save(dict(packed if packed is not None else weights.tensors), metadata)


def save_weights(weights: Weights, path: Path, packed: Mapping[str, NDArray[Any]] | None = None) -> None:
    """Write weights as a safetensors file, in the layout that `to_bytes` gives them."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, weights_bytes(weights, packed))

"""VGG weights: files to arrays with their network, preprocessing, origin and digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from stimkit.errors import WeightsError
from stimkit.files import storage_errors, write_atomically
from stimkit.network.formats import Raw, read_file_of_weights
from stimkit.network.layers import NETWORKS, NetworkName, Preprocessing, convolutions
from stimkit.network.published import identify_file

Tensors = dict[str, NDArray[np.float32]]
FORMAT = "1"


@dataclass(frozen=True)
class Weights:
    """The convolutions of a network: `convX_Y.weight` (filters, channels, 3, 3) and `convX_Y.bias`."""

    name: str
    tensors: Tensors = field(repr=False)
    preprocessing: Preprocessing
    digest: str
    """sha256 over the float32 tensors in the order of the network."""
    unit_mean_pooling: str | None = None
    """The pooling under which every filter already has unit mean activation, if any."""
    description: str = ""
    """Who trained it on what, in words."""
    network: NetworkName = "vgg19"


def read_weights(
    path: Path, *, name: str | None = None, preprocessing: str = "auto", network: NetworkName | None = None
) -> Weights:
    """Read a weights file: safetensors, a torch state dict, Keras' .h5 or MatConvNet's .mat; nothing in it is run.

    Tensors are named as in torchvision (`features.N.weight`) or `convX_Y.weight`, also behind the `module.` of training
    in parallel or inside a checkpoint (`state_dict`); those of classifiers are not read. `preprocessing` is what the
    network takes; "auto" is what the file says, or what a published file of its digest takes, or caffe for names like
    `convX_Y`, which state dicts have that are made as Gatys' `vgg_conv.pth`. Raises `WeightsError` where the file is
    damaged, of other names or shapes, of another network than `network`, or where nothing says what it takes:
    conversions of Caffe's network, too, have torchvision's names, and with the wrong preprocessing every number of a
    stimulus is wrong without a sign of it.
    """
    raw, metadata = read_file_of_weights(path)
    own = "stimkit_format" in metadata or "description" in metadata
    published = None if own else identify_file(path)
    if preprocessing == "auto":
        preprocessing = metadata.get("preprocessing") or (published and published.preprocessing) or _usual(raw, path)
    if preprocessing not in ("torchvision", "caffe"):
        raise WeightsError(f'{path}: unknown preprocessing "{preprocessing}"; it can be torchvision or caffe')
    tensors = _expanded(raw, path) if metadata.get("layout") == "sign-pairs" else raw
    if metadata.get("channels") == "rgb" and preprocessing == "caffe" and "conv1_1.weight" in tensors:
        tensors = tensors | {"conv1_1.weight": tensors["conv1_1.weight"][:, ::-1]}  # to Caffe's blue, green, red
    found = _network_of(tensors, path)
    if network is not None and found != network:
        raise WeightsError(
            f'{path} holds a {found.upper()}, and the network is to be {network}: write network = "{found}" in [model]'
        )
    tensors = _named(tensors, found, path)
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
        description=published.description if published else metadata.get("description", ""),
        network=found,
    )


def _usual(raw: Mapping[str, NDArray[Any]], path: Path) -> Preprocessing:
    """What a file takes that does not say it and is not known, by its names."""
    if "features.0.weight" in raw:
        why = "has torchvision's names, which conversions of Caffe's network have, too, and"
    elif path.suffix.lower() in (".h5", ".mat"):
        why = "is of a format in which networks of any training are kept, and"
    else:
        return "caffe"
    raise WeightsError(
        f"{path} {why} is not a file that"
        ' stimkit knows; say what it takes: preprocessing = "torchvision" or "caffe" in [model], or with'
        " --preprocessing of `stimkit weights import`"
    )


def _network_of(raw: Mapping[str, NDArray[Any]], path: Path) -> NetworkName:
    """Which network a file holds, by the convolutions that only VGG19 has."""
    if "features.0.weight" in raw and "conv1_1.weight" in raw:
        raise WeightsError(f"{path} has names of two kinds, features.N and convX_Y: it is not clear which are meant")
    last = {f"features.{convolutions('vgg19')[-1].torchvision_index}.weight"}
    more = {f"{name}.weight" for name in NETWORKS["vgg19"].keys() - NETWORKS["vgg16"].keys()}
    return "vgg19" if (last | more) & raw.keys() else "vgg16"


def _expanded(raw: Raw, path: Path) -> Raw:
    try:
        return dict(expand_sign_pairs(raw))
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"{path} does not hold a VGG19 in sign pairs, as it says: {error}") from error


def _named(raw: Mapping[str, NDArray[Any]], network: NetworkName, path: Path) -> Tensors:
    tensors: Tensors = {}
    complaints: list[str] = []
    for layer in convolutions(network):
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
        raise WeightsError(f"{path} does not hold a VGG19 or VGG16: {'; '.join(complaints[:3])}{more}")
    return tensors


def expand_sign_pairs(raw: Mapping[str, NDArray[Any]]) -> Tensors:
    """Undo the sign-pair layout: filters are [B; −B; rest], each times its own scale; B is stored once."""
    tensors: Tensors = {}
    for layer in convolutions("vgg19"):
        pairs, rest = (raw[f"{layer.name}.{part}"].astype(np.float32) for part in ("pairs", "rest"))
        scale = raw[f"{layer.name}.scale"].astype(np.float32)
        tensors[f"{layer.name}.weight"] = np.concatenate([pairs, -pairs, rest]) * scale[:, None, None, None]
        tensors[f"{layer.name}.bias"] = raw[f"{layer.name}.bias"].astype(np.float32)
    return tensors


def tensor_digest(tensors: Tensors) -> str:
    """sha256 of names, shapes and float32 values, in the order of the network."""
    digest = hashlib.sha256()
    for layer in NETWORKS["vgg19"].values():
        if f"{layer.name}.weight" not in tensors:
            continue
        for part in ("weight", "bias"):
            tensor = tensors[f"{layer.name}.{part}"]
            digest.update(f"{layer.name}.{part}{tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
    return digest.hexdigest()


def weights_bytes(
    weights: Weights, packed: Mapping[str, NDArray[Any]] | None = None, classifier: Tensors | None = None
) -> bytes:
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
    return save({**(packed if packed is not None else weights.tensors), **(classifier or {})}, metadata)


def save_weights(
    weights: Weights,
    path: Path,
    packed: Mapping[str, NDArray[Any]] | None = None,
    classifier: Tensors | None = None,
) -> None:
    """Write weights as a safetensors file, as `weights_bytes` gives them."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, weights_bytes(weights, packed, classifier))

"""What this machine has: versions, devices, precisions, weights."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

import torch

from stimkit.errors import StorageError, WeightsError
from stimkit.files import cache_folder
from stimkit.network.sources import REMOTE_NAMES, load_weights, locate_weights
from stimkit.stimuli import single
from stimkit.synthesis.devices import choose_device
from stimkit.synthesis.environment import describe_environment, device_name


def examine() -> dict[str, list[str]]:
    """Return findings by topic, each a list of lines."""
    device = choose_device("auto")
    environment = describe_environment(device)
    packages = environment["packages"]
    return {
        "versions": [
            f"stimkit {packages['stimkit']}, Python {platform.python_version()}, torch {torch.__version__}",
            ", ".join(f"{name} {version}" for name, version in packages.items() if name not in ("stimkit", "torch")),
        ],
        "devices": _devices(device),
        "precision": _precisions(device),
        "weights": [_weights("pca"), *map(_weights, REMOTE_NAMES)],
        "cache": [_cache()],
        "self-test": [_self_test(device)],
    }


def _devices(chosen: torch.device) -> list[str]:
    lines = [f"auto takes {chosen} ({device_name(chosen)})"]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        lines.append(f"cuda:{index} {torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    capability = torch.backends.cpu.get_cpu_capability()
    lines.append(f"cpu {device_name(torch.device('cpu'))}, {torch.get_num_threads()} threads, {capability}")
    return lines


def _precisions(device: torch.device) -> list[str]:
    available = (
        ["float32", "bfloat16"]
        + (["float64"] if device.type != "mps" else [])
        + (["tf32"] if device.type == "cuda" else [])
    )
    return [", ".join(available)]


def _weights(name: str) -> str:
    try:
        found = load_weights(name)
    except WeightsError as error:
        return f"{name}: {error}"
    return f"{name}: {locate_weights(name)}, sha256 {found.digest[:12]}…, intact"


def _cache() -> str:
    try:
        folder = cache_folder()
    except StorageError as error:
        return str(error)
    nearest = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    state = (
        "writable"
        if os.access(nearest, os.W_OK)
        else f"NOT writable; set STIMKIT_CACHE to another folder than {Path(folder)}"
    )
    return f"{folder}, {state}"


def _self_test(device: torch.device) -> str:
    """Three evaluations of a tiny image: does the loss fall on this device?"""
    result = single.synthesize(
        "skimage:chelsea", "skimage:coffee", ratio=1e-6, size=32, max_evaluations=3, device=str(device), rtol=0.0
    )
    before, after = result.initial.total, result.optimized.total
    good = math.isfinite(after) and after < before
    return f"{'passed' if good else 'FAILED'}: total loss {before:.3g} → {after:.3g} in 3 evaluations on {device}"

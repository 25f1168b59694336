"""What this machine is: versions, devices, threads; kept with every run."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

RECORDED_PACKAGES = (
    "stimkit",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "scikit-image",
    "xarray",
    "netCDF4",
    "safetensors",
)


def describe_environment(device: torch.device, *, deterministic: bool = False) -> dict[str, Any]:
    """Versions and hardware that may change the pixels of a stimulus; no names of hosts or users."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "device": str(device),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "deterministic": deterministic,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
    }


def device_name(device: torch.device) -> str:
    """The model of a device, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return _cpu_model() or platform.processor() or platform.machine()
    return "Apple GPU"


def _cpu_model() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), None)
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None

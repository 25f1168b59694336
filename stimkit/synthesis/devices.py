"""Devices and arithmetic: which device to use, and what each precision means for the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from stimkit.errors import DeviceError
from stimkit.network.layers import Precision

NETWORK_DTYPE: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def network_layout(precision: Precision, device: torch.device) -> torch.memory_format:
    """Layout of feature maps: channels last is what matrix units and Winograd's transforms want, but for float64.

    An H200 in float32, which has no matrix units, takes 0.93 of the time with channels first.
    """
    first = precision == "float64" or (precision == "float32" and device.type == "cuda")
    return torch.contiguous_format if first else torch.channels_last


def image_dtype(precision: Precision) -> torch.dtype:
    """Type of image, losses and optimizer state."""
    return torch.float64 if precision == "float64" else torch.float32


def exact(values: torch.Tensor) -> torch.Tensor:
    """Values in float64, on the CPU where their device has none."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; `auto` takes CUDA, then Apple's MPS, then the CPU.

    Raises `DeviceError` where the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f'unknown device "{name}"; give auto, cpu, cuda, cuda:1 or mps') from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"no CUDA device can be used: {_why_no_cuda()}; use --device cpu, or see `stimkit doctor`")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"{name} was asked for, but there are {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not _has_mps():
        raise DeviceError("no MPS device can be used: this is not a Mac with Apple silicon; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f'device "{name}" is not supported; give auto, cpu, cuda, cuda:1 or mps')
    return device


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    return "torch finds no NVIDIA GPU or no driver that fits"


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise `DeviceError` for arithmetic that the device does not have."""
    if device.type == "mps" and precision == "float64":
        raise DeviceError("MPS has no float64; use --device cpu for it")
    if precision == "tf32" and device.type != "cuda":
        raise DeviceError(f'precision "tf32" exists on NVIDIA GPUs only, not on {device.type}; use "float32"')


@contextmanager
def network_arithmetic(precision: Precision) -> Iterator[None]:
    """Set what float32 means inside convolutions and matrix products, and restore it afterwards.

    `float32` is IEEE float32 (TF32 off, also where torch turns it on by default); `tf32` and `bfloat16`
    let Gram products use TF32 units.
    """
    backends = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    wanted = "tf32" if precision in ("tf32", "bfloat16") else "ieee"
    try:
        for backend in backends:
            backend.fp32_precision = wanted
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


@contextmanager
def determinism(on: bool) -> Iterator[None]:
    """While `on`, use only algorithms that give the same bits when the same batch is run again.

    An operation that has none on the device raises RuntimeError. On a CPU the algorithms are the same
    either way.
    """
    if not on:
        yield
        return
    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    filled = memory.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        memory.fill_uninitialized_memory = False  # costs time, and nothing here reads memory before writing it
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
        memory.fill_uninitialized_memory = filled

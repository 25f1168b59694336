"""What cells cost: arithmetic, memory, disk, time. Estimates from the layer table alone; no torch."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stimkit.errors import StorageError
from stimkit.files import cache_folder, parse_json, read_file, write_atomically
from stimkit.network.layers import LAYERS, TRANSFORMED_CHANNELS, NetworkName, deepest, up_to
from stimkit.planning import cost
from stimkit.planning.cells import Cell
from stimkit.protocol.settings import Settings

GIGA = 1e9
BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2, "float64": 8}
# Achieved arithmetic rates to start from, until a run on this machine has measured its own. Two server cores have
# reached 196 to 256 GFLOP/s (RESULTS.md, One evaluation); half of that, since an estimate should not be too short.
# An H200 has reached 40 TFLOP/s in float32 and 275 in bfloat16 with batches of 24; most GPUs have less.
TYPICAL_RATE = {"cpu": 60 * GIGA, "mps": 2_000 * GIGA, "cuda": 10_000 * GIGA}  # cpu: for each core
# torch itself, weights, buffers of convolutions. On CPUs the model of which this is a part is within 7 % of measured
# peaks (RESULTS.md, Large sets: memory of one cell). On an H200 tensors of batches up to 224 px had a peak of at most
# 1.9 GB above the model of the batch.
RUNTIME_BYTES = {"cpu": 900e6, "mps": 900e6, "cuda": 2_000e6}


def evaluation_flops(
    layers: Iterable[str], style_layers: Iterable[str], size: tuple[int, int], network: NetworkName = "vgg19"
) -> float:
    """Floating-point operations of one evaluation: the network and the Gram matrices, forward and backward."""
    height, width = size
    deepest = max(layers, key=lambda name: LAYERS[name].position)
    convolutions = sum(
        2 * 9 * layer.in_channels * layer.channels * layer.positions(height, width)
        for layer in up_to(deepest, network)
        if not layer.is_pool
    )
    grams = sum(2 * LAYERS[name].channels ** 2 * LAYERS[name].positions(height, width) for name in style_layers)
    return 2.0 * (convolutions + grams)


def cell_bytes(deepest: str, settings: Settings) -> float:
    """Working memory of one cell in a batch: feature maps kept for the backward pass, and the optimizer."""
    kept = sum(layer.channels * layer.positions(*settings.size) for layer in up_to(deepest, settings.network))
    largest = 64 * settings.height * settings.width
    pairs = 2 * settings.history + 1 if settings.optimizer == "lbfgs" else 2
    # Rows of regions that overlap: of a pixel, polar windows have four. Measured at 192 px, up to conv4_1: 0.3 GB.
    regions = 0 if settings.regions == "whole" else 30 * largest
    state = (pairs + 10) * 3 * settings.height * settings.width
    wide = 8 if settings.precision == "float64" else 4
    return (kept + 3 * largest) * BYTES[settings.precision] + (state + regions) * wide


def shared_bytes(device: str, deepest: str) -> float:
    """Memory of a run beside its batches: the runtime, the network, on a CPU its transformed kernels."""
    pairs = sum(
        layer.in_channels * layer.channels
        for layer in up_to(deepest)
        if not layer.is_pool and min(layer.in_channels, layer.channels) >= TRANSFORMED_CHANNELS
    )
    transformed = 2 * 36 * 4 * pairs if device == "cpu" else 0
    return RUNTIME_BYTES[device] + 1.5 * transformed  # half as much again while they are made


def stimulus_bytes(settings: Settings) -> float:
    """Disk for one cell: a noisy RGB PNG hardly compresses; record and trace are small beside it."""
    return 2.6 * settings.bits / 8 * settings.height * settings.width + 8_000


def likely_device() -> str:
    """The device that `auto` will probably choose, guessed without torch."""
    return "cuda" if shutil.which("nvidia-smi") else "cpu"


def rate(device: str, precision: str, size: tuple[int, int]) -> tuple[float, bool]:
    """Arithmetic rate in FLOP/s, and whether cells of this kind have run on this machine.

    A kind is a precision, a size within a factor of √2 of pixels and, on a CPU, a number of threads: small images and
    single threads reach a fraction of the rate. Otherwise it is that of the closest kind, or a typical one.
    """
    rates = _rates()
    wanted = _kind(device, precision, size, _threads(device, rates))
    if wanted in rates:
        return rates[wanted], True
    *start, pixels, threads = wanted.split(":")
    known = {
        abs(int(key.split(":")[2]) - int(pixels)) + abs(int(key.split(":")[3]) - int(threads)): value
        for key, value in rates.items()
        if key.startswith(":".join([*start, ""])) and key.count(":") == 3
    }
    if known:
        return known[min(known)], False
    return TYPICAL_RATE[device] * ((os.cpu_count() or 1) if device == "cpu" else 1), False


def remember_rate(device: str, settings: Settings, threads: int, flops_per_second: float) -> None:
    """Keep a measured rate for later estimates; a cache that cannot be written is not an error."""
    kind = _kind(device, settings.precision, settings.size, threads)
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        rates = _rates() | {kind: flops_per_second, f"threads:{device}": threads}
        write_atomically(cache_folder() / "rates.json", json.dumps(rates).encode())
    except (OSError, StorageError):
        return


def _kind(device: str, precision: str, size: tuple[int, int], threads: int) -> str:
    return f"{device}:{precision}:{round(math.log2(size[0] * size[1]))}:{threads if device == 'cpu' else 0}"


def _threads(device: str, rates: Mapping[str, float]) -> int:
    """Threads that a run will have: as the environment says, or as many as the last one had."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() else int(rates.get(f"threads:{device}", os.cpu_count() or 1))


def _rates() -> dict[str, float]:
    try:
        rates = parse_json(read_file(cache_folder() / "rates.json"))
        return {str(key): float(value) for key, value in rates.items()}
    except (OSError, StorageError, ValueError, AttributeError, TypeError):
        return {}


@dataclass(frozen=True)
class Estimate:
    """What the cells of a plan will need at most: every cell until its last evaluation."""

    device: str
    rate_measured: bool
    """Whether cells of all these kinds have run on this machine."""
    evaluations: int
    seconds: float
    memory_bytes: float
    disk_bytes: float


def estimate(cells: Iterable[Cell], device: str | None = None, *, retries: int = 0) -> Estimate:
    """Estimate the cost of cells on a device (`cpu`, `cuda` or `mps`), from the layer table and a measured rate.

    Cells that are no controls may be tried again `retries` times.
    """
    device = device or cost.likely_device()
    kinds = Counter((cell.settings, cell.content_layers, cell.style_layers, cell.role == "main") for cell in cells)
    seconds = memory = disk = 0.0
    evaluations = 0
    measured = True
    for (settings, content_layers, style_layers, is_judged), count in kinds.items():
        runs = count * settings.runs * (1 + retries if is_judged else 1)
        names = [name for name, _ in (*content_layers, *style_layers)]
        last = deepest(names).name
        flops = cost.evaluation_flops(names, [name for name, _ in style_layers], settings.size, settings.network)
        rate, known = cost.rate(device, settings.precision, settings.size)
        measured = measured and known
        seconds += runs * settings.max_evaluations * flops / rate
        memory = max(memory, cost.shared_bytes(device, last) + cost.cell_bytes(last, settings))
        disk += count * cost.stimulus_bytes(settings)
        evaluations += runs * settings.max_evaluations
    return Estimate(device, measured, evaluations, seconds, memory, disk)

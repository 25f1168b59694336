"""What cells cost: arithmetic, memory, disk, time. Estimates from the layer table alone; no torch."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from stimkit.errors import StorageError
from stimkit.files import cache_folder, parse_json, read_file, write_atomically
from stimkit.images.regions import count_regions
from stimkit.network.layers import LAYERS, TRANSFORMED_CHANNELS, deepest, up_to
from stimkit.planning import cost
from stimkit.planning.cells import Cell
from stimkit.protocol.settings import Settings

GIGA = 1e9
BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2, "float64": 8}
# Achieved arithmetic rates to start from, until a run on this machine has measured its own. Two server cores have
# reached 196 to 256 GFLOP/s (RESULTS.md, One evaluation); half of that, since an estimate should not be too short.
# The rates of GPUs are guesses.
TYPICAL_RATE = {"cpu": 60 * GIGA, "mps": 2_000 * GIGA, "cuda": 10_000 * GIGA}  # cpu: for each core
# torch itself, weights, buffers of convolutions. On CPUs the model of which this is a part is within 7 % of measured
# peaks (RESULTS.md, Large sets: memory of one cell); those of GPUs are guesses.
RUNTIME_BYTES = {"cpu": 900e6, "mps": 900e6, "cuda": 1_200e6}


def evaluation_flops(layers: Iterable[str], style_layers: Iterable[str], size: tuple[int, int]) -> float:
    """Floating-point operations of one evaluation: the network and the Gram matrices, forward and backward."""
    height, width = size
    deepest = max(layers, key=lambda name: LAYERS[name].position)
    convolutions = sum(
        2 * 9 * layer.in_channels * layer.channels * layer.positions(height, width)
        for layer in up_to(deepest)
        if not layer.is_pool
    )
    grams = sum(2 * LAYERS[name].channels ** 2 * LAYERS[name].positions(height, width) for name in style_layers)
    return 2.0 * (convolutions + grams)


def cell_bytes(deepest: str, settings: Settings) -> float:
    """Working memory of one cell in a batch: feature maps kept for the backward pass, and the optimizer."""
    kept = sum(layer.channels * layer.positions(*settings.size) for layer in up_to(deepest))
    largest = 64 * settings.height * settings.width
    pairs = 2 * settings.history + 1 if settings.optimizer == "lbfgs" else 2
    regions = (count_regions(settings.region_shape) - 1) * LAYERS[deepest].channels ** 2
    state = (pairs + 10) * 3 * settings.height * settings.width
    wide = 8 if settings.precision == "float64" else 4
    return (kept + 3 * largest) * BYTES[settings.precision] + (state + 6 * regions) * wide


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


def rate(device: str, precision: str) -> tuple[float, bool]:
    """Arithmetic rate in FLOP/s, and whether it was measured by an earlier run on this machine."""
    measured = _rates().get(f"{device}:{precision}")
    if measured:
        return measured, True
    return TYPICAL_RATE[device] * ((os.cpu_count() or 1) if device == "cpu" else 1), False


def remember_rate(device: str, precision: str, flops_per_second: float) -> None:
    """Keep a measured rate for later estimates; a cache that cannot be written is not an error."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        rates = _rates() | {f"{device}:{precision}": flops_per_second}
        write_atomically(cache_folder() / "rates.json", json.dumps(rates).encode())
    except (OSError, StorageError):
        return


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
    evaluations: int
    seconds: float
    memory_bytes: float
    disk_bytes: float


def estimate(cells: Iterable[Cell], device: str | None = None) -> Estimate:
    """Estimate the cost of cells on a device (`cpu`, `cuda` or `mps`), from the layer table and a measured rate."""
    device = device or cost.likely_device()
    kinds = Counter((cell.settings, cell.content_layers, cell.style_layers) for cell in cells)
    seconds = memory = disk = 0.0
    evaluations = 0
    measured = True
    for (settings, content_layers, style_layers), count in kinds.items():
        names = [name for name, _ in (*content_layers, *style_layers)]
        last = deepest(names).name
        flops = cost.evaluation_flops(names, [name for name, _ in style_layers], settings.size)
        rate, known = cost.rate(device, settings.precision)
        measured = measured and known
        seconds += count * settings.runs * settings.max_evaluations * flops / rate
        memory = max(memory, cost.shared_bytes(device, last) + cost.cell_bytes(last, settings))
        disk += count * cost.stimulus_bytes(settings)
        evaluations += count * settings.runs * settings.max_evaluations
    return Estimate(device, measured, evaluations, seconds, memory, disk)

"""Which cells share a batch, and how many of them a device takes."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from stimkit.network.layers import deepest
from stimkit.planning import cost
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.scales import scale_sizes
from stimkit.protocol.settings import Settings

# On two cores (RESULTS.md, One evaluation) four cells of 128 px in a batch take 0.79 of the time of single ones, four
# of 224 or 256 px take 1.09 to 1.11: the largest batch of a CPU has as many pixels as the largest that gained.
# On an H200 in bfloat16, cells of 224 px take 0.38 ms an evaluation in a batch of 8, 0.27 ms in one of 64 and 0.26 ms
# in one of 256; cells of 512 px in a batch of 16 reach the same rate: 128 cells of 224 px are enough for it.
PIXELS_PER_BATCH = {"cpu": 4 * 128 * 128, "cuda": 128 * 224 * 224, "mps": 32 * 224 * 224}
MAX_BATCH = {"cpu": 16, "cuda": 256, "mps": 32}
MAX_ELEMENTS = 2**31 - 1  # of a feature map: convolutions on GPUs count them in 32 bits
MEMORY_SHARE = 0.6  # of the free memory; the rest is for fragments and workspaces
SHARD_UNIT = 16  # cells of a group that stay together in a shard, where there are enough of them
Kind = tuple[Settings, str, int, int]


def group_cells(cells: Iterable[Cell]) -> dict[Kind, list[Cell]]:
    """Cells that can share a batch, in order.

    They have the same settings, deepest layer, number of sizes and number of masks.
    """
    found: dict[Kind, list[Cell]] = {}
    for cell in cells:
        sizes = len(scale_sizes(cell.settings, cell.style_layers, cell.beta))
        found.setdefault((cell.settings, deepest(cell.layers).name, len(cell.images("mask")), sizes), []).append(cell)
    return found


def choose_batch_size(settings: Settings, deepest_layer: str, device: torch.device) -> int:
    """Largest batch that the memory model says fits the device, and that it makes good use of."""
    pixels = settings.height * settings.width
    limit = min(MAX_BATCH[device.type], PIXELS_PER_BATCH[device.type] // pixels, MAX_ELEMENTS // (64 * pixels))
    if device.type == "cpu":
        return max(1, limit)
    free = 4e9
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps for reuse counts as taken
        free = torch.cuda.mem_get_info(device)[0]
    return max(1, min(limit, int(MEMORY_SHARE * free / cost.cell_bytes(deepest_layer, settings))))


def shard_cells(plan: Plan, number: int, count: int) -> list[Cell]:
    """The cells of a shard: of each group of cells that can share a batch, every `count`-th unit of neighbours."""
    chosen, unit_number = [], 0
    for group in group_cells(plan.cells).values():
        unit = min(SHARD_UNIT, max(1, -(-len(group) // (4 * count))))
        for start in range(0, len(group), unit):
            if unit_number % count == number - 1:
                chosen += group[start : start + unit]
            unit_number += 1
    return chosen

"""How equal stimuli are that are made twice: the same way, in other company, with other threads or precision."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from arithmetic import quickstart
from harness import Section, Workshop, table

from stimkit.images.statistics import measure_similarity
from stimkit.stimuli.stimulus import Stimulus
from stimkit.synthesis.devices import determinism

SMALL = 64  # pixels, for what is very slow on CPUs


def stimuli(workshop: Workshop, count: int, size: int) -> list[Stimulus]:
    """The first cells of the quickstart, in batches of a size, in deterministic mode."""
    made: list[Stimulus] = []
    cells = workshop.plan.cells[:count]
    with determinism(True):
        for start in range(0, count, size):
            made += [one.stimulus for one in workshop.make(cells[start : start + size])]
    return made


def with_threads(count: int, work: Callable[[], Any]) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return work()
    finally:
        torch.set_num_threads(before)


def row(name: str, first: list[Stimulus], second: list[Stimulus]) -> list[str]:
    differences = [np.abs(a.values.astype(int) - b.values) for a, b in zip(first, second, strict=True)]
    ssim = [measure_similarity(a.shown, b.shown) or 0.0 for a, b in zip(first, second, strict=True)]
    losses = [b.measured.total / a.measured.total for a, b in zip(first, second, strict=True)]
    found = [
        name,
        f"{sum(not one.any() for one in differences)} of {len(first)}",
        f"{100 * statistics.median((one > 0).mean() for one in differences):.1f} %",
        str(max(int(one.max()) for one in differences)),
        f"{min(ssim):.4f}",
        f"{min(losses):.4f} – {max(losses):.4f}",
    ]
    print("equality", found, flush=True)
    return found


def measure(device: torch.device, *, quick: bool) -> Section:
    count = 2 if quick else 8
    workshop = quickstart("float32", device)
    base = stimuli(workshop, count, 1)
    rows = [
        row("the same again", base, stimuli(quickstart("float32", device), count, 1)),
        row("batch of 1, batch of 8", base, stimuli(workshop, count, 8)),
    ]
    if device.type == "cpu":
        threads = torch.get_num_threads()
        rows.append(row(f"{threads} threads, 1 thread", base, with_threads(1, lambda: stimuli(workshop, count, 1))))
        small = [stimuli(quickstart(precision, device, SMALL), count, 1) for precision in ("float32", "bfloat16")]
        rows.append(row(f"float32, bfloat16 ({SMALL} px)", *small))
    else:
        rows.append(row("GPU, CPU", base, stimuli(quickstart("float32", torch.device("cpu")), count, 1)))
        for precision in ("tf32", "bfloat16"):
            rows.append(row(f"float32, {precision}", base, stimuli(quickstart(precision, device), count, 1)))
    header = ["what differs", "identical", "values that differ (median)", "largest difference", "least SSIM", "losses"]
    text = (
        f"{count} cells of the quickstart, made twice in deterministic mode; 8-bit values of the files, and the total "
        "loss of the second file relative to that of the first.\n\n" + table(header, rows)
    )
    return Section("Equality", text, {"the same batch twice gives identical pixels": rows[0][1]})

"""What the benchmarks share: batches, clocks, tables, and the file of results."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import stimkit
from stimkit.network.vgg import rescale
from stimkit.network.weights import Weights
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.stimuli.assembly import Assembly
from stimkit.stimuli.stimulus import Made
from stimkit.synthesis.batch import Batch
from stimkit.synthesis.environment import device_name
from stimkit.synthesis.minimization import Progress
from stimkit.synthesis.synthesis import Synthesis, synthesize_batch

HERE = Path(__file__).parent
ROOT = HERE.parent
# The paper's demonstrations, and the quickstart.
DEMONSTRATIONS = (
    "content-reconstructions", "layers-by-ratio", "one-photograph-several-styles", "quickstart",
    "style-reconstructions",
)  # fmt: skip
PROTOCOLS = [ROOT / "protocols" / f"{name}.toml" for name in DEMONSTRATIONS]
STYLE_LAYERS = ["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"]

MODEL: dict[str, Any] = {}
"""The table [model] of every plan that is measured: empty for the embedded filters."""

# Contents and styles for everything that is measured on more than one pair.
PAIRS = [
    ("skimage:chelsea", "styles/swirl.png"),
    ("skimage:astronaut", "styles/mosaic.png"),
    ("skimage:coffee", "skimage:brick"),
    ("skimage:rocket", "styles/dots.png"),
]


@dataclass(frozen=True)
class Section:
    """One part of the results: text with tables, and what it says about the goals."""

    title: str
    text: str
    goals: dict[str, str] = field(default_factory=dict)
    """Goal to what was measured."""


def plan_of(
    pairs: Sequence[tuple[str, str]],
    ratios: Sequence[float],
    *,
    crossed: bool = False,
    model: Mapping[str, Any] | None = None,
    **synthesis: Any,
) -> Plan:
    """A plan of every pair with every ratio, or of every content with every style; `model` adds to its [model]."""
    cells = stimkit.plan(
        stimkit.Protocol.from_dict(
            {
                "schema": 1,
                "name": "benchmark",
                "images": {
                    "root": str(ROOT / "data"),
                    "content": {f"c{index}": content for index, (content, _) in enumerate(pairs)},
                    "style": {f"s{index}": style for index, (_, style) in enumerate(pairs)},
                },
                "factors": {"content": "*", "style": "*", "ratio": list(ratios)},
                "model": {**MODEL, **(model or {})},
                "synthesis": {"rtol": 0.0, **synthesis},
            }
        )
    )
    if crossed:
        return cells
    return Plan(
        cells.protocol,
        cells.inputs,
        cells.weights,
        tuple(cell for cell in cells.cells if cell.content and cell.style and cell.content[1:] == cell.style[1:]),
    )


class Workshop:
    """Makes cells of a plan ready to be optimized on a device."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self._inputs = PlanInputs(plan)
        self._assembly = Assembly(self._inputs, device)

    @cached_property
    def weights(self) -> Weights:
        """The weights of the first cell, rescaled as it wants them."""
        settings = self.plan.cells[0].settings
        return rescale(self._inputs.weights(settings), settings.pooling, settings.normalize)

    def batch(self, cells: Sequence[Cell]) -> TimedBatch:
        return TimedBatch(self._assembly.batch(cells))

    def make(self, cells: Sequence[Cell]) -> list[Made]:
        """Optimize cells as one batch, and finish their stimuli."""
        return self._assembly.make(cells)


@dataclass(frozen=True)
class TimedBatch:
    """A batch and a clock."""

    batch: Batch

    def run(self, *, graph: bool = True) -> tuple[list[Synthesis], list[tuple[int, float]]]:
        """Optimize; also return the clock (evaluations, seconds) at each look of the host."""
        clock: list[tuple[int, float]] = []
        device = self.batch.initial.device
        wait(device)
        began = time.perf_counter()

        def tick(progress: Progress) -> None:
            wait(device)
            clock.append((progress.evaluation, time.perf_counter() - began))

        return synthesize_batch(self.batch, tick, graph=graph), clock

    def seconds_per_evaluation(self, *, graph: bool = True) -> float:
        """Median seconds of one evaluation of the whole batch at its own size, after the first looks of the host."""
        return per_evaluation(TimedBatch(replace(self.batch, coarser=())).run(graph=graph)[1])


def per_evaluation(clock: Sequence[tuple[int, float]]) -> float:
    """Median seconds of an evaluation between looks of the host, but for the first ones: warm-up and recording."""
    steps = [(b - a) / (n - m) for (m, a), (n, b) in pairwise(clock)]
    return statistics.median(steps[len(steps) // 3 :])


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - began


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} – {max(values):.{digits}f})"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(one) for one in line) + " |" for line in lines)


def hardware(device: torch.device) -> str:
    """The line that says what was measured with what."""
    threads = f", {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    cores = f"{os.cpu_count()} cores of " if device.type == "cpu" else ""
    return (
        f"{cores}{device_name(device)}{threads if device.type == 'cpu' else ''}; stimkit {stimkit.__version__}, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def store(kind: str, device: torch.device, section: Section) -> None:
    """Keep a section in results.json, in the place of its predecessor on this kind of device."""
    path = HERE / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known.setdefault(kind, {})[section.title] = {
        "hardware": hardware(device),
        "date": time.strftime("%Y-%m-%d"),
        "text": section.text,
        "goals": section.goals,
    }
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")

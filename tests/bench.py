"""The small protocol, ready to be optimized without a run folder."""

from __future__ import annotations

from typing import Any

import torch

from stimkit.planning.cells import Cell, Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.stimuli.assembly import Assembly
from stimkit.synthesis.batch import Batch
from stimkit.synthesis.synthesis import Synthesis, synthesize_batch
from tests.conftest import small_plan

CPU = torch.device("cpu")


class Bench:
    """The small protocol on the CPU, with some sections changed."""

    def __init__(self, **sections: dict[str, Any]) -> None:
        self.plan: Plan = small_plan(**sections)
        self._assembly = Assembly(PlanInputs(self.plan), CPU)

    def batch(self, *cells: Cell) -> Batch:
        return self._assembly.batch(cells or self.plan.cells)

    def run(self, *cells: Cell) -> list[Synthesis]:
        return synthesize_batch(self.batch(*cells))

"""Losses of a stimulus by stage, and what is kept of attempts: the parts of a record."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from stimkit.columns import Natural

STAGES = {
    "initial": "of the initial image",
    "optimized": "of the optimized image before clipping and rounding",
    "equalized": "after equalization, before aperture and rounding",
    "file": "of the stimulus as decoded from its file",
}
"""Where losses are measured; `equalized` only where an image is changed between optimization and file."""
TERMS = ("content", "style", "total")
Loss = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class StageLosses(_Part):
    """Losses of a stage, unweighted; null where a cell has no such term, or the loss was not finite."""

    content: Loss | None
    style: Loss | None
    total: Loss | None
    content_layers: dict[str, Loss | None]
    style_layers: dict[str, Loss | None]

    def layers(self, term: str) -> dict[str, Loss | None]:
        """Losses of the layers of a term."""
        return self.content_layers if term == "content" else self.style_layers

    def sum(self, term: str) -> Loss | None:
        """The weighted sum of a term, or the total."""
        return {"content": self.content, "style": self.style, "total": self.total}[term]


class RecordedLosses(_Part):
    """Losses by stage."""

    initial: StageLosses
    optimized: StageLosses
    equalized: StageLosses | None = None
    file: StageLosses

    @model_validator(mode="before")
    @classmethod
    def _has_no_empty_stage(cls, stages: Any) -> Any:
        if isinstance(stages, dict) and "equalized" in stages and stages["equalized"] is None:
            raise PydanticCustomError("null", "equalized is null: a stage that is not there is left out")
        return stages

    def stages(self) -> dict[str, StageLosses]:
        """The stages that there are, in their order."""
        stages = {stage: getattr(self, stage) for stage in STAGES}
        return {stage: losses for stage, losses in stages.items() if losses is not None}


class Attempt(_Part):
    """What a record keeps of each attempt at its cell."""

    seed: Natural
    status_reason: str
    stop_reason: str
    evaluations: Natural
    batch_id: str
    batch_size: Natural
    batch_slot: Natural

"""What stimuli may be: `[accept]` decides about each one, `[audit]` about the set."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from stimkit.documents.curation import Curation
from stimkit.documents.messages import EVERY
from stimkit.protocol.settings import Frozen
from stimkit.protocol.values import StopReason


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise PydanticCustomError("range", "must be [lowest, highest]")
    return value


_Bound = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Range = Annotated[tuple[_Bound, _Bound], AfterValidator(_ordered)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
MeasuredRange = Annotated[tuple[_Finite, _Finite], AfterValidator(_ordered)]
Rank = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


def _by_factor(value: Any) -> Any:
    """Let a number stand for a limit of every factor."""
    return {EVERY: value} if isinstance(value, int | float) else value


_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
Confound = Annotated[
    dict[str, Share],
    BeforeValidator(_by_factor),
    WithJsonSchema({"anyOf": [_SHARE, {"type": "object", "additionalProperties": _SHARE}]}),
]


FILES = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class Accept(Frozen):
    """`[accept]`: rules that a stimulus must meet; one that is not named does not hold for anything."""

    relative_content_loss: Annotated[
        Positive | None, Field(description="largest content loss of the file / of the initial image, where alpha > 0")
    ] = None
    relative_style_loss: Annotated[
        Positive | None, Field(description="largest style loss of the file / of the initial image, where beta > 0")
    ] = None
    relative_total_loss: Annotated[
        Positive | None, Field(description="largest total loss of the file / of the initial image")
    ] = None
    loss_increase: Annotated[
        _Bound | None,
        Field(description="largest relative increase of the total loss after the optimization"),
    ] = None
    clipping: Annotated[
        Share | None, Field(description="largest part of the channel values that were outside of 0 to 1")
    ] = None
    stop_reason: Annotated[tuple[StopReason, ...] | None, Field(description="reasons that are accepted")] = None
    mean_luminance: Annotated[
        Range | None, Field(description="[lowest, highest], linear light, 0 to 1, inside the aperture")
    ] = None
    rms_contrast: Annotated[Range | None, Field(description="[lowest, highest], inside the aperture")] = None
    content_rank: Annotated[
        Rank | None, Field(description="largest rank of the content's category, where alpha > 0; see [recognition]")
    ] = None
    style_rank: Annotated[
        Rank | None, Field(description="largest rank of the style's category, where beta > 0; see [recognition]")
    ] = None
    measured: Annotated[
        dict[str, MeasuredRange],
        Field(description="[lowest, highest] of what `stimkit measure` or `stimkit norm` measured of finished stimuli"),
    ] = Field(default_factory=dict)
    curation: Annotated[
        tuple[Curation, ...],
        WithJsonSchema({**FILES, "description": "files that reports saved: what a curator rejected is rejected"}),
    ] = ()
    retries: Annotated[
        int, Field(ge=0, le=100, description="how often a cell that is not accepted is tried again from other noise")
    ] = 0


class AuditLimits(Frozen):
    """`[audit]`: what makes `stimkit audit` fail. A limit that is not named has a default that only warns."""

    loss_tolerance: Annotated[
        Positive, Field(description="largest relative difference of a loss that is computed again")
    ] = 1e-3
    clipping: Annotated[
        Share | None, Field(description="largest part of the channel values that were outside of 0 to 1")
    ] = None
    loss_increase: Annotated[
        _Bound | None, Field(description="largest relative increase of the total loss after the optimization")
    ] = None
    still_falling: Annotated[
        Share | None,
        Field(description="largest relative decrease of the total loss over the last `window` evaluations"),
    ] = None
    outlier: Annotated[
        Positive | None, Field(description="largest robust z among replicates, or from what the factors predict")
    ] = None
    confounds: Annotated[
        dict[str, Confound],
        Field(description="largest part of a variable's variance (omega squared) that a factor may explain"),
    ] = Field(default_factory=dict)
    measured: Annotated[
        dict[str, Confound], Field(description="the same for what `stimkit measure` or `stimkit norm` measured")
    ] = Field(default_factory=dict)


DEFAULT_LIMITS = {"clipping": 0.05, "loss_increase": 0.1, "still_falling": 0.05, "outlier": 5.0}
"""Limits of `[audit]` that are not named."""

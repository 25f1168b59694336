"""What values of settings can be: their types, and how they are written."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

MAX_SIDE = 4096  # pixels; far above any display, far below what exhausts a machine by a typing error
Optimizer = Literal["lbfgs", "adam"]
StopReason = Literal["max_evaluations", "rtol", "target_style", "target_content", "zero_loss", "stalled", "non_finite"]


def _size(value: Any) -> tuple[int, int]:
    """Accept one side of a square, or [height, width]."""
    sides = [value, value] if isinstance(value, int) else value
    valid = isinstance(sides, list | tuple) and len(sides) == 2 and all(type(side) is int for side in sides)
    if not valid or not all(1 <= side <= MAX_SIDE for side in sides):
        raise PydanticCustomError(
            "size", "must be a side in pixels, or [height, width], each 1 to {max}", {"max": MAX_SIDE}
        )
    return (sides[0], sides[1])


Side = {"type": "integer", "minimum": 1, "maximum": MAX_SIDE}
Size = Annotated[
    tuple[int, int],
    BeforeValidator(_size),
    WithJsonSchema({"anyOf": [Side, {"type": "array", "items": Side, "minItems": 2, "maxItems": 2}]}),
]
Finite = Field(allow_inf_nan=False)
Colour = Literal["free", "grey", "luminance", "covariance", "histogram"]
Titrated = Literal[
    "none", "cue_balance", "ssim_content", "relative_content_loss", "relative_style_loss", "mean_luminance",
    "rms_contrast", "colourfulness", "spectral_slope", "edge_density", "entropy",
]  # fmt: skip
ImageTarget = Literal["none", "content", "style", "contents", "styles"]


def number_or_images(limit: float) -> BeforeValidator:
    """Accept a number between 0 and a limit, or what images a target is taken from."""

    def check(value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < limit:
            return float(value)
        if value in get_args(ImageTarget):
            return value
        raise PydanticCustomError(
            "target", 'must be a number between 0 and {limit}, "content", "style", "contents", "styles" or "none"',
            {"limit": limit},
        )  # fmt: skip

    return BeforeValidator(check, json_schema_input_type=float | ImageTarget)


Normalization = Literal["layer", "filter", "none"]


def written_as(pattern: str, words: str) -> AfterValidator:
    """Accept text of a form, or none; `words` say which form, with an example."""

    def check(value: str) -> str:
        if value and not re.fullmatch(pattern, value):
            raise PydanticCustomError("text", "must be {words}", {"words": words})
        return value

    return AfterValidator(check)

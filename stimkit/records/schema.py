"""The form of a record: what every reader of one may rely on, whoever wrote the file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from stimkit.columns import COLUMNS
from stimkit.errors import RunFolderError
from stimkit.records.record import STATISTICS, Record

Number = Annotated[float, Field(allow_inf_nan=False)]
Loss = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _Losses(_Form):
    """Losses of a stage; null where a cell has no such term, or the loss was not finite."""

    content: Loss | None
    style: Loss | None
    total: Loss | None
    content_layers: dict[str, Loss | None]
    style_layers: dict[str, Loss | None]


_NONE: Any = None  # a stage that is not there; one that is there has losses


class _Stages(_Form):
    model_config = ConfigDict(strict=True, extra="forbid")
    initial: _Losses
    optimized: _Losses
    equalized: _Losses = Field(default=_NONE, validate_default=False)
    file: _Losses


class _Attempt(_Form):
    seed: Count
    status_reason: str
    stop_reason: str
    evaluations: Count
    batch_id: str
    batch_size: Count
    batch_slot: Count


class _Record(_Form):
    stimulus_id: str
    filename: Annotated[str, Field(pattern=r"^[^/\\\x00]+\.png$")]  # no way out of the folder of stimuli
    status: Annotated[str, Field(pattern="^(accepted|rejected|failed)$")]
    levels: dict[str, str]
    attributes: dict[str, str]
    attempt: Count
    attempts: Annotated[list[_Attempt], Field(min_length=1)]
    losses: _Stages
    alpha: Number
    beta: Number
    evaluations: Count
    rollbacks: Count
    window: Count
    height_px: Count
    width_px: Count
    mean_luminance: Number | None
    rms_contrast: Number | None
    mean_r: Number | None
    mean_g: Number | None
    mean_b: Number | None
    mean_luminance_inside: Number | None
    rms_contrast_inside: Number | None
    clip_low_frac: Number | None
    clip_high_frac: Number | None
    wall_time_s: Number
    role: str
    control_of: str
    content_layers_used: str
    style_layers_used: str
    content_layer_weights: str
    style_layer_weights: str
    optimizer: str
    precision: str
    equalize_weight: Number
    equalize_error: Number | None
    titrate: str
    titrate_value: Number
    titrate_tolerance: Number
    titrate_lowest: Number
    titrate_highest: Number
    titrate_error: Number | None
    transfer: Annotated[str, Field(pattern="^(srgb|gamma|linear)$")]
    gamma: Annotated[float, Field(ge=1, le=4)]
    bits: Annotated[int, Field(ge=8, le=16)]
    batch_size: Count
    batch_slot: Count

    @model_validator(mode="after")
    def _has_statistics(self) -> _Record:
        absent = [name for name in STATISTICS if getattr(self, name) is None]
        if absent and self.status != "failed":
            raise PydanticCustomError("null", "{name} is null, but the status is not failed", {"name": absent[0]})
        return self


_KEYS = {"trace_sha256"} | {
    column.name for column in COLUMNS if column.name == "loss_convention" or not column.name.startswith("loss_")
}


def check_form(record: Any, name: str) -> Record:
    """Return a record if it has the form of one. Raises `RunFolderError` saying where it has not."""
    if absent := _KEYS - record.keys():
        raise RunFolderError(f"{name} lacks {', '.join(sorted(absent))}")
    try:
        _Record.model_validate(record)
    except (ValidationError, ArithmeticError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        reason = ": ".join([*([".".join(map(str, first["loc"]))] if first["loc"] else []), str(first["msg"])])
        raise RunFolderError(f"{name} has not the form of a record: {reason}") from None
    if record["attempt"] != len(record["attempts"]):
        raise RunFolderError(f"{name} has not the form of a record: attempt is not the number of its attempts")
    return dict(record)

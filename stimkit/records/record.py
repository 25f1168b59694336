"""Records: everything about one stimulus, as plain JSON values.

A record is made once, when its cell is committed, and is the source of every table.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stimkit.columns import BASIC, COLUMNS
from stimkit.images.equalization import Light
from stimkit.images.png import values_digest
from stimkit.images.statistics import basic_measures
from stimkit.planning.cells import Cell, Plan
from stimkit.records import acceptance as accept
from stimkit.records import migrations

if TYPE_CHECKING:  # which would load torch
    from stimkit.stimuli.stimulus import Made, Stimulus
    from stimkit.synthesis.minimization import Trace
    from stimkit.synthesis.synthesis import Measured, Synthesis

STAGES = ("initial", "optimized", "equalized", "file")
"""Where losses are measured; `equalized` only where an image is changed between optimization and file."""

TERMS = ("content", "style")
PROCESS_DIED = "process_died"
"""Stop reason of a cell that ended its process; no rule of the optimization, and never accepted."""

STATISTICS = (*BASIC, "clip_low_frac", "clip_high_frac")
"""Numbers that every stimulus has; a lost cell has none."""

INSIDE = ("mean_luminance_inside", "rms_contrast_inside")
DEGREES = ("height_deg", "width_deg")

Record = dict[str, Any]
Attempt = dict[str, Any]  # `migrations.ATTEMPT_KEYS` of a record


@dataclass(frozen=True)
class Execution:
    """Where and in which company a cell was computed; no part of its identity."""

    device: str
    batch_id: str
    batch_size: int
    batch_slot: int
    stimkit_version: str
    torch_version: str
    env_id: str


def make_record(made: Made, plan: Plan, execution: Execution, earlier: Sequence[Attempt] = ()) -> Record:
    """Put together the record of one cell. Values that are not finite become null.

    `earlier` are the attempts at the cell before this one.
    """
    cell, synthesis, stimulus = made.cell, made.synthesis, made.stimulus
    measured = (synthesis.initial, synthesis.optimized, stimulus.equalized, stimulus.measured)
    stages = {stage: losses for stage, losses in zip(STAGES, measured, strict=True) if losses is not None}
    record = {
        "schema": migrations.RECORD.current,
        "stimulus_id": cell.id,
        "filename": cell.filename,
        "attempt": cell.attempt,
        **request(cell, plan),
        "init_sha256": synthesis.initial_sha256,
        "evaluations": synthesis.evaluations,
        "rollbacks": synthesis.rollbacks,
        "stop_reason": synthesis.stop_reason,
        "losses": {stage: _losses(measured, cell) for stage, measured in stages.items()},
        "height_px": cell.settings.height,
        "width_px": cell.settings.width,
        **dict(zip(DEGREES, cell.settings.degrees or (None, None), strict=True)),
        "titrate_error": made.titrate_error,
        **_statistics(stimulus),
        "file_sha256": stimulus.file_sha256,
        "pixel_sha256": values_digest(stimulus.values),
        "trace_sha256": trace_digest(synthesis.trace),
        "wall_time_s": round(synthesis.seconds, 4),
        **execution.__dict__,
        "created_utc": _now(),
    }
    record = {key: _finite(value) if isinstance(value, float) else value for key, value in record.items()}
    failure = _failure(synthesis, stimulus)
    record |= {"status": "failed", "status_reason": failure} if failure else judged(record, plan)
    return {**record, "attempts": [*earlier, {key: record[key] for key in migrations.ATTEMPT_KEYS}]}


def _statistics(stimulus: Stimulus) -> Record:
    """Light before equalization, in the file and inside the aperture; what was clipped."""
    basic = basic_measures(stimulus.shown)
    inside = stimulus.inside or Light(basic["mean_luminance"], basic["rms_contrast"])
    return {
        "mean_luminance_optimized": stimulus.light.mean,
        "rms_contrast_optimized": stimulus.light.contrast,
        "equalize_error": stimulus.equalize_error,
        **basic,
        **dict(zip(INSIDE, (inside.mean, inside.contrast), strict=True)),
        "clip_low_frac": stimulus.clipped[0],
        "clip_high_frac": stimulus.clipped[1],
    }


def lost_record(
    cell: Cell, plan: Plan, execution: Execution, trace: Trace, reason: str, earlier: Sequence[Attempt] = ()
) -> Record:
    """The record of a cell that nothing is left of, since its process died each time; without losses and statistics."""
    nothing = {name: None for name in ("content", "style", "total")}
    layers = {f"{term}_layers": dict.fromkeys(name for name, _ in getattr(cell, f"{term}_layers")) for term in TERMS}
    record: Record = {
        **dict.fromkeys(column.name for column in COLUMNS if not column.name.startswith("loss_")),
        "schema": migrations.RECORD.current,
        "stimulus_id": cell.id,
        "filename": cell.filename,
        "attempt": cell.attempt,
        **request(cell, plan),
        "evaluations": 0,
        "rollbacks": 0,
        "stop_reason": PROCESS_DIED,
        "losses": {stage: {**nothing, **layers} for stage in STAGES if stage != "equalized"},
        "height_px": cell.settings.height,
        "width_px": cell.settings.width,
        **dict(zip(DEGREES, cell.settings.degrees or (None, None), strict=True)),
        "trace_sha256": trace_digest(trace),
        "wall_time_s": 0.0,
        **execution.__dict__,
        "created_utc": _now(),
        "status": "failed",
        "status_reason": reason,
    }
    return {**record, "attempts": [*earlier, {key: record[key] for key in migrations.ATTEMPT_KEYS}]}


def judged(record: Record, plan: Plan) -> Record:
    """Status of a stimulus by the rules of the protocol, and why it is not accepted; controls are not judged."""
    reason = accept.objections(record, plan.protocol.accept) if record["role"] == "main" else ""
    return {"status": "rejected" if reason else "accepted", "status_reason": reason}


def request(cell: Cell, plan: Plan) -> Record:
    """What the cell asked for: its place in the design, inputs, network, weights of the losses, settings."""
    settings = cell.settings
    source = plan.weights[settings.weights, settings.preprocessing]
    request: Record = {
        "levels": dict(cell.levels),
        "attributes": dict(cell.attributes),
        "role": cell.role,
        "control_of": ";".join(cell.control_of),
        "replicate": cell.replicate,
        "seed": cell.seed,
        "alpha": cell.alpha,
        "beta": cell.beta,
        "alpha_beta_ratio": cell.ratio if math.isfinite(cell.ratio) else "inf",
        "loss_convention": settings.loss,
        "model": "vgg19",
        "weights": settings.weights,
        "weights_sha256": source.digest,
        "preprocessing": source.preprocessing,
        **settings.model_dump(mode="json", exclude={"weights", "preprocessing", "size", "loss"}),
    }
    request["mask_id"] = cell.mask or ""
    request["mask_sha256"] = plan.input("mask", cell.mask).pixel_sha256 if cell.mask else ""
    terms = (("content", cell.content, cell.content_layers), ("style", cell.style, cell.style_layers))
    for kind, name, layers in terms:
        request[f"{kind}_id"] = name or ""
        request[f"{kind}_sha256"] = plan.input(kind, name).pixel_sha256 if name else ""
        request[f"{kind}_layers_used"] = ";".join(layer for layer, _ in layers)
        request[f"{kind}_layer_weights"] = ";".join(repr(weight) for _, weight in layers)
    return request


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def trace_digest(trace: Trace) -> str:
    """sha256 of the shape and the float32 values of a trace."""
    return hashlib.sha256(f"{trace.shape[0]}x{trace.shape[1]};".encode() + trace.tobytes()).hexdigest()


def _failure(synthesis: Synthesis, stimulus: Stimulus) -> str:
    if synthesis.stop_reason == "non_finite":
        return "the loss became non-finite and no shorter step helped"
    if not np.isfinite(stimulus.image).all() or not math.isfinite(stimulus.measured.total):
        return "the image or its loss is not finite"
    return ""


def _losses(measured: Measured, cell: Cell) -> dict[str, Any]:
    """Losses of a stage; a term without an image has none, which is not the same as zero."""
    content = {name: _finite(measured.content_layers[name]) for name, _ in cell.content_layers}
    style = {name: _finite(measured.style_layers[name]) for name, _ in cell.style_layers}
    return {
        "content": _finite(measured.content) if cell.content else None,
        "style": _finite(measured.style) if cell.style else None,
        "total": _finite(measured.total),
        "content_layers": content,
        "style_layers": style,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def flatten(record: Record) -> dict[str, Any]:
    """Return the values of `COLUMNS` for a record; stage losses become `loss_<term>_<stage>`."""
    losses = {
        f"loss_{term}_{stage}": losses[term]
        for stage, losses in record["losses"].items()
        for term in ("content", "style", "total")
    }
    values = {**record, **losses}
    return {column.name: values.get(column.name) for column in COLUMNS}

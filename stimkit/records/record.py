"""Make records: of a cell that was made, of one that was lost, and of one whose rules have changed."""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stimkit.columns import BASIC, RecordColumns
from stimkit.images.equalization import Light
from stimkit.images.png import values_digest
from stimkit.images.statistics import measure_basics
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.recognition import cue_digest
from stimkit.protocol.mixes import Spaced, write_mixture
from stimkit.records.acceptance import list_objections
from stimkit.records.schema import Record, build_record
from stimkit.records.stages import STAGES, Attempt

if TYPE_CHECKING:  # which would load torch
    from stimkit.stimuli.stimulus import Distances, Made, Stimulus
    from stimkit.synthesis.minimization import Trace
    from stimkit.synthesis.synthesis import Measured, Synthesis

PROCESS_DIED = "process_died"
"""Stop reason of a cell that ended its process; no rule of the optimization, and never accepted."""


@dataclass(frozen=True)
class Execution:
    """Where a cell was computed, and in which batch; not a part of its identity."""

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
    losses = {
        stage: _losses(losses, cell) for stage, losses in zip(STAGES, measured, strict=True) if losses is not None
    }
    values = {
        "init_sha256": synthesis.initial_sha256,
        "evaluations": synthesis.evaluations,
        "coarse_evaluations": ";".join(map(str, synthesis.coarse_evaluations)),
        "rollbacks": synthesis.rollbacks,
        "stop_reason": synthesis.stop_reason,
        "titrate_error": made.titrate_error,
        **(made.recognition.columns(cue_digest(plan, cell)) if made.recognition else {}),
        "distances": distances_of(cell, made.distances),
        **_statistics(stimulus),
        "file_sha256": stimulus.file_sha256,
        "pixel_sha256": values_digest(stimulus.values),
        "wall_time_s": round(synthesis.seconds, 4),
    }
    failure = _failure(synthesis, stimulus)
    values |= {"losses": losses, "trace_sha256": trace_digest(synthesis.trace)}
    record = _record(cell, plan, execution, values, earlier, failure)
    return record if failure else judge(record, plan)


def lost_record(
    cell: Cell, plan: Plan, execution: Execution, trace: Trace, reason: str, earlier: Sequence[Attempt] = ()
) -> Record:
    """The record of a cell that nothing is left of, since its process died each time; without losses and statistics."""
    nothing = {
        **dict.fromkeys(("content", "style", "total")),
        "content_layers": dict.fromkeys(name for name, _ in cell.content_layers),
        "style_layers": dict.fromkeys(name for name, _ in cell.style_layers),
    }
    values = {
        **dict.fromkeys((*RecordColumns.model_fields, *BASIC)),
        **{f"{kind}_sha256": _digests_of(cell, kind, plan) for kind in ("content", "style")},
        "content_mix": "",
        "style_mix": "",  # the weights of a step by distance are known once it is made
        "recognized_as": "",
        "recognition_sha256": "",
        "distances": distances_of(cell, {}),
        "evaluations": 0,
        "coarse_evaluations": "",
        "rollbacks": 0,
        "stop_reason": PROCESS_DIED,
        "losses": {stage: nothing for stage in STAGES if stage != "equalized"},
        "trace_sha256": trace_digest(trace),
        "wall_time_s": 0.0,
    }
    return _record(cell, plan, execution, values, earlier, reason)


def _record(
    cell: Cell, plan: Plan, execution: Execution, values: dict[str, Any], earlier: Sequence[Attempt], failure: str
) -> Record:
    """A record of these values; failed for the reason of a `failure`, else accepted until it is judged."""
    flat: dict[str, Any] = {
        **values,
        "stimulus_id": cell.id,
        "attempt": cell.attempt,
        **requested_values(cell, plan),
        "weights_origin": plan.weights[cell.settings.source].description,
        **asdict(execution),
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "status": "failed" if failure else "accepted",
        "status_reason": failure,
    }
    flat = {key: _finite(value) if isinstance(value, float) else value for key, value in flat.items()}
    this = {key: flat[key] for key in Attempt.model_fields}
    return build_record(
        {**flat, "attempts": [*(attempt.model_dump() for attempt in earlier), this]}, f"record of {cell.id}"
    )


def _statistics(stimulus: Stimulus) -> dict[str, Any]:
    """Light before equalization, in the file and inside the aperture; what was clipped."""
    basic = measure_basics(stimulus.shown)
    inside = stimulus.inside or Light(basic["mean_luminance"], basic["rms_contrast"])
    return {
        "mean_luminance_optimized": stimulus.light.mean,
        "rms_contrast_optimized": stimulus.light.contrast,
        "equalize_error": stimulus.equalize_error,
        **basic,
        "mean_luminance_inside": inside.mean,
        "rms_contrast_inside": inside.contrast,
        "clip_low_frac": stimulus.clipped[0],
        "clip_high_frac": stimulus.clipped[1],
    }


def judge(record: Record, plan: Plan) -> Record:
    """Return a record of an image with the status that the rules of the protocol give it."""
    reason = list_objections(record, plan.protocol.accept)
    *earlier, last = record.attempts
    return record.model_copy(
        update={
            "status": "rejected" if reason else "accepted",
            "status_reason": reason,
            "attempts": (*earlier, last.model_copy(update={"status_reason": reason})),
        }
    )


def requested_values(cell: Cell, plan: Plan) -> dict[str, Any]:
    """What a record must say of what the cell asked for: its place in the design, inputs, network, weights, settings.

    JSON values, by the names that they have in the file of a record.
    """
    settings = cell.settings
    source = plan.weights[settings.source]
    values: dict[str, Any] = {
        "filename": cell.filename,
        "levels": dict(cell.levels),
        "attributes": dict(cell.attributes),
        "role": cell.role,
        "control_of": ";".join(cell.control_of),
        "replicate": cell.replicate,
        "seed": cell.seed,
        "alpha": cell.alpha,
        "beta": cell.beta,
        "alpha_beta_ratio": cell.ratio if math.isfinite(cell.ratio) else "inf",
        "weights_sha256": source.digest,
        **settings.model_dump(mode="json", exclude={"size", "loss", "network"}),
        "loss_convention": settings.loss,
        "model": settings.network,
        "preprocessing": source.preprocessing,
        "height_px": settings.height,
        "width_px": settings.width,
        **dict(zip(("height_deg", "width_deg"), settings.degrees or (None, None), strict=True)),
        "style_path": cell.style_mix.path if cell.style_mix else "",
        "style_map": ";".join(f"{one.mask}={one.style}" for one in cell.style_map),
        "mask_id": ";".join(cell.images("mask")),
        "mask_sha256": ";".join(plan.input("mask", mask).pixel_sha256 for mask in cell.images("mask")),
    }
    terms = (("content", cell.content, cell.content_layers), ("style", cell.style, cell.style_layers))
    for kind, name, layers in terms:
        values[f"{kind}_id"] = name or ""
        if not isinstance(cell.mixture(kind), Spaced):  # whose weights are known once they are made
            values[f"{kind}_sha256"] = _digests_of(cell, kind, plan)
            values[f"{kind}_mix"] = write_mixture(cell.mixture(kind))
        values[f"{kind}_layers_used"] = ";".join(layer for layer, _ in layers)
        values[f"{kind}_layer_weights"] = ";".join(repr(weight) for _, weight in layers)
    return values


def _digests_of(cell: Cell, kind: str, plan: Plan) -> str:
    return ";".join(plan.input(kind, one).pixel_sha256 for one in cell.images(kind))


def distances_of(cell: Cell, measured: Distances) -> dict[str, Any]:
    """Losses to the images that a cell is compared with, as a record holds them; null where there are none."""
    found: dict[str, dict[str, Any]] = {}
    for kind, image in cell.compared:
        losses = measured.get(kind, {}).get(image, {})
        layers = cell.content_layers if kind == "content" else cell.style_layers
        found.setdefault(kind, {})[image] = {layer: _finite(losses.get(layer, math.nan)) for layer, _ in layers}
    return found


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
    return {
        "content": _finite(measured.content) if cell.content else None,
        "style": _finite(measured.style) if cell.style else None,
        "total": _finite(measured.total),
        "content_layers": {name: _finite(measured.content_layers[name]) for name, _ in cell.content_layers},
        "style_layers": {name: _finite(measured.style_layers[name]) for name, _ in cell.style_layers},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Records: everything about one stimulus, as plain JSON values.

A record is made once, when its cell is committed, and is the source of every table. `COLUMNS` says what
each value is: the manifest takes names, units and descriptions from there.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stimkit import accept, migrations
from stimkit.cells import Cell, Plan
from stimkit.images import pixel_digest
from stimkit.measures import BASIC, MEASURES, Column, basic_measures

if TYPE_CHECKING:  # which would load torch
    from stimkit.search import Trace
    from stimkit.stimulus import Stimulus
    from stimkit.synthesis import Measured, Synthesis

STAGES = ("initial", "optimized", "file")

Record = dict[str, Any]
Attempt = dict[str, Any]  # `migrations.ATTEMPT_KEYS` of a record


COLUMNS = (
    Column("stimulus_id", "", "identifier of the stimulus: digest of everything that determines its pixels"),
    Column("filename", "", "file of the stimulus in the folder stimuli"),
    Column("status", "", "accepted; rejected: it breaks a rule of the protocol; or failed: no usable image was found"),
    Column("status_reason", "", "why the status is not accepted"),
    Column("attempt", "1", "number of the attempt that made the stimulus, from 1"),
    Column("content_id", "", "name of the content image"),
    Column("style_id", "", "name of the style image"),
    Column("replicate", "1", "number of the replicate, from 1"),
    Column("seed", "", "seed of the initial noise of that attempt"),
    Column("content_layers_used", "", "content layers"),
    Column("style_layers_used", "", "style layers"),
    Column("content_layer_weights", "1", "weights of the content layers in the content loss"),
    Column("style_layer_weights", "1", "weights w_l of the style layers in the style loss"),
    Column("alpha", "1", "weight of the content loss in the total loss"),
    Column("beta", "1", "weight of the style loss in the total loss"),
    Column("alpha_beta_ratio", "1", "alpha / beta"),
    Column("loss_convention", "", "definition of the losses: paper (Gatys et al. 2015) or mean"),
    Column("content_sha256", "", "digest of the content image's pixels as read"),
    Column("style_sha256", "", "digest of the style image's pixels as read"),
    Column("model", "", "network"),
    Column("weights", "", "name of the weights"),
    Column("weights_sha256", "", "digest of the weights"),
    Column("preprocessing", "", "what the network expects of its input"),
    Column("pooling", "", "pooling of the network"),
    Column("normalize", "", "filters rescaled to unit mean activation"),
    Column("fit", "", "how input images were brought to shape"),
    Column("style_scale", "1", "size of the style image relative to the stimulus"),
    Column("init", "", "initial image"),
    Column("init_contrast", "1", "range of the initial noise"),
    Column("init_sha256", "", "digest of the initial image's float32 values"),
    Column("optimizer", "", "optimizer"),
    Column("preconditioner", "", "preconditioner of the optimizer"),
    Column("history", "1", "pairs in the history of L-BFGS"),
    Column("learning_rate", "1", "learning rate of Adam"),
    Column("precision", "", "arithmetic of the network during optimization"),
    Column("max_evaluations", "1", "largest number of evaluations"),
    Column("rtol", "1", "relative decrease of the total loss at which the optimization stops"),
    Column("window", "1", "evaluations over which rtol is judged"),
    Column("target_style", "1", "relative style loss at which the optimization stops"),
    Column("target_content", "1", "relative content loss at which the optimization stops"),
    Column("evaluations", "1", "evaluations of loss and gradient"),
    Column("rollbacks", "1", "evaluations taken back because they were not finite"),
    Column("stop_reason", "", "rule that ended the optimization"),
    Column("loss_content_initial", "1", "content loss of the initial image"),
    Column("loss_style_initial", "1", "style loss of the initial image"),
    Column("loss_total_initial", "1", "total loss of the initial image"),
    Column("loss_content_optimized", "1", "content loss of the optimized image before clipping and rounding"),
    Column("loss_style_optimized", "1", "style loss of the optimized image before clipping and rounding"),
    Column("loss_total_optimized", "1", "total loss of the optimized image before clipping and rounding"),
    Column("loss_content_file", "1", "content loss of the stimulus as decoded from its file"),
    Column("loss_style_file", "1", "style loss of the stimulus as decoded from its file"),
    Column("loss_total_file", "1", "total loss of the stimulus as decoded from its file"),
    Column("height_px", "pixel", "height of the stimulus"),
    Column("width_px", "pixel", "width of the stimulus"),
    *(column for column in MEASURES if column.name in BASIC),
    Column("clip_low_frac", "1", "fraction of channel values below 0 before clipping"),
    Column("clip_high_frac", "1", "fraction of channel values above 1 before clipping"),
    Column("file_sha256", "", "digest of the stimulus file"),
    Column("pixel_sha256", "", "digest of the stimulus's decoded pixels"),
    Column("device", "", "device"),
    Column("batch_id", "", "batch that the cell was optimized in"),
    Column("batch_size", "1", "cells in that batch"),
    Column("batch_slot", "1", "place in that batch, from 0"),
    Column("wall_time_s", "s", "wall time of the batch divided by its cells"),
    Column("stimkit_version", "", "version of stimkit"),
    Column("torch_version", "", "version of torch"),
    Column("env_id", "", "environment in environment.json that the cell was made in"),
    Column("created_utc", "", "time of the commit"),
)


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


def make_record(
    cell: Cell,
    plan: Plan,
    synthesis: Synthesis,
    stimulus: Stimulus,
    init_sha256: str,
    execution: Execution,
    earlier: Sequence[Attempt] = (),
) -> Record:
    """Put together the record of one cell. Values that are not finite become null.

    `earlier` are the attempts at the cell before this one.
    """
    stages = dict(zip(STAGES, (synthesis.initial, synthesis.optimized, stimulus.measured), strict=True))
    record = {
        "schema": migrations.RECORD.current,
        "stimulus_id": cell.id,
        "filename": cell.filename,
        "attempt": cell.attempt,
        **request(cell, plan),
        "init_sha256": init_sha256,
        "evaluations": synthesis.evaluations,
        "rollbacks": synthesis.rollbacks,
        "stop_reason": synthesis.stop_reason,
        "losses": {stage: _losses(measured, cell) for stage, measured in stages.items()},
        "height_px": cell.settings.height,
        "width_px": cell.settings.width,
        **basic_measures(stimulus.pixels),
        "clip_low_frac": stimulus.clipped[0],
        "clip_high_frac": stimulus.clipped[1],
        "file_sha256": stimulus.file_sha256,
        "pixel_sha256": pixel_digest(stimulus.pixels),
        "trace_sha256": trace_digest(synthesis.trace),
        "wall_time_s": round(synthesis.seconds, 4),
        **execution.__dict__,
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    failure = _failure(synthesis, stimulus)
    record |= {"status": "failed", "status_reason": failure} if failure else judged(record, plan)
    return {**record, "attempts": [*earlier, {key: record[key] for key in migrations.ATTEMPT_KEYS}]}


def judged(record: Record, plan: Plan) -> Record:
    """Status of a stimulus by the rules of the protocol, and why it is not accepted."""
    reason = accept.objections(record, plan.protocol.accept)
    return {"status": "rejected" if reason else "accepted", "status_reason": reason}


def request(cell: Cell, plan: Plan) -> Record:
    """What the cell asked for: its place in the design, inputs, network, weights of the losses, settings."""
    settings = cell.settings
    source = plan.weights[settings.weights, settings.preprocessing]
    request: Record = {
        "levels": dict(cell.levels),
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
    terms = (("content", cell.content, cell.content_layers), ("style", cell.style, cell.style_layers))
    for kind, name, layers in terms:
        request[f"{kind}_id"] = name or ""
        request[f"{kind}_sha256"] = plan.input(kind, name).pixel_sha256 if name else ""
        request[f"{kind}_layers_used"] = ";".join(layer for layer, _ in layers)
        request[f"{kind}_layer_weights"] = ";".join(repr(weight) for _, weight in layers)
    return request


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
        f"loss_{term}_{stage}": record["losses"][stage][term]
        for stage in STAGES
        for term in ("content", "style", "total")
    }
    values = {**record, **losses}
    return {column.name: values.get(column.name) for column in COLUMNS}

"""Recorded losses against losses computed again from the files, from the initial images, and from unrelated ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimkit.auditing.findings import Finding
from stimkit.auditing.remeasurement import Remeasurement
from stimkit.images.png import decode_values, to_network_image
from stimkit.planning.cells import Cell
from stimkit.records.record import Record
from stimkit.stimuli.preparation import initial_image
from stimkit.synthesis.synthesis import Measured

TERMS = ("content", "style", "total")
ROUNDING = 4e-6  # relative error of feature maps and Gram matrices in float32
FAST_ROUNDING = 4e-5  # the same, by the faster convolutions of the optimization
CHUNK = 64  # images that are in memory at a time

Row = dict[str, Any]


def losses_again(
    made: Mapping[Path, Record],
    traces: Callable[[str], NDArray[Any]],
    again: Remeasurement,
    on_count: Callable[[int, int], None],
) -> Iterator[tuple[str, Row, list[Finding]]]:
    """Measure stimuli in their files again: yield each id, a row of numbers, and what differs from record and trace.

    Raises `ImageError` or `WeightsError` where an input is not found.
    """
    plan = again.plan
    known = {record["stimulus_id"]: (record, path) for path, record in made.items()}
    cells = [plan.by_id[record["stimulus_id"]].as_recorded(record) for record in made.values()]
    done = 0
    for batch in _batches(cells):
        files = [
            to_network_image(decode_values(known[cell.id][1].read_bytes(), cell.filename), cell.settings.encoding)
            for cell in batch
        ]
        starts = [initial_image(cell, again.inputs) for cell in batch]
        measured = zip(again.losses(batch, files), again.losses(batch, starts), strict=True)
        for cell, (file, start) in zip(batch, measured, strict=True):
            record = known[cell.id][0]
            tolerance = plan.protocol.audit.loss_tolerance
            wrong = _mismatches(record, traces(cell.id), file, start, again.scale(cell), tolerance)
            yield cell.id, _row(cell, file, again), list(wrong)
            done += 1
            on_count(done, len(cells))


def _batches(cells: Sequence[Cell]) -> Iterator[list[Cell]]:
    """Cells of equal settings, those of one content image side by side."""
    order = {settings: index for index, settings in enumerate(dict.fromkeys(cell.settings for cell in cells))}
    arranged = sorted(cells, key=lambda cell: (order[cell.settings], cell.content or "", cell.style or ""))
    for _, group in groupby(arranged, key=lambda cell: cell.settings):
        members = list(group)
        yield from (members[start : start + CHUNK] for start in range(0, len(members), CHUNK))


def _row(cell: Cell, file: Measured, again: Remeasurement) -> Row:
    row: Row = {"loss_total_again": file.total}
    for term in ("content", "style"):
        if getattr(cell, term) is None:
            continue
        loss = row[f"loss_{term}_again"] = getattr(file, term)
        chance = again.chance(term, cell) if (cell.alpha if term == "content" else cell.beta) else None
        row[f"{term}_unrelated"] = len(chance.values) if chance else 0
        if chance:
            row[f"{term}_chance_percentile"] = chance.percentile(loss)
            row[f"{term}_chance_relative"] = chance.relative(loss)
    return row


def _mismatches(
    record: Record, trace: NDArray[Any], file: Measured, start: Measured, scale: Measured, tolerance: float
) -> Iterator[Finding]:
    scales = _flat(scale.content_layers, scale.style_layers, scale.content, scale.style, scale.total)
    for stage, again in (("file", file), ("initial", start)):
        found = _flat(again.content_layers, again.style_layers, again.content, again.style, again.total)
        recorded = _recorded(record["losses"][stage])
        wrong = {
            name: abs(value - found[name]) / found[name] if found[name] else math.inf
            for name, value in recorded.items()
            if not _equal(value, found[name], scales[name], tolerance, ROUNDING)
        }
        if wrong:
            first = next(iter(wrong))
            others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            detail = f"{stage}: the {first} loss is {found[first]:.6g}, recorded is {recorded[first]:.6g}{others}"
            yield Finding("loss_mismatch", "error", record["stimulus_id"], detail, max(wrong.values()), tolerance)
    if record["precision"] in ("float32", "float64") and len(trace):
        totals = {"initial": trace[0, 2]}
        light = (record["equalize_luminance"], record["equalize_contrast"])
        if light == ("none", "none"):  # held light makes another result the best than that of the lowest total loss
            totals["optimized"] = _result(record, trace)
        for stage, total in totals.items():
            known = _recorded(record["losses"][stage])["total"]
            if not _equal(known, float(total), scale.total, tolerance, FAST_ROUNDING):
                detail = f"{stage}: the total loss is {known:.6g}, the trace says {total:.6g}"
                yield Finding("loss_inconsistent", "error", record["stimulus_id"], detail)


def _equal(one: float, other: float, scale: float, tolerance: float, rounding: float) -> bool:
    """Whether losses agree, given relative errors of feature maps and Gram matrices whose targets have a size.

    A loss ½ |F − P|² changes by rounding · |F − P| |P| + ½ (rounding · |P|)² at most: what is left of it where F is
    nearly P is rounding.
    """
    allowed = 2 * rounding * math.sqrt(max(other, 0.0) * scale) + rounding**2 * scale
    return abs(one - other) <= tolerance * abs(other) + allowed


def _result(record: Record, trace: NDArray[Any]) -> float:
    """The total loss in a trace that belongs to the optimized image: the lowest, or Adam's last."""
    totals = trace[np.isfinite(trace[:, 2]), 2]
    if not len(totals):
        return math.nan
    return float(totals[-1] if record["optimizer"] == "adam" else totals.min())


def _flat(
    content_layers: Mapping[str, float], style_layers: Mapping[str, float], content: Any, style: Any, total: Any
) -> dict[str, float]:
    """Losses of a stage by their names in words: the sums, then those of the layers."""
    return {
        "content": content,
        "style": style,
        "total": total,
        **{f"{name} content": value for name, value in content_layers.items()},
        **{f"{name} style": value for name, value in style_layers.items()},
    }


def _recorded(losses: Mapping[str, Any]) -> dict[str, float]:
    """The losses of a recorded stage; what was not finite is NaN, a term that the cell does not have is left out."""
    flat = _flat(losses["content_layers"], losses["style_layers"], *(losses[term] for term in TERMS))
    absent = {term for term in ("content", "style") if not losses[f"{term}_layers"]}
    return {name: math.nan if value is None else value for name, value in flat.items() if name not in absent}


def inconsistent(record: Record, cell: Cell, trace: NDArray[Any]) -> Iterator[Finding]:
    """Recorded losses that do not add up: nothing but the record and the trace is needed."""
    problems = []
    for stage, losses in record["losses"].items():
        sums = {
            term: sum(weight * (losses[f"{term}_layers"][name] or 0.0) for name, weight in layers)
            for term, layers in (("content", cell.content_layers), ("style", cell.style_layers))
        }
        sums["total"] = cell.alpha * (losses["content"] or 0.0) + cell.beta * (losses["style"] or 0.0)
        for term in TERMS:
            if losses[term] is not None and not math.isclose(losses[term], sums[term], rel_tol=1e-4, abs_tol=1e-12):
                problems.append(f"{stage}: the {term} loss is {losses[term]:.6g}, its parts give {sums[term]:.6g}")
    if len(trace) != record["evaluations"]:
        problems.append(f"the trace has {len(trace)} evaluations, the record {record['evaluations']}")
    if problems:
        others = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        yield Finding("loss_inconsistent", "error", record["stimulus_id"], problems[0] + others)

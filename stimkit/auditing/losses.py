"""Recorded losses against losses computed again from the files, from the initial images, and from unrelated ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stimkit.auditing.evidence import Evidence
from stimkit.auditing.findings import Finding
from stimkit.auditing.remeasurement import Remeasurement
from stimkit.errors import ImageError, WeightsError
from stimkit.images.pixels import FloatImage, float_digest
from stimkit.images.png import to_network_image
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.inputs import InputSource
from stimkit.protocol.mixes import write_mixture
from stimkit.protocol.rules import IMAGE_KINDS
from stimkit.records.schema import Record
from stimkit.records.stages import TERMS, StageLosses
from stimkit.stimuli.preparation import prepare_initial
from stimkit.synthesis.synthesis import Measured

# Relative errors of feature maps and Gram matrices in float32, against float64. Over four photographs of 128 px and
# layers up to conv5_1, with embedded and with trained filters, the largest are 1.2e-6, and 2.0e-6 by the faster
# convolutions of the optimization. The bounds leave room for other processors and for images that are not photographs.
ROUNDING = 4e-6
FAST_ROUNDING = 4e-5
WEIGHT_TOLERANCE = 1e-4  # of the weights of a mixture that follow from distances
InputKey = tuple[str, str]  # kind and name
LossRow = dict[str, Any]  # numbers about a stimulus, by their columns


class LossCheck:
    """Measures the losses of stimuli again, and compares them with what was recorded.

    Stimuli whose input images are not found are left out; `problems` says so, and why nothing could be measured.
    """

    def __init__(self, plan: Plan, inputs: InputSource, device: torch.device) -> None:
        self._missing = _missing_inputs(plan, inputs)
        self._remeasurement = Remeasurement(plan, inputs, device, without=self._missing)
        self._failed = False
        self._looked_at: set[tuple[object, ...]] = set()
        self.problems = [Finding("losses_not_checked", "warning", "", reason) for reason in self._missing.values()]

    def measure(self, stimuli: Sequence[tuple[Cell, Evidence]]) -> tuple[dict[str, LossRow], list[Finding]]:
        """Measure some stimuli: numbers of each by id, and what differs from records and traces."""
        rows: dict[str, LossRow] = {}
        findings: list[Finding] = []
        known = [(cell, evidence) for cell, evidence in stimuli if not self._missing.keys() & self._inputs_of(cell)]
        for _, group in groupby(known, key=lambda pair: pair[0].settings):
            if self._failed:
                break
            try:
                for stimulus_id, row, wrong in self._measure_group(list(group)):
                    rows[stimulus_id] = row
                    findings += wrong
            except (ImageError, WeightsError) as error:
                self._failed = True
                self.problems.append(Finding("losses_not_checked", "warning", "", str(error)))
        return rows, findings

    def _measure_group(self, group: Sequence[tuple[Cell, Evidence]]) -> Iterator[tuple[str, LossRow, list[Finding]]]:
        """Measure stimuli of equal settings."""
        again = self._remeasurement
        tolerance = again.plan.protocol.audit.loss_tolerance
        cells = [again.resolve(cell) for cell, _ in group]
        files = [shown_to_networks(evidence) for _, evidence in group]
        starts = [prepare_initial(cell, again.inputs) for cell in cells]
        self._look_for_dominance(cells, starts)
        measured = zip(again.losses(cells, files), again.losses(cells, starts), strict=True)
        for cell, (_, evidence), image, ((file, *others), (start, *_)) in zip(
            cells, group, starts, measured, strict=True
        ):
            assert evidence.trace is not None, "a stimulus that lacks its trace is not sound"
            scale = again.scale(cell)
            wrong = [
                *_mismatches_of_initial(evidence.record, image),
                *_mismatches(evidence.record, evidence.trace, file, start, scale, tolerance),
                *_mismatches_of_mixtures(evidence.record, cell, others, scale, tolerance),
            ]
            yield cell.id, _row(cell, file, again), wrong

    def _look_for_dominance(self, cells: Sequence[Cell], starts: Sequence[FloatImage]) -> None:
        """Look once at each loss of a set: of an image, some layers, and settings."""
        for cell, start in zip(cells, starts, strict=True):
            terms = {
                "content": (cell.content, "", cell.content_layers, cell.alpha),
                "style": (cell.style, cell.mask, cell.style_layers, cell.beta),
            }
            for term, (name, mask, layers, weight) in terms.items():
                key = (term, name, mask, layers, cell.settings)
                if name is None or weight == 0 or key in self._looked_at:
                    continue
                self._looked_at.add(key)
                for one in self._remeasurement.dominance(term, cell, start):
                    detail = f"{term} {name}: {one}"
                    self.problems.append(Finding("dominated", "warning", cell.id, detail, one.share, one.limit))

    def _inputs_of(self, cell: Cell) -> set[InputKey]:
        """The images that the losses of a stimulus need."""
        names = [*((kind, name) for kind in IMAGE_KINDS for name in cell.images(kind)), *cell.compared]
        used = [self._remeasurement.plan.input(*name) for name in names]
        return {(image.kind, image.name) for image in used}


def shown_to_networks(evidence: Evidence) -> FloatImage:
    """A sound stimulus as networks take it, (3, height, width)."""
    assert evidence.values is not None, "a stimulus that cannot be read is not sound"
    return to_network_image(evidence.values, evidence.record.settings.encoding)


def _missing_inputs(plan: Plan, inputs: InputSource) -> dict[InputKey, str]:
    """The images of a plan that are not to be found, and what is said of them."""
    missing: dict[InputKey, str] = {}
    for image in plan.inputs:
        try:
            inputs.image(image.kind, image.name)
        except ImageError as error:
            missing[image.kind, image.name] = str(error)
    return missing


def _row(cell: Cell, file: Measured, again: Remeasurement) -> LossRow:
    row: LossRow = {"loss_total_again": file.total}
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
        recorded = _recorded(record.losses.stages()[stage])
        wrong = {
            name: abs(value - found[name]) / found[name] if found[name] else math.inf
            for name, value in recorded.items()
            if not _equal(value, found[name], scales[name], tolerance, ROUNDING)
        }
        if wrong:
            first = next(iter(wrong))
            others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            detail = f"{stage}: the {first} loss is {found[first]:.6g}, recorded is {recorded[first]:.6g}{others}"
            yield Finding("loss_mismatch", "error", record.stimulus_id, detail, max(wrong.values()), tolerance)
    if record.settings.precision in ("float32", "float64") and len(trace):
        totals = {} if record.coarse_evaluations else {"initial": trace[0, 2]}
        light = (record.settings.equalize_luminance, record.settings.equalize_contrast)
        if light == ("none", "none"):  # held light makes another result the best than that of the lowest total loss
            totals["optimized"] = _result(record, trace)
        for stage, total in totals.items():
            known = _recorded(record.losses.stages()[stage])["total"]
            if not _equal(known, float(total), scale.total, tolerance, FAST_ROUNDING):
                detail = f"{stage}: the total loss is {known:.6g}, the trace says {total:.6g}"
                yield Finding("loss_inconsistent", "error", record.stimulus_id, detail)


def _mismatches_of_initial(record: Record, image: FloatImage) -> Iterator[Finding]:
    """Whether the image that a stimulus was started from is made again to the bit."""
    if record.init_sha256 not in (None, float_digest(image)):
        detail = "the initial image made now is not the recorded one: another Pillow or NumPy made it"
        yield Finding("initial_differs", "warning", record.stimulus_id, detail)


def _mismatches_of_mixtures(
    record: Record, cell: Cell, others: Sequence[Measured], scale: Measured, tolerance: float
) -> Iterator[Finding]:
    """Weights of mixtures, and losses to the images that a stimulus is compared with."""
    for kind in ("content", "style"):
        recorded, mixture = getattr(record, f"{kind}_mix"), cell.mixture(kind)
        if _weights_differ(recorded, write_mixture(mixture)):
            detail = f"{kind}_mix is {write_mixture(mixture)}, recorded is {recorded}"
            yield Finding("loss_mismatch", "error", record.stimulus_id, detail)
    for (kind, image), measured in zip(cell.compared, others, strict=True):
        scales, again = (getattr(one, f"{kind}_layers") for one in (scale, measured))
        for layer, value in record.distances[kind][image].items():
            known = math.nan if value is None else value
            if not _equal(known, again[layer], scales[layer], tolerance, ROUNDING):
                detail = f"distance to {kind} {image}: {layer} is {again[layer]:.6g}, recorded is {known:.6g}"
                yield Finding("loss_mismatch", "error", record.stimulus_id, detail)


def _weights_differ(one: str, other: str) -> bool:
    """Whether written mixtures differ in their images, or in weights by more than rounding makes."""
    pairs = [[part.rpartition("=") for part in text.split(";")] for text in (one, other)]
    if one == other or [name for name, *_ in pairs[0]] != [name for name, *_ in pairs[1]]:
        return one != other
    return any(abs(float(a) - float(b)) > WEIGHT_TOLERANCE for (*_, a), (*_, b) in zip(*pairs, strict=True))


def _equal(one: float, other: float, scale: float, tolerance: float, rounding: float) -> bool:
    """Whether losses agree, given relative errors of feature maps and Gram matrices whose targets have a size.

    A loss ½ |F − P|² changes by rounding · |F − P| |P| + ½ (rounding · |P|)² at most: what is left of it where F is
    nearly P is rounding.
    """
    allowed = 2 * rounding * math.sqrt(max(other, 0.0) * scale) + rounding**2 * scale
    return abs(one - other) <= tolerance * abs(other) + allowed


def _result(record: Record, trace: NDArray[Any]) -> float:
    """The total loss in a trace that belongs to the optimized image: the lowest, or Adam's last."""
    totals = record.finite_totals(trace)
    if not len(totals):
        return math.nan
    return float(totals[-1] if record.settings.optimizer == "adam" else totals.min())


def _flat(
    content_layers: Mapping[str, Any], style_layers: Mapping[str, Any], content: Any, style: Any, total: Any
) -> dict[str, Any]:
    """Losses of a stage by their names in words: the sums, then those of the layers."""
    return {
        "content": content,
        "style": style,
        "total": total,
        **{f"{name} content": value for name, value in content_layers.items()},
        **{f"{name} style": value for name, value in style_layers.items()},
    }


def _recorded(losses: StageLosses) -> dict[str, float]:
    """The losses of a recorded stage; what was not finite is NaN, a term that the cell does not have is left out."""
    flat = _flat(losses.content_layers, losses.style_layers, losses.content, losses.style, losses.total)
    absent = {term for term in ("content", "style") if not losses.layers(term)}
    return {name: math.nan if value is None else value for name, value in flat.items() if name not in absent}


def check_sums(record: Record, cell: Cell, trace: NDArray[Any]) -> Iterator[Finding]:
    """Check that recorded losses add up: nothing but the record and the trace is needed."""
    problems = []
    for stage, losses in record.losses.stages().items():
        sums = {
            term: sum(weight * (losses.layers(term)[name] or 0.0) for name, weight in layers)
            for term, layers in (("content", cell.content_layers), ("style", cell.style_layers))
        }
        sums["total"] = cell.alpha * (losses.content or 0.0) + cell.beta * (losses.style or 0.0)
        for term in TERMS:
            loss = losses.sum(term)
            if loss is not None and not math.isclose(loss, sums[term], rel_tol=1e-4, abs_tol=1e-12):
                problems.append(f"{stage}: the {term} loss is {loss:.6g}, its parts give {sums[term]:.6g}")
    if len(record.own_trace(trace)) != record.evaluations:
        expected = record.evaluations + sum(record.coarse_evaluations_listed)
        problems.append(f"the trace has {len(trace)} evaluations, the record {expected}")
    if problems:
        others = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        yield Finding("loss_inconsistent", "error", record.stimulus_id, problems[0] + others)


def still_falling(record: Record, trace: NDArray[Any]) -> float:
    """Relative decrease of the lowest total loss over the last `window` evaluations."""
    totals = record.finite_totals(trace)
    if len(totals) < 2:
        return float("nan")
    lowest = np.minimum.accumulate(totals)
    before = lowest[max(0, len(lowest) - 1 - record.settings.window)]
    return float(1 - lowest[-1] / before) if before > 0 else 0.0

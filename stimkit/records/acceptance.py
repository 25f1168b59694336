"""Whether a stimulus meets the rules of `[accept]`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from stimkit.protocol.limits import Accept
from stimkit.records.schema import Record


def list_objections(record: Record, rules: Accept) -> str:
    """List the rules that the stimulus of a record breaks, in words; empty where it is accepted.

    Of controls, only what curators decided counts.
    """
    return "; ".join([*(_broken(record, rules) if record.role == "main" else ()), *_curated(record, rules)])


def _broken(record: Record, rules: Accept) -> Iterator[str]:
    losses, settings = record.losses, record.settings
    weights = {"content": record.alpha, "style": record.beta, "total": 1.0}
    for term in (name for name, weight in weights.items() if weight):  # what was not asked for cannot be missed
        limit = getattr(rules, f"relative_{term}_loss")
        share = _quotient(losses.file.sum(term), losses.initial.sum(term))
        if limit is not None and share is not None and share > limit:
            yield f"relative {term} loss {share:.3g} > {limit:g}"
    if rules.loss_increase is not None:
        share = _quotient(losses.file.total, losses.optimized.total)
        if share is not None and share - 1 > rules.loss_increase:
            yield f"what follows the optimization increased the total loss by {share - 1:.3g} > {rules.loss_increase:g}"
    clipped = (record.clip_low_frac or 0.0) + (record.clip_high_frac or 0.0)
    if rules.clipping is not None and clipped > rules.clipping:
        yield f"clipping {clipped:.3g} > {rules.clipping:g}"
    if rules.stop_reason is not None and record.stop_reason not in rules.stop_reason:
        yield f"stop reason {record.stop_reason} is not among {', '.join(rules.stop_reason)}"
    for kind in ("content", "style"):
        limit, rank = getattr(rules, f"{kind}_rank"), getattr(record, f"{kind}_rank")
        if limit is not None and weights[kind] and rank is not None and rank > limit:
            yield f"{kind} is recognized on rank {rank} > {limit}: as {record.recognized_as}"
    error = record.titrate_error
    if settings.titrate != "none" and (error is None or abs(error) > settings.titrate_tolerance):
        missed = "is not defined" if error is None else f"is {abs(error):.3g} from {settings.titrate_value:g}"
        between = f"{settings.titrate_lowest:g} to {settings.titrate_highest:g}"
        yield f"{settings.titrate} {missed} at the closest ratio from {between}"
    inside = {"mean_luminance": record.mean_luminance_inside, "rms_contrast": record.rms_contrast_inside}
    for name, of_the_inside in inside.items():
        limits = getattr(rules, name)
        # Records of early versions have none of the inside.
        value = record.statistics[name] if of_the_inside is None else of_the_inside
        if limits is not None and value is not None and not limits[0] <= value <= limits[1]:
            yield _outside(name, value, limits)
    measured = {column.name: value for column, value in record.measured.items()}
    for name, limits in rules.measured.items():
        value = measured.get(name, math.nan)  # what is not measured yet is not judged
        if value < limits[0] or value > limits[1]:
            yield _outside(name, value, limits)


def _curated(record: Record, rules: Accept) -> Iterator[str]:
    for curation in rules.curation:
        verdict = curation.by_file.get((record.stimulus_id, record.file_sha256 or ""))
        if verdict is not None and verdict.verdict == "reject":
            yield f"{rejected_by(curation.curator)} on {verdict.at[:10]}{f': {verdict.note}' if verdict.note else ''}"


def rejected_by(curator: str) -> str:
    """How the reason begins where a curator rejected a stimulus."""
    return f"rejected by {curator}"


def _outside(name: str, value: float, limits: tuple[float, float]) -> str:
    return f"{name} {value:.3g} is outside of {limits[0]:g} to {limits[1]:g}"


def _quotient(value: float | None, reference: float | None) -> float | None:
    """value / reference, where both are there and the reference is not zero."""
    return None if value is None or not reference else value / reference

"""Whether a stimulus meets the rules of `[accept]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stimkit.protocol.limits import Accept


def objections(record: Mapping[str, Any], rules: Accept) -> str:
    """The rules that the stimulus of a record breaks, in words; empty where it is accepted."""
    return "; ".join(_broken(record, rules))


def _broken(record: Mapping[str, Any], rules: Accept) -> Iterator[str]:
    losses = record["losses"]
    weights = {"content": record["alpha"], "style": record["beta"], "total": 1.0}
    for term in (name for name, weight in weights.items() if weight):  # what was not asked for cannot be missed
        limit = getattr(rules, f"relative_{term}_loss")
        share = _quotient(losses["file"][term], losses["initial"][term])
        if limit is not None and share is not None and share > limit:
            yield f"relative {term} loss {share:.3g} > {limit:g}"
    if rules.loss_increase is not None:
        share = _quotient(losses["file"]["total"], losses["optimized"]["total"])
        if share is not None and share - 1 > rules.loss_increase:
            yield f"what follows the optimization increased the total loss by {share - 1:.3g} > {rules.loss_increase:g}"
    clipped = record["clip_low_frac"] + record["clip_high_frac"]
    if rules.clipping is not None and clipped > rules.clipping:
        yield f"clipping {clipped:.3g} > {rules.clipping:g}"
    if rules.stop_reason is not None and record["stop_reason"] not in rules.stop_reason:
        yield f"stop reason {record['stop_reason']} is not among {', '.join(rules.stop_reason)}"
    error = record["titrate_error"]
    if record["titrate"] != "none" and (error is None or abs(error) > record["titrate_tolerance"]):
        missed = "is not defined" if error is None else f"is {abs(error):.3g} from {record['titrate_value']:g}"
        between = f"{record['titrate_lowest']:g} to {record['titrate_highest']:g}"
        yield f"{record['titrate']} {missed} at the closest ratio from {between}"
    for name in ("mean_luminance", "rms_contrast"):
        limits = getattr(rules, name)
        inside = record[f"{name}_inside"]
        value = record[name] if inside is None else inside  # which records of early versions do not have
        if limits is not None and not limits[0] <= value <= limits[1]:
            yield f"{name} {value:.3g} is outside of {limits[0]:g} to {limits[1]:g}"


def _quotient(value: Any, reference: Any) -> float | None:
    """value / reference, where both are there and the reference is not zero."""
    return None if value is None or not reference else float(value / reference)

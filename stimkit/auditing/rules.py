"""Rules that find what is wrong in a table of stimuli."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimkit.auditing.findings import Finding
from stimkit.documents.messages import EVERY
from stimkit.protocol.limits import DEFAULT_LIMITS, AuditLimits
from stimkit.protocol.mixes import Mix, steps_of
from stimkit.protocol.protocol import Protocol

OUTLYING = ("log_loss_content", "log_loss_style", "evaluations", "mean_luminance", "rms_contrast", "clipped")
MIN_REPLICATES = 5  # fewer have no median that one of them cannot move
MIN_REPEATED = 20  # stimuli with replicates, of fewer than which the spread is unsure: the limit is doubled
EQUALIZED = 0.02  # relative difference from a target of equalization
CHANCE_PERCENTILE = 5.0
REVERSAL = 0.01  # of the range of distances between two images: less is noise of the optimization
OBSERVED = re.compile("observer_(?P<name>[a-z0-9]+)_(?P<term>content|style)")
AGREEMENT, MIN_OBSERVED = 0.5, 10  # rank correlation of the losses of two networks, of so many stimuli
MIN_UNRELATED = 10  # unrelated images that a percentile needs


def judge_stimuli(stimuli: pd.DataFrame, limits: AuditLimits) -> Iterator[Finding]:
    """Findings about single stimuli: one row of the table for each, as `Audit.stimuli` has it."""
    for name, severity in (("failed", "error"), ("rejected", "notice")):
        for row in _rows(stimuli[stimuli["status"] == name]):
            yield Finding(name, severity, row.stimulus_id, row.status_reason)
    made = stimuli[stimuli["status"] != "failed"]
    yield from _beyond(made, "clipped", "clipping", limits, "{} % of the channel values were clipped")
    words = "what follows the optimization increased the total loss by {} %"
    optimized = made[made["evaluations"] > 0]  # photographs as they are have losses of rounding only
    yield from _beyond(optimized, "loss_increase", "loss_increase", limits, words)
    unfinished = made[made["stop_reason"] == "max_evaluations"]
    words = "the total loss fell by {} % over the last evaluations before max_evaluations"
    yield from _beyond(unfinished, "still_falling", "not_converged", limits, words, "still_falling")
    for row in _rows(made[made["stop_reason"] == "stalled"]):
        yield Finding("stalled", "notice", row.stimulus_id, f"stopped after {row.evaluations} evaluations")
    for row in _rows(made[made["rollbacks"] > 0]):
        yield Finding("rolled_back", "warning", row.stimulus_id, f"{row.rollbacks} evaluations", float(row.rollbacks))
    missed = pd.to_numeric(made["equalize_error"])
    for row in _rows(made.assign(equalize_error=missed)[missed > EQUALIZED]):
        words = f"{100 * row.equalize_error:.3g} % from the target"
        yield Finding("not_equalized", "warning", row.stimulus_id, words, float(row.equalize_error), EQUALIZED)
    yield from _chance(made)


def judge_set(
    design: pd.DataFrame, effects: pd.DataFrame, protocol: Protocol, factors: Sequence[str]
) -> Iterator[Finding]:
    """Findings about what the stimuli of a design are together, and about the effects of its factors."""
    limits, made = protocol.audit, design[design["status"] != "failed"]
    yield from find_reversals(made, protocol, factors)
    yield from find_outliers(made, limits, factors)
    yield from find_confounds(effects, {**limits.confounds, **limits.measured})
    yield from find_unmeasured(dict.fromkeys((*protocol.accept.measured, *limits.measured)), made)
    yield from find_unjudged(limits.confounds, effects, made)
    yield from find_disagreements(made[made["status"] == "accepted"])


def _rows(table: pd.DataFrame) -> Iterator[Any]:
    return iter(table.itertuples())


def _limit(limits: AuditLimits, name: str) -> tuple[float, str]:
    """A limit, and the severity of exceeding it: only a limit that the protocol names fails the audit."""
    given: float | None = getattr(limits, name)
    return (DEFAULT_LIMITS[name], "warning") if given is None else (given, "error")


def _beyond(
    table: pd.DataFrame, column: str, name: str, limits: AuditLimits, words: str, limit_name: str = ""
) -> Iterator[Finding]:
    limit, severity = _limit(limits, limit_name or name)
    for row in _rows(table.loc[table[column] > limit, ["stimulus_id", column]]):
        value = float(getattr(row, column))
        yield Finding(name, severity, row.stimulus_id, words.format(f"{100 * value:.3g}"), value, limit)


def find_outliers(table: pd.DataFrame, limits: AuditLimits, factors: Sequence[str]) -> Iterator[Finding]:
    """Stimuli that are far from their replicates, or from the additive effects of the factors (robust z)."""
    limit, severity = _limit(limits, "outlier")
    varied = [name for name in factors if name != "replicate" and table[name].nunique() > 1]
    for variable in (name for name in OUTLYING if name in table):
        known = table.loc[np.isfinite(table[variable]), list(dict.fromkeys(["stimulus_id", variable, *varied]))]
        groups = known.groupby(varied) if varied else [((), known)]
        scale = float(known[variable].abs().max())
        groups_of_enough = [group for _, group in groups if len(group) >= MIN_REPLICATES]
        if groups_of_enough:
            z = among_replicates([group[variable].to_numpy(float) for group in groups_of_enough], scale)
            sure = limit if len(z) >= MIN_REPEATED else 2 * limit
            yield from _far("among its replicates", variable, pd.concat(groups_of_enough), z, sure, severity)
        residuals = _residuals(known, variable, [name for name in varied if known[name].nunique() < len(known)])
        if residuals is not None:
            z = robust_z(residuals, scale)
            yield from _far("from what its factors predict", variable, known, z, limit, severity)


def _far(
    words: str, variable: str, rows: pd.DataFrame, found: NDArray[np.float64], limit: float, severity: str
) -> Iterator[Finding]:
    far = np.abs(found) > limit
    for row, z in zip(_rows(rows[far]), found[far], strict=True):
        value = getattr(row, variable)
        detail = f"{variable} is {value:.4g}, robust z {z:+.1f} {words}"
        yield Finding("outlier", severity, row.stimulus_id, detail, abs(float(z)), limit)


def robust_z(values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """(x - median) / (1.4826 MAD), the modified z of Iglewicz & Hoaglin (1993); zeros where half the values are equal.

    A spread of less than a millionth of `scale`, the size of the variable, is rounding.
    """
    deviations = values - np.median(values)
    spread = _spread(deviations)
    return deviations / spread if spread > 1e-6 * scale else np.zeros_like(values)


def among_replicates(groups: Sequence[NDArray[np.float64]], scale: float) -> NDArray[np.float64]:
    """Robust z of each value from the median of the others of its group, for all groups one after the other.

    The spread is that of all groups together, or of the group where it is larger: a few replicates alone have too
    unsure a spread (of five clean normal ones, every ninth time one would be beyond 5).
    """
    deviations = [
        np.array([value - np.median(np.delete(values, index)) for index, value in enumerate(values)])
        for values in groups
    ]
    pooled = _spread(np.concatenate(deviations))
    spreads = [np.full(len(deviation), max(pooled, _spread(deviation))) for deviation in deviations]
    spread = np.concatenate(spreads)
    return np.where(spread > 1e-6 * scale, np.concatenate(deviations) / np.maximum(spread, 1e-300), 0.0)


def _spread(deviations: NDArray[np.float64]) -> float:
    return 1.4826 * float(np.median(np.abs(deviations)))


def _residuals(table: pd.DataFrame, variable: str, factors: Sequence[str]) -> NDArray[np.float64] | None:
    """What is left of a variable when every factor has its additive effect; None where too little would be."""
    if not factors:
        return None
    design = pd.get_dummies(table[list(factors)].astype(str), drop_first=True, dtype=float).to_numpy()
    design = np.column_stack([np.ones(len(design)), design])
    if len(design) < 2 * design.shape[1] or len(design) < 10:
        return None
    values = table[variable].to_numpy(float)
    found: NDArray[np.float64] = values - design @ np.linalg.lstsq(design, values)[0]
    return found


def _chance(table: pd.DataFrame) -> Iterator[Finding]:
    for term in ("content", "style"):
        column = f"{term}_chance_percentile"
        if column not in table:
            continue
        enough = table[table[f"{term}_unrelated"] >= MIN_UNRELATED]
        for row in _rows(enough[enough[column] > CHANCE_PERCENTILE]):
            value = float(getattr(row, column))
            detail = f"{value:.3g} % of unrelated images are as close to its {term} target"
            yield Finding("no_better_than_chance", "notice", row.stimulus_id, detail, value, CHANCE_PERCENTILE)


def find_reversals(table: pd.DataFrame, protocol: Protocol, factors: Sequence[str]) -> Iterator[Finding]:
    """Series whose files, from one image to the next, do not get further from the first and closer to the second."""
    for kind in ("style", "content"):
        others = [name for name in factors if name != kind]
        mixes = protocol.mixes(kind)
        for name, steps in steps_of(mixes).items():
            mix = mixes[name]
            if mix.mean_of:
                continue
            levels = table[table[kind].isin([step.level for step in steps])]
            for _, rows in levels.groupby(others, dropna=False) if others else [((), levels)]:
                at = {str(row[kind]): row for _, row in rows.iterrows()}
                yield from _reversals(name, kind, mix, [at[step.level] for step in steps if step.level in at])


def _reversals(name: str, kind: str, mix: Mix, steps: Sequence[Any]) -> Iterator[Finding]:
    segments = list(pairwise((*mix.of, *mix.of[:1]) if mix.closed else mix.of))
    for number, (first, second) in enumerate(segments):
        closing = mix.closed and number == len(segments) - 1
        between = [row for row in steps if _images_of(row, kind) <= {first, second}]
        if closing:
            between = [*between[1:], between[0]] if between and between[0][kind] == second else between
        for image, sign in ((first, 1), (second, -1)):
            distances = np.array([row[f"{kind}_distance_{image}"] for row in between], float) * sign
            back: Any = np.flatnonzero(np.diff(distances) < -REVERSAL * np.ptp(distances)) if len(between) > 2 else []
            for index in back:
                row, before = between[index + 1], between[index]
                detail = f"{name}: its distance to {image} {'falls' if sign > 0 else 'grows'} after {before[kind]}"
                yield Finding("not_monotone", "warning", row["stimulus_id"], detail)


def _images_of(row: Any, kind: str) -> set[str]:
    """The images that a stimulus of a series is made of."""
    return {part.rpartition("=")[0] for part in row[f"{kind}_mix"].split(";")} if row[f"{kind}_mix"] else {row[kind]}


def find_confounds(effects: pd.DataFrame, limits: Mapping[str, Mapping[str, float]]) -> Iterator[Finding]:
    """Variables that follow a factor more than is allowed, by omega squared of that factor alone."""
    rows = effects[effects["model"] == "alone"]
    for row in _rows(rows):
        allowed = limits.get(row.variable, {})
        limit = allowed.get(row.factor, allowed.get(EVERY))
        if limit is not None and limit < 1 and math.isnan(row.omega_squared):
            detail = f"{row.factor} has a level for every stimulus, so that its part in {row.variable} is unknown"
            yield Finding("confound", "warning", "", detail, None, limit)
        elif limit is not None and row.omega_squared > limit:
            share = f"{row.factor} explains {100 * row.omega_squared:.1f} % of the variance of {row.variable}"
            detail = f"{share}; by chance, p = {row.p_permutation:.3g}"
            yield Finding("confound", "error", "", detail, float(row.omega_squared), limit)
        elif limit is not None and row.omega_squared_chance > limit:
            share = f"{100 * row.omega_squared_chance:.1f} % of the variance of {row.variable}"
            detail = f"chance lets {row.factor} explain {share} in 5 % of such sets, which is beyond the limit"
            yield Finding("limit_within_chance", "notice", "", detail, float(row.omega_squared_chance), limit)


def find_unmeasured(names: Iterable[str], stimuli: pd.DataFrame) -> Iterator[Finding]:
    """Variables that the protocol has a rule or limit for, and that were not measured of any stimulus."""
    for name in names:
        if name not in stimuli or not stimuli[name].notna().any():
            yield Finding("not_measured", "warning", "", f"{name}: see stimkit measure and stimkit norm")


def find_unjudged(names: Iterable[str], effects: pd.DataFrame, stimuli: pd.DataFrame) -> Iterator[Finding]:
    """Variables whose limits on confounds were not judged, since no stimulus has them or there are too few."""
    judged = set(effects["variable"])
    for name in (one for one in names if one not in judged):
        known = stimuli[name].dropna() if name in stimuli else pd.Series(dtype=float)
        if len(known) < 2 or known.nunique() > 1:  # what is the same for all follows no factor
            yield Finding("not_measured", "warning", "", f"{name}: {len(known)} stimuli have it, too few for its limit")


def find_disagreements(stimuli: pd.DataFrame) -> Iterator[Finding]:
    """Losses by other networks that order the stimuli otherwise than the losses of the network that made them."""
    for column in map(str, stimuli.columns):
        match = OBSERVED.fullmatch(column)
        pair = stimuli[[column, f"loss_{match['term']}_file"]].dropna() if match else stimuli[:0]
        if match is None or len(pair) < MIN_OBSERVED or pair.nunique().min() < 2:
            continue
        agreement = float(pair.corr("spearman").to_numpy()[0, 1])
        if agreement < AGREEMENT:
            words = f"{match['name']} orders {len(pair)} stimuli otherwise by {match['term']} loss (Spearman's rho"
            yield Finding("observer_disagrees", "notice", "", f"{words} {agreement:.2f})", agreement, AGREEMENT)

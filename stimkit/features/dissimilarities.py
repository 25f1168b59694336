"""Dissimilarities of stimuli in a layer, from the inner products of their features: as rsatoolbox defines them.

With V values a row: `euclidean` is the squared Euclidean distance by V, `correlation` one minus Pearson's r, and
`crossnobis` the squared distance of conditions whose two factors come from different replicates (Walther et al. 2016,
with the identity in place of the noise's precision), which is 0 on average where conditions do not differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stimkit.errors import UsageError, check_choice
from stimkit.features.components import inner_products
from stimkit.features.measuring import FeatureRow

Measure = Literal["euclidean", "correlation", "crossnobis"]
DISSIMILARITIES: tuple[str, ...] = get_args(Measure)


def check_measure(measure: str) -> Measure:
    """A measure of dissimilarity. Raises `UsageError` for another one."""
    check_choice(measure, DISSIMILARITIES, "a measure of dissimilarity")
    return measure  # type: ignore[return-value]


def order_by_condition(rows: Sequence[FeatureRow]) -> tuple[list[FeatureRow], int]:
    """The rows with the replicates of a condition in succession, and how many these are.

    A condition is a role, the layers, and a level of each factor but `replicate`. Raises `UsageError` for fewer than
    two replicates or conditions, and where a condition lacks a replicate that another one has, or has one twice.
    """
    places: dict[object, int] = {}
    for row in rows:
        places.setdefault(_condition(row), len(places))
    ordered = sorted(rows, key=lambda row: (places[_condition(row)], row.cell.replicate))
    groups = [[row.cell.replicate for row in group] for _, group in groupby(ordered, _condition)]
    count = len(groups[0])
    if count < 2 or len(groups) < 2:
        raise UsageError("crossnobis compares at least 2 conditions with at least 2 replicates each")
    for group in groups:
        if len(set(group)) < len(group):
            raise UsageError(f"crossnobis has replicates {_numbers(group)} of one condition: choose with --where")
        if group != groups[0]:
            raise UsageError(
                "crossnobis needs the same replicates of each condition, and these have"
                f" {_numbers(groups[0])} and {_numbers(group)}: choose with --where"
            )
    return ordered, count


def _condition(row: FeatureRow) -> object:
    levels = tuple(level for level in row.cell.levels.items() if level[0] != "replicate")
    return row.role, row.cell.content_layers, row.cell.style_layers, levels


def _numbers(replicates: Sequence[int]) -> str:
    return ", ".join(map(str, replicates))


def dissimilarity_matrix(rows: NDArray[np.float32], measure: Measure, replicates: int = 1) -> NDArray[np.float64]:
    """Matrix (n, n) for rows (n, values); of conditions for `crossnobis`, whose `replicates` are in succession.

    Values that may be on disk are read once. Correlations with a row that does not vary are NaN.
    """
    values = rows.shape[1]
    products = inner_products(rows) / values
    if measure == "crossnobis":
        conditions = len(rows) // replicates
        by_replicate = products.reshape(conditions, replicates, conditions, replicates)
        same = np.einsum("iaja->ij", by_replicate)
        products = (by_replicate.sum((1, 3)) - same) / (replicates * (replicates - 1))
    if measure == "correlation":
        means = rows.mean(1, dtype=np.float64)
        products -= np.outer(means, means)
        spread = np.sqrt(np.diag(products).clip(0))
        with np.errstate(divide="ignore", invalid="ignore"):
            found = 1 - products / np.outer(spread, spread)
        found[spread == 0] = found[:, spread == 0] = np.nan
        np.fill_diagonal(found, 0)
        return np.asarray(found)
    squares = np.diag(products)
    found = squares[:, None] + squares[None] - products - products.T
    return np.asarray(found if measure == "crossnobis" else found.clip(0))

"""How much of the distances between stimuli each factor explains: permutational analysis of variance.

Anderson (2001), A new method for non-parametric multivariate analysis of variance, Austral Ecology 26: the sum of
squares of a group is the sum of squared distances of its pairs, divided by its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimkit.effects.chance import group_sizes, omega_squared, permuted, squares_between
from stimkit.images.light import Array

DISTANCE_EFFECT_COLUMNS = ("factor", "df", "df_residual", "eta_squared", "omega_squared", "p_permutation")
_KEPT = 0.99  # of the variance, in the coordinates that are permuted


def explain_distances(squared: Array, factors: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    """One row for each factor with several levels: what part of squared distances (n, n) it explains, by itself.

    `eta_squared` is Anderson's R²; `p_permutation` of 999 random orders of the stimuli, by the coordinates that hold
    99 % of the variance. Without a row for factors of which every stimulus has a level of its own.
    """
    count = len(squared)
    total = float(squared.sum() / (2 * max(count, 1)))
    known = {name: group_sizes(labels) for name, labels in factors.items()}
    known = {name: sizes for name, sizes in known.items() if 1 < len(sizes) < count and total > 0}
    if not known:
        return pd.DataFrame(columns=list(DISTANCE_EFFECT_COLUMNS))
    coordinates = _coordinates(squared)
    orders = {name: np.argsort(np.asarray(factors[name], str), kind="stable") for name in known}
    observed = {name: squares_between(coordinates[orders[name]][None], sizes)[0] for name, sizes in known.items()}
    limits = {name: value - 1e-9 * float((coordinates**2).sum()) for name, value in observed.items()}
    as_much, tried = dict.fromkeys(known, 0), 0
    for ordered in permuted(coordinates):  # the same orders for all factors
        tried += len(ordered)
        for name, sizes in known.items():
            as_much[name] += int((squares_between(ordered, sizes) >= limits[name]).sum())
    rows = []
    for name, sizes in known.items():
        between = total - _within(squared[np.ix_(orders[name], orders[name])], sizes)
        omega = float(omega_squared(np.array([between]), total, len(sizes), count)[0])
        p = (as_much[name] + 1) / (tried + 1)
        values = (name, len(sizes) - 1, count - len(sizes), between / total, omega, p)
        rows.append(dict(zip(DISTANCE_EFFECT_COLUMNS, values, strict=True)))
    return pd.DataFrame(rows, columns=list(DISTANCE_EFFECT_COLUMNS))


def _within(squared: Array, sizes: NDArray[np.int64]) -> float:
    """Sum of squares within groups of successive rows, of their squared distances."""
    within, start = 0.0, 0
    for size in sizes.tolist():
        within += float(squared[start : start + size, start : start + size].sum()) / (2 * size)
        start += size
    return within


def principal_axes(squared: Array) -> tuple[Array, Array]:
    """Variances (n,), the largest first and none below 0, and the axes (n, n) with them, of squared distances (n, n).

    Classical scaling (Torgerson 1952): eigenvectors of −½ J D² J with J = I − 1/n. Coordinates are axes times the root
    of their variance.
    """
    centred = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
    values, axes = np.linalg.eigh(-0.5 * centred)  # the smallest first
    return values[::-1].clip(0), axes[:, ::-1]


def _coordinates(squared: Array) -> Array:
    """Coordinates (n, dimensions) whose distances are those given, to 99 % of their variance."""
    variances, axes = principal_axes(squared)
    needed = int(np.searchsorted(np.cumsum(variances), _KEPT * variances.sum())) + 1
    return np.asarray(axes[:, :needed] * np.sqrt(variances[:needed]))

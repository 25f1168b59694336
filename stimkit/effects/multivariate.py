"""How much of the distances between stimuli each factor explains: permutational analysis of variance.

Anderson (2001), A new method for non-parametric multivariate analysis of variance, Austral Ecology 26: the sum of
squares of a group is the sum of squared distances of its pairs, divided by its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from stimkit.effects.chance import group_sizes, omega_squared, permuted, squares_between
from stimkit.images.light import Array

DISTANCE_EFFECT_COLUMNS = ("factor", "df", "df_residual", "eta_squared", "omega_squared", "p_permutation")
_KEPT = 0.99  # of the variance, in the coordinates that are permuted


def explain_distances(squared: Array, factors: Mapping[str, Sequence[object]]) -> pd.DataFrame:
    """One row for each factor with several levels: what part of squared distances (n, n) it explains, by itself.

    `eta_squared` is Anderson's R²; `p_permutation` of 999 random orders of the stimuli, by the coordinates that hold
    99 % of the variance. Without a row for factors of which every stimulus has a level of its own.
    """
    rows = []
    count = len(squared)
    total = float(squared.sum() / (2 * count))
    coordinates = _coordinates(squared)
    reduced = float((coordinates**2).sum())
    for name, labels in factors.items():
        sizes, order = group_sizes(labels), np.argsort(np.asarray(labels, str), kind="stable")
        if not 1 < len(sizes) < count or not total > 0:
            continue
        ends = np.concatenate([[0], np.cumsum(sizes)])
        sorted_by_level = squared[np.ix_(order, order)]
        within = sum(float(sorted_by_level[a:b, a:b].sum()) / (2 * (b - a)) for a, b in pairwise(ends))
        found = float(squares_between(coordinates[order][None], sizes)[0])
        by_chance = np.concatenate([squares_between(one, sizes) for one in permuted(coordinates)])
        as_much = int((by_chance >= found - 1e-9 * reduced).sum())
        between = total - within
        omega = float(omega_squared(np.array([between]), total, len(sizes), count)[0])
        p = (as_much + 1) / (len(by_chance) + 1)
        values = (name, len(sizes) - 1, count - len(sizes), between / total, omega, p)
        rows.append(dict(zip(DISTANCE_EFFECT_COLUMNS, values, strict=True)))
    return pd.DataFrame(rows, columns=list(DISTANCE_EFFECT_COLUMNS))


def _coordinates(squared: Array) -> Array:
    """Coordinates (n, dimensions) whose distances are those given, to 99 % of their variance."""
    centred = squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean()
    values, vectors = np.linalg.eigh(-0.5 * centred)
    order = np.argsort(values)[::-1]
    positive = values[order].clip(0)
    needed = int(np.searchsorted(np.cumsum(positive), _KEPT * positive.sum())) + 1
    return np.asarray(vectors[:, order[:needed]] * np.sqrt(positive[:needed]))

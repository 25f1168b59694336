"""Binomial regression without an intercept, by statsmodels, with what it cannot fit told."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stimkit.images.light import Array
from stimkit.scaling.bootstrap import NoFit

LARGEST_PREDICTOR = 12.0  # above which a probability (6e-6 by logit, nothing by probit) is that of no answers
ITERATIONS = 50


def fit_binomial(design: NDArray[Any], answers: Array, weights: Array, link: Literal["probit", "logit"]) -> Array:
    """Coefficients of the largest likelihood, (columns,). Raises `NoFit` where they are infinite or not determined."""
    import statsmodels.api as sm

    kept = weights > 0
    rows, places = np.unique(design[kept], axis=0, return_inverse=True)
    total = np.bincount(places, weights[kept], len(rows))
    ones = np.bincount(places, (weights * answers)[kept], len(rows))
    if np.linalg.matrix_rank(rows) < rows.shape[1]:
        raise NoFit("some items are never compared with others, directly or through others: ask for more trials")
    kind = sm.families.links.Probit() if link == "probit" else sm.families.links.Logit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = sm.GLM(np.column_stack([ones, total - ones]), rows, family=sm.families.Binomial(kind)).fit(
                maxiter=ITERATIONS
            )
        except (ValueError, np.linalg.LinAlgError) as error:
            raise NoFit(f"the answers cannot be fitted: {error}") from None
    values = np.asarray(found.params, float)
    separated = np.abs(rows @ values) > LARGEST_PREDICTOR
    if not np.isfinite(values).all() or separated.any():
        raise NoFit("answers to some trials are always the same, so that no finite scale fits them best")
    return values

"""Maximum likelihood difference scaling (Maloney & Yang 2003; Knoblauch & Maloney 2008).

Of stimuli a < b < c (< d) along a series, an observer says which of two differences is larger. With a scale ψ and a
noise σ,

    P(the upper difference) = Φ((ψ_d − ψ_c − (ψ_b − ψ_a)) / σ)    of quadruples; of triads b is both in the middle

which is a probit regression without an intercept, whose columns are the stimuli. ψ is 0 at the first and 1 at the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from stimkit.images.light import Array
from stimkit.scaling.answers import TrialAnswers
from stimkit.scaling.bootstrap import NoFit
from stimkit.scaling.glm import fit_binomial

LEAST_NOISE = 1e-3


class DifferenceScale:
    """A scale over the levels of a series, and its noise."""

    fair, bounded = True, False

    def __init__(self, trials: TrialAnswers, along: str, *, similar: bool = False) -> None:
        trials.check((3, 4), "difference scaling")
        trials.check_answers(2, "difference scaling")
        shown = trials.numbers(along)
        pairs = shown[:, [0, 1, 1, 2]] if shown.shape[1] == 3 else shown
        levels, places = np.unique(pairs, return_inverse=True)
        if len(levels) < 3:
            raise NoFit(f"difference scaling needs three levels of {along} at least, and there are {len(levels)}")
        first, second = np.sort(places.reshape(pairs.shape)[:, :2]), np.sort(places.reshape(pairs.shape)[:, 2:])
        is_upper = second.sum(1) > first.sum(1)
        upper, lower = (np.where(one[:, None], second, first) for one in (is_upper, ~is_upper))
        self._design = np.zeros((len(pairs), len(levels)))
        every = np.arange(len(pairs))
        for column, sign in ((upper[:, 1], 1), (upper[:, 0], -1), (lower[:, 1], -1), (lower[:, 0], 1)):
            np.add.at(self._design, (every, column), sign)
        self.answers: NDArray[Any] = ((trials.responses == 2) == is_upper) != similar
        self.conditions: NDArray[Any] = np.unique(self._design, axis=0, return_inverse=True)[1].ravel()
        self.names = [*(f"{level:g}" for level in levels), "noise"]
        self.items = len(levels)

    def fit(self, answers: Array, weights: Array, start: Array | None = None) -> Array:
        values = fit_binomial(self._design[:, 1:], answers, weights, "probit")
        if values[-1] <= 0:
            raise NoFit("the last stimulus is not further from the first than this one itself: was `similar` asked?")
        return np.array([0.0, *(values / values[-1]), 1 / values[-1]])

    def predict(self, values: Array) -> Array:
        return np.asarray(norm.cdf(self._design @ values[:-1] / values[-1]))

    def nearest(self, values: Array) -> Array:
        return np.array([*values[:-1], max(values[-1], LEAST_NOISE)])

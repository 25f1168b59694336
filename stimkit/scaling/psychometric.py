"""Psychometric functions: thresholds and slopes (Wichmann & Hill 2001).

    P(x) = γ + (1 − γ − λ) F((x − threshold) / width)

with F the logistic function or the normal distribution, a fixed guess rate γ and a lapse rate λ that is fitted, up to
0.1, or fixed. x is the level of the stimulus; of two, that of the second minus that of the first, or its size where
answers are counted as right or wrong.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from stimkit.errors import check_choice
from stimkit.images.light import Array
from stimkit.scaling.answers import TrialAnswers
from stimkit.scaling.bootstrap import NoFit, deviance_of

Shape = Literal["logistic", "normal"]
MAX_LAPSE = 0.1


def rise(z: Array, shape: str) -> Array:
    """F: from 0 to 1 over z = (x − threshold) / width, ½ at 0."""
    return np.asarray(expit(z) if shape == "logistic" else norm.cdf(z))


class PsychometricFunction:
    """Threshold, width and lapse rate of answers along a series."""

    items = 0
    fair, bounded = False, True

    def __init__(
        self,
        trials: TrialAnswers,
        along: str,
        *,
        shape: Shape = "logistic",
        guess: float | None = None,
        lapse: float | None = None,
        right: bool = False,
    ) -> None:
        trials.check((1, 2), "a psychometric function")
        shown = trials.numbers(along)
        level = shown[:, 0] if shown.shape[1] == 1 else shown[:, 1] - shown[:, 0]
        if right:
            if "correct" not in trials.table or trials.table["correct"].isna().any():
                raise NoFit("there are trials without a right answer")
            self.answers: NDArray[Any] = trials.table["correct"].to_numpy(float) == 1
            self.x = np.abs(level)
        else:
            trials.check_answers(2, "a psychometric function")
            self.answers = trials.responses == 2
            self.x = level
        check_choice(shape, get_args(Shape), "a shape")
        self._shape, self._lapse = shape, lapse
        levels, self.conditions = np.unique(self.x, return_inverse=True)
        self._guess = (0.5 if right else 0.0) if guess is None else guess
        self.names = ["threshold", "width", *(["lapse"] if lapse is None else [])]
        if len(levels) < 3:
            raise NoFit(f"a psychometric function needs three levels of {along} at least")

    def fit(self, answers: Array, weights: Array, start: Array | None = None) -> Array:
        if not 0 < np.average(answers, weights=weights) < 1:
            raise NoFit("all answers are the same")
        x, places = np.unique(self.x, return_inverse=True)
        total = np.bincount(places, weights, len(x)).astype(float)
        share = np.bincount(places, weights * answers, len(x)) / np.maximum(total, 1)
        spread = float(np.ptp(x))

        def lost(parameters: Array) -> float:
            return deviance_of(share, total, self._at(x, self._values(parameters)))

        bounds = [(x[0] - spread, x[-1] + spread), (np.log(spread / 1000), np.log(spread * 100))]
        starts = [
            np.array([place, np.log(spread * width), *([0.02] if self._lapse is None else [])])
            for place in np.quantile(x, [0.3, 0.5, 0.7])
            for width in (0.05, 0.2)
        ]
        if start is not None:
            starts = [np.array([start[0], np.log(start[1]), *start[2:]])]
        bounds += [(0.0, MAX_LAPSE)] if self._lapse is None else []
        found = [minimize(lost, start, method="L-BFGS-B", bounds=bounds) for start in starts]
        best = min(found, key=lambda one: float(one.fun))
        if best.x[1] <= bounds[1][0] + 1e-6:
            raise NoFit("answers change from one level to the next at once: show levels between these")
        if best.x[1] >= bounds[1][1] - 1e-6 or not x[0] - spread < best.x[0] < x[-1] + spread:
            raise NoFit("answers do not change along the series, or their threshold is far outside of it")
        return self._values(best.x)

    def _values(self, parameters: Array) -> Array:
        return np.array([parameters[0], np.exp(parameters[1]), *parameters[2:]])

    def predict(self, values: Array) -> Array:
        return self._at(self.x, values)

    def _at(self, x: Array, values: Array) -> Array:
        threshold, width, *lapse = values
        lost = lapse[0] if lapse else self._lapse or 0.0
        return self._guess + (1 - self._guess - lost) * rise((x - threshold) / width, self._shape)

    def nearest(self, values: Array) -> Array:
        threshold, width, *lapse = values
        return np.array([threshold, max(width, 1e-6), *np.clip(lapse, 0, MAX_LAPSE)])

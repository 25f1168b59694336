"""Bradley-Terry: items in order of how often they are chosen (Bradley & Terry 1952).

Of items i and j, i is chosen with the probability 1 / (1 + exp(v_j − v_i)); the mean of the v is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from stimkit.images.light import Array
from stimkit.scaling.answers import TrialAnswers
from stimkit.scaling.bootstrap import NoFit
from stimkit.scaling.glm import fit_binomial


class Preferences:
    """Values of items: the levels of a factor or attribute, or stimuli."""

    fair, bounded = True, False

    def __init__(self, trials: TrialAnswers, by: str) -> None:
        trials.check((2,), "Bradley-Terry")
        trials.check_answers(2, "Bradley-Terry")
        labels = trials.labels(by)
        items, places = np.unique(labels, return_inverse=True)
        places = places.reshape(labels.shape)
        if (places[:, 0] == places[:, 1]).all():
            raise NoFit(f"the stimuli of each trial have the same {by}")
        self._design = np.zeros((len(labels), len(items)))
        np.add.at(self._design, (np.arange(len(labels)), places[:, 0]), 1)
        np.add.at(self._design, (np.arange(len(labels)), places[:, 1]), -1)
        self.answers: NDArray[Any] = trials.responses == 1
        self.conditions: NDArray[Any] = np.unique(self._design, axis=0, return_inverse=True)[1].ravel()
        self.names = list(map(str, items))
        self.items = len(items)

    def fit(self, answers: Array, weights: Array, start: Array | None = None) -> Array:
        values = np.array([0.0, *fit_binomial(self._design[:, 1:], answers, weights, "logit")])
        return np.asarray(values - values.mean())

    def predict(self, values: Array) -> Array:
        return np.asarray(expit(self._design @ values))

    def nearest(self, values: Array) -> Array:
        return values

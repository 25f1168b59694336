"""Estimates with intervals and goodness of fit, for any model of answers of two kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stimkit.errors import UsageError
from stimkit.images.light import Array

LEVEL = 0.95  # of intervals
MIN_PEOPLE = 10  # participants of whom samples are drawn; of fewer, their spread is too unsure
FEWEST = 0.5  # share of samples that a model must fit for intervals


class NoFit(UsageError):
    """No finite estimate fits answers better than any other."""


class AnswerModel(Protocol):
    """What is fitted: probabilities of an answer in each trial, from some values."""

    @property
    def names(self) -> Sequence[str]:
        """Of its values: items of a scale, then further parameters."""

    @property
    def items(self) -> int:
        """How many of them are items."""

    @property
    def answers(self) -> NDArray[Any]:
        """What was answered in each trial, (trials,): 0 or 1."""

    @property
    def fair(self) -> bool:
        """Whether answers without any scale are those of a fair coin; otherwise of one with their share of ones."""

    def fit(self, answers: Array, weights: Array, start: Array | None = None) -> Array:
        """Values of the largest likelihood, looked for near a `start` where one is given.

        `answers` are shares of ones, (trials,), of as many answers as the weights say. Raises `NoFit` where there are
        no such values.
        """

    def predict(self, values: Array) -> Array:
        """Probability of a one in each trial, (trials,)."""


@dataclass(frozen=True)
class Fit:
    """What a model gives for some answers."""

    names: tuple[str, ...]
    items: int
    values: Array
    low: Array
    high: Array
    """Ends of intervals of 95 %; NaN without them."""
    trials: int
    deviance: float
    """−2 log likelihood; NaN where there is no likelihood."""
    explained: float
    """Part of the deviance of a coin, or of the variance, that the model accounts for."""
    p: float
    """Share of sets of answers that the model gives itself which it fits no better; NaN without samples."""
    intervals: str
    """parametric: from answers that the fitted model gives; participants, trials: from samples of these."""


def deviance_of(answers: Array, weights: Array, probability: Array) -> float:
    """−2 log likelihood of answers."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-2 * np.sum(weights * (answers * np.log(p) + (1 - answers) * np.log(1 - p))))


def fit_with_intervals(
    model: AnswerModel, people: NDArray[Any], *, samples: int, generator: np.random.Generator
) -> Fit:
    """Fit a model to its answers, which are those of `people`, (trials,), and find intervals.

    They come from answers that the fitted model gives (parametric bootstrap: Efron & Tibshirani 1993), or, with
    `MIN_PEOPLE` participants at least, from samples of participants, so that they hold for others like these.
    Raises `NoFit`.
    """
    ones, each = model.answers.astype(float), np.ones(len(people))
    values = model.fit(ones, each)
    probability = model.predict(values)
    deviance = deviance_of(ones, each, probability)
    null = deviance_of(ones, each, np.full(len(ones), 0.5 if model.fair else ones.mean()))
    names = np.unique(people)
    by_people = len(names) >= MIN_PEOPLE
    found, worse = [], 0
    for _ in range(samples):
        drawn = (generator.random(len(ones)) < probability).astype(float)
        try:
            again = model.fit(drawn, each, values)
            worse += deviance_of(drawn, each, model.predict(again)) >= deviance
            if by_people:
                counts = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
                again = model.fit(ones, counts[np.searchsorted(names, people)].astype(float), values)
            found.append(again)
        except NoFit:
            continue
    low, high = intervals_of(found, samples, values)
    return Fit(
        names=tuple(model.names), items=model.items, values=values, low=low, high=high, trials=len(ones),
        deviance=deviance, explained=1 - deviance / null, p=worse / len(found) if found else float("nan"),
        intervals="participants" if by_people else "parametric",
    )  # fmt: skip


def intervals_of(found: Sequence[Array], samples: int, values: Array) -> tuple[Array, Array]:
    """The ends of intervals of values, by those of samples; NaN where too few samples could be fitted."""
    if not samples or len(found) < FEWEST * samples:
        return np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    low, high = np.quantile(np.array(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high

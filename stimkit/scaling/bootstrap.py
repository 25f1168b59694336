"""Estimates with intervals and goodness of fit, for any model of answers of two kinds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from stimkit.errors import UsageError
from stimkit.images.light import Array

LEVEL = 0.95  # of intervals
MIN_PEOPLE = 10  # participants of whom samples are drawn; of fewer, their spread is too unsure
REPEATED = 2  # times that conditions must have been shown on average for a test of fit
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
    def conditions(self) -> NDArray[Any]:
        """Numbers of what was shown, (trials,): the same for trials in which the model expects the same."""

    @property
    def bounded(self) -> bool:
        """Whether values can lie at a bound, where their fits do not spread to both sides."""

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

    def nearest(self, values: Array) -> Array:
        """The nearest values that are possible."""


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
    """Share of sets of answers that the model gives itself which are as far from it; NaN without samples, and where
    conditions were not repeated."""
    intervals: str
    """parametric: from answers that the fitted model gives; participants, trials: from samples of these."""


def deviance_of(answers: Array, weights: Array, probability: Array) -> float:
    """−2 log likelihood of answers."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-2 * np.sum(weights * (answers * np.log(p) + (1 - answers) * np.log(1 - p))))


def misfit(answers: Array, probability: Array, conditions: NDArray[Any]) -> float:
    """How far answers, (trials,), are from the probabilities that a model gives them: twice the log likelihood ratio
    to a model with a probability of its own for each condition (McCullagh & Nelder 1989, section 4.4).

    NaN where conditions were repeated less than twice on average: of single answers, the likelihood of a fit follows
    from the fit alone, and cannot tell whether they are like it.
    """
    count = np.bincount(conditions).astype(float)
    if len(answers) < REPEATED * np.count_nonzero(count):
        return float("nan")
    share = np.bincount(conditions, answers) / np.maximum(count, 1)
    return deviance_of(answers, np.ones(len(answers)), probability) - deviance_of(share, count, share)


def _share_beyond(found: float, expected: Sequence[float]) -> float:
    return float(np.mean(np.array(expected) >= found)) if expected and np.isfinite(found) else float("nan")


def fit_with_intervals(
    model: AnswerModel, people: NDArray[Any], *, samples: int, generator: np.random.Generator
) -> Fit:
    """Fit a model to its answers, which are those of `people`, (trials,), and find intervals.

    Half of the samples are answers that the fitted model gives (parametric bootstrap: Efron & Tibshirani 1993): by how
    much their fits miss it on average is its bias. The others are answers of the model without that bias, or, with
    `MIN_PEOPLE` participants at least, samples of participants; the spread of their fits, 1.96 times to each side of
    the values without bias, is the interval. Where a value can lie at a bound, as lapses do, it is what lies between
    percentiles of their fits: intervals of the other kind held a simulated observer's lapses in 73 of 100 simulations
    instead of 91, and percentiles their difference scales in 89 instead of 93. Raises `NoFit`.
    """
    ones, each = model.answers.astype(float), np.ones(len(people))
    values = model.fit(ones, each)
    deviance = deviance_of(ones, each, model.predict(values))
    null = deviance_of(ones, each, np.full(len(ones), 0.5 if model.fair else ones.mean()))
    half = samples // 2
    first, misfits = _refits(model, values, half, generator)
    unbiased = model.nearest(2 * values - np.mean(first, axis=0)) if first else values
    names = np.unique(people)
    by_people = len(names) >= MIN_PEOPLE
    if by_people:
        second = _refits_of_people(model, values, np.searchsorted(names, people), half, generator)
    else:
        second, _ = _refits(model, values if model.bounded else unbiased, half, generator)
    low, high = intervals_of(second, half, values)
    if not model.bounded and np.isfinite(low).all():
        spread = norm.ppf((1 + LEVEL) / 2) * np.std(second, axis=0)
        low, high = unbiased - spread, unbiased + spread
    return Fit(
        names=tuple(model.names), items=model.items, values=values, low=low, high=high,
        trials=len(ones), deviance=deviance, explained=1 - deviance / null,
        p=_share_beyond(misfit(ones, model.predict(values), model.conditions), misfits),
        intervals="participants" if by_people else "parametric",
    )  # fmt: skip


def _refits(
    model: AnswerModel, values: Array, count: int, generator: np.random.Generator
) -> tuple[list[Array], list[float]]:
    """Fits to answers that a model gives, and how far these are from their fits."""
    probability, found, misfits = np.clip(model.predict(values), 0, 1), [], []
    each = np.ones(len(probability))
    for _ in range(count):
        drawn = (generator.random(len(probability)) < probability).astype(float)
        with suppress(NoFit):
            found.append(model.fit(drawn, each, values))
            misfits.append(misfit(drawn, model.predict(found[-1]), model.conditions))
    return found, misfits


def _refits_of_people(
    model: AnswerModel, values: Array, of_whom: NDArray[Any], count: int, generator: np.random.Generator
) -> list[Array]:
    """Fits to the answers of samples of participants."""
    people, found = int(of_whom.max()) + 1, []
    for _ in range(count):
        times = np.bincount(generator.integers(people, size=people), minlength=people)
        with suppress(NoFit):
            found.append(model.fit(model.answers.astype(float), times[of_whom].astype(float), values))
    return found


def intervals_of(found: Sequence[Array], samples: int, values: Array) -> tuple[Array, Array]:
    """The ends of intervals of values, by those of samples; NaN where too few samples could be fitted."""
    if not samples or len(found) < FEWEST * samples:
        return np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    low, high = np.quantile(np.array(found), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high

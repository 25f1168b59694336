"""Similarity of three: which one is odd, as distances in a plane.

Items i and j are as similar as the share of those trials with both in which neither was called odd. Their
dissimilarities, 1 less that, become distances by classical scaling (`principal_axes`).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes

from stimkit.effects.multivariate import principal_axes
from stimkit.images.light import Array
from stimkit.scaling.answers import TrialAnswers
from stimkit.scaling.bootstrap import MIN_PEOPLE, Fit, NoFit, intervals_of

DIMENSIONS = 2


def dissimilarities(items: int, shown: NDArray[np.int64], odd: NDArray[np.int64], weights: Array) -> Array:
    """1 less the share of trials in which two items stayed together: (items, items); NaN where they never met.

    `shown` are items, (trials, 3), and `odd` the places, from 0, of those that were called odd.
    """
    together, met = np.zeros((items, items)), np.zeros((items, items))
    for one, other in itertools.combinations(range(3), 2):
        pair = shown[:, [one, other]].T
        np.add.at(met, tuple(pair), weights)
        np.add.at(together, tuple(pair), weights * ((odd != one) & (odd != other)))
    met, together = met + met.T, together + together.T
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 1 - together / met
    np.fill_diagonal(found, 0)
    return found


def scale_classically(distances: Array, dimensions: int = DIMENSIONS) -> tuple[Array, float]:
    """Coordinates (items, dimensions) of distances, and the part of their variance that they account for."""
    variances, axes = principal_axes(distances**2)
    kept = variances[:dimensions]
    return axes[:, :dimensions] * np.sqrt(kept), float(kept.sum() / variances.sum())


def map_similarities(trials: TrialAnswers, by: str, *, samples: int, generator: np.random.Generator) -> Fit:
    """Coordinates of the levels of a factor, of which each trial shows three different ones.

    Intervals are from samples of trials, or of participants where there are enough; each is turned to the whole
    (orthogonal Procrustes). Raises `NoFit` where two items never met.
    """
    trials.check((3,), "similarity")
    trials.check_answers(3, "similarity")
    labels = trials.labels(by)
    items, places = np.unique(labels, return_inverse=True)
    shown, odd = places.reshape(labels.shape), trials.responses - 1
    if len(items) <= DIMENSIONS or any(len(set(row)) < 3 for row in shown):
        raise NoFit(f"each trial must show three different levels of {by}, of four or more")

    def coordinates(weights: Array) -> tuple[Array, float]:
        distances = dissimilarities(len(items), shown, odd, weights)
        if np.isnan(distances).any():
            one, other = np.argwhere(np.isnan(distances))[0]
            raise NoFit(f"{items[one]} and {items[other]} are in no trial together: ask for more trials")
        return scale_classically(distances)

    values, explained = coordinates(np.ones(len(shown)))
    people, of_whom = np.unique(trials.table["participant"], return_inverse=True)
    by_people = len(people) >= MIN_PEOPLE
    found = []
    for _ in range(samples):
        count = len(people) if by_people else len(shown)
        drawn = np.bincount(generator.integers(count, size=count), minlength=count).astype(float)
        try:
            again, _ = coordinates(drawn[of_whom] if by_people else drawn)
        except NoFit:
            continue
        found.append((again @ orthogonal_procrustes(again, values)[0]).ravel())
    low, high = intervals_of(found, samples, values.ravel())
    names: list[Any] = [f"{item};{dimension + 1}" for item in items for dimension in range(DIMENSIONS)]
    return Fit(
        tuple(names), len(names), values.ravel(), low, high, len(shown), float("nan"), explained, float("nan"),
        "participants" if by_people else "trials",
    )  # fmt: skip

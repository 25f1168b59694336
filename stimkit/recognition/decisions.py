"""From probabilities of classes to categories: what is recognized, on which rank, and how strong two cues are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimkit.errors import WeightsError
from stimkit.recognition.categories import Categories


@dataclass(frozen=True)
class Decision:
    """What a network takes an image for."""

    categories: tuple[str, ...]
    log_scores: NDArray[np.float64]
    """Natural logarithms of the scores of the categories, of which the sum is 1."""

    @property
    def recognized(self) -> str:
        """The category of the highest score; the first one of equal ones."""
        return self.categories[int(self.log_scores.argmax())]

    def rank(self, category: str) -> int:
        """1 for the category of the highest score, and 1 more for each that has a higher one."""
        own = self.log_scores[self.categories.index(category)]
        return int((self.log_scores > own).sum()) + 1

    def probability(self, category: str) -> float:
        """The score of a category."""
        return float(math.exp(self.log_scores[self.categories.index(category)]))

    def balance(self, one: str, other: str) -> float:
        """log10 of the score of a category / that of another one: 0 where both cues are equally strong."""
        difference = self.log_scores[self.categories.index(one)] - self.log_scores[self.categories.index(other)]
        return float(difference / math.log(10))


@dataclass(frozen=True)
class Recognition:
    """What a network takes a stimulus for, and how strong its cues are."""

    recognized_as: str
    ranks: Mapping[str, int]
    """Of the category of its content and of its style, where they have one."""
    probabilities: Mapping[str, float]
    balance: float
    """log10 of the probability of the content's category / that of the style's; NaN where one of them has none."""

    @classmethod
    def of(cls, decision: Decision, named: Mapping[str, str]) -> Recognition:
        """The recognition of a stimulus whose content and style have these categories, by kind."""
        balance = math.nan
        if {"content", "style"} <= named.keys():
            balance = decision.balance(named["content"], named["style"])
        return cls(
            decision.recognized,
            {kind: decision.rank(category) for kind, category in named.items()},
            {kind: decision.probability(category) for kind, category in named.items()},
            balance,
        )

    def columns(self, digest: str) -> dict[str, Any]:
        """As the columns of a record; `digest` is that of classifier and categories."""
        return {
            "recognized_as": self.recognized_as,
            **{f"{kind}_rank": self.ranks.get(kind) for kind in ("content", "style")},
            **{f"{kind}_probability": self.probabilities.get(kind) for kind in ("content", "style")},
            "recognition_sha256": digest,
        }


def decide(logits: NDArray[np.float64], categories: Categories) -> Decision:
    """Decide by the outputs (classes,) of a classifier before softmax.

    The score of a category is the mean probability of its classes, as Geirhos et al. (2019) decide, divided by the sum
    over categories; of ImageNet's own classes it is the probability of softmax. Raises `WeightsError` where outputs
    are not finite.
    """
    if not np.isfinite(logits).all():
        raise WeightsError("the classifier gives no finite output for a stimulus")
    logs = logits - _log_sum(logits)
    means = np.array(
        [_log_sum(logs[list(members)]) - math.log(len(members)) for members in categories.classes.values()]
    )
    return Decision(tuple(categories.classes), means - _log_sum(means))


def _log_sum(values: NDArray[np.float64]) -> float:
    largest = float(values.max())
    return largest + math.log(float(np.exp(values - largest).sum()))

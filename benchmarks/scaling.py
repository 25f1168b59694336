"""How often intervals of scales hold what simulated observers see: `python benchmarks/scaling.py [SIMULATIONS]`.

For each method one observer with a known scale answers anew in every simulation; an interval of 95 % should hold each
value of the scale in 95 of 100.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

from stimkit.scaling.answers import TrialAnswers, choose_trials
from stimkit.scaling.bootstrap import Fit, fit_with_intervals
from stimkit.scaling.difference import DifferenceScale
from stimkit.scaling.preference import Preferences
from stimkit.scaling.psychometric import PsychometricFunction

SAMPLES = 300
LEVELS = np.linspace(0, 1, 9)
PEOPLE = np.array(["one"])


def to_trials(shown: np.ndarray, second: np.ndarray, name: str = "level") -> TrialAnswers:
    """Trials of stimuli (trials, places) of which the second answer was given or not."""
    places = [""] if shown.shape[1] == 1 else [f"_{place + 1}" for place in range(shown.shape[1])]
    columns = {f"{name}{place}": shown[:, index] for index, place in enumerate(places)}
    columns |= {f"stimulus_id{place}": shown[:, index] for index, place in enumerate(places)}
    return choose_trials(pd.DataFrame({**columns, "participant": "one", "response": 1 + second}))


def difference(generator: np.random.Generator) -> tuple[Fit, np.ndarray]:
    """Three of nine levels, each twice, noise of 0.15."""
    truth = LEVELS**0.6
    triads = np.array(list(itertools.combinations(range(len(LEVELS)), 3)) * 2)
    first, second = (truth[triads[:, at + 1]] - truth[triads[:, at]] for at in (0, 1))
    answers = generator.random(len(triads)) < norm.cdf((second - first) / 0.15)
    model = DifferenceScale(to_trials(LEVELS[triads], answers.astype(int)), "level")
    found = fit_with_intervals(model, PEOPLE.repeat(len(triads)), samples=SAMPLES, generator=generator)
    return found, np.array([*truth, 0.15])


def preference(generator: np.random.Generator) -> tuple[Fit, np.ndarray]:
    """Pairs of six items, each twelve times."""
    truth = np.array([-1.0, -0.6, -0.1, 0.2, 0.5, 1.0])
    pairs = np.array(list(itertools.combinations(range(len(truth)), 2)) * 12)
    answers = generator.random(len(pairs)) < expit(truth[pairs[:, 1]] - truth[pairs[:, 0]])
    model = Preferences(to_trials(pairs, answers.astype(int)), "level")
    return fit_with_intervals(model, PEOPLE.repeat(len(pairs)), samples=SAMPLES, generator=generator), truth


def psychometric(generator: np.random.Generator) -> tuple[Fit, np.ndarray]:
    """Nine levels, each 30 times, lapses of 2 %."""
    levels = np.repeat(LEVELS, 30)
    answers = generator.random(len(levels)) < 0.98 * expit((levels - 0.45) / 0.08)
    model = PsychometricFunction(to_trials(levels[:, None], answers.astype(int)), "level")
    found = fit_with_intervals(model, PEOPLE.repeat(len(levels)), samples=SAMPLES, generator=generator)
    return found, np.array([0.45, 0.08, 0.02])


METHODS: dict[str, Callable[[np.random.Generator], tuple[Fit, np.ndarray]]] = {
    "mlds": difference,
    "bradley-terry": preference,
    "psychometric": psychometric,
}


def main() -> None:
    """Print the coverage of each value."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for name, make in METHODS.items():
        inside = []
        for number in range(count):
            found, truth = make(np.random.default_rng([7, number]))
            inside.append((found.low <= truth + 1e-12) & (truth - 1e-12 <= found.high))
        shares = 100 * np.mean(inside, axis=0)
        named = ", ".join(f"{item} {share:.0f}" for item, share in zip(found.names, shares, strict=True))
        print(f"{name}: {shares.mean():.1f} of 100 on average ({named})", flush=True)


if __name__ == "__main__":
    main()

"""Simulated observers: answers to a trial list before anyone is tested, written as the exports write them.

What observers see of a stimulus is ψ = u^exponent, of its level u along a series from 0 to 1. They decide as the models
of `stimkit.scaling` assume, with normal noise:

    2afc, pair        the larger ψ, each with noise
    single            the second answer above a threshold, or ψ with noise in equal parts for more answers
    mlds              the larger difference, with noise (Maloney & Yang 2003)
    abx, match        the candidate that is closer to the sample, each with noise
    triplet           the stimulus that is further from the others, similarity: from the two that are most alike
    adjust            the step that is closest to the sample, which is seen with noise

A logistic observer answers along the level itself, with a threshold and a width; a random one at random.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy.special import expit

from stimkit.errors import UsageError, did_you_mean
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.lists import TrialLists, make_trials
from stimkit.files import whole_folder
from stimkit.records.tables import csv_bytes
from stimkit.runfolder.run import AnyRun

ObserverKind = Literal["difference", "logistic", "random"]
Levels = Sequence[float]
FASTEST, SLOWEST = 300, 2000  # ms, of answers


@dataclass(frozen=True)
class Observer:
    """How a simulated observer answers."""

    kind: ObserverKind = "difference"
    exponent: float = 1.0
    noise: float = 0.1
    """Standard deviation, in parts of the whole scale."""
    threshold: float = 0.5
    width: float = 0.1
    """Of the logistic function."""
    lapse: float = 0.0
    """Part of the answers that are given at random."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(ObserverKind):
            hint = did_you_mean(self.kind, get_args(ObserverKind))
            raise UsageError(f'"{self.kind}" is not an observer{hint}: give one of {", ".join(get_args(ObserverKind))}')
        if self.exponent <= 0 or self.noise < 0 or self.width <= 0 or not 0 <= self.lapse <= 1:
            raise UsageError("exponent and width are above 0, noise is not below 0, lapse is from 0 to 1")


def simulate(
    run: AnyRun, design: TrialDesign, observer: Observer | None = None, *, along: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Answers of a simulated observer to the trial lists of a design, as the exports save them.

    >>> design = stimkit.TrialDesign.load("protocols/trials/rating.toml")
    >>> answers = stimkit.simulate("runs/quickstart", design, stimkit.Observer("random"))
    >>> answers.shape[0], set(answers["response"]) <= {1, 2, 3, 4, 5}, answers["observer"][0][:22]
    (216, True, 'simulated: kind random')

    `along` is the series that is seen, by default that of the design. Every row says in `observer` that it is
    simulated. Raises `UsageError` where the trials have no such series or are adaptive, and what `make_trials` raises.
    """
    if design.adaptive:
        raise design.error("lets levels follow from answers: simulate a design with fixed levels", "adaptive")
    lists = make_trials(run, design)
    return answer_lists(lists, observer or Observer(), along=along or design.trial.along, seed=seed)


def answer_lists(lists: TrialLists, observer: Observer, *, along: str | None, seed: int) -> pd.DataFrame:
    """Answers to trial lists; see `simulate`."""
    design, choices = lists.design, lists.answers.choices
    levels = _levels(lists, along) if observer.kind != "random" else np.zeros((len(lists.table), design.trial.shown))
    low, spread = levels.min(), max(float(np.ptp(levels)), 1e-12)
    words = ", ".join(f"{name} {value}" for name, value in asdict(observer).items())
    rows = []
    for number, (trial, at) in enumerate(zip(lists.table.to_dict("records"), levels, strict=True)):
        generator = np.random.default_rng([seed, number])
        steps = lists.series.get(str(trial.get("series")), ())
        options = len(steps) or len(choices)
        lost = observer.kind == "random" or generator.random() < observer.lapse
        if lost:
            response = int(generator.integers(options)) + 1
        else:
            seen = ((at - low) / spread).tolist()
            along_steps = [(step["level"] - low) / spread for step in steps]
            response = _DECIDE[design.trial.form](observer, seen, along_steps or range(options), generator)
        answer: dict[str, Any] = {"rt": int(generator.integers(FASTEST, SLOWEST)), "response": response}
        if steps:
            step = steps[response - 1]
            answer |= {"chosen": step["level"], "chosen_id": step["stimulus_id"]}
        else:
            right = trial["answer_index"]
            is_right = None if pd.isna(right) else bool(right == response)
            answer |= {"choice": choices[response - 1], "correct": is_right}
        shown = {"trial_index": number, "trial_type": "html-button-response", "observer": f"simulated: {words}"}
        rows.append({**{str(name): value for name, value in trial.items()}, **answer, **shown})
    return pd.DataFrame(rows)


def _levels(lists: TrialLists, along: str | None) -> Any:
    """The levels of the stimuli of each trial along a series, (trials, places)."""
    shown = lists.design.trial.shown
    names = [f"{along}_{place}" for place in range(1, shown + 1)] if shown > 1 else [str(along)]
    if along is None or any(name not in lists.table for name in names):
        hint = did_you_mean(along or "", lists.factors)
        raise UsageError(f"name the series, or the factor of numbers, that the observer sees, with --along{hint}")
    values = lists.table[names].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if not np.isfinite(values).all():
        raise UsageError(f'trials show stimuli without a number in "{along}"; choose others in [stimuli] where')
    return values


Decide = Callable[[Observer, Levels, Levels, np.random.Generator], int]


def _psi(observer: Observer, levels: Levels) -> Any:
    return np.abs(levels) ** observer.exponent if observer.kind == "difference" else np.asarray(levels, float)


def _of_single(observer: Observer, seen: Levels, options: Levels, generator: np.random.Generator) -> int:
    if observer.kind == "logistic":
        rising = expit((seen[0] - observer.threshold) / observer.width)
        return 1 + int(generator.binomial(len(options) - 1, rising))
    felt = _psi(observer, seen)[0] + observer.noise * generator.standard_normal()
    if len(options) == 2:
        return 1 + int(felt > observer.threshold)
    return 1 + int(np.clip(felt * len(options), 0, len(options) - 1))


def _of_two(observer: Observer, seen: Levels, _options: Levels, generator: np.random.Generator) -> int:
    if observer.kind == "logistic":
        return 1 + int(generator.random() < expit((seen[1] - seen[0]) / observer.width))
    felt = _psi(observer, seen) + observer.noise * generator.standard_normal(2)
    return 1 + int(felt[1] > felt[0])


def _of_differences(observer: Observer, seen: Levels, _options: Levels, generator: np.random.Generator) -> int:
    psi = _psi(observer, seen)
    first, second = abs(psi[1] - psi[0]), abs(psi[-1] - psi[-2])
    return 1 + int(second - first + observer.noise * generator.standard_normal() > 0)


def _of_candidates(observer: Observer, sample: float, candidates: Levels, generator: np.random.Generator) -> int:
    felt = np.abs(np.asarray(candidates) - sample) + observer.noise * generator.standard_normal(len(candidates))
    return 1 + int(felt.argmin())


def _of_abx(observer: Observer, seen: Levels, _options: Levels, generator: np.random.Generator) -> int:
    psi = _psi(observer, seen)
    return _of_candidates(observer, psi[2], psi[:2], generator)


def _of_match(observer: Observer, seen: Levels, _options: Levels, generator: np.random.Generator) -> int:
    psi = _psi(observer, seen)
    return _of_candidates(observer, psi[0], psi[1:], generator)


def _of_three(observer: Observer, seen: Levels, _options: Levels, generator: np.random.Generator) -> int:
    """The one that is left of the two that are most alike."""
    felt = _psi(observer, seen) + observer.noise * generator.standard_normal(3)
    apart = [abs(felt[1] - felt[2]), abs(felt[0] - felt[2]), abs(felt[0] - felt[1])]
    return 1 + int(np.argmin(apart))


def _of_steps(observer: Observer, seen: Levels, steps: Levels, generator: np.random.Generator) -> int:
    felt = _psi(observer, seen)[0] + observer.noise * generator.standard_normal()
    return 1 + int(np.abs(_psi(observer, steps) - felt).argmin())


_DECIDE: dict[str, Decide] = {
    "single": _of_single,
    "pair": _of_two,
    "2afc": _of_two,
    "triplet": _of_three,
    "similarity": _of_three,
    "abx": _of_abx,
    "match": _of_match,
    "mlds-triad": _of_differences,
    "mlds-quad": _of_differences,
    "adjust": _of_steps,
}


def save_answers(answers: pd.DataFrame, out: str | Path) -> int:
    """Write a file of answers for each participant into a new folder; return how many there are."""
    with whole_folder(Path(out)) as folder:
        for participant, rows in answers.groupby("participant"):
            (folder / f"{participant}.csv").write_bytes(csv_bytes(rows))
    return int(answers["participant"].nunique())

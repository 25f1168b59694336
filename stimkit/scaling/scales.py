"""Scales and thresholds of joined answers: for each participant and for all together, as tables and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from stimkit.documents.figures import new_figure, png_of
from stimkit.errors import UsageError, check_choice
from stimkit.files import whole_folder
from stimkit.records.tables import csv_bytes
from stimkit.scaling.answers import TrialAnswers, read_joined
from stimkit.scaling.bootstrap import AnswerModel, Fit, NoFit, fit_with_intervals
from stimkit.scaling.difference import DifferenceScale
from stimkit.scaling.preference import Preferences
from stimkit.scaling.psychometric import PsychometricFunction, rise
from stimkit.scaling.similarity import map_similarities

Method = Literal["mlds", "bradley-terry", "psychometric", "mds"]
METHODS: tuple[str, ...] = get_args(Method)
OPTIONS = {"mlds": ("similar",), "psychometric": ("shape", "guess", "lapse", "right")}
EVERYONE = ""
"""The participant of what is fitted to all answers together."""


@dataclass(frozen=True)
class Scales:
    """What answers say of stimuli."""

    method: str
    along: str
    estimates: Mapping[str, Fit]
    """By participant; of all together under an empty name."""
    problems: Mapping[str, str]
    """Why there is none, by participant."""
    shape: str = "logistic"
    """Of psychometric functions."""

    @property
    def values(self) -> pd.DataFrame:
        """One row for each item or parameter: participant, name, dimension, value and its interval."""
        rows = []
        for participant, found in self.estimates.items():
            for index, name in enumerate(found.names):
                item, _, dimension = name.partition(";")
                rows.append(
                    {
                        "participant": participant,
                        "kind": "item" if index < found.items else "parameter",
                        "name": item,
                        "dimension": int(dimension or 1),
                        "value": found.values[index],
                        "low": found.low[index],
                        "high": found.high[index],
                    }
                )
        return pd.DataFrame(rows)

    @property
    def fits(self) -> pd.DataFrame:
        """One row for each participant: trials, deviance, what is accounted for, goodness of fit."""
        rows: list[dict[str, Any]] = [
            {
                "participant": participant,
                "trials": found.trials,
                "deviance": found.deviance,
                "explained": found.explained,
                "p": found.p,
                "intervals": found.intervals,
                "problem": "",
            }
            for participant, found in self.estimates.items()
        ]
        rows += [{"participant": participant, "problem": words} for participant, words in self.problems.items()]
        return pd.DataFrame(rows)


def scale(
    joined: str | Path,
    method: str,
    *,
    along: str,
    where: str | None = None,
    samples: int = 1000,
    seed: int = 0,
    **options: Any,
) -> Scales:
    """Fit a scale to answers in the folder that `stimkit join` wrote, or a CSV file, for each participant and for all.

    >>> import pandas as pd
    >>> seen = pd.DataFrame({"participant": "p001", "stimulus_id": "s", "level": [1, 2, 3, 4, 5] * 4})
    >>> seen.assign(response=[1, 1, 2, 2, 2] * 2 + [1, 1, 1, 2, 2] * 2).to_csv("seen.csv")
    >>> found = stimkit.scale("seen.csv", "psychometric", along="level", samples=0, shape="normal")
    >>> found.values.set_index("name")["value"].round(1)["threshold"]
    np.float64(3.0)

    Methods are `mlds` (trials of the forms mlds-triad and mlds-quad), `bradley-terry` (pair, 2afc), `psychometric`
    (single, pair, 2afc) and `mds` (similarity). `along` is the series, or for `bradley-terry` and `mds` the factor
    whose levels are scaled (`stimulus_id` for stimuli). `where` is a condition on the columns of the answers. Further
    keywords are those of the method: `similar` (mlds: the smaller difference was asked for), `shape`, `guess`, `lapse`
    and `right` (psychometric). Raises `UsageError` where the answers are not those of the method, or nothing fits them.
    """
    check_choice(method, METHODS, "a method")
    for option in options.keys() - OPTIONS.get(method, ()):
        of = [name for name, known in OPTIONS.items() if option in known]
        raise UsageError(f"{option} is an option of {of[0]}, not of {method}" if of else f"there is no option {option}")
    trials = read_joined(Path(joined), where)
    estimates: dict[str, Fit] = {}
    problems: dict[str, str] = {}
    people = trials.participants if len(trials.participants) > 1 else []
    for number, participant in enumerate([EVERYONE, *people]):
        try:
            generator = np.random.default_rng([seed, number])
            estimates[participant] = _fit(trials.of(participant), method, along, samples, generator, options)
        except NoFit as error:
            problems[participant] = str(error)
    if not estimates:
        raise UsageError(f"nothing fits the answers: {problems[EVERYONE]}")
    return Scales(method, along, estimates, problems, options.get("shape", "logistic"))


def _fit(
    trials: TrialAnswers, method: str, along: str, samples: int, generator: np.random.Generator, options: dict[str, Any]
) -> Fit:
    if method == "mds":
        return map_similarities(trials, along, samples=samples, generator=generator)
    model: AnswerModel
    if method == "mlds":
        model = DifferenceScale(trials, along, **options)
    elif method == "bradley-terry":
        model = Preferences(trials, along)
    else:
        model = PsychometricFunction(trials, along, **options)
    people = trials.table["participant"].to_numpy()
    return fit_with_intervals(model, people, samples=samples, generator=generator)


def save_scales(found: Scales, out: str | Path) -> None:
    """Write scales.csv, fits.csv and, where matplotlib is there, scale.png into a new folder."""
    with whole_folder(Path(out)) as folder:
        (folder / "scales.csv").write_bytes(csv_bytes(found.values))
        (folder / "fits.csv").write_bytes(csv_bytes(found.fits))
        if (picture := draw(found)) is not None:
            (folder / "scale.png").write_bytes(picture)


def draw(found: Scales) -> bytes | None:
    """A picture of scales as PNG: of all answers together, and of each participant in grey; None without matplotlib."""
    try:
        figure = new_figure((6.4, 4.2))
    except UsageError:
        return None
    axes = figure.subplots()
    for participant, one in sorted(found.estimates.items(), reverse=True):
        whole = participant == EVERYONE
        _draw_one(axes, found, one, {"color": "#1f5fa8" if whole else "#bbbbb5", "zorder": 3 if whole else 2})
    axes.spines[["top", "right"]].set_visible(False)
    return png_of(figure)


def _draw_one(axes: Any, found: Scales, one: Fit, style: dict[str, Any]) -> None:
    names, values = one.names[: one.items], one.values[: one.items]
    low, high = one.low[: one.items], one.high[: one.items]  # of which a value without its bias may lie outside
    if found.method == "mds":
        xy = values.reshape(-1, 2)
        axes.plot(*xy.T, "o", **style)
        axes.hlines(xy[:, 1], low[::2], high[::2], **style)
        axes.vlines(xy[:, 0], low[1::2], high[1::2], **style)
        for name, place in zip(names[::2], xy, strict=True):
            axes.annotate(name.partition(";")[0], place, textcoords="offset points", xytext=(5, 4))
        axes.set(aspect="equal", xlabel="dimension 1", ylabel="dimension 2")
    elif found.method == "psychometric":
        threshold, width = one.values[:2]
        z = np.linspace(-5, 5, 200)
        axes.plot(threshold + width * z, rise(z, found.shape), **style)
        axes.hlines(0.5, one.low[0], one.high[0], **style)
        axes.set(xlabel=found.along, ylabel="F((x − threshold) / width)")
    else:
        x = np.array(list(map(float, names))) if found.method == "mlds" else np.arange(len(names))
        axes.plot(x, values, "o-" if found.method == "mlds" else "o", **style)
        axes.vlines(x, low, high, **style)
        if found.method != "mlds":
            axes.set_xticks(x, names, rotation=45, ha="right")
        axes.set(xlabel=found.along, ylabel="perceptual scale" if found.method == "mlds" else "value (log odds)")

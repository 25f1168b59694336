"""Norms of stimuli: how they were named, rated and how fast, as columns of the manifest.

Each participant counts once for a stimulus, with the mean of its answers to it. Intervals hold 95 %: Wilson's (1927)
for parts of participants, Student's for means of ratings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimkit.columns import Column
from stimkit.errors import UsageError
from stimkit.experiment.responses import RESPONSES, person_column
from stimkit.files import read_file
from stimkit.records.measurements import OWN_TABLES
from stimkit.runfolder.measuring import enter_measurements
from stimkit.runfolder.run import AnyRun, read_run
from stimkit.scaling.answers import TrialAnswers, read_joined
from stimkit.version import __version__

CONFIDENCE = 0.95
NORM_NAME = re.compile("[a-z][a-z0-9]{0,30}")
_Measure = tuple[str, str, str]  # end of the name, unit, meaning
_ANSWERS: tuple[_Measure, ...] = (
    ("participants", "1", "participants who answered"),
    ("answers", "1", "answers"),
)
_ACCURACY: tuple[_Measure, ...] = (
    ("accuracy", "1", "right answers, mean over participants"),
    ("accuracy_low", "1", "lower end of its 95 % interval (Wilson 1927)"),
    ("accuracy_high", "1", "upper end of its 95 % interval (Wilson 1927)"),
)
_RATING: tuple[_Measure, ...] = (
    ("rating", "1", "rating, mean over participants"),
    ("rating_sd", "1", "standard deviation of the ratings of participants"),
    ("rating_low", "1", "lower end of the 95 % interval of the mean rating (Student)"),
    ("rating_high", "1", "upper end of the 95 % interval of the mean rating (Student)"),
)
_NAMING: tuple[_Measure, ...] = (
    ("modal_share", "1", "answers that are the most frequent one"),
    ("entropy", "bit", "entropy of the answers, H of Snodgrass & Vanderwart (1980): 0 where all are the same"),
)
_TIME: tuple[_Measure, ...] = (("rt", "s", "median time of the answers, mean over participants"),)


def norm(run: AnyRun, joined: str | Path, *, name: str = "norm", where: str | None = None) -> pd.DataFrame:
    """Enter into a run folder how participants answered to each stimulus; return it, one row a stimulus.

    >>> import pandas as pd
    >>> shown = list(stimkit.open_run("runs/quickstart").records)
    >>> pd.DataFrame({"participant": "p001", "stimulus_id": shown, "response": 4}).to_csv("joined.csv")
    >>> rated = stimkit.norm("runs/quickstart", "joined.csv", name="quality")
    >>> rated["quality_rating"].tolist(), stimkit.open_run("runs/quickstart").dataset["quality_rating"].size
    ([4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0], 8)

    `joined` is the folder that `stimkit join` wrote, or a CSV file. Columns begin with `name`: participants and
    answers; `accuracy` with its interval where answers are right or wrong; `rating` with its standard deviation and
    interval where all answers are numbers, otherwise `modal_share` and `entropy`; `rt`. `[accept] measured`, conditions
    on the manifest, audits and reports use them. Practice and catch trials are left out; `where` chooses among others.

    Raises `UsageError` for trials of several stimuli, which are scaled instead, for answers to stimuli that the run
    does not have, and for a name that columns cannot begin with.
    """
    if not NORM_NAME.fullmatch(name):
        raise UsageError(f'"{name}" cannot begin a column: give small letters and digits, as naming')
    if name in OWN_TABLES:
        raise UsageError(f'"{name}" is the name of what stimkit measures itself: give another, as naming')
    run = read_run(run)
    run.check_readable()
    answers = read_joined(Path(joined), where)
    if answers.places != ("",):
        raise UsageError(
            f"norms are of trials of one stimulus, and these show {len(answers.places)}: see stimkit scale"
        )
    if person_column(answers.text) is None:
        raise UsageError(f"{joined} does not say who answered: it has no column participant")
    table = _checked(answers.table, joined)
    if unknown := sorted(set(table["stimulus_id"].astype(str)) - run.records.keys()):
        raise UsageError(
            f"{joined} has answers to {unknown[0]}, which {run.path} does not have; are they of another run?"
        )
    measures = list(_measures(table))
    rows = {str(stimulus): _norms_of(group, measures) for stimulus, group in table.groupby("stimulus_id", sort=False)}
    columns = [Column(f"{name}_{end}", units, words) for end, units, words in measures]
    values = {
        stimulus: {column.name: row[end] for column, (end, *_) in zip(columns, measures, strict=True)}
        for stimulus, row in rows.items()
    }
    enter_measurements(run, name, columns, values, _origin(Path(joined), answers, where))
    return pd.DataFrame.from_dict(values, orient="index").rename_axis("stimulus_id").reset_index()


def _checked(table: pd.DataFrame, joined: str | Path) -> pd.DataFrame:
    """Answers with numbers where numbers are meant, without those that say nothing. Raises `UsageError`."""
    if "stimulus_id" not in table:
        raise UsageError(f"{joined} has no column stimulus_id")
    if (table["participant"] == "").any():
        raise UsageError(f"{joined} has answers without a participant")
    for name in ("response", "correct", "rt"):
        if name in table:
            numbers = pd.to_numeric(table[name], errors="coerce")
            if (numbers.isna() & table[name].notna()).any():
                raise UsageError(f'{joined}: "{name}" holds more than numbers; `stimkit join` writes it as numbers')
            table = table.assign(**{name: numbers.replace([np.inf, -np.inf], np.nan)})
    given = table["response"].notna()
    if "choice" in table:
        given &= table["choice"].notna() & (table["choice"].astype(str).str.strip() != "")
        finite = pd.to_numeric(table["choice"], errors="coerce").abs() != np.inf
        given &= finite
    return table[given].reset_index(drop=True)


def _origin(joined: Path, answers: TrialAnswers, where: str | None) -> dict[str, Any]:
    file = joined / RESPONSES if joined.is_dir() else joined
    return {
        "by": f"stimkit norm {__version__}",
        "sha256": hashlib.sha256(read_file(file)).hexdigest(),
        "where": where,
        "participants": len(answers.participants),
        "simulated": _are_simulated(answers.table),
    }


def _are_simulated(table: pd.DataFrame) -> bool:
    """Whether any of the answers are those of a simulated observer."""
    return "observer" in table and bool(table["observer"].astype(str).str.startswith("simulated").any())


def _measures(table: pd.DataFrame) -> Iterator[_Measure]:
    """What can be said of the answers."""
    yield from _ANSWERS
    if "correct" in table and table["correct"].notna().any():
        yield from _ACCURACY
    yield from _RATING if _are_numbers(table) else _NAMING
    if "rt" in table and table["rt"].notna().any():
        yield from _TIME


def _are_numbers(table: pd.DataFrame) -> bool:
    return "choice" not in table or bool(pd.to_numeric(table["choice"], errors="coerce").notna().all())


def _norms_of(answers: pd.DataFrame, measures: list[_Measure]) -> dict[str, float]:
    """What is said of one stimulus, by the ends of the names."""
    wanted = {end for end, *_ in measures}
    people = answers.groupby("participant")
    found = {"participants": float(people.ngroups), "answers": float(len(answers))}
    if "accuracy" in wanted:
        found |= _part("accuracy", people["correct"].mean().dropna().to_numpy(float))
    if "rating" in wanted:
        column = "choice" if "choice" in answers else "response"
        given = answers.assign(given=pd.to_numeric(answers[column])).groupby("participant")["given"]
        found |= _mean("rating", given.mean().to_numpy(float))
    if "entropy" in wanted:
        own = answers.groupby("participant")["participant"].transform("size")
        shares = (1 / own).groupby(answers["choice"].astype(str)).sum().to_numpy(float) / people.ngroups
        found |= {"modal_share": float(shares.max()), "entropy": float(abs(-(shares * np.log2(shares)).sum()))}
    if "rt" in wanted:
        found["rt"] = float(people["rt"].median().mean())
    return found


def _part(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    """The mean of parts of 1, one for each participant, with Wilson's interval."""
    from statsmodels.stats.proportion import proportion_confint

    if not len(values):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    low, high = proportion_confint(values.sum(), len(values), alpha=1 - CONFIDENCE, method="wilson")
    return {name: float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def _mean(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    """The mean of values, one for each participant, with Student's interval; of one participant it has none."""
    from scipy.stats import t

    if len(values) < 2:
        nothing = dict.fromkeys((f"{name}_sd", f"{name}_low", f"{name}_high"), float("nan"))
        return {name: float(values.mean()), **nothing}
    spread = float(values.std(ddof=1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * spread / len(values) ** 0.5
    mean = float(values.mean())
    return {name: mean, f"{name}_sd": spread, f"{name}_low": mean - half, f"{name}_high": mean + half}

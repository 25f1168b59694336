"""Joined answers as trials of one kind: what was shown at which place, and what was answered."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimkit.errors import UsageError, did_you_mean
from stimkit.experiment.responses import PERSON, RESPONSES, person_column
from stimkit.files import read_file
from stimkit.records.selection import select

MAX_PLACES = 9


@dataclass(frozen=True)
class TrialAnswers:
    """Main trials that were answered."""

    table: pd.DataFrame
    text: pd.DataFrame
    """The same rows as they are in the file, where a style may be called NA."""
    places: tuple[str, ...]
    """Ends of the columns of each stimulus: "" for one, "_1", "_2", … for several."""

    def of(self, participant: str) -> TrialAnswers:
        """Those of one participant; all of them for an empty name."""
        if not participant:
            return self
        own = self.table["participant"] == participant
        return TrialAnswers(self.table[own].reset_index(drop=True), self.text[own].reset_index(drop=True), self.places)

    @property
    def participants(self) -> list[str]:
        return sorted(self.table["participant"].unique())

    @property
    def responses(self) -> NDArray[np.int64]:
        """Which answer was given, from 1."""
        return self.table["response"].to_numpy(int)

    def check(self, shown: Sequence[int], method: str) -> None:
        """Raise `UsageError` where trials do not show as many stimuli as a method needs."""
        if len(self.places) not in shown:
            needed = " or ".join(map(str, shown))
            raise UsageError(f"{method} needs trials of {needed} stimuli, and these show {len(self.places)}")

    def check_answers(self, count: int, method: str) -> None:
        """Raise `UsageError` where responses are not the numbers of so many answers, from 1."""
        found = pd.to_numeric(self.table["response"])
        if not found.isin(range(1, count + 1)).all():
            there = ", ".join(f"{one:g}" for one in sorted(found.unique())[:10])
            known = ", ".join(map(str, range(1, count + 1)))
            raise UsageError(f'{method} needs answers numbered {known} in "response", and there are {there}')

    def labels(self, name: str) -> NDArray[Any]:
        """The levels of a factor or attribute: (trials, places), as text. Raises `UsageError` where one has none."""
        columns = [self._column(f"{name}{place}", name) for place in self.places]
        if not all(pd.api.types.is_numeric_dtype(column) and column.notna().all() for column in columns):
            columns = [self.text[column.name] for column in columns]
        found = np.column_stack([column.map(_word) for column in columns])
        if (found == "").any():
            raise UsageError(f'the trials show stimuli without "{name}"; choose others with --where')
        return found

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The levels of a series, or factor of numbers: (trials, places). Raises `UsageError` where they are not."""
        found = [pd.to_numeric(self._column(f"{name}{place}", name), errors="coerce") for place in self.places]
        values = np.column_stack([one.to_numpy(float) for one in found])
        if not np.isfinite(values).all():
            raise UsageError(f'the trials show stimuli without a number in "{name}"; choose others with --where')
        return values

    def _column(self, column: str, name: str) -> pd.Series[Any]:
        if column not in self.table:
            known = {str(one).removesuffix(self.places[0]) for one in self.table if str(one).endswith(self.places[0])}
            raise UsageError(f'the answers have no column "{column}"{did_you_mean(name, known)}')
        return self.table[column]


def read_joined(joined: Path, where: str | None = None) -> TrialAnswers:
    """Read what `stimkit join` wrote: its folder, or responses.csv in it.

    Trials of practice and catch, and those without an answer, are left out. Raises `UsageError` where the file cannot
    be read, or has no trials with answers that are counted in `response`.
    """
    path = joined / RESPONSES if joined.is_dir() else joined
    try:
        data = read_file(path)
        text = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
        table = pd.read_csv(io.BytesIO(data)).assign(**{name: text[name] for name in PERSON if name in text})
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as what `stimkit join` writes: {error}") from None
    return choose_trials(table, str(path), where, text)


def choose_trials(
    table: pd.DataFrame, name: str = "the answers", where: str | None = None, text: pd.DataFrame | None = None
) -> TrialAnswers:
    """Choose the main trials of joined answers that were answered; `text` has the same rows as they are in a file.

    Who answered is in the first column that is called as one of people is, and is everyone where there is none.
    """
    if "response" not in table:
        raise UsageError(f'{name} has no column "response", the number of the answer that was given')
    if "kind" in table:
        table = table[table["kind"].fillna("main") == "main"]  # files of other programs have no kinds of trials
    if where is not None:
        table = select(table, where)
    table = table[pd.to_numeric(table["response"], errors="coerce").notna()]
    if table.empty:
        raise UsageError(f"{name} has no main trial that was answered")
    text = (table if text is None else text.loc[table.index]).reset_index(drop=True)
    person = person_column(table)
    people = "everyone" if person is None else table[person].fillna("").astype(str)
    table = table.assign(participant=people).reset_index(drop=True)
    places = tuple(f"_{number}" for number in range(1, MAX_PLACES) if f"stimulus_id_{number}" in table) or ("",)
    return TrialAnswers(table, text, places)


def _word(value: Any) -> str:
    """A level as text: numbers alike, whether or not others of their column have decimals."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.12g}" if isinstance(value, int | float | np.number) and not isinstance(value, bool) else str(value)

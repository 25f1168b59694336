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
from stimkit.experiment.responses import RESPONSES
from stimkit.files import read_file
from stimkit.records.selection import select

MAX_PLACES = 9


@dataclass(frozen=True)
class TrialAnswers:
    """Main trials that were answered."""

    table: pd.DataFrame
    places: tuple[str, ...]
    """Ends of the columns of each stimulus: "" for one, "_1", "_2", … for several."""

    def of(self, participant: str) -> TrialAnswers:
        """Those of one participant; all of them for an empty name."""
        if not participant:
            return self
        return TrialAnswers(self.table[self.table["participant"] == participant].reset_index(drop=True), self.places)

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

    def labels(self, name: str) -> NDArray[Any]:
        """The levels of a factor or attribute: (trials, places), as text. Raises `UsageError` where there is none."""
        return np.column_stack([self._column(f"{name}{place}", name).astype(str) for place in self.places])

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
        table = pd.read_csv(io.BytesIO(read_file(path)), dtype={"participant": str}, keep_default_na=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as what `stimkit join` writes: {error}") from None
    return choose_trials(table, str(path), where)


def choose_trials(table: pd.DataFrame, name: str = "the answers", where: str | None = None) -> TrialAnswers:
    """Choose the main trials of joined answers that were answered."""
    if "response" not in table:
        raise UsageError(f'{name} has no column "response", the number of the answer that was given')
    if "kind" in table:
        table = table[table["kind"] == "main"]
    if where is not None:
        table = select(table, where)
    table = table[pd.to_numeric(table["response"], errors="coerce").notna()]
    if table.empty:
        raise UsageError(f"{name} has no main trial that was answered")
    people = table["participant"].fillna("").astype(str) if "participant" in table else "everyone"
    table = table.assign(participant=people).reset_index(drop=True)
    places = tuple(f"_{number}" for number in range(1, MAX_PLACES) if f"stimulus_id_{number}" in table) or ("",)
    return TrialAnswers(table, places)

"""The levels of a trial that shows several stimuli: what all of them share, and those of the odd one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress

import pandas as pd

ODD = "_odd"


def with_trial_levels(joined: pd.DataFrame, places: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """Add a column for each factor or attribute of trials of several stimuli, which stand in columns with `places`.

    `style` is the level that all stimuli of the trial share, and empty where they differ; `style_odd` is the level of
    the one that differs from all others, which are alike. Columns that are there already stay.
    """
    found = joined.copy()
    there = joined[[f"stimulus_id{place}" for place in places]].notna().to_numpy()
    for name in names:
        values = joined[[f"{name}{place}" for place in places]].itertuples(index=False, name=None)
        shown = [list(compress(row, is_there)) for row, is_there in zip(values, there, strict=True)]
        if name not in found:
            found[name] = pd.Series([levels[0] if len(set(levels)) == 1 else None for levels in shown], found.index)
        odd = [_odd(levels) for levels in shown]
        if f"{name}{ODD}" not in found and any(level is not None for level in odd):
            found[f"{name}{ODD}"] = pd.Series(odd, found.index)
    return found


def _odd(levels: Sequence[object]) -> object:
    """The level that one of at least three stimuli has, and the others do not, which have one level."""
    counts = Counter(levels)
    if len(levels) < 3 or len(counts) != 2 or min(counts.values()) != 1:
        return None
    return min(counts, key=lambda level: counts[level])

"""What chance explains, and what a design can find: permutations of stimuli among the levels of a factor, and power."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimkit.images.light import Array

PERMUTATIONS = 999
ALPHA, POWER_WANTED = 0.05, 0.8
CHANCE_COLUMNS = ("p_permutation", "omega_squared_chance", "omega_squared_detectable")
_Values = TypeVar("_Values", float, Array)
_CHUNK = 20_000_000  # values that are permuted at a time


def levels_of_factor(column: pd.Series[Any]) -> pd.Series[str]:
    """The levels of a factor or attribute as text; empty where there is none."""
    return column.astype(object).where(column.notna(), "").astype(str)


def group_sizes(labels: Sequence[object]) -> NDArray[np.int64]:
    """How many rows each level has, in the order of their names."""
    return np.asarray(np.unique(np.asarray(labels, str), return_counts=True)[1], np.int64)


def permuted(values: Array, count: int = PERMUTATIONS, seed: int = 0) -> Iterator[Array]:
    """Values (n, …) in random orders, (orders, n, …), some orders at a time; the same for a seed and n."""
    generator = np.random.default_rng([seed, len(values)])
    step = max(1, _CHUNK // max(1, values.size))
    for start in range(0, count, step):
        orders = np.argsort(generator.random((min(step, count - start), len(values))), axis=1)
        yield values[orders]


def squares_between(ordered: Array, sizes: NDArray[np.int64]) -> Array:
    """Sums of squares between groups of successive rows, of values (orders, n, …) without their mean: (orders,)."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(ordered, starts, axis=1)
    shape = (1, len(sizes), *([1] * (ordered.ndim - 2)))
    return np.asarray((sums**2 / sizes.reshape(shape)).reshape(len(ordered), -1).sum(1))


def omega_squared(between: Array, total: float, groups: int, rows: int) -> Array:
    """ω² of one-way analyses, of their sums of squares between groups."""
    return omega_squared_of(between, groups - 1, (total - between) / (rows - groups), total)


def omega_squared_of(squares: _Values, df: float, error: _Values, total: float) -> _Values:
    """ω² of an effect: its sum of squares without what chance adds, over the total (Hays 1963)."""
    return (squares - df * error) / (total + error)


def chances(values: Array, factors: Sequence[Sequence[object]]) -> list[tuple[float, float, float]]:
    """For each factor, given as a level for each value: how often, how much and from where on.

    The part of 999 random orders of the values, and of that observed, in which the factor explains as much as it does;
    the ω² that chance reaches in 5 % of them; and the least ω² that a design of these groups finds in 4 of 5 cases at
    p < 0.05 (noncentral F). NaN where every value has a level of its own, or all have the same.
    """
    centred = values - values.mean()
    total = float(centred @ centred)
    sizes = [group_sizes(labels) for labels in factors]
    known = [index for index, one in enumerate(sizes) if 1 < len(one) < len(values) and total > 0]
    orders = [np.argsort(np.asarray(factors[index], str), kind="stable") for index in known]
    observed = [
        float(squares_between(centred[order][None], sizes[index])[0])
        for index, order in zip(known, orders, strict=True)
    ]
    found: list[list[Array]] = [[] for _ in known]
    for ordered in permuted(centred) if known else ():
        for place, index in enumerate(known):
            found[place].append(squares_between(ordered, sizes[index]))
    result = [(float("nan"),) * 3] * len(sizes)
    for place, index in enumerate(known):
        between, groups = np.concatenate(found[place]), len(sizes[index])
        as_much = int((between >= observed[place] * (1 - 1e-9)).sum())
        limit = float(np.quantile(omega_squared(between, total, groups, len(values)), 1 - ALPHA))
        result[index] = ((as_much + 1) / (len(between) + 1), limit, detectable(groups, len(values)))
    return result


@lru_cache(maxsize=1000)
def detectable(groups: int, rows: int) -> float:
    """The least ω² that a one-way analysis finds at p < 0.05 with a power of 0.8, by the noncentral F distribution."""
    from scipy.optimize import brentq
    from scipy.stats import f, ncf

    df, rest = groups - 1, rows - groups
    limit = f.isf(ALPHA, df, rest)

    def missing(omega: float) -> float:
        return float(ncf.sf(limit, df, rest, rows * omega / (1 - omega))) - POWER_WANTED

    highest = 1 - 1e-9
    return float(brentq(missing, 1e-9, highest)) if missing(highest) > 0 else float("nan")


def add_chances(effects: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Effects with `CHANCE_COLUMNS` of each factor alone, from the table of stimuli that they are of."""
    rows: dict[int, tuple[float, ...]] = {}
    alone = effects[effects["model"] == "alone"]
    for variable, of_variable in alone.groupby("variable", sort=False):
        numbers = pd.to_numeric(table[variable], errors="coerce").replace([np.inf, -np.inf], np.nan)
        kept = numbers.notna()
        labels = [levels_of_factor(table.loc[kept, factor]).tolist() for factor in of_variable["factor"]]
        rows |= dict(zip(of_variable.index, chances(numbers[kept].to_numpy(float), labels), strict=True))
    nothing = (float("nan"),) * len(CHANCE_COLUMNS)
    found = [rows.get(index, nothing) for index in effects.index]
    return effects.assign(**{name: [row[at] for row in found] for at, name in enumerate(CHANCE_COLUMNS)})

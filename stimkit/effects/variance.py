"""How much of a variable's variance the factors of a design explain: analysis of variance."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from stimkit.effects.chance import add_chances, levels_of_factor, omega_squared_of

MAX_MODEL_COLUMNS = 500  # of a design matrix; beyond it interactions are left out
MIN_SHARE = 1.5  # rows for each column that a model needs
EFFECT_COLUMNS = ("variable", "factor", "model", "df", "df_residual", "f", "p", "eta_squared", "omega_squared")


def explain_variance(
    table: pd.DataFrame, factors: Sequence[str], variables: Iterable[str], attributes: Sequence[str] = ()
) -> pd.DataFrame:
    """Effect sizes of factors on variables: one row for each variable, factor and model.

    `table` has one row a stimulus. Model `alone` is a one-way analysis with that factor only: all variance that
    goes with it, wherever it comes from. Model `together` holds all factors and those interactions of two
    (`a:b`) that the design lets estimate, with type II sums of squares; it is left out where factors are not
    separable, as nested ones. `attributes` follow from factors, so they are in models of their own only.
    `eta_squared` is SS / total SS; `omega_squared` corrects it for what chance explains (Hays 1963; below 0 for less
    than chance), and is NaN where nothing is left for an error term.
    """
    varied = [name for name in (*factors, *attributes) if table[name].nunique() > 1]
    separable: dict[tuple[int, ...], list[list[int]]] = {}
    rows: list[dict[str, object]] = []
    for variable in variables:
        frame = _coded(table, varied, variable)
        if len(frame) < 3 or np.ptp(frame["y"]) <= 1e-12 * np.abs(frame["y"]).max():
            continue
        there = [index for index in range(len(varied)) if frame[f"f{index}"].nunique() > 1]
        found = [("alone", varied[index], _one_way(frame, f"f{index}")) for index in there]
        key = tuple(frame.index)
        crossed = [index for index in there if varied[index] in factors]
        if key not in separable:
            separable[key] = _separable(frame, crossed) if len(crossed) > 1 else []
        if terms := separable[key]:
            names = [":".join(varied[index] for index in term) for term in terms]
            found += [("together", *effect) for effect in zip(names, _together(frame, terms), strict=True)]
        rows += [{"variable": variable, "factor": factor, "model": model, **one} for model, factor, one in found]
    return pd.DataFrame(rows, columns=list(EFFECT_COLUMNS))


def explain(
    stimuli: pd.DataFrame, factors: Iterable[str], variables: Iterable[str], attributes: Sequence[str] = ()
) -> pd.DataFrame:
    """Explain those variables that the table has by all factors but the replicate, and by attributes.

    With what chance would explain: see `stimkit.effects.chance.chances`.
    """
    design = [name for name in factors if name != "replicate"]
    found = explain_variance(stimuli, design, [name for name in variables if name in stimuli], attributes)
    return add_chances(found, stimuli)


def _coded(table: pd.DataFrame, factors: Sequence[str], variable: str) -> pd.DataFrame:
    """Factors as f0, f1, ... and the variable as y, without the rows that have no value."""
    values = pd.to_numeric(table[variable], errors="coerce").replace([np.inf, -np.inf], np.nan)
    columns = {f"f{index}": levels_of_factor(table[name]) for index, name in enumerate(factors)}
    return pd.DataFrame({"y": values, **columns}).dropna(subset=["y"])


def _separable(frame: pd.DataFrame, factors: Sequence[int]) -> list[list[int]]:
    """The terms of the largest model whose effects can be told apart, with enough left for the error."""
    levels = {index: frame[f"f{index}"].nunique() for index in factors}
    main = [[index] for index in factors]
    pairs = [
        [a, b]
        for a, b in itertools.combinations(factors, 2)
        if frame.groupby([f"f{a}", f"f{b}"], observed=True).ngroups == levels[a] * levels[b]
    ]
    for terms in ([*main, *pairs], main):
        columns = 1 + sum(int(np.prod([levels[index] - 1 for index in term])) for term in terms)
        if MIN_SHARE * columns <= len(frame) and columns <= MAX_MODEL_COLUMNS and _rank(frame, terms) == columns:
            return terms
    return []


def _formula(terms: Sequence[Sequence[int]]) -> str:
    return "y ~ " + " + ".join(":".join(f"C(f{index}, Sum)" for index in term) for term in terms)


def _rank(frame: pd.DataFrame, terms: Sequence[Sequence[int]]) -> int:
    from statsmodels.formula.api import ols

    return int(np.linalg.matrix_rank(ols(_formula(terms), frame).exog))


def _one_way(frame: pd.DataFrame, factor: str) -> dict[str, float]:
    from scipy.stats import f_oneway

    groups = [group.to_numpy() for _, group in frame.groupby(factor)["y"]]
    df, rest = len(groups) - 1, len(frame) - len(groups)
    if rest < 1:  # every row has a level of its own
        return _effect(df, rest, float("nan"), float("nan"), 1.0, float("nan"))
    total = float(((frame["y"] - frame["y"].mean()) ** 2).sum())
    within = float(sum(((group - group.mean()) ** 2).sum() for group in groups))
    f, p = f_oneway(*groups) if within > 0 else (float("inf"), 0.0)
    omega = omega_squared_of(total - within, df, within / rest, total)
    return _effect(df, rest, float(f), float(p), 1 - within / total, omega)


def _together(frame: pd.DataFrame, terms: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    found = anova_lm(ols(_formula(terms), frame).fit(), typ=2)
    total = float(((frame["y"] - frame["y"].mean()) ** 2).sum())
    *effects, (left, rest, _, _) = found[["sum_sq", "df", "F", "PR(>F)"]].to_numpy().tolist()
    return [
        _effect(df, rest, f, p, squares / total, omega_squared_of(squares, df, left / rest, total))
        for squares, df, f, p in effects
    ]


def _effect(df: float, rest: float, f: float, p: float, eta: float, omega: float) -> dict[str, float]:
    return dict(zip(EFFECT_COLUMNS[3:], (float(df), float(rest), f, p, eta, omega), strict=True))

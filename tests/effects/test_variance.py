"""How much of a variable the factors of a design explain, against textbooks and invariances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stimkit.effects.variance import explain_variance


def crossed(levels: tuple[int, int] = (3, 4), repeats: int = 5, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    a, b, _ = np.meshgrid(range(levels[0]), range(levels[1]), range(repeats), indexing="ij")
    table = pd.DataFrame({"a": [f"a{x}" for x in a.ravel()], "b": b.ravel()})
    table["y"] = 2.0 * a.ravel() + (a * b).ravel() + rng.normal(size=a.size)
    return table


def row(found: pd.DataFrame, factor: str, model: str) -> Any:
    (index,) = found.index[(found["factor"] == factor) & (found["model"] == model)]
    return found.loc[index]


def test_effects_of_a_balanced_design_follow_the_textbook() -> None:
    """Sums of squares of a balanced two-way table by its means; omega squared by Hays' formula."""
    table = crossed()
    cube = table["y"].to_numpy().reshape(3, 4, 5)
    grand = cube.mean()
    squares = {
        "a": 20 * ((cube.mean((1, 2)) - grand) ** 2).sum(),
        "b": 15 * ((cube.mean((0, 2)) - grand) ** 2).sum(),
        "a:b": 5 * ((cube.mean(2) - cube.mean((1, 2))[:, None] - cube.mean((0, 2))[None] + grand) ** 2).sum(),
    }
    total = ((cube - grand) ** 2).sum()
    error = ((cube - cube.mean(2, keepdims=True)) ** 2).sum() / 48
    found = explain_variance(table, ["a", "b"], ["y"])
    for (factor, expected), df in zip(squares.items(), (2, 3, 6), strict=True):
        together = row(found, factor, "together")
        assert together["eta_squared"] == pytest.approx(expected / total)
        assert together["omega_squared"] == pytest.approx((expected - df * error) / (total + error))
        assert together["df"] == df and together["df_residual"] == 48
        assert together["f"] == pytest.approx(expected / df / error)
    rest = total - squares["a"]
    alone = row(found, "a", "alone")
    assert alone["eta_squared"] == pytest.approx(squares["a"] / total)
    assert alone["f"] == pytest.approx(squares["a"] / 2 / (rest / 57)) and alone["df_residual"] == 57


def test_effects_do_not_depend_on_order_names_or_scale() -> None:
    table = crossed()
    base = explain_variance(table, ["a", "b"], ["y"])
    other = table.sample(frac=1, random_state=1)
    other["a"], other["y"] = other["a"].str.replace("a", "level (x) "), 1e-6 * other["y"] - 3
    again = explain_variance(other, ["a", "b"], ["y"])
    assert np.allclose(base.iloc[:, 3:].astype(float), again.iloc[:, 3:].astype(float), rtol=1e-6, atol=1e-9)


def test_what_chance_explains_is_no_effect() -> None:
    rng = np.random.default_rng(3)
    omegas = []
    for _ in range(40):
        table = pd.DataFrame({"a": np.arange(60) % 20, "y": rng.normal(size=60)})
        found = explain_variance(table, ["a"], ["y"]).iloc[0]
        assert found["eta_squared"] > 0.1, "twenty levels explain a part of sixty values by chance"
        omegas.append(found["omega_squared"])
    assert abs(np.mean(omegas)) < 0.05


def test_nested_factors_are_analysed_alone() -> None:
    table = crossed()
    table["group"] = table["a"].map({"a0": "x", "a1": "x", "a2": "y"})
    found = explain_variance(table, ["a", "group"], ["y"])
    assert set(found["model"]) == {"alone"} and list(found["factor"]) == ["a", "group"]


def test_incomplete_designs_have_no_interaction() -> None:
    table = crossed()
    table = table[~((table["a"] == "a0") & (table["b"] == 0))]
    found = explain_variance(table, ["a", "b"], ["y"])
    assert set(found[found["model"] == "together"]["factor"]) == {"a", "b"}


def test_a_variable_that_only_one_level_has() -> None:
    table = crossed()
    table["y"] = table["y"].where(table["a"] == "a1")
    assert set(explain_variance(table, ["a", "b"], ["y"])["factor"]) == {"b"}


def test_constant_missing_and_single_values() -> None:
    table = crossed()
    table["constant"], table["missing"], table["id"] = 0.3, np.nan, range(len(table))
    assert explain_variance(table, ["a"], ["constant", "missing"]).empty
    single = explain_variance(table, ["id"], ["y"]).iloc[0]
    assert single["eta_squared"] == 1 and math.isnan(single["omega_squared"])
    table["steps"] = table["b"].astype(float)
    perfect = row(explain_variance(table, ["b"], ["steps"]), "b", "alone")
    assert perfect["eta_squared"] == 1 and perfect["omega_squared"] == 1 and perfect["p"] == 0
    table.loc[3, "y"] = np.inf
    assert row(explain_variance(table, ["a"], ["y"]), "a", "alone")["df_residual"] == len(table) - 1 - 3

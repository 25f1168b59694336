"""Permutations and power against distributions that are known, and against sums that are written out."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f, f_oneway, permutation_test

from stimkit.effects.chance import chances, detectable, omega_squared, squares_between
from stimkit.effects.multivariate import explain_distances
from stimkit.effects.variance import explain


def test_p_is_that_of_scipys_permutation_test() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [6, 8, 10])
    values = generator.normal(size=24) + (labels == "c") * 0.8
    (p, *_), *_ = chances(values, [labels.tolist()])
    groups = [values[labels == one] for one in "abc"]
    wanted = permutation_test(
        groups, lambda *parts: f_oneway(*parts).statistic, permutation_type="independent", n_resamples=2000,
        alternative="greater", rng=1,
    )  # fmt: skip
    assert p == pytest.approx(wanted.pvalue, abs=0.03)


def test_p_of_few_values_is_that_of_all_orders() -> None:
    values, labels = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 17.0]), ["a", "a", "b", "b", "b", "a"]
    sizes = np.array([3, 3])
    centred = values - values.mean()
    every = np.array(list(itertools.permutations(centred)))
    order = [0, 1, 5, 2, 3, 4]
    own = squares_between(centred[order][None], sizes)[0]
    exact = float((squares_between(every, sizes) >= own * (1 - 1e-9)).mean())
    ((p, _, _),) = chances(values, [labels])
    assert p == pytest.approx(exact, abs=0.04)


def test_without_an_effect_every_p_is_as_frequent() -> None:
    generator = np.random.default_rng(1)
    labels = [str(number % 4) for number in range(40)]
    found = np.array([chances(generator.normal(size=40), [labels])[0] for _ in range(300)])
    assert (found[:, 0] < 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert found[:, 0].mean() == pytest.approx(0.5, abs=0.05)


def test_what_chance_reaches_is_the_quantile_of_f() -> None:
    """Of normal values, ω² is a function of F, whose distribution is known."""
    generator = np.random.default_rng(2)
    labels = [str(number % 5) for number in range(200)]
    limits = [chances(generator.normal(size=200), [labels])[0][1] for _ in range(20)]
    critical = f.isf(0.05, 4, 195)
    wanted = (4 * (critical - 1)) / (4 * critical + 195 + 1)
    assert np.mean(limits) == pytest.approx(wanted, rel=0.05)


def test_detectable_effects_are_those_of_tables() -> None:
    """Cohen (1988, table 8.4.4): 3 groups of 52 find f = 0.25 with a power of 0.8; 5 groups of 16 f = 0.40 and more."""
    for groups, each, size in ((3, 52, 0.25), (4, 45, 0.25), (2, 26, 0.40)):
        omega = detectable(groups, groups * each)
        assert (omega / (1 - omega)) ** 0.5 == pytest.approx(size, abs=0.006)
    assert detectable(4, 40) > detectable(4, 400)


def test_sums_of_squares_are_those_of_a_loop() -> None:
    values = np.random.default_rng(3).normal(size=(3, 12, 2))
    sizes = np.array([5, 4, 3])
    wanted = []
    for one in values:
        parts = np.split(one, [5, 9])
        wanted.append(sum(float((part.sum(0) ** 2).sum()) / len(part) for part in parts))
    assert squares_between(values, sizes) == pytest.approx(wanted)


def test_effects_have_their_chances() -> None:
    generator = np.random.default_rng(4)
    table = pd.DataFrame({"a": list("xyz") * 20, "id": range(60), "y": generator.normal(size=60)})
    table["strong"] = table["y"] + 3 * (table["a"] == "x")
    table.loc[0, "strong"] = np.nan
    effects = explain(table, ["a", "id", "replicate"], ["y", "strong", "none"])
    found = effects.set_index(["variable", "factor"]).to_dict("index")
    assert found[("strong", "a")]["p_permutation"] == 0.001
    assert found[("y", "a")]["p_permutation"] == pytest.approx(found[("y", "a")]["p"], abs=0.06)
    assert np.isnan(found[("y", "id")]["p_permutation"])


def test_stimuli_without_a_level_stay_in_the_analysis_of_others() -> None:
    """An attribute that only some images have."""
    generator = np.random.default_rng(7)
    table = pd.DataFrame({"style": list("aaabbbccc"), "y": generator.normal(size=9)})
    table.loc[table["style"] == "c", "y"] += 20
    table["valence"] = [1.0] * 3 + [2.0] * 3 + [np.nan] * 3
    found = explain(table, ["style"], ["y"], ["valence"]).set_index("factor").to_dict("index")
    assert found["style"]["df_residual"] == 6 and found["style"]["omega_squared"] > 0.9
    assert found["valence"]["df"] == 2 and found["style"]["p_permutation"] < 0.05


# --- distances ----------------------------------------------------------------------------------------------------


def squared(points: np.ndarray) -> np.ndarray:
    return np.asarray(((points[:, None] - points[None]) ** 2).sum(2))


def test_of_one_dimension_distances_give_the_analysis_of_variance() -> None:
    generator = np.random.default_rng(5)
    labels = ["a"] * 7 + ["b"] * 9 + ["c"] * 8
    values = generator.normal(size=24) + np.array([{"a": 0, "b": 1, "c": 2}[one] for one in labels])
    found = explain_distances(squared(values[:, None]), {"group": labels}).to_dict("records")[0]
    groups = [values[np.array(labels) == one] for one in "abc"]
    within = sum(float(((one - one.mean()) ** 2).sum()) for one in groups)
    total = float(((values - values.mean()) ** 2).sum())
    assert found["eta_squared"] == pytest.approx(1 - within / total)
    assert found["omega_squared"] == pytest.approx(float(omega_squared(np.array([total - within]), total, 3, 24)[0]))
    assert found["p_permutation"] == pytest.approx(f_oneway(*groups).pvalue, abs=0.03)
    assert (found["df"], found["df_residual"]) == (2, 21)


def test_factors_that_distances_follow_are_told_from_others() -> None:
    generator = np.random.default_rng(6)
    design = list(itertools.product("ab", "xyz", range(5)))
    points = generator.normal(size=(30, 50)) + 2 * np.array([[one == "a"] * 50 for one, *_ in design])
    factors = {"first": [one for one, *_ in design], "second": [one for _, one, _ in design], "id": range(30)}
    found = explain_distances(squared(points), factors).set_index("factor").to_dict("index")
    assert list(found) == ["first", "second"]
    assert found["first"]["omega_squared"] > 0.3 and found["first"]["p_permutation"] == 0.001
    assert abs(found["second"]["omega_squared"]) < 0.05 and found["second"]["p_permutation"] > 0.05


def test_stimuli_that_do_not_differ_have_nothing_to_explain() -> None:
    assert explain_distances(np.zeros((6, 6)), {"a": list("xxxyyy")}).empty

"""Scales against published fits, known scales, and answers that nothing fits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist, squareform

import stimkit
from stimkit.errors import UsageError
from stimkit.scaling.answers import TrialAnswers, choose_trials
from stimkit.scaling.bootstrap import AnswerModel, Fit, NoFit, fit_with_intervals, misfit
from stimkit.scaling.difference import DifferenceScale
from stimkit.scaling.preference import Preferences
from stimkit.scaling.psychometric import PsychometricFunction
from stimkit.scaling.scales import draw
from stimkit.scaling.similarity import dissimilarities, map_similarities, scale_classically


def answered(shown: Sequence[Sequence[Any]], responses: Sequence[float], people: Any = "p001") -> TrialAnswers:
    """Trials that show these levels, and what was answered."""
    table = np.array(shown, object)
    places = [""] if table.shape[1] == 1 else [f"_{number + 1}" for number in range(table.shape[1])]
    columns = {f"{name}{place}": table[:, at] for at, place in enumerate(places) for name in ("level", "stimulus_id")}
    return choose_trials(pd.DataFrame({**columns, "participant": people, "response": responses}))


def fitted(model: AnswerModel) -> dict[str, float]:
    ones = model.answers.astype(float)
    return dict(zip(model.names, model.fit(ones, np.ones(len(ones))).tolist(), strict=True))


def with_intervals(model: AnswerModel, people: Any = None, samples: int = 200) -> Fit:
    people = np.array(["p001"] * len(model.answers)) if people is None else people
    return fit_with_intervals(model, people, samples=samples, generator=np.random.default_rng(1))


# --- difference scaling ----------------------------------------------------------------------------------------

UPPER_LARGER = (
    "34455555533445555213555533345502445003501301043345555334555515455513345023501300021"
    "5555512555504455034500301045555523555243513301145555044513402013553550304451310535"
)
"""How often of 5 times the upper difference was larger, of all triads of eleven levels in their order: the data of the
tests of the Python package `mlds` (Aguilar, github.com/computational-psychology/mlds, test/test.csv)."""
BY_R = (
    0, 0.0203168884293787, 0.065791970213219, 0.142643699967114, 0.175839748691, 0.258745111204113, 0.369745167292665,
    0.468649474182149, 0.634412433897335, 0.729803218843852, 1,
)  # fmt: skip
"""What the R package MLDS (Knoblauch & Maloney 2008) makes of them, by the same source."""


TENTHS = [number / 10 for number in range(11)]


def triads(counts: Sequence[int], of: int, levels: Sequence[float]) -> TrialAnswers:
    shown, responses = [], []
    for triad, count in zip(itertools.combinations(levels, 3), counts, strict=True):
        for number in range(of):
            upper = number < count
            turned = number % 2 == 1  # half of them are shown the other way round
            shown.append(triad[::-1] if turned else triad)
            responses.append(2 if upper != turned else 1)
    return answered(shown, responses)


def test_difference_scaling_is_that_of_r() -> None:
    model = DifferenceScale(triads(list(map(int, UPPER_LARGER)), 5, TENTHS), "level")
    found = fitted(model)
    assert found.pop("noise") == pytest.approx(0.159663808552398, rel=1e-6)
    assert list(found.values()) == pytest.approx(BY_R, abs=1e-6) and list(found) == [f"{n / 10:g}" for n in range(11)]
    whole = with_intervals(model, samples=20)
    assert whole.deviance + 2 * 10 == pytest.approx(570.3924, abs=1e-3), "AIC"
    assert whole.explained == pytest.approx(0.5187585, abs=1e-5), "deviance accounted for"


def test_quadruples_give_the_scale_that_they_come_from() -> None:
    """Exact probabilities in place of answers: the fit finds scale and noise."""
    levels, noise = np.linspace(0, 1, 6), 0.2
    psi = levels**2
    quads = list(itertools.combinations(range(6), 4))
    model = DifferenceScale(answered([[levels[at] for at in quad] for quad in quads], [2] * len(quads)), "level")
    upper = [psi[d] - psi[c] - (psi[b] - psi[a]) for a, b, c, d in quads]
    shares = np.array([0.5 * (1 + math.erf(one / noise / math.sqrt(2))) for one in upper])
    found = model.fit(shares, np.ones(len(quads)))
    assert found == pytest.approx([*psi, noise], abs=1e-6)
    assert model.predict(found) == pytest.approx(shares, abs=1e-6)


def test_the_smaller_difference_may_be_asked_for() -> None:
    counts = list(map(int, UPPER_LARGER))
    other = triads([5 - count for count in counts], 5, TENTHS)
    assert list(fitted(DifferenceScale(other, "level", similar=True)).values())[:-1] == pytest.approx(BY_R, abs=1e-6)
    with pytest.raises(NoFit, match="was `similar` asked"):
        fitted(DifferenceScale(other, "level"))


# --- preferences -----------------------------------------------------------------------------------------------

TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
WINS = (7, 9, 7, 7, 9, 11, 7, 5, 11, 9, 9, 7, 7, 8, 12, 6, 7, 10, 7, 12, 6)
"""Of 13 games of each pair in their order, those that the first won: American League 1987 (Agresti, Categorical Data
Analysis, table 10.10)."""
ABILITIES = (1.5814, 1.4364, 1.2945, 1.2476, 1.1077, 0.6839, 0.0)
"""Above Baltimore: the fit of the R package BradleyTerry2 (Turner & Firth 2012)."""


def games() -> TrialAnswers:
    pairs = [pair for pair in itertools.combinations(TEAMS, 2) for _ in range(13)]
    return answered(pairs, [1 if game < wins else 2 for wins in WINS for game in range(13)])


def test_preferences_are_those_of_r() -> None:
    found = fitted(Preferences(games(), "level"))
    assert [found[team] - found["Baltimore"] for team in TEAMS] == pytest.approx(ABILITIES, abs=6e-5)
    assert sum(found.values()) == pytest.approx(0, abs=1e-9)


def test_intervals_hold_and_narrow_with_answers() -> None:
    one = with_intervals(Preferences(games(), "level"))
    assert (one.low < one.values).all() and (one.values < one.high).all() and 0.05 < one.p < 0.95
    four = pd.concat([games().table] * 4, ignore_index=True)
    more = with_intervals(Preferences(choose_trials(four), "level"))
    assert np.mean(more.high - more.low) == pytest.approx(np.mean(one.high - one.low) / 2, rel=0.2)


def test_many_participants_are_sampled_as_such() -> None:
    """Where participants differ, intervals of all together are wider than their answers alone would give."""
    generator = np.random.default_rng(0)
    table = []
    for person in range(12):
        bias = generator.normal(0, 1.5)
        for _ in range(40):
            first = generator.random() < 1 / (1 + math.exp(-bias))
            table.append(
                {"stimulus_id_1": "a", "stimulus_id_2": "b", "participant": f"p{person:02}", "response": 2 - first}
            )
    trials = choose_trials(pd.DataFrame(table))
    people = trials.table["participant"].to_numpy()
    model = Preferences(trials, "stimulus_id")
    whole, alone = with_intervals(model, people), with_intervals(model)
    assert (whole.intervals, alone.intervals) == ("participants", "parametric")
    assert (whole.high - whole.low)[0] > 2 * (alone.high - alone.low)[0]


# --- psychometric functions ------------------------------------------------------------------------------------

DOSES = (1.6907, 1.7242, 1.7552, 1.7842, 1.8113, 1.8369, 1.8610, 1.8839)
BEETLES = ((59, 6), (60, 13), (62, 18), (56, 28), (63, 52), (59, 53), (62, 61), (60, 60))
"""Numbers, and those that died (Bliss 1935; Dobson, An Introduction to Generalized Linear Models, table 7.2)."""


def test_a_logistic_function_is_that_of_the_textbook() -> None:
    shown = [[dose] for dose, (count, _) in zip(DOSES, BEETLES, strict=True) for _ in range(count)]
    responses = [2 if number < died else 1 for count, died in BEETLES for number in range(count)]
    found = fitted(PsychometricFunction(answered(shown, responses), "level", lapse=0.0))
    assert 1 / found["width"] == pytest.approx(34.270, abs=0.005)
    assert -found["threshold"] / found["width"] == pytest.approx(-60.717, abs=0.005)


@pytest.mark.parametrize(("shape", "right"), [("logistic", False), ("normal", False), ("logistic", True)])
def test_known_functions_are_found(shape: Any, right: bool) -> None:
    """Exact probabilities in place of answers."""
    levels = np.linspace(-0.2, 1, 13)
    shown = [[0.0, level] for level in levels] if right else [[level] for level in levels]
    trials = answered(shown, [2, 1] * 6 + [2])
    trials.table["correct"] = 1
    model = PsychometricFunction(trials, "level", shape=shape, right=right)
    wanted = np.array([0.4, 0.1, 0.03])
    found = model.fit(model.predict(wanted), np.full(len(levels), 1000.0))
    assert found == pytest.approx(wanted, abs=2e-3)
    assert model.predict(np.array([0.4, 0.001, 0.03]))[0] == pytest.approx(0.5 if right else 0, abs=1e-6), "guess rate"


# --- similarities ----------------------------------------------------------------------------------------------


def test_classical_scaling_finds_places_from_distances() -> None:
    places = np.random.default_rng(0).normal(size=(7, 2))
    found, explained = scale_classically(squareform(pdist(places)))
    assert pdist(found) == pytest.approx(pdist(places)) and explained == pytest.approx(1)


def test_dissimilarities_are_shares() -> None:
    """a and b stayed together in one of two trials; c and d never met."""
    shown, odd = np.array([[0, 1, 2], [1, 0, 3]]), np.array([2, 0])
    found = dissimilarities(4, shown, odd, np.ones(2))
    assert found[0, 1] == found[1, 0] == 0.5 and found[0, 2] == 1 and found[0, 3] == 0 and math.isnan(found[2, 3])


def test_what_is_alike_is_close() -> None:
    generator = np.random.default_rng(0)
    place = {name: number for number, name in enumerate("abcdef")}
    shown, responses = [], []
    for triad in list(itertools.permutations("abcdef", 3)) * 3:
        at = np.array([place[name] for name in triad]) + generator.normal(0, 0.3, 3)
        responses.append(1 + int(np.argmin([abs(at[1] - at[2]), abs(at[0] - at[2]), abs(at[0] - at[1])])))
        shown.append(triad)
    found = map_similarities(answered(shown, responses), "level", samples=30, generator=generator)
    first = found.values[::2]
    assert abs(np.corrcoef(first, range(6))[0, 1]) > 0.9 and list(found.names[:2]) == ["a;1", "a;2"]
    assert (found.low <= found.high).all() and found.intervals == "trials"


# --- how well a model fits -------------------------------------------------------------------------------------

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


def counted(shares: Sequence[float], of: int) -> TrialAnswers:
    """Trials of one stimulus at five levels, with these shares of second answers."""
    shown = [[level] for level in LEVELS for _ in range(of)]
    return answered(shown, [2 if number < round(share * of) else 1 for share in shares for number in range(of)])


def test_answers_that_are_not_like_the_model_are_told() -> None:
    """Shares that fall from 0.6 to 0.2 on the way up, and those of a logistic function."""
    wrong = PsychometricFunction(counted([0.05, 0.60, 0.20, 0.80, 0.90], 100), "level", lapse=0.0)
    right = PsychometricFunction(
        counted([1 / (1 + math.exp(-(x - 0.5) / 0.15)) for x in LEVELS], 100), "level", lapse=0.0
    )
    assert with_intervals(wrong).p < 0.01 and with_intervals(right).p > 0.5


def test_the_misfit_of_repeated_conditions_is_their_deviance() -> None:
    """By hand, of two conditions with 1 of 4 and 3 of 4 where a half is expected: G² = 2 Σ n (s ln s/p + …)."""
    answers, conditions = np.array([1.0, 0, 0, 0, 1, 1, 1, 0]), np.array([0, 0, 0, 0, 3, 3, 3, 3])
    expected = 2 * 2 * 4 * (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5))
    assert misfit(answers, np.full(8, 0.5), conditions) == pytest.approx(expected)


def test_of_single_answers_nothing_is_said() -> None:
    """Their likelihood follows from the fit, whatever they are."""
    each = list(itertools.combinations(TENTHS, 3))
    noise = np.random.default_rng(0).normal(0, 0.3, len(each))
    answers = [1 + int(a + c + one > 2 * b) for (a, b, c), one in zip(each, noise, strict=True)]
    once = with_intervals(DifferenceScale(answered(each, answers), "level"), samples=20)
    twice = with_intervals(DifferenceScale(triads(list(map(int, UPPER_LARGER)), 5, TENTHS), "level"), samples=20)
    assert math.isnan(once.p) and 0 <= twice.p <= 1


@pytest.mark.parametrize(
    ("method", "shown", "responses"),
    [
        ("bradley-terry", [["a", "b"], ["b", "a"]], [0, 1]),
        ("psychometric", [[0.1], [0.2], [0.3]], [1, 2, 3]),
        ("psychometric", [[0.1], [0.2], [0.3]], [1, 1.5, 2]),
        ("mlds", [[0.1, 0.2, 0.3]] * 2, [0, 1]),
        ("mds", [["a", "b", "c"]] * 3, [0, 1, 2]),
    ],
)
def test_answers_of_other_numbers_are_told(
    tmp_path: Path, method: str, shown: list[list[Any]], responses: list[float]
) -> None:
    """A laboratory's own program may count from 0, or a rating may have five answers."""
    answered(shown, responses).table.to_csv(tmp_path / "responses.csv", index=False)
    with pytest.raises(UsageError, match=r'needs answers numbered 1, 2.* in "response", and there are'):
        stimkit.scale(tmp_path, method, along="level", samples=0)


def test_levels_are_the_same_items_whatever_else_is_in_their_column(tmp_path: Path) -> None:
    pairs = [("1", "2"), ("2", "2.5"), ("1", "2.5")] * 4
    table = pd.DataFrame(pairs, columns=["level_1", "level_2"]).assign(stimulus_id_1="s", stimulus_id_2="t")
    table.assign(response=[1, 1, 2, 2] * 3).to_csv(tmp_path / "numbers.csv", index=False)
    found = stimkit.scale(tmp_path / "numbers.csv", "bradley-terry", along="level", samples=0)
    assert found.estimates[""].names == ("1", "2", "2.5")
    named = table.replace({"1": "NA", "2": "null", "2.5": "None"}).assign(response=[1, 1, 2, 2] * 3)
    named.to_csv(tmp_path / "names.csv", index=False)
    found = stimkit.scale(tmp_path / "names.csv", "bradley-terry", along="level", samples=0)
    assert found.estimates[""].names == ("NA", "None", "null")
    named.replace({"NA": ""}).to_csv(tmp_path / "empty.csv", index=False)
    with pytest.raises(UsageError, match='stimuli without "level"'):
        stimkit.scale(tmp_path / "empty.csv", "bradley-terry", along="level", samples=0)


def test_options_are_those_of_the_method(tmp_path: Path) -> None:
    counted([0.05, 0.2, 0.5, 0.8, 0.95], 20).table.to_csv(tmp_path / "responses.csv", index=False)
    with pytest.raises(UsageError, match=r'"weibull" is not a shape.*give logistic, normal'):
        stimkit.scale(tmp_path, "psychometric", along="level", shape="weibull")
    with pytest.raises(UsageError, match="right is an option of psychometric, not of mlds"):
        stimkit.scale(tmp_path, "mlds", along="level", right=True)
    with pytest.raises(UsageError, match="there is no option shapes"):
        stimkit.scale(tmp_path, "psychometric", along="level", shapes="normal")
    pictures = [
        draw(stimkit.scale(tmp_path, "psychometric", along="level", samples=0, lapse=0.0, shape=shape))
        for shape in ("logistic", "normal")
    ]
    assert pictures[0] is not None and pictures[0] != pictures[1]


# --- what nothing fits -----------------------------------------------------------------------------------------


def test_answers_that_nothing_fits_are_told() -> None:
    separated = answered([["a", "b"]] * 20 + [["b", "c"]] * 20, [1] * 40)
    with pytest.raises(NoFit, match="always the same, so that no finite scale fits"):
        fitted(Preferences(separated, "level"))
    apart = answered([["a", "b"], ["c", "d"]] * 10, [1, 2, 2, 1] * 5)
    with pytest.raises(NoFit, match="never compared with others"):
        fitted(Preferences(apart, "level"))
    with pytest.raises(NoFit, match="all answers are the same"):
        fitted(PsychometricFunction(answered([[x / 5] for x in range(6)] * 4, [2] * 24), "level"))
    at_once = answered([[x] for x in (0, 1, 2, 3)] * 9, [1, 1, 2, 2] * 9)
    with pytest.raises(NoFit, match="show levels between these"):
        fitted(PsychometricFunction(at_once, "level", lapse=0.0))
    flat = answered([[x] for x in (0, 1, 2, 3)] * 10, [1, 2, 2, 1, 2, 1, 1, 2] * 5)
    with pytest.raises(NoFit, match="do not change along the series"):
        fitted(PsychometricFunction(flat, "level"))
    with pytest.raises(NoFit, match="are in no trial together"):
        generator = np.random.default_rng(0)
        map_similarities(answered([["a", "b", "c"], ["a", "b", "d"]], [1, 2]), "level", samples=0, generator=generator)


@pytest.mark.parametrize(
    ("method", "along", "message"),
    [
        ("bradley", "level", '"bradley" is not a method (did you mean "bradley-terry"?)'),
        ("mlds", "level", "difference scaling needs trials of 3 or 4 stimuli, and these show 2"),
        ("mds", "level", "similarity needs trials of 3 stimuli"),
        ("bradley-terry", "levle", 'the answers have no column "levle_1" (did you mean "level"?)'),
        ("psychometric", "stimulus_id", "without a number"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, method: str, along: str, message: str) -> None:
    games().table.to_csv(tmp_path / "responses.csv", index=False)
    with pytest.raises(UsageError) as caught:
        stimkit.scale(tmp_path, method, along=along)
    assert message in str(caught.value), str(caught.value)


def test_files_without_answers_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read as what `stimkit join` writes"):
        stimkit.scale(tmp_path, "mlds", along="level")
    (tmp_path / "responses.csv").write_text("participant,kind,response\np1,practice,1\n")
    with pytest.raises(UsageError, match="no main trial that was answered"):
        stimkit.scale(tmp_path, "mlds", along="level")
    with pytest.raises(UsageError, match="cannot be evaluated"):
        stimkit.scale(tmp_path, "mlds", along="level", where="response >")
    with pytest.raises(UsageError, match="is not possible in a condition"):
        stimkit.scale(tmp_path, "mlds", along="level", where='participant.to_csv("written.csv") == 1')


def test_each_participant_is_fitted_and_who_cannot_be_is_told(tmp_path: Path) -> None:
    table = pd.concat(
        [games().table, answered([pair for pair in itertools.combinations(TEAMS, 2)], [1] * 21, "p002").table]
    )
    table.to_csv(tmp_path / "responses.csv", index=False)
    found = stimkit.scale(tmp_path, "bradley-terry", along="level", samples=20)
    assert list(found.estimates) == ["", "p001"] and list(found.problems) == ["p002"]
    assert set(found.values["participant"]) == {"", "p001"} and found.values.shape == (14, 7)
    fits = found.fits.set_index("participant")
    assert "no finite scale" in str(fits.loc["p002", "problem"]) and fits.loc["", "trials"] == 294
    again = stimkit.scale(tmp_path, "bradley-terry", along="level", samples=20)
    assert again.values.equals(found.values), "the same seed, the same intervals"

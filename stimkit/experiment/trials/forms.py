"""Forms of trials: what is shown where and when, what participants can answer, and what is right."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.units import TrialUnit, UnitRows

Arrange = Callable[[UnitRows, int, np.random.Generator], UnitRows]
Stages = tuple[tuple[int, ...], ...]


def _as_it_is(rows: UnitRows, _place: int, _generator: np.random.Generator) -> UnitRows:
    return rows


def _last_at(rows: UnitRows, place: int, generator: np.random.Generator) -> UnitRows:
    """The last of the stimuli at a place, the others in any order."""
    *others, last = rows
    others = [others[one] for one in generator.permutation(len(others))] if len(others) > 1 else others
    return (*others[:place], last, *others[place:])


def _turned(rows: UnitRows, place: int, _generator: np.random.Generator) -> UnitRows:
    return rows[::-1] if place else rows


def _pairs_turned(rows: UnitRows, place: int, generator: np.random.Generator) -> UnitRows:
    """One of two pairs on top, each of them either way round."""
    pairs = [rows[:2], rows[2:]][:: -1 if place else 1]
    first, second = (pair[::-1] if generator.integers(2) else pair for pair in pairs)
    return (*first, *second)


def _sample_last(rows: UnitRows, place: int, _generator: np.random.Generator) -> UnitRows:
    """The twin of a sample and another stimulus, in either order, and the sample."""
    twin, other, sample = rows
    return (other, twin, sample) if place else (twin, other, sample)


def _sample_first(rows: UnitRows, place: int, _generator: np.random.Generator) -> UnitRows:
    sample, target, other = rows
    return (sample, other, target) if place else (sample, target, other)


@dataclass(frozen=True)
class Form:
    """A form of trials. Places are counted from 0, from the top left on."""

    choices: tuple[str, ...]
    """By default."""
    options: int = 1
    """Arrangements that are to be equally frequent."""
    arrange: Arrange = _as_it_is
    """UnitRows of a unit and an option to rows in the order of places."""
    right: Callable[[UnitRows, UnitRows], int] | None = None
    """UnitRows of a unit, and rows in the order of places, to the right choice; None where no answer is right."""
    counted_by: Callable[[UnitRows], Hashable] = lambda places: places[0]
    """By what arrangements of the same stimuli are counted, where it is not the right answer."""
    lines: Stages = ()
    """Places that are side by side, from the top; by default all."""
    stages: Stages = ()
    """Places that are shown together, one stage after the other, where the design asks for that."""


FORMS = {
    "single": Form(("1", "2", "3", "4", "5")),
    "pair": Form(("left", "right"), 2, _last_at, stages=((0,), (1,))),
    "2afc": Form(("left", "right"), 2, _last_at, lambda rows, at: at.index(rows[-1]), stages=((0,), (1,))),
    "triplet": Form(("1", "2", "3"), 3, _last_at, lambda rows, at: at.index(rows[-1])),
    "similarity": Form(("1", "2", "3"), 3, _last_at, counted_by=tuple),
    "abx": Form(
        ("1", "2"), 2, _sample_last, lambda rows, at: at.index(rows[0]), lines=((2,), (0, 1)), stages=((0,), (1,), (2,))
    ),
    "match": Form(
        ("left", "right"),
        2,
        _sample_first,
        lambda rows, at: at[1:].index(rows[1]),
        lines=((0,), (1, 2)),
        stages=((0,), (1, 2)),
    ),
    "mlds-triad": Form(("left", "right"), 2, _turned),
    "mlds-quad": Form(
        ("top", "bottom"), 2, _pairs_turned, counted_by=lambda at: frozenset(at[:2]), lines=((0, 1), (2, 3))
    ),
    "adjust": Form(()),
}
"""Stimuli of a 2afc are in the order of what there is more of, those of mlds in the order of their series; of a triplet
the odd one is the last; an abx is two alternatives and the sample X, which is the twin of one of them, a match a sample
and two candidates, of which the first is right."""


@dataclass(frozen=True)
class Answers:
    """The answers of an experiment."""

    choices: tuple[str, ...]
    keys: tuple[str, ...]
    correct: str | None
    """Factor whose level is the right answer."""
    form: Form

    def right(self, unit: TrialUnit, places: UnitRows) -> str:
        """The right answer to a trial with its stimuli at `places`; empty where there is none."""
        if self.form.right is not None:
            return self.choices[self.form.right(unit.rows, places)]
        return (unit.level(self.correct) or "") if self.correct else ""


def find_answers(design: TrialDesign, units: Sequence[TrialUnit], others: Sequence[TrialUnit] = ()) -> Answers:
    """Find choices and keys for the trials of the design, and `others` of practice and catch.

    Raises `ProtocolError` where they do not fit each other or the stimuli.
    """
    response, form = design.response, FORMS[design.trial.form]
    if isinstance(response.choices, str):
        named = response.choices
        levels = {level for unit in (*units, *others) for level in unit.levels[named] if level}
        choices = tuple(sorted(levels, key=_by_value))
    else:
        choices = response.choices or form.choices
    if form.right is not None and len(choices) != len(form.choices):
        words = f"a trial of the form {design.trial.form} has {len(form.choices)} answers, one for each place"
        raise design.error(words, "response", "choices")
    if response.correct:
        if all(unit.level(response.correct) is None for unit in units):
            raise design.error(f"the stimuli of a trial differ in {response.correct}", "response", "correct")
        levels = {level for unit in (*units, *others) for level in unit.levels[response.correct] if level}
        if missing := sorted(levels - set(choices)):
            raise design.error(
                f"{response.correct} has levels that are not choices: {', '.join(missing)}", "response", "choices"
            )
    if design.adaptive and len(choices) != 2:
        words = "adaptive trials have two answers, of which the second lowers the level, or that for each place"
        raise design.error(words, "response", "choices")
    keys = response.keys or tuple(str(number) for number in range(1, len(choices) + 1))
    if len(keys) != len(choices):
        raise design.error(f"there are {len(keys)} keys for {len(choices)} choices", "response", "keys")
    if not response.keys and len(choices) > 9:
        raise design.error(f"name the keys of {len(choices)} choices", "response", "keys")
    if design.catch and design.catch.answer and design.catch.answer not in choices:
        raise design.error(f'"{design.catch.answer}" is not a choice', "catch", "answer")
    return Answers(choices, keys, response.correct, form)


def _by_value(level: str) -> tuple[bool, float, str]:
    """Numbers in their order, then words in theirs."""
    try:
        return False, float(level), level
    except ValueError:
        return True, 0.0, level


def describe_form(design: TrialDesign) -> dict[str, Any]:
    """Places of a trial as the exports need them: those in a line, from the top, and those that are shown together."""
    form, shown = FORMS[design.trial.form], tuple(range(design.trial.shown))
    stages = form.stages if design.timing.sample else (shown,)
    return {"lines": form.lines or (shown,), "stages": stages}

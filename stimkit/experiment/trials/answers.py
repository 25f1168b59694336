"""What participants can answer, and what is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stimkit.experiment.trials.design import SHOWN, TrialDesign
from stimkit.experiment.trials.units import TrialUnit

DEFAULT_CHOICES = {"single": ("1", "2", "3", "4", "5"), "pair": ("left", "right"), "triplet": ("1", "2", "3")}


@dataclass(frozen=True)
class Answers:
    """The answers of an experiment."""

    choices: tuple[str, ...]
    keys: tuple[str, ...]
    correct: str | None
    """Factor whose level is the right answer."""
    odd_one: bool
    """Whether the right answer is the place of the odd stimulus."""

    def right(self, unit: TrialUnit, places: Sequence[int]) -> str:
        """The right answer to a trial with its stimuli at `places`; empty where there is none."""
        if self.odd_one:
            return self.choices[places.index(unit.rows[-1])]
        return (unit.level(self.correct) or "") if self.correct else ""


def find_answers(design: TrialDesign, units: Sequence[TrialUnit], others: Sequence[TrialUnit] = ()) -> Answers:
    """Find choices and keys for the trials of the design, and `others` of practice and catch.

    Raises `ProtocolError` where they do not fit each other or the stimuli.
    """
    response, form = design.response, design.trial.form
    if isinstance(response.choices, str):
        named = response.choices
        levels = {level for unit in (*units, *others) for level in unit.levels[named] if level}
        choices = tuple(sorted(levels, key=_by_value))
    else:
        choices = response.choices or DEFAULT_CHOICES[form]
    if form == "triplet" and len(choices) != SHOWN[form]:
        raise design.error("a triplet has three answers: the place of the odd one", "response", "choices")
    if response.correct:
        if all(unit.level(response.correct) is None for unit in units):
            raise design.error(f"the stimuli of a trial differ in {response.correct}", "response", "correct")
        levels = {level for unit in (*units, *others) for level in unit.levels[response.correct] if level}
        if missing := sorted(levels - set(choices)):
            raise design.error(
                f"{response.correct} has levels that are not choices: {', '.join(missing)}", "response", "choices"
            )
    keys = response.keys or tuple(str(number) for number in range(1, len(choices) + 1))
    if len(keys) != len(choices):
        raise design.error(f"there are {len(keys)} keys for {len(choices)} choices", "response", "keys")
    if not response.keys and len(choices) > 9:
        raise design.error(f"name the keys of {len(choices)} choices", "response", "keys")
    if design.catch and design.catch.answer and design.catch.answer not in choices:
        raise design.error(f'"{design.catch.answer}" is not a choice', "catch", "answer")
    return Answers(choices, keys, response.correct, form == "triplet")


def _by_value(level: str) -> tuple[bool, float, str]:
    """Numbers in their order, then words in theirs."""
    try:
        return False, float(level), level
    except ValueError:
        return True, 0.0, level

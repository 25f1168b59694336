"""Trial lists: a design and the stimuli of a run to the trials of every participant, in order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from stimkit.manifest import numbers_if_all
from stimkit.record import Record
from stimkit.trials.answers import Answers, answers
from stimkit.trials.assignment import Assignment
from stimkit.trials.design import SHOWN, TrialDesign
from stimkit.trials.material import Material, material
from stimkit.trials.sequence import Impossible, arrange, keeps
from stimkit.trials.units import Unit

PRACTICE = "practice"


@dataclass(frozen=True)
class TrialLists:
    """The trials of all participants, in the order in which they are shown."""

    design: TrialDesign
    table: pd.DataFrame
    """One row a trial. Columns of a stimulus end in its place where a trial shows several."""
    factors: tuple[str, ...]
    """Factors and attributes of the stimuli that the table has columns of."""
    answers: Answers
    cycle: int
    """Participants after which groups and orders of blocks are balanced."""


@dataclass(frozen=True)
class _Trial:
    """A trial of one participant."""

    unit: Unit
    kind: str
    places: tuple[int, ...]
    """Rows of its stimuli, from left to right."""
    answer: str
    repetition: int = 1
    block: int = 0
    label: str = PRACTICE


def make_lists(records: Sequence[Record], design: TrialDesign) -> TrialLists:
    """Make trial lists of the stimuli of a run.

    The same design and stimuli give the same lists, and more participants leave those of the first as they are.
    Raises `ProtocolError`, with the key of the design, for unknown factors, rules that allow no trial, an order that
    cannot be kept, and answers that do not fit.
    """
    known = material(records, design, np.random.default_rng([design.seed, 0]))
    return _Maker(design, known).lists()


class _Maker:
    def __init__(self, design: TrialDesign, known: Material) -> None:
        self.design, self.known = design, known
        self.answers = answers(design, (*known.main, *known.practice, *known.catch))
        self.assignment = Assignment(design, known.main, known.factors)
        self.sampler = known.sampler(known.main)
        self.turns = np.random.default_rng([design.seed, 1]).permutation(len(known.main))

    def lists(self) -> TrialLists:
        rows: list[dict[str, Any]] = []
        for participant in range(self.design.participants):
            generator = np.random.default_rng([self.design.seed, 2, participant])
            trials = self._spread_catch(self._main(participant, generator), generator)
            for number, trial in enumerate((*self._practice(participant, generator), *trials), start=1):
                rows.append(self._row(participant, number, trial))
        role = () if self.known.stimuli["role"].nunique() == 1 else ("role",)
        factors = (*role, *(name for name in self.known.columns if name != "role"))
        table = pd.DataFrame(rows)
        table["answer"] = numbers_if_all(table["answer"])
        return TrialLists(self.design, table, factors, self.answers, self.assignment.cycle)

    def _main(self, participant: int, generator: np.random.Generator) -> list[_Trial]:
        """The trials that belong to the design, in their order."""
        among, wanted = self.assignment.group(participant).units, self.design.trial.count
        drawn = self.sampler.draw(among, wanted, generator) if wanted else among
        trials = [
            self._trial(
                self.known.main[one], "main", int(self.turns[one]) + participant + repetition, generator, repetition
            )
            for repetition in range(self.design.trial.repetitions)
            for one in drawn
        ]
        shown: list[_Trial] = []
        blocks = self.assignment.blocks(participant, [trial.unit for trial in trials], generator)
        for number, (label, members) in enumerate(blocks, start=1):
            inside = [replace(trials[one], block=number, label=label) for one in members]
            shown += [inside[one] for one in self._order(inside, shown, generator)]
        return shown

    def _order(self, trials: list[_Trial], before: list[_Trial], generator: np.random.Generator) -> list[int]:
        levels = [[trial.unit.levels for trial in some] for some in (trials, before)]
        try:
            return arrange(levels[0], self.design.sequence.runs, generator, before=levels[1])
        except Impossible as error:
            key = "no_repeat" if error.factor in self.design.sequence.no_repeat else "max_run"
            raise self.design.error(str(error), "sequence", key) from None

    def _trial(self, unit: Unit, kind: str, turn: int, generator: np.random.Generator, repetition: int = 0) -> _Trial:
        """Give the stimuli of a trial their places: by turns, by chance, or as they come."""
        orders = list(itertools.permutations(unit.rows))
        if len(unit.rows) == SHOWN["triplet"]:  # it is the place of the odd one that is balanced
            orders = [order for place in range(3) for order in orders if order.index(unit.rows[-1]) == place]
            turn = turn % 3 * 2 + int(generator.integers(2))
        by_chance = int(generator.integers(len(orders)))
        chosen = {"balanced": turn % len(orders), "random": by_chance, "fixed": 0}[self.design.trial.positions]
        places = unit.rows if self.design.trial.positions == "fixed" else orders[chosen]
        return _Trial(unit, kind, places, self.answers.right(unit, places), repetition + 1)

    def _practice(self, participant: int, generator: np.random.Generator) -> list[_Trial]:
        order = generator.permutation(len(self.known.practice))
        return [self._trial(self.known.practice[one], PRACTICE, int(one) + participant, generator) for one in order]

    def _spread_catch(self, trials: list[_Trial], generator: np.random.Generator) -> list[_Trial]:
        """Put each catch trial into its part of the experiment, or near it, where no rule is broken."""
        catch, runs = self.design.catch, self.design.sequence.runs
        if catch is None:
            return trials
        shown, count, reach = list(trials), len(trials), max(runs.values(), default=0)
        for index in reversed(range(catch.count)):
            drawn = self.known.catch[int(generator.integers(len(self.known.catch)))]
            trial = self._trial(drawn, "catch", index, generator)
            trial = replace(trial, answer=catch.answer or trial.answer)
            first, last = index * count // catch.count, (index + 1) * count // catch.count
            by_chance = (int(one) for one in generator.permutation(count))
            for place in sorted(by_chance, key=lambda place: max(first - place, place - last + 1, 0)):
                near = [*shown[max(0, place - reach) : place], trial, *shown[place : place + reach]]
                if keeps([one.unit.levels for one in near], runs):
                    shown.insert(place, replace(trial, block=shown[place].block, label=shown[place].label))
                    break
            else:
                raise self.design.error(
                    "there is no place for a catch trial that keeps the rules of [sequence]", "catch"
                )
        return shown

    def _row(self, participant: int, number: int, trial: _Trial) -> dict[str, Any]:
        row = {
            "participant": f"p{participant + 1:03}",
            "group": self.assignment.group(participant).label,
            "block": trial.block,
            "block_label": trial.label,
            "trial": number,
            "kind": trial.kind,
            "repetition": trial.repetition,
            "answer": trial.answer,
        }
        for place, index in enumerate(trial.places, start=1):
            stimulus = self.known.stimuli.loc[index]
            end = "" if len(trial.places) == 1 else f"_{place}"
            row |= {f"stimulus_id{end}": stimulus["stimulus_id"], f"stim_file{end}": f"stimuli/{stimulus['filename']}"}
            row |= {f"{name}{end}": stimulus[name] for name in self.known.columns}
        return row

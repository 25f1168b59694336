"""Trial lists: a design and the stimuli of a run to the trials of every participant, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from stimkit.errors import UsageError
from stimkit.experiment.trial_rules import LIST_COLUMNS, PLACE_COLUMNS, RESPONSE_COLUMNS
from stimkit.experiment.trials.assignment import Assignment
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.forms import Answers, find_answers
from stimkit.experiment.trials.material import Material, gather_material
from stimkit.experiment.trials.placement import DegreesXY, Layout, assumed_place, image_ppd, misplaced
from stimkit.experiment.trials.sequence import Impossible
from stimkit.experiment.trials.showing import PRACTICE, PlaceChooser, ShownTrial, order_trials
from stimkit.experiment.trials.units import TrialUnit
from stimkit.records.schema import Record
from stimkit.runfolder.run import AnyRun, read_run

MAX_TRIALS, MAX_ROWS = 10_000, 1_000_000
MAX_CHOICES = 10**10  # participants × trials × possible trials; a minute


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
    layout: Layout
    held_out: tuple[str, ...] = ()
    """Ids of stimuli that are for practice only."""
    series: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """What participants move along, by the names that the table has: steps with `stimulus_id`, `stim_file`, `level`."""
    left: int = 0
    """How many stimuli are in other trials, or can be."""


def make_trials(run: AnyRun, design: TrialDesign) -> TrialLists:
    """Make trial lists of the stimuli of a run: who sees which of them, in which blocks and order.

    >>> design = stimkit.TrialDesign.load("protocols/trials/rating.toml")
    >>> lists = stimkit.make_trials("runs/quickstart", design)
    >>> lists.table[["participant", "trial", "stim_file"]].shape
    (216, 3)

    The same design and stimuli give the same lists, and more participants leave those of the first as they are.
    Raises `RunFolderError` for a folder that is not a run folder, `ProtocolError`, with the key of the design, for
    unknown factors, rules that allow no trial, an order that cannot be kept, and answers that do not fit; `UsageError`
    where factors have names that lists need.
    """
    run = read_run(run)
    run.check_readable()
    return make_lists(list(run.records.values()), design)


def make_lists(records: Sequence[Record], design: TrialDesign) -> TrialLists:
    """Make trial lists of stimuli by their records; see `make_trials`."""
    known = gather_material(records, design, np.random.default_rng([design.seed, 0]))
    units = (*known.main, *known.practice, *known.catch)
    used = {row for unit in units for row in (*unit.rows, *unit.series)}
    ids = set(known.stimuli["stimulus_id"].iloc[sorted(used)])
    shown = [record for record in records if record.stimulus_id in ids]
    layout = Layout(design.place, design.screen, image_ppd(shown))
    times = {key: seconds for key, seconds in design.timing.model_dump().items() if seconds}
    for path, words in misplaced(layout, shown, design.trial.shown, times):
        raise design.error(words, *path)
    for name in known.columns:
        if name in (*LIST_COLUMNS, *RESPONSE_COLUMNS, *(PLACE_COLUMNS if design.place else ())):
            raise UsageError(f'the run has a factor or attribute "{name}", which is a column of lists or answers')
    assumed = {one.stimulus_id: assumed_place(one) for one in shown} if design.place and design.place.as_made else {}
    return _Maker(design, known, assumed).lists(layout)


class _Maker:
    def __init__(self, design: TrialDesign, known: Material, assumed: Mapping[str, DegreesXY]) -> None:
        self.design, self.known, self.assumed = design, known, assumed
        self.answers = find_answers(design, known.main, (*known.practice, *known.catch))
        self.assignment = Assignment(design, known, np.random.default_rng([design.seed, 1]))
        self.sampler = known.sampler(known.main)
        self.positions = list(design.place.named.items()) if design.place else []
        self.places = PlaceChooser(design.trial.positions, self.answers.form, max(1, len(self.positions)))
        self.series: dict[tuple[int, ...], str] = {}
        self.repetitions = design.adaptive.count if design.adaptive else design.trial.repetitions
        columns = [*dict.fromkeys(("stimulus_id", "filename", *known.columns))]
        self.stimuli = known.stimuli[columns].to_dict("index")
        self._check_amount()

    def _check_amount(self) -> None:
        """Raise `ProtocolError` where lists would be longer than any experiment."""
        design = self.design
        possible = max(len(group.units) for group in self.assignment.groups)
        drawn = design.trial.count or possible
        others = len(self.known.practice) + (design.catch.count if design.catch else 0)
        of_each = drawn * self.repetitions + others
        if of_each > MAX_TRIALS or design.participants * of_each > MAX_ROWS:
            raise design.error(
                f"asks for {of_each:,} trials of each of {design.participants:,} participants; lists hold at most"
                f" {MAX_TRIALS:,} of each and {MAX_ROWS:,} in all",
                "trial",
            )
        if design.trial.count and design.participants * design.trial.count * possible > MAX_CHOICES:
            raise design.error(
                f"chooses {design.trial.count:,} of {possible:,} possible trials for each of {design.participants:,}"
                " participants, which takes too long: choose fewer stimuli",
                "trial",
                "count",
            )

    def lists(self, layout: Layout) -> TrialLists:
        rows: list[dict[str, Any]] = []
        for participant in range(self.design.participants):
            generator = np.random.default_rng([self.design.seed, 2, participant])
            trials = [*self._practice(participant, generator), *self._main(participant, generator)]
            rows += [self._row(participant, number, trial) for number, trial in enumerate(trials, start=1)]
        role = () if self.known.stimuli["role"].nunique() == 1 else ("role",)
        factors = (*role, *(name for name in self.known.columns if name != "role"))
        table = pd.DataFrame(rows).astype({"answer_index": "Int64"})
        held_out = tuple(str(self.stimuli[row]["stimulus_id"]) for row in sorted(self.known.held_out))
        left = len({row for unit in self.known.main for row in unit.rows})
        series = {name: [self._step(row) for row in rows] for rows, name in self.series.items()}
        adaptive, levels = self.design.adaptive, [step["level"] for steps in series.values() for step in steps]
        if adaptive and adaptive.scale == "log10" and min(levels) <= 0:
            words = "is of levels above 0, and the series has others: leave them out with [stimuli] where"
            raise self.design.error(words, "adaptive", "scale")
        return TrialLists(
            self.design, table, factors, self.answers, self.assignment.cycle, layout, held_out, series, left
        )

    def _step(self, row: int) -> dict[str, Any]:
        stimulus, along = self.stimuli[row], self.design.trial.along
        assert along is not None, "a series goes along a factor"
        name = f"stimuli/{stimulus['filename']}"
        columns = {column: stimulus[column] for column in self.known.columns}
        return {
            "stimulus_id": stimulus["stimulus_id"],
            "stim_file": name,
            "level": float(stimulus[along]),
            "columns": columns,
        }

    def _main(self, participant: int, generator: np.random.Generator) -> list[ShownTrial]:
        """All trials but those of practice, in their order."""
        among, wanted = self.assignment.group(participant).units, self.design.trial.count
        drawn = self.sampler.draw(among, wanted, generator) if wanted else among
        units = [self.known.main[unit] for unit in drawn]
        trials = [
            trial
            for repetition in range(self.repetitions)
            for trial in self._shown(units, "main", participant, generator, repetition + 1)
        ]
        blocks = self.assignment.blocks(participant, [trial.unit for trial in trials], generator)
        in_blocks = [(label, [trials[trial] for trial in members]) for label, members in blocks]
        try:
            return order_trials(in_blocks, self._catch(participant, generator), self.design.sequence.runs, generator)
        except Impossible as error:
            key = "no_repeat" if error.factor in self.design.sequence.no_repeat else "max_run"
            raise self.design.error(str(error), "sequence", key) from None

    def _practice(self, participant: int, generator: np.random.Generator) -> list[ShownTrial]:
        order = generator.permutation(len(self.known.practice))
        return self._shown([self.known.practice[one] for one in order], PRACTICE, participant, generator)

    def _catch(self, participant: int, generator: np.random.Generator) -> list[ShownTrial]:
        catch = self.design.catch
        if catch is None:
            return []
        possible = self.assignment.allowed(participant, self.known.catch)
        if not possible:
            label = self.assignment.group(participant).label
            raise self.design.error(f"leaves no catch trial for participants of group {label}", "catch", "where")
        units = [possible[int(generator.integers(len(possible)))] for _ in range(catch.count)]
        trials = self._shown(units, "catch", participant, generator)
        return [replace(trial, answer=catch.answer or trial.answer) for trial in trials]

    def _shown(
        self,
        units: Sequence[TrialUnit],
        kind: str,
        participant: int,
        generator: np.random.Generator,
        repetition: int = 1,
    ) -> list[ShownTrial]:
        places = self.places.choose(units, kind, participant, self.assignment.order(participant), generator)
        return [
            ShownTrial(
                unit,
                kind,
                rows,
                self.answers.right(unit, rows),
                repetition,
                position=position,
                start=int(generator.integers(len(unit.series))) if unit.series else 0,
            )
            for unit, (rows, position) in zip(units, places, strict=True)
        ]

    def _row(self, participant: int, number: int, trial: ShownTrial) -> dict[str, Any]:
        choices = self.answers.choices
        row = {
            "participant": f"p{participant + 1:03}",
            "group": self.assignment.group(participant).label,
            "block": trial.block,
            "block_label": trial.label,
            "trial": number,
            "kind": trial.kind,
            "repetition": trial.repetition,
            "answer": trial.answer,
            "answer_index": choices.index(trial.answer) + 1 if trial.answer in choices else None,
        }
        if series := trial.unit.series:
            row["series"] = self.series.setdefault(series, f"series{len(self.series) + 1}")
            row |= {} if self.design.adaptive else {"start": trial.start + 1}
        for place, index in enumerate(trial.places, start=1):
            stimulus = self.stimuli[index]
            end = "" if len(trial.places) == 1 else f"_{place}"
            row |= {f"stimulus_id{end}": stimulus["stimulus_id"], f"stim_file{end}": f"stimuli/{stimulus['filename']}"}
            row |= {f"{name}{end}": stimulus[name] for name in self.known.columns}
            if self.assumed:
                x, y = self.assumed[stimulus["stimulus_id"]]
                row |= {f"position{end}": "as_made", f"x_deg{end}": x, f"y_deg{end}": y}
            elif self.positions:
                name, (x, y) = self.positions[trial.position if len(trial.places) == 1 else place - 1]
                row |= {f"position{end}": name, f"x_deg{end}": x, f"y_deg{end}": y}
        return row

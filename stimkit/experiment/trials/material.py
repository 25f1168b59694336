"""What trial lists are made of: the stimuli of a run as the trials that a design allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stimkit.errors import UsageError, did_you_mean
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.sampling import Sampler
from stimkit.experiment.trials.units import TrialUnit, make_units
from stimkit.records.schema import Record
from stimkit.records.selection import names_in, select
from stimkit.records.tables import attribute_names, factor_names, to_table


@dataclass(frozen=True)
class Material:
    """Stimuli and possible trials."""

    stimuli: pd.DataFrame
    """The manifest of all stimuli with a status that the design asks for."""
    factors: tuple[str, ...]
    columns: tuple[str, ...]
    """Factors, then attributes and marks."""
    main: tuple[TrialUnit, ...]
    practice: tuple[TrialUnit, ...]
    catch: tuple[TrialUnit, ...]
    held_out: frozenset[int] = frozenset()
    """Rows of stimuli that are for practice only."""

    def sampler(self, among: Sequence[TrialUnit]) -> Sampler:
        """A source of trials that balances the factors of which there are several levels."""
        varying = [name for name in self.factors if len({unit.levels[name] for unit in among}) > 1]
        return Sampler(among, varying, len(self.stimuli))


def gather_material(records: Sequence[Record], design: TrialDesign, generator: np.random.Generator) -> Material:
    """Find the trials that a design allows; those of practice are drawn by a generator.

    Raises `ProtocolError` for factors that the run does not have, conditions that cannot be evaluated, and where
    there is no trial of a kind that is asked for.
    """
    records = [record for record in records if record.status in design.stimuli.status]
    if not records:
        raise design.error(f"the run has no stimulus that is {' or '.join(design.stimuli.status)}", "stimuli")
    stimuli = to_table(records)
    factors = ("role", *factor_names(records))
    columns = (*factors, *attribute_names(records))
    for path, names in _named(design):
        for name in names:
            if name not in columns:
                raise design.error(f'the run has no factor or attribute "{name}"{did_you_mean(name, columns)}', *path)

    labels = [{name: _label(record, name) for name in columns} for record in records]

    def possible(where: str, section: str) -> tuple[TrialUnit, ...]:
        try:
            designed = stimuli if "role" in names_in(where) else stimuli[stimuli["role"] == "main"]
            rows = select(designed, where)
        except UsageError as error:
            raise design.error(str(error), section, "where") from None
        chosen = {int(row): labels[int(row)] for row in rows.index}
        return tuple(make_units(chosen, factors, columns, design, section))

    all_of_it = Material(stimuli, factors, columns, possible(design.stimuli.where, "stimuli"), (), ())
    practice = _practice(all_of_it, design, possible, generator) if design.practice else ()
    held_out = _held_out(design, practice, labels)
    main = tuple(unit for unit in all_of_it.main if not held_out & set(unit.rows))
    if not main:
        taken = f"takes {len(held_out)} of {len(labels)} stimuli, which leaves no trial of others"
        raise design.error(f"{taken}; take fewer with [practice] count or where", "practice", "held_out")
    catch = possible(design.catch.where, "catch") if design.catch else ()
    catch = tuple(unit for unit in catch if not held_out & set(unit.rows))
    if design.catch and not catch:
        raise design.error("leaves no stimulus for catch trials", "practice", "held_out")
    return Material(stimuli, factors, columns, main, practice, catch, frozenset(held_out))


def _label(record: Record, name: str) -> str:
    """The level of a factor or attribute of a stimulus, in text; empty where it has none."""
    return str(record.role if name == "role" else {**record.attributes, **record.levels}.get(name, ""))


def _held_out(design: TrialDesign, practice: Sequence[TrialUnit], labels: Sequence[Mapping[str, str]]) -> set[int]:
    """Stimuli that are for practice only: with a Latin square, all that have an item of it."""
    shown = {row for unit in practice for row in unit.rows}
    square = design.assign.latin
    if square is None or design.practice is None:
        return shown if design.practice and design.practice.held_out else set()
    items = {labels[row][square.items] for row in shown}
    of_items = {row for row, levels in enumerate(labels) if levels[square.items] in items}
    if not design.practice.held_out:
        raise design.error("would show items of the Latin square in other conditions; add held_out = true", "practice")
    return of_items


def _practice(
    known: Material,
    design: TrialDesign,
    possible: Callable[[str, str], tuple[TrialUnit, ...]],
    generator: np.random.Generator,
) -> tuple[TrialUnit, ...]:
    practice = design.practice
    assert practice is not None
    has_own = practice.where or practice.differ or practice.free
    found = possible(practice.where or design.stimuli.where, "practice") if has_own else known.main
    if len(found) < practice.count:
        raise design.error(f"only {len(found)} trials are possible", "practice", "count")
    chosen = known.sampler(found).draw(range(len(found)), practice.count, generator)
    return tuple(found[index] for index in chosen)


def _named(design: TrialDesign) -> Iterator[tuple[tuple[str, ...], Sequence[str]]]:
    """Every key of a design that names factors."""
    yield ("trial", "differ"), design.trial.differ
    yield ("trial", "free"), design.trial.free
    yield ("trial", "along"), (design.trial.along,) if design.trial.along else ()
    yield ("trial", "match"), design.trial.match
    yield ("trial", "distract"), design.trial.distract
    for section, own in (("practice", design.practice), ("catch", design.catch)):
        yield (section, "differ"), own.differ if own else ()
        yield (section, "free"), own.free if own else ()
    yield ("assign", "between"), design.assign.between
    if design.assign.latin:
        yield ("assign", "latin", "items"), (design.assign.latin.items,)
        yield ("assign", "latin", "conditions"), (design.assign.latin.conditions,)
    yield ("blocks", "by"), design.blocks.by
    yield ("sequence", "no_repeat"), design.sequence.no_repeat
    for name in design.sequence.max_run:
        yield ("sequence", "max_run", name), (name,)
    if isinstance(design.response.choices, str):
        yield ("response", "choices"), (design.response.choices,)
    if design.response.correct:
        yield ("response", "correct"), (design.response.correct,)

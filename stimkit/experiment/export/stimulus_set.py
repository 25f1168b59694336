"""A stimulus set on its way to another program: stimuli, their table, trial lists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from stimkit.columns import Column
from stimkit.errors import RunFolderError, UsageError, did_you_mean
from stimkit.experiment.trials.design import TrialDesign
from stimkit.experiment.trials.lists import TrialLists, make_lists
from stimkit.files import read_file
from stimkit.records.methods import methods_paragraph
from stimkit.records.schema import Record
from stimkit.records.selection import select
from stimkit.records.tables import attribute_names, described_columns, factor_names, to_table
from stimkit.runfolder.run import AnyRun, read_run

IDENTITY = ("stimulus_id", "stim_file")


@dataclass(frozen=True)
class StimulusSet:
    """The stimuli of a run that are exported."""

    name: str
    table: pd.DataFrame
    """One row a stimulus: id, `stim_file` (relative to the export), factors, attributes and the manifest's columns."""
    factors: tuple[str, ...]
    attributes: tuple[str, ...]
    lists: TrialLists
    has_design: bool
    """Whether the trial lists were asked for; otherwise they are one list of every stimulus once."""
    methods: str
    records: Mapping[str, Record]
    """By the name of the file."""
    folder: Path
    """Where the files of the run are."""

    @cached_property
    def described(self) -> Mapping[str, Column]:
        """What the columns of the manifest are, by name."""
        return described_columns(self.records.values())

    def copy_stimuli(self, target: Path, names: Mapping[str, str] | None = None) -> None:
        """Copy the files into a new folder, by default under their names; `names` maps stimulus ids to others.

        Raises `RunFolderError` where a file is not what its record says.
        """
        target.mkdir(parents=True)
        for row in self.table[["stimulus_id", "filename"]].itertuples(index=False):
            name = str(row.filename)
            (target / (names[str(row.stimulus_id)] if names else name)).write_bytes(self.read(name))

    def read(self, filename: str) -> bytes:
        """The bytes of a stimulus. Raises `RunFolderError` where they are not what the record says."""
        path = self.folder / filename
        try:
            data = read_file(path)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != self.records[filename].file_sha256:
            raise RunFolderError(f"{path} is not the file of its record; see `stimkit verify {self.folder.parent}`")
        return data


def gather_stimuli(
    run: AnyRun,
    *,
    design: TrialDesign | None = None,
    where: str | None = None,
    status: Sequence[str] = ("accepted",),
    columns: Sequence[str] | None = None,
) -> StimulusSet:
    """Collect what is exported of a run folder: by default all accepted stimuli with all columns of the manifest.

    Names of files are those of the resolved protocol, whatever a record says.

    With a trial design the stimuli are those that its lists show. Raises `RunFolderError` for a folder that is not a
    run folder or has no such stimulus, `UsageError` for a condition or columns that do not fit, `ProtocolError` for
    the design.
    """
    run = read_run(run)
    run.check_readable()
    complete = list(run.records.values())
    records = [record for record in complete if record.status != "failed"]
    chosen = _chosen(records, where, status) if design is None else records
    if not chosen:
        raise RunFolderError(f"{run.path} has no stimulus that is {' or '.join(status)}")
    lists = make_lists(chosen, design or every_stimulus_once(status))
    if design is not None:
        shown = {
            stimulus_id
            for name in lists.table
            if str(name).startswith("stimulus_id")
            for stimulus_id in lists.table[name]
        } | {step["stimulus_id"] for steps in lists.series.values() for step in steps}
        chosen = [record for record in records if record.stimulus_id in shown]
    found = to_table(chosen)
    found.insert(1, "stim_file", "stimuli/" + found["filename"])
    factors, attributes = factor_names(chosen), attribute_names(chosen)
    plan = run.plan
    for record in chosen:
        if record.filename != plan.by_id[record.stimulus_id].filename:
            raise RunFolderError(f"{run.path}: the record of {record.stimulus_id} was altered; see `stimkit verify`")
    return StimulusSet(
        name=plan.protocol.name,
        table=found[_columns(found, columns, (*factors, *attributes))],
        factors=factors,
        attributes=attributes,
        lists=lists,
        has_design=design is not None,
        methods=methods_paragraph(plan, complete, run.environments, shown={record.stimulus_id for record in chosen}),
        records={record.filename: record for record in chosen},
        folder=run.path / "stimuli",
    )


def every_stimulus_once(status: Sequence[str]) -> TrialDesign:
    """The design of a single list that has every stimulus once."""
    return TrialDesign.model_validate(
        {
            "schema": 1,
            "name": "every-stimulus",
            "participants": 1,
            "stimuli": {"where": 'role != ""', "status": tuple(status)},
        }
    )


def _chosen(records: Sequence[Record], where: str | None, status: Sequence[str]) -> list[Record]:
    wanted = [record for record in records if record.status in status]
    if where is None or not wanted:
        return wanted
    kept = set(select(to_table(wanted), where)["stimulus_id"])
    if not kept:
        raise UsageError(f"no stimulus meets the condition {where!r}")
    return [record for record in wanted if record.stimulus_id in kept]


def _columns(found: pd.DataFrame, asked: Sequence[str] | None, factors: Sequence[str]) -> list[str]:
    if asked is None:
        return list(found.columns)
    for name in asked:
        if name not in found:
            raise UsageError(f'the manifest has no column "{name}"{did_you_mean(name, found.columns)}')
    return list(dict.fromkeys((*IDENTITY, "filename", *factors, *asked)))

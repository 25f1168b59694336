"""Take tables of measurements into a run folder: stimuli are judged by them, and the manifest has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stimkit.columns import Column
from stimkit.errors import UsageError, did_you_mean
from stimkit.records.measurements import Measurements, gather_measurements
from stimkit.records.record import judge
from stimkit.runfolder.derived import rebuild
from stimkit.runfolder.run import Run, read_run


def enter_measurements(
    run: Run, name: str, columns: Iterable[Column], values: Mapping[str, Mapping[str, float]], made: Mapping[str, Any]
) -> Run:
    """Write what was measured of stimuli, by id and column, as a table of a run folder; return it as it is then.

    Stimuli that `[accept]` has a rule about are judged again, and the manifest is written anew. Values of stimuli that
    were made again meanwhile are left out. Raises `UsageError` where a column has a name that the manifest has already,
    `RunFolderError` where another process writes the folder, `StorageError` where it cannot be written.
    """
    with run.store.writing():
        now = read_run(run.path)
        digests = {stimulus_id: record.file_sha256 for stimulus_id, record in run.records.items()}
        same = {
            stimulus_id: found
            for stimulus_id, found in values.items()
            if stimulus_id in now.records and now.records[stimulus_id].file_sha256 == digests[stimulus_id]
        }
        table: Measurements = gather_measurements(
            name, columns, same, now.records, made=made, others=now.measurements.values()
        )
        now.store.write_measurements(table)
        return _judged_and_rebuilt(run)


def remove_measurements(run: Run, names: Iterable[str]) -> Run:
    """Take tables of measurements out of a run folder, also damaged ones; return the folder as it is then.

    Raises `UsageError` for a table that is not there.
    """
    known = {*run.measurements, *(Path(name).stem for name in run.damaged_measurements)}
    names = list(names)
    for name in names:
        if name not in known:
            raise UsageError(f'{run.path} has no measurements "{name}"{did_you_mean(name, known)}')
    with run.store.writing():
        for name in names:
            run.store.remove_measurements(name)
        return _judged_and_rebuilt(run)


def _judged_and_rebuilt(run: Run) -> Run:
    """Judge the stimuli of a folder by what is measured of them now, and write the tables of the folder."""
    now = read_run(run.path)
    for record in now.records.values():
        judged = record if record.status == "failed" else judge(record, now.plan)
        if judged.status != record.status or judged.status_reason != record.status_reason:
            now.store.rewrite(judged)
    now = read_run(run.path)
    rebuild(now)
    return now

"""The formats that a stimulus set can be exported to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stimkit.errors import UsageError, did_you_mean
from stimkit.experiment.export import bids, brainio, jspsych, psychopy, tables
from stimkit.experiment.export.jspsych_library import load_library
from stimkit.experiment.export.stimulus_set import gather_stimuli
from stimkit.experiment.trials.design import TrialDesign
from stimkit.files import check_new, whole_folder
from stimkit.runfolder.run import AnyRun

WRITERS = {"psychopy": psychopy.write, "bids": bids.write, "brainio": brainio.write, "csv": tables.write}
FORMATS = ("psychopy", "jspsych", "bids", "brainio", "csv")


def export(
    run: AnyRun,
    form: str,
    out: str | Path,
    *,
    design: TrialDesign | None = None,
    where: str | None = None,
    status: Sequence[str] = ("accepted",),
    columns: Sequence[str] | None = None,
    jspsych_tarballs: str | Path | None = None,
) -> int:
    """Write a stimulus set into a new folder, in a form that another program reads; return how many stimuli it has.

    >>> stimkit.export("runs/quickstart", "psychopy", "exports/quickstart")
    8

    `form` is one of `FORMATS`. Without a trial design the lists of experiments have every stimulus once. `where` is a
    condition on the manifest and `columns` what of it is written beside ids and factors. Every file is compared with
    its record. Nothing is written where anything is wrong: raises `UsageError`, `RunFolderError`, `ProtocolError` for
    the design, `StorageError`.
    """
    if form not in FORMATS:
        raise UsageError(f'"{form}" is not a format{did_you_mean(form, FORMATS)}; give one of {", ".join(FORMATS)}')
    if design is not None and (where is not None or tuple(status) != ("accepted",)):
        raise UsageError("the trial design says which stimuli are shown; leave the condition and the status out")
    check_new(Path(out))
    stimuli = gather_stimuli(run, design=design, where=where, status=status, columns=columns)
    with whole_folder(Path(out)) as folder:
        if form == "jspsych":
            jspsych.write(stimuli, folder, load_library(jspsych_tarballs))
        else:
            WRITERS[form](stimuli, folder)
    return len(stimuli.table)

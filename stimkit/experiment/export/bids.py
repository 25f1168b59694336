"""A BIDS dataset of stimuli.

The folder `stimuli` and the column `stim_file` of events are part of BIDS 1.10; `stimuli.tsv` and the names of its
files follow the draft of BEP044 (bids-specification pull request 2022), which may still change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from stimkit.experiment.export.data_dictionary import describe_columns, levels_of
from stimkit.experiment.export.stimulus_set import StimulusSet
from stimkit.files import write_json
from stimkit.version import __version__

BIDS_VERSION = "1.10.0"
README = """# {name}: {count} stimuli

This dataset holds stimuli only. The folder `stimuli` and the column `stim_file` of `*_events.tsv` are part of BIDS
{version}; `stimuli/stimuli.tsv` and the names of the files follow the draft of BEP044 (bids-specification pull request
2022), which may still change. Add authors and licence to `dataset_description.json`.

In the events of a task a stimulus is named by its file below `stimuli`:

    onset  duration  trial_type  stim_file
    1.0    0.5       image       {example}

{trials}
## Methods

{methods}
"""


def write(stimuli: StimulusSet, folder: Path) -> None:
    """Write dataset_description.json, README.md, stimuli/ with table and sidecars, and trial lists as source data."""
    names = {str(one): f"stim-{one}_image.png" for one in stimuli.table["stimulus_id"]}
    stimuli.copy_stimuli(folder / "stimuli", names)
    write_json(folder / "dataset_description.json", _description(stimuli))
    table = _draft_table(stimuli, names)
    _tsv(folder / "stimuli" / "stimuli.tsv", table)
    write_json(folder / "stimuli" / "stimuli.json", _columns(stimuli, table))
    for row in stimuli.table.to_dict("records"):
        values = {str(name): value for name, value in row.items() if name != "stim_file" and not pd.isna(value)}
        sidecar = {"Description": _described(stimuli, row), "Stimkit": values}
        write_json(folder / "stimuli" / f"{Path(names[row['stimulus_id']]).stem}.json", sidecar)
    trials = ""
    if stimuli.has_design:
        (folder / "sourcedata").mkdir()
        _tsv(folder / "sourcedata" / "trials.tsv", _lists(stimuli, names))
        trials = "`sourcedata/trials.tsv` has the trials of all participants, with `stim_file`.\n"
    text = README.format(
        name=stimuli.name, count=len(table), version=BIDS_VERSION, example=next(iter(names.values())), trials=trials,
        methods=stimuli.methods,
    )  # fmt: skip
    (folder / "README.md").write_text(text, encoding="utf-8")


def _description(stimuli: StimulusSet) -> dict[str, Any]:
    return {
        "Name": stimuli.name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "stimkit", "Version": __version__}],
    }


def _draft_table(stimuli: StimulusSet, names: dict[str, str]) -> pd.DataFrame:
    table = stimuli.table.drop(columns=["stim_file", "filename"]).replace("", pd.NA)
    table.insert(1, "type", "image")
    table.insert(2, "filename", table["stimulus_id"].map(names))
    return table


def _columns(stimuli: StimulusSet, table: pd.DataFrame) -> dict[str, Any]:
    own: dict[str, Any] = {
        "stimulus_id": {"Description": "identifier of the stimulus, as in the names of its files"},
        "type": {"Description": "kind of the stimulus"},
        "filename": {"Description": "file of the stimulus in this folder"},
    }
    described = describe_columns(stimuli, {"stimuli": table.drop(columns=list(own))})
    for row in described.to_dict("records"):
        units = {"Units": row["units"]} if row["units"] not in ("", "1") else {}
        levels = {"Levels": {level: level for level in levels_of(table[row["column"]])}} if row["levels"] else {}
        own[row["column"]] = {"Description": row["description"] or row["column"], **units, **levels}
    return own


def _described(stimuli: StimulusSet, row: Any) -> str:
    return ", ".join(f"{name} {row[name]}" for name in stimuli.factors if not pd.isna(row[name]) and row[name] != "")


def _lists(stimuli: StimulusSet, names: dict[str, str]) -> pd.DataFrame:
    table = stimuli.lists.table.copy()
    for column in [name for name in table.columns if str(name).startswith("stim_file")]:
        table[column] = table[str(column).replace("stim_file", "stimulus_id")].map(names)
    return table.replace("", pd.NA)


def _tsv(path: Path, table: pd.DataFrame) -> None:
    table.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")

"""Tidy tables for R, MATLAB and everything else: CSV and Parquet, with a data dictionary."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stimkit.experiment.export.data_dictionary import describe_columns
from stimkit.experiment.export.stimulus_set import StimulusSet
from stimkit.experiment.trials.balance import count_balance
from stimkit.records.tables import csv_bytes

README = """# {name}: {count} stimuli

- `stimuli.csv`, `stimuli.parquet`: one row a stimulus; `stim_file` is its file, below this folder
- `data_dictionary.csv`: type, units and description of every column
{trials}
Empty cells of the CSV files are missing values.

    # R
    stimuli <- read.csv("stimuli.csv", na.strings = "")
    stimuli <- arrow::read_parquet("stimuli.parquet")

    % MATLAB
    stimuli = parquetread("stimuli.parquet");

    # Python
    stimuli = pandas.read_parquet("stimuli.parquet")

## Methods

{methods}
"""
TRIALS = """- `trials.csv`, `trials.parquet`: one row a trial, in the order of each participant
- `balance.csv`: how often participants see what
"""


def write(stimuli: StimulusSet, folder: Path) -> None:
    """Write stimuli, stimuli.csv, stimuli.parquet, data_dictionary.csv and, with a trial design, its lists."""
    stimuli.copy_stimuli(folder / "stimuli")
    tables = {"stimuli": stimuli.table}
    if stimuli.has_design:
        tables |= {"trials": stimuli.lists.table, "balance": count_balance(stimuli.lists)}
    for name, table in tables.items():
        (folder / f"{name}.csv").write_bytes(csv_bytes(table))
        _typed(table).to_parquet(folder / f"{name}.parquet", index=False)
    described = {name: table for name, table in tables.items() if name != "balance"}
    (folder / "data_dictionary.csv").write_bytes(csv_bytes(describe_columns(stimuli, described)))
    trials = TRIALS if stimuli.has_design else ""
    text = README.format(name=stimuli.name, count=len(stimuli.table), trials=trials, methods=stimuli.methods)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose text columns have one type: text, or missing."""
    text = [name for name in table.columns if table[name].dtype.kind not in "biuf"]
    typed = table.astype(dict.fromkeys(text, "string"))
    return typed.assign(**{str(name): typed[name].replace("", pd.NA) for name in text})

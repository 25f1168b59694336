"""PsychoPy: conditions files that `psychopy.data.importConditions` reads as they are meant, and an experiment."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pandas as pd

from stimkit.documents.cells import cell_objection
from stimkit.errors import UsageError
from stimkit.experiment.export.presentation import write_presentation
from stimkit.experiment.export.stimulus_set import StimulusSet
from stimkit.records.tables import csv_bytes

README = """# {name}: an experiment for PsychoPy

    python experiment.py

- `conditions/`: the trials of each participant, in their order, as CSV and XLSX (the same trials in both)
- `stimuli/`, and `masks/` where the design has them: the images
- `settings.json`: prompt, answers and keys, places, timing in seconds, the screen, grey of the background;
  `answer_index` of a trial and `response` count the answers from 1
- `data/`: what `experiment.py` saves, a line of `.jsonl` after every trial, and a CSV file at the end

In the Builder, give a loop the file `conditions/p001.csv` and an image component `$stim_file`. PsychoPy reads empty
cells as None. Images are shown pixel by pixel, or in their size in degrees on a `[screen]` of other pixels per degree
(`image_scale` in the data). Times are counted in frames: `stimulus_s` and `fixation_s` in the data are measured,
`dropped_frames` says how many were late. For stimuli with the transfer function gamma or linear, set the display, or
the gamma grid of PsychoPy's monitor centre, so that light follows values in that way; those for sRGB need no change.

    stimkit join RUN data/*.csv

puts the answers and the manifest together.
"""
# What pandas, through which PsychoPy reads a CSV file, takes for an empty cell.
_EMPTY = {
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip
_TRUTH = {"true", "false"}


def write(stimuli: StimulusSet, folder: Path) -> None:
    """Write stimuli, conditions of every participant as CSV and XLSX, experiment.py and settings.json.

    Raises `UsageError` where PsychoPy would read a name or a value as something else, `ProtocolError` for a screen that
    is to be measured.
    """
    design, table = stimuli.lists.design, stimuli.lists.table
    if design.screen is not None and design.screen.calibrate:
        raise design.error("is for browsers; PsychoPy needs viewing_distance, width and pixels", "screen", "calibrate")
    if any(_read_otherwise(str(answer)) for answer in table["answer"].unique()):
        table = table.drop(columns="answer")  # its index among the choices is there
    check_conditions(table)
    stimuli.copy_stimuli(folder / "stimuli")
    (folder / "conditions").mkdir()
    for participant, rows in table.groupby("participant"):
        (folder / "conditions" / f"{participant}.csv").write_bytes(csv_bytes(rows))
        rows.to_excel(folder / "conditions" / f"{participant}.xlsx", index=False, engine="openpyxl")
    write_presentation(stimuli, folder)
    script = files("stimkit.experiment.export").joinpath("templates", "experiment.py").read_text(encoding="utf-8")
    (folder / "experiment.py").write_text(script, encoding="utf-8")
    (folder / "README.md").write_text(README.format(name=stimuli.name), encoding="utf-8")


def check_conditions(table: pd.DataFrame) -> None:
    """Raise `UsageError` for columns and values that `importConditions` would read as something else."""
    for name in table.columns:
        if not re.fullmatch(r"[A-Za-z]\w*", str(name), re.ASCII):
            raise UsageError(f'PsychoPy needs columns that begin with a letter and have no punctuation, not "{name}"')
        if table[name].dtype.kind in "biuf":
            continue
        text = [str(value) for value in table[name].unique() if value != ""]
        wrong = sorted(value for value in text if _read_otherwise(value))
        if text and {value.lower() for value in text} <= _TRUTH:
            wrong = text
        if wrong:
            raise UsageError(
                f"PsychoPy would not read {name} as the text that it is: {', '.join(wrong[:5])};"
                " give it another name in the protocol"
            )


def _read_otherwise(value: str) -> bool:
    if cell_objection(value) or value in _EMPTY or "\\n" in value or re.fullmatch(r"[\[(].*[\])]", value, re.DOTALL):
        return True
    try:
        float(value.replace(",", "."))
    except ValueError:
        return False
    return True

"""Stimulus sets as BrainIO specifies them: a CSV file, a ZIP archive, and the SHA-1 of both.

Source: the specification of BrainIO (brain-score/brainio, docs/SPECIFICATION.md).
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

import pandas as pd

from stimkit.errors import UsageError
from stimkit.experiment.export.stimulus_set import StimulusSet
from stimkit.files import EPOCH
from stimkit.records.tables import csv_bytes

README = """# {identifier}: a stimulus set for BrainIO

- `{store}.csv`: one row a stimulus, with `stimulus_id` and `filename`
- `{store}.zip`: the files
- `lookup.csv`: the two rows of a BrainIO catalog, with the SHA-1 of both files; put in where they are stored
  (`location_type` and `location`) before you add them

Without a catalog:

    from brainio.stimuli import StimulusSet
    stimuli = StimulusSet.from_files("{store}.csv", "folder of the unpacked archive")

## Methods

{methods}
"""


def write(stimuli: StimulusSet, folder: Path) -> None:
    """Write CSV, ZIP and catalog rows. Raises `UsageError` for columns that BrainIO has no names for."""
    if wrong := [name for name in stimuli.table.columns if not re.fullmatch(r"[a-z0-9_]+", str(name))]:
        raise UsageError(f"BrainIO's columns are lower case letters, digits and underscores; {', '.join(wrong)} is not")
    identifier = stimuli.name
    store = "stimulus_" + identifier.replace(".", "_")
    folder.mkdir(exist_ok=True)
    (folder / f"{store}.csv").write_bytes(csv_bytes(stimuli.table.drop(columns="stim_file")))
    with zipfile.ZipFile(folder / f"{store}.zip", "w") as archive:
        for name in stimuli.table["filename"]:
            archive.writestr(zipfile.ZipInfo(name, EPOCH), stimuli.read(name))
    rows = [
        {
            "identifier": identifier,
            "lookup_type": "stimulus_set",
            "class": "StimulusSet" if kind == "csv" else "",
            "location_type": "",
            "location": f"{store}.{kind}",
            "sha1": hashlib.sha1((folder / f"{store}.{kind}").read_bytes(), usedforsecurity=False).hexdigest(),
            "stimulus_set_identifier": "",
        }
        for kind in ("csv", "zip")
    ]
    (folder / "lookup.csv").write_bytes(csv_bytes(pd.DataFrame(rows)))
    text = README.format(identifier=identifier, store=store, methods=stimuli.methods)
    (folder / "README.md").write_text(text, encoding="utf-8")

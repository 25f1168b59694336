"""Joined answers as a Psych-DS dataset: `dataset_description.json` and tables of data below `data`.

Psych-DS is a convention for tables of behavioural data (https://psych-ds.github.io): names of files are keywords with
values, as in study-one_data.csv, and every column is described as a `variableMeasured` of schema.org.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stimkit.errors import UsageError
from stimkit.experiment.export.data_dictionary import describe_columns
from stimkit.experiment.export.stimulus_set import StimulusSet
from stimkit.experiment.responses import RESPONSES
from stimkit.files import json_text, read_file
from stimkit.protocol.sections import Publication
from stimkit.records.tables import csv_bytes

ANSWERS = "answers"  # folder of an archive


def read_answers(folders: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Read what `stimkit join` wrote into folders, by names that Psych-DS allows.

    Names of files of answers lose their folders. Raises `UsageError` where a folder has no such table.
    """
    tables: dict[str, pd.DataFrame] = {}
    for folder in folders:
        try:
            table = pd.read_csv(io.BytesIO(read_file(folder / RESPONSES)), dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder} has no answers that `stimkit join` wrote: {error}") from None
        if "response_file" in table:
            table["response_file"] = [re.split(r"[/\\]", name)[-1] for name in table["response_file"]]
        name = re.sub(r"[^A-Za-z0-9]", "", folder.resolve().name) or "answers"
        if name in tables:
            raise UsageError(f"two folders of answers are called {name}: rename one of them")
        tables[name] = table
    return tables


def dataset_files(
    stimuli: StimulusSet, tables: Mapping[str, pd.DataFrame], publication: Publication
) -> Iterator[tuple[str, bytes]]:
    """The files of a Psych-DS dataset of tables by name."""
    names = {f"study-{name}_data.csv": table for name, table in tables.items()}
    for name, table in names.items():
        yield f"{ANSWERS}/data/{name}", csv_bytes(table)
    description = json_text(_description(stimuli, names, publication)) + "\n"
    yield f"{ANSWERS}/dataset_description.json", description.encode()


def _description(stimuli: StimulusSet, tables: Mapping[str, pd.DataFrame], publication: Publication) -> dict[str, Any]:
    rows = describe_columns(stimuli, tables).drop_duplicates("column").to_dict("records")
    variables = [
        {
            "@type": "PropertyValue",
            "name": row["column"],
            "description": row["description"] or row["column"],
            **({"unitText": row["units"]} if row["units"] not in ("", "1") else {}),
        }
        for row in rows
    ]
    authors = [{"@type": "Person", "givenName": one.given, "familyName": one.family} for one in publication.authors]
    given = {
        "author": authors, "license": publication.licence, "url": publication.url, "identifier": publication.doi,
        "keywords": list(publication.keywords),
    }  # fmt: skip
    return {
        "@context": "https://schema.org/",
        "@type": "Dataset",
        "name": f"Answers to {publication.title or stimuli.name}",
        "description": f"Answers of participants to stimuli of the set {stimuli.name}, beside what its manifest says.",
        "schemaVersion": "Psych-DS 0.4.0",
        **{key: value for key, value in given.items() if value},
        "variableMeasured": variables,
    }

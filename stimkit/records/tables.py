"""Records as tables: manifest.csv, losses.csv, and the data frame that they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stimkit.columns import BASIC
from stimkit.records.schema import Record

NAMED_FACTORS = ("content", "style", "mask", "content_layers", "style_layers")
"""Factors whose levels are names, also where they are digits."""
_NUMBER = r"-?(0|[1-9]\d*)(\.\d+)?(e-?\d+)?|inf"
_EXACT_DIGITS = 15  # more than that a double does not hold
_NULLABLE = (*BASIC, "clip_low_frac", "clip_high_frac")  # of which a lost cell has none


def to_table(records: Sequence[Record]) -> pd.DataFrame:
    """One row a stimulus: its id, the levels of its factors, attributes, then everything in `COLUMNS`."""
    frame = pd.DataFrame(
        [
            {
                "stimulus_id": record.stimulus_id,
                "filename": record.filename,
                **record.levels,
                **record.attributes,
                **record.row(),
            }
            for record in records
        ]
    )
    frame["alpha_beta_ratio"] = frame["alpha_beta_ratio"].astype(float)
    for name in _NULLABLE:
        frame[name] = frame[name].astype(float)
    for name in (*factor_names(records), *attribute_names(records)):
        if name not in NAMED_FACTORS:
            frame[name] = numbers_if_all(frame[name])
    return frame


def factor_names(records: Sequence[Record]) -> tuple[str, ...]:
    """The factors of the design, in the order of the protocol."""
    return tuple(dict.fromkeys(factor for record in records for factor in record.levels))


def attribute_names(records: Sequence[Record]) -> tuple[str, ...]:
    """What follows from the factors: attributes of the images, and marks."""
    return tuple(dict.fromkeys(name for record in records for name in record.attributes))


def numbers_if_all(labels: pd.Series[Any]) -> pd.Series[Any]:
    """Labels as numbers, where all are written as numbers are ("01" is a name); NaN where there is none."""
    given = labels[labels.notna() & (labels != "")].astype(str)
    if not len(given) or not given.str.fullmatch(_NUMBER).all() or given.str.len().max() > _EXACT_DIGITS:
        return labels
    numbers = pd.to_numeric(given)
    finite = np.isfinite(numbers) | (given == "inf")
    return numbers.reindex(labels.index) if finite.all() and numbers.nunique() == given.nunique() else labels


def manifest_csv(records: Sequence[Record]) -> bytes:
    """manifest.csv: the table in a form that PsychoPy, R and spreadsheets read; empty where there is no value."""
    return csv_bytes(to_table(records))


def losses_csv(records: Sequence[Record]) -> bytes:
    """losses.csv: one row for every loss of every stimulus, by stage, term and layer, unweighted."""
    frame = pd.DataFrame(_loss_rows(records), columns=["stimulus_id", "stage", "term", "layer", "weight", "value"])
    return csv_bytes(frame)


def _loss_rows(records: Iterable[Record]) -> Iterator[tuple[Any, ...]]:
    for record in records:
        weights = {term: record.layer_weights(term) for term in ("content", "style")}
        factors = {"content": record.alpha, "style": record.beta}
        for stage, losses in record.losses.stages().items():
            for term in ("content", "style"):
                for layer, value in losses.layers(term).items():
                    yield record.stimulus_id, stage, term, layer, weights[term][layer], value
                if losses.sum(term) is not None:
                    yield record.stimulus_id, stage, term, "all", factors[term], losses.sum(term)
            yield record.stimulus_id, stage, "total", "all", 1.0, losses.total


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A table as UTF-8 CSV; empty where there is no value."""
    return frame.to_csv(index=False, lineterminator="\n").encode()

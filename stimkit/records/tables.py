"""Records as tables: the CSV files of a run folder, and the data frame that the manifest is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stimkit.columns import BASIC, Column
from stimkit.images.regions import region_windows
from stimkit.protocol.settings import Settings
from stimkit.records.schema import COLUMN_OF, Record

NAMED_FACTORS = ("content", "style", "mask", "content_layers", "style_layers")
"""Factors whose levels are names, also where they are digits."""
_NUMBER = r"-?(0|[1-9]\d*)(\.\d+)?(e-?\d+)?|inf"
_EXACT_DIGITS = 15  # more than that a double does not hold
_NULLABLE = (*BASIC, "clip_low_frac", "clip_high_frac")  # of which a lost cell has none


def to_table(records: Sequence[Record]) -> pd.DataFrame:
    """One row a stimulus: id, levels of its factors, attributes, everything in `COLUMNS`, distances, measurements."""
    frame = pd.DataFrame(
        [
            {
                "stimulus_id": record.stimulus_id,
                "filename": record.filename,
                **record.levels,
                **record.attributes,
                **record.row(),
                **{
                    f"{kind}_distance_{image}": record.distance(kind, image)
                    for kind, images in record.distances.items()
                    for image in images
                },
                **{column.name: value for column, value in record.measured.items()},
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


def described_columns(records: Iterable[Record]) -> dict[str, Column]:
    """What the columns of a table are, by name, but for factors, attributes and distances."""
    return COLUMN_OF | {column.name: column for record in records for column in record.measured}


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


def distances_csv(records: Sequence[Record]) -> bytes:
    """distances.csv: one row for every loss of a file to an image of its series, by layer, unweighted."""
    rows = [
        (record.stimulus_id, kind, image, layer, record.layer_weights(kind)[layer], value)
        for record in records
        for kind, images in record.distances.items()
        for image, losses in images.items()
        for layer, value in losses.items()
    ]
    return csv_bytes(pd.DataFrame(rows, columns=["stimulus_id", "term", "image", "layer", "weight", "value"]))


def table_names(records: Collection[Record]) -> tuple[str, ...]:
    """The tables of a run folder; that of windows where there are any, and stimkit was of a version that wrote it."""
    has_windows = any(one.settings.regions != "whole" and "fovea" in one.names for one in records)
    has_distances = any(one.distances for one in records)
    further = {"windows.csv": has_windows, "distances.csv": has_distances}
    return ("manifest.csv", "losses.csv", "manifest.nc", *(name for name, there in further.items() if there))


def windows_csv(records: Sequence[Record]) -> bytes:
    """windows.csv: one row for every region in which Gram matrices were taken, for every kind of regions of the run.

    Their middles (the mean of their weights) and boxes are in pixels from the left and top edge of the stimulus, their
    eccentricities in degrees where pixels per degree are known.
    """
    settings = {one.settings.region_shape: one.settings for one in records if one.settings.regions != "whole"}
    return csv_bytes(pd.DataFrame([row for one in settings.values() for row in _window_rows(one)]))


def _window_rows(settings: Settings) -> Iterator[dict[str, Any]]:
    shape = settings.region_shape
    names = ("regions", "region_count", "region_scaling", "fixation_x", "fixation_y", "fovea")
    for number, window in enumerate(region_windows(shape) or ()):
        top, bottom, left, right = window.box
        area = window.weights.sum()
        x = (window.weights.sum(0) * (np.arange(left, right) + 0.5)).sum() / area
        y = (window.weights.sum(1) * (np.arange(top, bottom) + 0.5)).sum() / area
        away = np.hypot(x - shape.size[1] / 2 - shape.fixation[0], shape.size[0] / 2 - y - shape.fixation[1])
        yield {
            "height_px": settings.height,
            "width_px": settings.width,
            **{name: getattr(settings, name) for name in names},
            "window": number,
            "x_px": round(x, 3),
            "y_px": round(y, 3),
            "eccentricity_px": round(away, 3),
            "eccentricity_deg": round(away / settings.ppd, 4) if settings.ppd else None,
            "area_px": round(area, 3),
            "left_px": left,
            "top_px": top,
            "box_width_px": right - left,
            "box_height_px": bottom - top,
        }


CSV_TABLES = {
    "manifest.csv": manifest_csv,
    "losses.csv": losses_csv,
    "windows.csv": windows_csv,
    "distances.csv": distances_csv,
}


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A table as UTF-8 CSV; empty where there is no value."""
    return frame.to_csv(index=False, lineterminator="\n").encode()

"""The data dictionary: what every column of an exported table is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from stimkit.experiment.export.stimulus_set import StimulusSet

_OWN = {
    "stim_file": "file of the stimulus, relative to the folder of the export",
    "participant": "participant that the trial is for",
    "group": "levels of the factors that differ between participants, and row of the Latin square",
    "block": "number of the block, from 1; 0 is practice",
    "block_label": "which block it is",
    "trial": "number of the trial, from 1",
    "kind": "main, practice or catch",
    "repetition": "which showing of the trial to the participant, from 1",
    "answer": "the right answer, where there is one",
    "answer_index": "its place among the choices, from 1",
    "series": "name of the series that the participant moves along",
    "start": "step of the series that is shown first, from 1",
    "chosen": "level of the step that was chosen",
    "chosen_id": "stimulus of that step",
    "estimate": "threshold by the answers so far, of an adaptive method",
    "moves": "steps that the participant went, in either direction",
    "sample_ms": "how long the stimuli before the last were there, as measured",
    "position": "name of the place of the stimulus",
    "x_deg": "degrees of visual angle right of fixation",
    "y_deg": "degrees of visual angle above fixation",
    "choice": "the answer that was given",
    "response": "its place among the choices, from 1",
    "correct": "whether it was the right one: 1 or 0",
    "rt": "time from the onset of the stimuli to the answer, s",
    "rt_recorded": "that time as it was recorded",
    "recorded_time_unit": "unit of times as they were recorded",
    "response_file": "file that the answer was read from",
    "fixation_ms": "how long the fixation mark was alone, as measured",
    "onset_ms": "onset of the stimuli from the beginning of the experiment",
    "stimulus_ms": "how long stimuli were there, as measured",
    "mask_ms": "how long masks were there, as measured",
    "frame_ms": "duration of a frame of the display, as measured",
    "dropped_frames": "frames that came late in the trial",
    "device_pixel_ratio": "pixels of the display for a pixel of the page",
    "window_width_px": "width of the window, pixels of the page",
    "window_height_px": "height of the window, pixels of the page",
    "pixels_per_degree": "pixels of the display for a degree of visual angle",
    "viewing_distance_cm": "distance from eyes to screen, as given or measured, cm",
    "fits_window": "whether the stimuli were in the window as a whole",
    "image_scale": "pixels of the display for a pixel of the stimulus",
    "stage": "where the loss was measured: of the initial, optimized or equalized image, or of the file",
    "term": "content, style or total",
    "layer": "layer of the network, or all of them",
    "weight": "weight of the layer in its term, or of the term in the total loss",
    "value": "loss, unweighted",
    "window": "number of the region, from 0",
    "x_px": "middle of the region, pixels from the left edge",
    "y_px": "middle of the region, pixels from the top edge",
    "eccentricity_px": "distance of that from fixation in pixels",
    "eccentricity_deg": "distance of that from fixation in degrees of visual angle",
    "area_px": "sum of the weights of pixels in the region",
    "left_px": "first column of pixels with a weight, from 0",
    "top_px": "first row of pixels with a weight, from 0",
    "box_width_px": "columns of pixels with a weight",
    "box_height_px": "rows of pixels with a weight",
}
MAX_LEVELS = 50
FIELDS = ("table", "column", "type", "units", "description", "levels")


def describe_columns(stimuli: StimulusSet, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row for each column of the tables: name, type, units, description and, where they are few, its levels."""
    rows = [row for name, table in tables.items() for row in _rows(stimuli, name, table)]
    return pd.DataFrame(rows, columns=list(FIELDS))


def _rows(stimuli: StimulusSet, table: str, columns: pd.DataFrame) -> Iterator[dict[str, str]]:
    for name in columns.columns:
        base = _base(str(name), stimuli)
        known = stimuli.described.get(base)
        is_level = base in (*stimuli.factors, *stimuli.attributes)
        values = columns[name]
        yield {
            "table": table,
            "column": str(name),
            "type": _type(values),
            "units": "" if known is None or is_level else known.units,
            "description": _described(stimuli, base) + _place(str(name), base),
            "levels": ";".join(levels_of(values)) if is_level and values.nunique() <= MAX_LEVELS else "",
        }


def levels_of(values: pd.Series) -> list[str]:
    """The different values of a column that are there, in text."""
    return [str(value) for value in values.unique() if not pd.isna(value) and value != ""]


def _base(name: str, stimuli: StimulusSet) -> str:
    """A column's name without the place of the stimulus in its trial."""
    base, _, place = name.rpartition("_")
    return base if place in ("1", "2", "3", "4") and name not in stimuli.described else name


def _place(name: str, base: str) -> str:
    return f" (stimulus {name[-1]} of the trial, from the left)" if name != base else ""


def _described(stimuli: StimulusSet, name: str) -> str:
    known = stimuli.described.get(name)
    if name in stimuli.factors:
        return f"factor: {known.long_name}" if known else "factor of the design"
    if name in stimuli.attributes:
        return "attribute of the images, or mark of the design"
    return known.long_name if known else _OWN.get(name, "")


def _type(values: pd.Series) -> str:
    if values.dtype == bool:
        return "logical"
    if pd.api.types.is_integer_dtype(values):
        return "integer"
    return "number" if pd.api.types.is_float_dtype(values) else "text"

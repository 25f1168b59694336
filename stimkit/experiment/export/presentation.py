"""What an experiment needs to know beside its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stimkit.experiment.export.stimulus_set import StimulusSet
from stimkit.experiment.trials.saving import describe_lists
from stimkit.files import write_json
from stimkit.images.light import to_srgb
from stimkit.records.schema import Record

GREY = 0.5  # encoded; the middle of the display's values


def presentation_of(stimuli: StimulusSet) -> dict[str, Any]:
    """The trial lists' own settings, the participants, and the grey around the stimuli (encoded, 0 to 1)."""
    return {
        **describe_lists(stimuli.lists),
        "lists": list(stimuli.lists.table["participant"].unique()),
        "background": background_of(stimuli),
    }


def write_presentation(stimuli: StimulusSet, folder: Path) -> None:
    """Write settings.json, which the experiments read."""
    write_json(folder / "settings.json", presentation_of(stimuli))


def background_of(stimuli: StimulusSet) -> float:
    """The value of a file that continues the apertures' background; a middle grey where there is no one such value."""
    values = {_around(record) for record in stimuli.records.values()}
    return values.pop() if len(values) == 1 else GREY


def _around(record: Record) -> float:
    if record.settings.aperture == "none":
        return GREY
    linear = np.array(record.settings.background)
    encoding = record.settings.encoding
    value = to_srgb(linear) if encoding.transfer == "srgb" else linear ** (1 / encoding.exponent)
    return round(float(value), 6)

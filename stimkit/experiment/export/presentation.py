"""What an experiment needs beside its trials: settings, masks, and files that its program can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stimkit.errors import UsageError
from stimkit.experiment.export.stimulus_set import StimulusSet
from stimkit.experiment.trials.saving import describe_lists
from stimkit.files import write_json
from stimkit.images.light import to_srgb
from stimkit.images.noise import scramble_phases
from stimkit.images.png import decode_values, encode_values, to_file_values, to_network_image
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
    """Write settings.json, which the experiments read, and masks where the design has them.

    Raises `UsageError` for files of 16 bits, which neither program shows as they are.
    """
    if any(record.settings.bits != 8 for record in stimuli.records.values()):
        raise UsageError("browsers and PsychoPy show 8 bits of a channel, and some files have 16: use csv")
    write_json(folder / "settings.json", presentation_of(stimuli))
    if stimuli.lists.design.timing.mask:
        (folder / "masks").mkdir()
        for name, record in stimuli.records.items():
            (folder / "masks" / name).write_bytes(mask_of(stimuli.read(name), record))


def mask_of(png: bytes, record: Record) -> bytes:
    """A file with the amplitudes of a stimulus and random phases, for the same display."""
    encoding = record.settings.encoding
    image = to_network_image(decode_values(png, record.filename), encoding)
    scrambled = scramble_phases(image, record.seed).clip(0, 1)
    return encode_values(to_file_values(scrambled, encoding, record.seed), encoding, {"mask_of": record.stimulus_id})


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

"""Open a run folder: its manifest as a Dataset, its images on demand."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import xarray as xr

from stimkit.errors import RunFolderError, did_you_mean
from stimkit.images.png import Values, decode_values
from stimkit.records.record import Record
from stimkit.records.tables import dataset, to_grid
from stimkit.runfolder.store import RunStore


class Results:
    """The stimuli and records of a run folder."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    @property
    def path(self) -> Path:
        return self._store.path

    @cached_property
    def records(self) -> dict[str, Record]:
        """The record of every complete cell, by stimulus id."""
        return {record["stimulus_id"]: record for record in self._store.records()}

    @cached_property
    def dataset(self) -> xr.Dataset:
        """The manifest, one entry a stimulus along the dimension `stimulus`."""
        return dataset(self._store, list(self.records.values()))

    def to_grid(self) -> xr.Dataset:
        """The manifest with one dimension for each factor that has several levels."""
        return to_grid(self.dataset)

    def image(self, stimulus_id: str) -> Values:
        """Read one stimulus: (height, width, 3) RGB values of 8 or 16 bits, as the file holds them."""
        if stimulus_id not in self.records:
            raise RunFolderError(f"{self.path} has no stimulus {stimulus_id}{did_you_mean(stimulus_id, self.records)}")
        path = self.path / "stimuli" / self.records[stimulus_id]["filename"]
        try:
            return decode_values(path.read_bytes(), path.name)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error


def open_run(path: str | Path) -> Results:
    """Open a run folder. Raises `RunFolderError` where it is none, or has no complete cell yet."""
    store = RunStore.open(path)
    if not store.completed():
        raise RunFolderError(f"{path} has no complete stimulus yet")
    return Results(store)

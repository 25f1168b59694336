"""Stimuli that were complete before their protocol had a classifier: it looks at their files."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

from stimkit.errors import RunFolderError
from stimkit.files import read_file
from stimkit.images.png import decode_values, to_network_image
from stimkit.planning.cells import Plan
from stimkit.planning.recognition import cue_digest
from stimkit.records.schema import Record
from stimkit.runfolder.store import RunStore
from stimkit.stimuli.recognition import Recognizer
from stimkit.synthesis.devices import choose_device


class LateRecognition:
    """The classifier of a plan, which is loaded when it is first needed."""

    def __init__(self, plan: Plan, store: RunStore, device: str) -> None:
        self._plan, self._store, self._device = plan, store, device

    @cached_property
    def _recognizer(self) -> Recognizer:
        return Recognizer(self._plan, choose_device(self._device))

    def look(self, record: Record) -> dict[str, Any]:
        """The columns of recognition for the stimulus of a record. Raises `RunFolderError` where it cannot be read."""
        path = self._store.path / "stimuli" / record.filename
        try:
            data = read_file(path)
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != record.file_sha256:
            raise RunFolderError(f"{path} is not the file of its record; see `stimkit verify {self._store.path}`")
        values = decode_values(data, path.name)
        cell = self._plan.by_id[record.stimulus_id].as_recorded(record.attempt, record.alpha)
        seen = self._recognizer.recognize(cell, to_network_image(values, record.settings.encoding))
        return seen.columns(cue_digest(self._plan, cell))

"""Documents of older schemas, brought to the current one by pure steps; newer ones are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from stimkit.errors import LaterVersionError, RunFolderError

Document = dict[str, Any]


@dataclass(frozen=True)
class Schema:
    """The current schema of a kind of document, and the steps that lead to it from each older one."""

    kind: str
    current: int
    steps: Mapping[int, Callable[[Document], Document]]
    """From schema n to schema n + 1; a schema that only brought values with defaults needs none."""

    def read(self, document: Any, name: str) -> Document:
        """Return a document in the current schema; the one given is not changed.

        Raises `LaterVersionError` where it is of a later schema, `RunFolderError` where it is no such document.
        """
        schema = document.get("schema") if isinstance(document, dict) else None
        if type(schema) is not int or schema < 1:
            raise RunFolderError(f"{name} is not a {self.kind} (schema {schema!r})")
        if schema > self.current:
            raise LaterVersionError(
                f"{name} is of schema {schema}, written by stimkit {document.get('stimkit_version')}; this one reads"
                f" the {self.kind} up to schema {self.current}: use that version or a later one"
            )
        for number in (number for number in self.steps if number >= schema):
            try:
                document = self.steps[number](document)
            except (KeyError, TypeError) as error:
                raise RunFolderError(f"{name} is damaged: it has no {error}") from error
        return {**document, "schema": self.current}

"""Misspelt keys: a document is judged as if they were spelt right, so that what was meant is not missing as well."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from copy import deepcopy

from pydantic import BaseModel, ValidationError

from stimkit.documents.lines import nearest_line
from stimkit.documents.messages import as_table, dotted, known_keys, unknown_key
from stimkit.documents.schemas import Document
from stimkit.documents.toml import Lines, Model
from stimkit.errors import MAX_PROBLEMS, Problem, ProtocolError

ALIKE = 0.75
"""How alike a key must be to a known one to be taken for it, by `difflib`: "bta" is "beta", "crops" is not "groups"."""


def check_as_meant(
    check: Callable[[Document, Lines], Model], model: type[Model], document: Document, lines: Lines, name: str
) -> Model:
    """Check a document; where it is wrong and has misspelt keys, say these, and what is wrong besides.

    `check` gives the model of a document whose keys stand on `lines`, or raises `ProtocolError`, as this does.
    """
    try:
        return check(document, lines)
    except ProtocolError:
        meant = _misspelt(model, document)
        if not meant:
            raise
    problems = {Problem(dotted(path), unknown_key(model, path), nearest_line(lines, path)) for path in meant}
    corrected = deepcopy(document)
    for (*table, key), right in meant.items():
        inner = as_table(corrected, *table)
        inner[right] = inner.pop(key)
        old, new = (*table, key), (*table, right)
        lines = lines | {(*new, *path[len(old) :]): line for path, line in lines.items() if path[: len(old)] == old}
    try:
        check(corrected, lines)
    except ProtocolError as error:
        problems |= set(error.problems)
    raise ProtocolError(problems, name)


def _misspelt(model: type[BaseModel], document: Document) -> dict[tuple[str, ...], str]:
    """Paths of unknown keys that are much like a known one which is not there, with that one."""
    found: dict[tuple[str, ...], str] = {}
    try:
        model.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        unknown = [one["loc"] for one in error.errors(include_url=False) if one["type"] == "extra_forbidden"]
        for where in unknown[:MAX_PROBLEMS]:
            path = tuple(map(str, where))
            table = as_table(document, *path[:-1])
            if path == where and path[-1] in table:  # neither in a list nor of one of several possible models
                free = [key for key in known_keys(model, path[:-1]) if key not in table]
                close = difflib.get_close_matches(path[-1][:100], free, n=1, cutoff=ALIKE)
                if close and (*path[:-1], close[0]) not in {(*other[:-1], right) for other, right in found.items()}:
                    found[path] = close[0]
    return found

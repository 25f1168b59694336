"""TOML files that users write: read and validated, with every broken rule named by its line and key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from stimkit.documents.lines import nearest_line
from stimkit.documents.messages import BrokenRule, KeyPath, dotted, syntax_problem, translate
from stimkit.errors import Problem, ProtocolError
from stimkit.files import read_file

MAX_TEXT = 64_000_000  # bytes of a file that a person writes or generates
Lines = dict[KeyPath, int]
Model = TypeVar("Model", bound=BaseModel)


def read_text(path: Path, otherwise: str) -> str:
    """Read a file as UTF-8. Raises `ProtocolError`; where there is no such file it says what to do `otherwise`."""
    try:
        return read_file(path, MAX_TEXT).decode("utf-8-sig")
    except FileNotFoundError:
        raise ProtocolError([Problem("", f"no such file; {otherwise}")], str(path)) from None
    except OSError as error:
        raise ProtocolError([Problem("", f"cannot be read: {error.strerror or error}")], str(path)) from error
    except UnicodeDecodeError as error:
        raise ProtocolError([Problem("", f"cannot be read as UTF-8 text: {error}")], str(path)) from error


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Parse TOML. Raises `ProtocolError` with the line that is wrong."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProtocolError([syntax_problem(error)], name) from None
    except RecursionError:
        raise ProtocolError([Problem("", "is nested too deep")], name) from None
    except ValueError as error:  # a number of thousands of digits
        raise ProtocolError([Problem("", f"cannot be read as TOML: {error}")], name) from None


def validate(
    model: type[Model],
    document: Mapping[str, Any],
    lines: Lines,
    name: str,
    found: Iterable[BrokenRule] = (),
) -> Model:
    """Validate a document, whose keys stand on `lines`, against a model.

    Raises `ProtocolError` with every rule that is broken, and with what was `found` wrong otherwise.
    """
    problems = [Problem(dotted(path), message, nearest_line(lines, path)) for path, message in found]
    valid = None
    try:
        # Strict validation as JSON: TOML arrays become tuples, yet "3" stays no number.
        valid = model.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        # A list whose levels are all wrong is also reported as too short; once is enough.
        wrong = [
            problem
            for problem in error.errors(include_url=False)
            if problem["type"] != "too_short" or not problem["input"]
        ]
        problems += [translate(problem, model, lines) for problem in wrong]
    if problems or valid is None:
        raise ProtocolError(set(problems), name)
    return valid

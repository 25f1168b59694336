"""Broken rules in words: pydantic's errors as problems with line, key, rule and value; looks into raw documents."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any, get_args

from pydantic import BaseModel

from stimkit.documents.lines import nearest_line
from stimkit.errors import Problem, did_you_mean

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """Write a key path as messages do: `factors.ratio[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def syntax_problem(error: tomllib.TOMLDecodeError) -> Problem:
    """Turn an error of the TOML parser into a problem with its line."""
    where = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
    message = re.sub(r" \(at .*\)$", "", str(error))
    return Problem("", f"not valid TOML: {message[:1].lower()}{message[1:]}", int(where[1]) if where else None)


_RULES = {
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:g}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list of levels",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters",
    "too_short": "must have at least one level",
    "string_pattern_mismatch": "must consist of letters, digits, dots, hyphens and underscores",
}


def translate(error: Any, model: type[BaseModel], lines: dict[KeyPath, int]) -> Problem:
    """Turn one error of pydantic, met while validating a `model`, into a problem with line, key, rule and value."""
    path = tuple(part for part in error["loc"] if part != EVERY)  # which a number stands for
    kind, context = error["type"], error.get("ctx", {})
    line = nearest_line(lines, path)
    if kind == "missing":
        return Problem(dotted(path), "is required", nearest_line(lines, path[:-1]))
    if kind == "extra_forbidden":
        return Problem(dotted(path), unknown_key(model, path), line)
    if path == ("schema",):
        message = "must be {expected}: this stimkit reads files of schema {expected}".format(**context)
    elif kind == "literal_error":
        hint = did_you_mean(str(error["input"]), re.findall(r"'([^']*)'", context["expected"]))
        message = "must be " + context["expected"].replace("'", '"') + hint
    elif kind in _RULES:
        message = _RULES[kind].format(**context)
    else:
        message = error["msg"]
    return Problem(dotted(path), f"{message} (got {in_words(error['input'])})", line)


def unknown_key(model: type[BaseModel], path: KeyPath) -> str:
    """Say that a key is unknown, and which one may be meant."""
    return f"unknown key{did_you_mean(str(path[-1]), known_keys(model, path[:-1]))}"


def known_keys(protocol: type[BaseModel], table: KeyPath) -> list[str]:
    """List the keys that a table of a document can have, by its model."""
    model: Any = protocol
    for part in table:
        if part in model.model_fields:  # not the name of a table of tables, or the number of one of a list
            model = model.model_fields[part].annotation
            model = next((argument for argument in get_args(model) if hasattr(argument, "model_fields")), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def in_words(value: Any) -> str:
    """Write a value for a message, cut where it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def as_table(document: Any, *path: str) -> dict[str, Any]:
    """Return the table at a path of a raw document; empty where there is something else, or nothing."""
    for part in path:
        document = document.get(part, {}) if isinstance(document, dict) else {}
    return document if isinstance(document, dict) else {}


def as_list(value: Any) -> list[Any]:
    """Return a value of a raw document that is a list; an empty one for anything else."""
    return value if isinstance(value, list) else []


BrokenRule = tuple[KeyPath, str]
EVERY = "*"  # stands for every factor

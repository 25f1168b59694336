"""What a protocol file says in short, written out: variants, series of levels, image patterns, mixes, tables of cells.

A document is expanded before it is validated, so that the protocol of a lock needs none of the files it came from.
"""

from __future__ import annotations

import csv
import io
import math
import tomllib
from pathlib import Path
from typing import Any

from stimkit.documents.curation import read_curation
from stimkit.documents.messages import BrokenRule, as_table
from stimkit.documents.schemas import Document
from stimkit.errors import UsageError, did_you_mean
from stimkit.files import read_file
from stimkit.protocol.labels import RATIOS, label_level
from stimkit.protocol.mixes import write_mixes
from stimkit.protocol.patterns import expand_patterns
from stimkit.protocol.rules import LEVEL_NAME
from stimkit.protocol.settings import Settings
from stimkit.protocol.style_maps import write_maps

TEXT_FACTORS = ("content", "style", "mask", "content_layers", "style_layers")
MAX_STEPS = 1000
LARGEST = 1e100  # of a number that is calculated with
_NOT_REPLACED = {"schema", "name", "variants"}  # by a variant


def choose_variant(document: Document, name: str | None) -> tuple[Document, list[BrokenRule]]:
    """The document with the values of its variant called `name`, if one is; and what is wrong with its variants.

    Tables of a variant replace keys of the document's tables, everything else replaces what the document says. Its
    name goes behind the protocol's, since other values make other stimuli.
    """
    variants = as_table(document, "variants")
    problems: list[BrokenRule] = [
        (("variants", one), "a variant has a name of letters, digits and hyphens, and tables of keys to replace")
        for one, values in variants.items()
        if not (LEVEL_NAME.fullmatch(one) and isinstance(values, dict)) or values.keys() & _NOT_REPLACED
    ]
    if name is None:
        return document, problems
    chosen = dict(document)
    if name not in variants:
        problems.append((("variants",), f'there is no variant "{name}"{did_you_mean(name, variants)}'))
    for section in as_table(document, "variants", name):
        value = as_table(document, "variants", name)[section]
        chosen[section] = {**as_table(document, section), **value} if isinstance(value, dict) else value
    chosen["name"] = f"{document.get('name')}-{name}"
    return chosen, problems


def expand(document: Document, base: Path, *, files: bool = True) -> tuple[Document, list[BrokenRule]]:
    """Write out a document, whatever else is wrong with it; return it with what cannot be written out.

    Series `{ from, to, steps }` of factors become lists, `images.content` and `images.style` given as a pattern
    become tables of files with their attributes, `design.table` and `accept.curation` given as files become what is in
    them, mixes become levels of their factors. Files are relative to `base`; without `files`, what names one is left as
    it is.
    """
    problems: list[BrokenRule] = []
    expanded = dict(document)
    changes = [("factors", _series), ("images", expand_patterns), ("design", _table), ("accept", _curations)]
    for section, change in changes if files else changes[:1]:
        if isinstance(expanded.get(section), dict):
            expanded[section], found = change(expanded[section], base)
            problems += found
    expanded = write_maps(write_mixes(expanded, base))
    problems += _sized(expanded)
    rows = _rows(expanded)
    if rows:
        levels: dict[str, list[Any]] = {}
        for name in rows[0]:
            levels[name], found = _distinct(name, [row[name] for row in rows if name in row])
            problems += found
        given = as_table(expanded, "factors")
        for name in levels.keys() & given.keys():
            problems.append((("factors", name), "is also a column of design.table; name it once"))
        expanded["factors"] = {**levels, **given}
    return expanded, problems


def _distinct(name: str, levels: list[Any]) -> tuple[list[Any], list[BrokenRule]]:
    """The different ones of some levels of a factor; and what is wrong where others would be called alike."""
    known: dict[str, Any] = {}
    problems: list[BrokenRule] = []
    for level in levels:
        called = label_level(name, level)
        if known.setdefault(called, level) != level:
            alike = f'"{known[called]}" and "{level}" of {name} would both be called "{called}"'
            problems = [(("design", "table"), alike)]
    return list(known.values()), problems


# --- series of levels ------------------------------------------------------------------------------------------


def _series(factors: Document, base: Path) -> tuple[Document, list[BrokenRule]]:
    written: Document = {}
    problems: list[BrokenRule] = []
    for name, levels in factors.items():
        written[name] = levels
        if isinstance(levels, dict) and levels.keys() == {"from", "to", "steps"}:
            try:
                whole = name == "size" or getattr(Settings.model_fields.get(name), "annotation", None) is int
                ends = (levels["from"], levels["to"], levels["steps"])
                written[name] = series(*ends, logarithmic=name in RATIOS, whole=whole)
            except UsageError as error:
                problems.append((("factors", name), str(error)))
                written[name] = [levels["to"]]
    return written, problems


def series(first: Any, last: Any, steps: Any, *, logarithmic: bool, whole: bool = False) -> list[float]:
    """Levels from `first` to `last` in equal steps, or equal factors, rounded where they must be whole.

    Raises `UsageError` where there is no such series.
    """
    if not all(isinstance(end, int | float) and abs(end) < LARGEST for end in (first, last)):
        raise UsageError("from and to must be numbers")
    if not isinstance(steps, int) or not 2 <= steps <= MAX_STEPS:
        raise UsageError(f"steps must be a whole number from 2 to {MAX_STEPS}")
    if logarithmic:
        if not (first > 0 and last > 0):
            raise UsageError("from and to must be > 0: the levels have equal factors between them")
        exponents = series(math.log10(first), math.log10(last), steps, logarithmic=False)
        return [float(first), *(float(f"{10**exponent:.6g}") for exponent in exponents[1:-1]), float(last)]
    levels = [first + (last - first) * index / (steps - 1) for index in range(steps)]
    if whole:
        return [round(level) for level in levels]
    return [float(first), *(float(f"{level:.9g}") for level in levels[1:-1]), float(last)]


# --- degrees of visual angle -----------------------------------------------------------------------------------


def _sized(document: Document) -> list[BrokenRule]:
    """Of size, visual size and pixels per degree, give what follows from the other two."""
    display = document.get("display")
    if not isinstance(display, dict):
        return []
    visual, ppd = _pair(display.get("visual_size")), display.get("ppd", 0)
    given = as_table(document, "output").get("ppd", ppd)
    if ppd and given != ppd:
        return [(("display", "ppd"), f"is {ppd} here and {given} in [output]; give it once")]
    synthesis = as_table(document, "synthesis")
    size = _pair(synthesis.get("size"))
    if visual and "size" in as_table(document, "factors"):
        return [(("display", "visual_size"), "size is a factor; give ppd only")]
    if visual and not _number(ppd):
        if not size:
            return [(("display", "visual_size"), "needs ppd, or the size in pixels")]
        ppd = size[0] / visual[0]
    if not _number(ppd) or not all(_number(side) for side in visual or ()):
        return []  # which the rules of the keys say
    if visual:
        sides = [round(degrees * ppd) for degrees in visual]
        if size and any(abs(side - other) > 1 for side, other in zip(sides, size, strict=True)):
            words = f"{visual[0]:g} × {visual[1]:g} degrees at {ppd:g} pixels per degree are {sides[0]} × {sides[1]} px"
            return [(("display", "visual_size"), f"{words}, but size is {size[0]} × {size[1]}; leave one of them out")]
        document["synthesis"] = {"size": sides, **synthesis}
    document["output"] = {**as_table(document, "output"), "ppd": float(ppd)}
    return []


def _pair(value: Any) -> list[Any] | None:
    """[height, width], of which one number stands for both."""
    if _number(value):
        return [value, value]
    return value if isinstance(value, list) and len(value) == 2 and all(map(_number, value)) else None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LARGEST


# --- tables of cells -------------------------------------------------------------------------------------------


def _table(design: Document, base: Path) -> tuple[Document, list[BrokenRule]]:
    name = design.get("table")
    if not isinstance(name, str):
        return design, []
    try:
        return {**design, "table": read_table(base / name)}, []
    except UsageError as error:
        return {**design, "table": []}, [(("design", "table"), str(error))]


def _curations(accept: Document, base: Path) -> tuple[Document, list[BrokenRule]]:
    if "curation" not in accept:
        return accept, []
    given = accept["curation"]
    written: list[Any] = []
    problems: list[BrokenRule] = []
    for name in given if isinstance(given, list) else [given]:
        try:
            if not isinstance(name, str):
                raise UsageError("must be a file that a report saved, or a list of them")
            written.append(read_curation(base / name).model_dump(mode="json", by_alias=True))
        except UsageError as error:
            problems.append((("accept", "curation"), str(error)))
    return {**accept, "curation": written}, problems


def read_table(path: Path) -> list[Document]:
    """Rows of a CSV table of cells, one column a factor; numbers and true or false as such.

    Raises `UsageError` where the file cannot be read, a row has another length, or there are none.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_file(path).decode("utf-8-sig")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a CSV table: {error}") from None
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise UsageError(f"{path} has no rows; its first line names factors, each further one is a combination")
    header, *body = rows
    for number, row in enumerate(body, 2):
        if len(row) != len(header):
            raise UsageError(f"{path}: row {number} has {len(row)} values, the header {len(header)}")
    if len(set(header)) < len(header):
        raise UsageError(f"{path} names a column twice")
    return [
        {name: value if name in TEXT_FACTORS else _value(value) for name, value in zip(header, row, strict=True)}
        for row in body
    ]


def _value(text: str) -> Any:
    """A number, a truth value or a list as TOML would read it; everything else is text."""
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, int | float) else text


def _rows(document: Document) -> list[Document]:
    design = document.get("design")
    rows = design.get("table") if isinstance(design, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

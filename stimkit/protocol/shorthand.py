"""What a protocol file says in short, written out: series of levels, image patterns, tables of cells.

A document is expanded before it is validated, so that the protocol of a lock needs none of the files it came from.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stimkit.documents.messages import BrokenRule, as_table
from stimkit.documents.schemas import Document
from stimkit.errors import UsageError
from stimkit.files import read_file
from stimkit.images.reading import is_hidden
from stimkit.protocol.labels import label_level
from stimkit.protocol.patterns import PLACEHOLDER, matching, placeholders
from stimkit.protocol.settings import Settings

LOGARITHMIC = ("ratio", "alpha", "beta")
TEXT_FACTORS = ("content", "style", "mask", "content_layers", "style_layers")
MAX_STEPS = 1000
MAX_IMAGES = 100_000
LARGEST = 1e100  # of a number that is calculated with


def expand(document: Document, base: Path, *, files: bool = True) -> tuple[Document, list[BrokenRule]]:
    """Write out a document, whatever else is wrong with it; return it with what cannot be written out.

    Series `{ from, to, steps }` of factors become lists, `images.content` and `images.style` given as a pattern
    become tables of files with their attributes, `design.table` given as a file becomes its rows. Files are
    relative to `base`; without `files`, what names one is left as it is.
    """
    problems: list[BrokenRule] = []
    expanded = dict(document)
    changes = [("factors", _series), ("images", _patterns), ("design", _table)]
    for section, change in changes if files else changes[:1]:
        if isinstance(expanded.get(section), dict):
            expanded[section], found = change(expanded[section], base)
            problems += found
    problems += _sized(expanded)
    rows = _rows(expanded)
    if rows:
        levels = {
            name: list({label_level(name, row[name]): row[name] for row in rows if name in row}.values())
            for name in rows[0]
        }
        given = as_table(expanded, "factors")
        for name in levels.keys() & given.keys():
            problems.append((("factors", name), "is also a column of design.table; name it once"))
        expanded["factors"] = {**levels, **given}
    return expanded, problems


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
                written[name] = series(*ends, logarithmic=name in LOGARITHMIC, whole=whole)
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


# --- images by pattern -----------------------------------------------------------------------------------------


def _patterns(images: Document, base: Path) -> tuple[Document, list[BrokenRule]]:
    written = dict(images)
    problems: list[BrokenRule] = []
    groups, root = as_table(images, "groups"), images.get("root", ".")
    for kind in ("content", "style", "mask"):
        pattern = images.get(kind)
        if not isinstance(pattern, str):
            continue
        try:
            found = list(_members(pattern, groups, base / root))
        except (UsageError, TypeError) as error:
            problems.append((("images", kind), str(error)))
            written[kind] = {"unknown": pattern}
            continue
        names = [_name(pattern, values) for values in found]
        if twice := next((name for name, count in Counter(names).items() if count > 1), None):
            problems.append((("images", kind), f'two images of the pattern would be called "{twice}"'))
        written[kind] = {name: _filled(pattern, values) for name, values in zip(names, found, strict=True)}
        if kind != "mask":
            written["attributes"] = {**as_table(written, "attributes"), kind: dict(zip(names, found, strict=True))}
    return written, problems


def _members(pattern: str, groups: Mapping[str, Any], root: Path) -> Iterator[dict[str, str]]:
    """Values of the placeholders of every image that is listed, or is there."""
    names = placeholders(pattern)
    if pattern.startswith("/") or ".." in pattern.split("/"):
        raise UsageError("a pattern is relative to images.root, and does not leave it")
    if listed := [name for name in names if name in groups]:
        if absent := [name for name in names if name not in groups]:
            raise UsageError(f"images.groups lists {listed[0]}, but not {absent[0]}; list all of them, or none")
        members = [_listed(groups[name], name) for name in names]
        if math.prod(map(len, members)) > MAX_IMAGES:
            raise UsageError(f"the pattern stands for more than {MAX_IMAGES:,} images")
        for values in itertools.product(*members):
            yield dict(zip(names, values, strict=True))
        return
    place = root / PLACEHOLDER.split(pattern)[0].rpartition("/")[0]
    files = (path for path in place.rglob("*") if path.is_file() and not is_hidden(path, place))
    there = sorted(path.relative_to(root).as_posix() for path in files)
    found = {name: values for name, values in matching(there, pattern).items() if _filled(pattern, values) == name}
    if not found:
        raise UsageError(
            f"no file in {place} matches {pattern}; to plan before the images are there, list what"
            f" {{{names[0]}}} stands for in images.groups"
        )
    yield from found.values()


def _listed(value: Any, name: str) -> list[str]:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_IMAGES:
        return [str(number) for number in range(1, value + 1)]
    if isinstance(value, list) and value and all(isinstance(item, str | int) for item in value):
        return [str(item) for item in value]
    raise UsageError(f"images.groups.{name} must be a list of names, or how many there are")


def _filled(pattern: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: values[match[1]], pattern)


def _name(pattern: str, values: Mapping[str, str]) -> str:
    """The image's name: the parts of its path from the first that has a placeholder on, without the suffix."""
    parts = pattern.split("/")
    first = next((index for index, part in enumerate(parts) if PLACEHOLDER.search(part)), 0)
    whole = _filled("/".join(parts[first:]), values)
    return whole.rpartition(".")[0].replace("/", "-").replace("_", "-")


# --- tables of cells -------------------------------------------------------------------------------------------


def _table(design: Document, base: Path) -> tuple[Document, list[BrokenRule]]:
    name = design.get("table")
    if not isinstance(name, str):
        return design, []
    try:
        return {**design, "table": read_table(base / name)}, []
    except UsageError as error:
        return {**design, "table": []}, [(("design", "table"), str(error))]


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

"""Patterns of file names with placeholders: `{shape}{i}.png` takes `knife12.png` apart."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stimkit.documents.messages import BrokenRule, as_table
from stimkit.documents.schemas import Document
from stimkit.errors import UsageError
from stimkit.images.reading import is_hidden
from stimkit.protocol.rules import IMAGE_KINDS

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)(?::d)?\}")
MAX_PLACEHOLDERS = 50
MAX_IMAGES = 100_000
_DIGITS = re.compile(r"\{[A-Za-z_]\w*:d\}")


def placeholders(pattern: str) -> list[str]:
    """Names of the placeholders of a pattern, in order."""
    return PLACEHOLDER.findall(pattern)


def matching(names: Iterable[str], pattern: str) -> dict[str, dict[str, str]]:
    """What the placeholders stand for in those names that match the pattern.

    A pattern without a slash is matched against the last part of a name. `{i:d}` matches digits only, as many as there
    are, and other placeholders as few characters as they can; of two placeholders side by side, the first matches no
    digits and the second only digits. Raises `UsageError` for a pattern without placeholders, or with one twice.
    """
    parts = _parts(pattern)
    found = {name: _match(parts, name if "/" in pattern else name.rsplit("/", 1)[-1]) for name in names}
    return {name: values for name, values in found.items() if values is not None}


@dataclass(frozen=True)
class _Part:
    """A literal text, or a placeholder."""

    text: str
    """The literal, or the name of the placeholder."""
    letters: re.Pattern[str] | None = None
    """What one character of a placeholder may be; None for a literal."""
    greedy: bool = False

    def ends(self, name: str, start: int) -> Iterable[int]:
        """Where the part can end that begins at a place of a name, the preferred place first."""
        if self.letters is None:
            return [start + len(self.text)] if name.startswith(self.text, start) else []
        end = start
        while end < len(name) and self.letters.match(name, end):
            end += 1
        return range(end, start, -1) if self.greedy else range(start + 1, end + 1)


def _parts(pattern: str) -> list[_Part]:
    parts, end = [], 0
    found = list(PLACEHOLDER.finditer(pattern))
    for index, one in enumerate(found):
        parts.append(_Part(pattern[end : one.start()]))
        follows = index > 0 and one.start() == end and not _DIGITS.fullmatch(found[index - 1][0])
        precedes = index + 1 < len(found) and found[index + 1].start() == one.end()
        is_number = follows or _DIGITS.fullmatch(one[0]) is not None
        letters = r"\d" if is_number else r"[^\d/]" if precedes else r"[^/]"
        parts.append(_Part(one[1], re.compile(letters), greedy=is_number))
        end = one.end()
    names = placeholders(pattern)
    if not names:
        raise UsageError(f"the pattern {pattern} has no {{placeholder}}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"the pattern {pattern} has {{{twice}}} twice")
    if len(names) > MAX_PLACEHOLDERS:
        raise UsageError(f"a pattern has at most {MAX_PLACEHOLDERS} placeholders, this one has {len(names)}")
    return [*parts, _Part(pattern[end:])]


def _match(parts: Sequence[_Part], name: str) -> dict[str, str] | None:
    """What the placeholders stand for in a name, None where it does not match.

    Each place of the name is tried once for each part, while a regular expression would try all their combinations.
    """
    failed: set[tuple[int, int]] = set()

    def match(index: int, start: int) -> dict[str, str] | None:
        if index == len(parts):
            return {} if start == len(name) else None
        if (index, start) in failed:
            return None
        part = parts[index]
        for end in part.ends(name, start):
            if (rest := match(index + 1, end)) is not None:
                return rest if part.letters is None else {part.text: name[start:end], **rest}
        failed.add((index, start))
        return None

    return match(0, 0)


# --- images by pattern -----------------------------------------------------------------------------------------


def expand_patterns(images: Document, base: Path) -> tuple[Document, list[BrokenRule]]:
    """Write out `[images]`: images that are given as a pattern become tables of files, with their attributes."""
    written = dict(images)
    problems: list[BrokenRule] = []
    groups, root = as_table(images, "groups"), images.get("root", ".")
    for kind in IMAGE_KINDS:
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

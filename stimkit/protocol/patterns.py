"""Patterns of file names with placeholders: `{shape}{i}.png` takes `knife12.png` apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stimkit.errors import UsageError

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)(?::d)?\}")
MAX_PLACEHOLDERS = 50
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

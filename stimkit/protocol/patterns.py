"""Patterns of file names with placeholders: `{shape}{i}.png` takes `knife12.png` apart."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stimkit.errors import UsageError

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)(?::d)?\}")
_DIGITS = re.compile(r"\{[A-Za-z_]\w*:d\}")


def placeholders(pattern: str) -> list[str]:
    """Names of the placeholders of a pattern, in order."""
    return PLACEHOLDER.findall(pattern)


def matching(names: Iterable[str], pattern: str) -> dict[str, dict[str, str]]:
    """What the placeholders stand for in those names that match the pattern.

    A pattern without a slash is matched against the last part of a name. `{i:d}` matches digits only; of two
    placeholders side by side, the first matches no digits and the second only digits. Raises `UsageError` for a
    pattern without placeholders, or one that cannot be used.
    """
    expression = _expression(pattern)
    found = {name: expression.fullmatch(name if "/" in pattern else name.rsplit("/", 1)[-1]) for name in names}
    return {name: match.groupdict() for name, match in found.items() if match}


def _expression(pattern: str) -> re.Pattern[str]:
    parts, end = [], 0
    found = list(PLACEHOLDER.finditer(pattern))
    for index, one in enumerate(found):
        parts.append(re.escape(pattern[end : one.start()]))
        follows = index > 0 and one.start() == end and not _DIGITS.fullmatch(found[index - 1][0])
        precedes = index + 1 < len(found) and found[index + 1].start() == one.end()
        what = r"\d+" if follows or _DIGITS.fullmatch(one[0]) else r"[^\d/]+?" if precedes else r"[^/]+?"
        parts.append(f"(?P<{one[1]}>{what})")
        end = one.end()
    if not found:
        raise UsageError(f"the pattern {pattern} has no {{placeholder}}")
    try:
        return re.compile("".join([*parts, re.escape(pattern[end:])]))
    except re.error as error:
        raise UsageError(f"the pattern {pattern} cannot be used: {error}") from None

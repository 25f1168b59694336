"""Line numbers of a TOML document's keys, which the standard library's parser does not keep.

`line_map` reads a document that `tomllib` has already accepted, so it only has to find its way, not to
check the grammar. The result maps key paths such as `("factors", "ratio", 1)` to 1-based lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Path = tuple[str | int, ...]
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # multi-line strings; a closing run may carry up to two quotes of content
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
    r"|#[^\n]*|\n|[\[\]{},=.]|[^\s\[\]{},=.#\"']+",
    re.DOTALL,
)


def line_map(text: str, moved: Path = ()) -> dict[Path, int]:
    """Map every key path of a valid TOML document to the line that it stands on.

    Values below `moved`, such as those of a variant, replaced those at the top.
    """
    lines: dict[Path, int] = {}
    tokens = _Tokens(text)
    table: Path = ()
    array_tables: dict[Path, int] = {}
    while (token := tokens.peek(skip_newlines=True)) is not None:
        if token == "[":
            table = _header(tokens, array_tables)
            for depth in range(1, len(table) + 1):
                lines.setdefault(table[:depth], tokens.line)
        else:
            _pair(tokens, table, lines)
    if moved:
        lines |= {path[len(moved) :]: line for path, line in lines.items() if path[: len(moved)] == moved != path}
    return lines


def nearest_line(lines: dict[Path, int], path: Path) -> int | None:
    """Return the line of the path, or of the closest of its parents that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


class _Tokens:
    """The tokens of a document, without comments, with the line of the last one taken."""

    def __init__(self, text: str) -> None:
        self._stream = self._scan(text)
        self._next = next(self._stream, None)
        self.line = 1

    @staticmethod
    def _scan(text: str) -> Iterator[tuple[str, int]]:
        line, end = 1, 0
        for match in _TOKEN.finditer(text):
            line += text.count("\n", end, match.start())
            if not match[0].startswith("#"):
                yield match[0], line
            line, end = line + match[0].count("\n"), match.end()

    def peek(self, *, skip_newlines: bool = False) -> str | None:
        while skip_newlines and self._next is not None and self._next[0] == "\n":
            self._next = next(self._stream, None)
        return None if self._next is None else self._next[0]

    def take(self, *, skip_newlines: bool = False) -> str:
        token = self.peek(skip_newlines=skip_newlines)
        assert token is not None and self._next is not None
        self.line = self._next[1]
        self._next = next(self._stream, None)
        return token


def _header(tokens: _Tokens, array_tables: dict[Path, int]) -> Path:
    tokens.take()
    is_array = tokens.peek() == "["
    if is_array:
        tokens.take()
    keys: Path = ()
    for key in _dotted(tokens, stop="]"):
        keys += (key,)
        if keys in array_tables and not (is_array and tokens.peek() == "]"):
            keys += (array_tables[keys],)
    tokens.take()
    if is_array:
        tokens.take()
        array_tables[keys] = array_tables.get(keys, -1) + 1
        keys += (array_tables[keys],)
    return keys


def _pair(tokens: _Tokens, table: Path, lines: dict[Path, int]) -> None:
    path = table
    for key in _dotted(tokens, stop="="):
        path += (key,)
        lines.setdefault(path, tokens.line)
    tokens.take()
    _value(tokens, path, lines)


def _value(tokens: _Tokens, path: Path, lines: dict[Path, int]) -> None:
    token = tokens.take(skip_newlines=True)
    lines.setdefault(path, tokens.line)
    if token == "[":
        index = 0
        while tokens.peek(skip_newlines=True) != "]":
            if tokens.peek() == ",":
                tokens.take()
                index += 1
                continue
            _value(tokens, (*path, index), lines)
        tokens.take()
    elif token == "{":
        while tokens.peek(skip_newlines=True) != "}":
            if tokens.peek() == ",":
                tokens.take()
                continue
            _pair(tokens, path, lines)
        tokens.take()
    else:
        while tokens.peek() not in ("\n", ",", "]", "}", None):  # the rest of 1.5 or of a date
            tokens.take()


def _dotted(tokens: _Tokens, stop: str) -> Iterator[str]:
    while tokens.peek(skip_newlines=True) != stop:
        token = tokens.take()
        if token != ".":
            yield token[1:-1] if token[0] in "\"'" else token

"""How objects show themselves in notebooks: small tables and pictures as HTML, of escaped text."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

MOST_ROWS = 20


def html_of(title: str, *parts: str) -> str:
    """A title, and what follows below it."""
    return f"<div><strong>{escape(title)}</strong>{''.join(parts)}</div>"


def html_pairs(pairs: Mapping[str, object]) -> str:
    """Names and values, a row for each."""
    return html_rows((), [(name, value) for name, value in pairs.items()])


def html_rows(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; of many rows the first 20, and how many there are."""
    rows = list(rows)
    head = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in header)}</tr>" if header else ""
    cells = ("".join(f"<td>{escape(str(value))}</td>" for value in row) for row in rows[:MOST_ROWS])
    body = "".join(f"<tr>{one}</tr>" for one in cells)
    more = f"<p>and {len(rows) - MOST_ROWS:,} more</p>" if len(rows) > MOST_ROWS else ""
    return f"<table>{head}{body}</table>{more}"


def html_picture(png: bytes, words: str, width: int = 0) -> str:
    """A PNG file as a picture, of a width in pixels where it is given."""
    size = f' width="{width}"' if width else ""
    data = base64.b64encode(png).decode()
    return f'<p><img alt="{escape(words)}" src="data:image/png;base64,{data}"{size} style="max-width: 100%"></p>'

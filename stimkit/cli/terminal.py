"""What is printed: text from files of others can neither steer the terminal nor look like other text."""

from __future__ import annotations

import re
from typing import Any

import typer
from rich.console import Console

# Control characters but for tab and line feed, marks of direction, what is invisible, tags, half characters.
_HIDDEN = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)


def visible(text: str) -> str:
    r"""Return a text with what would not be seen written out, as \x1b for an escape."""
    return _HIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(text: object = "", *, err: bool = False) -> None:
    """Print a line on stdout, or on stderr."""
    typer.echo(visible(str(text)), err=err)


class Terminal(Console):
    """A console that prints text as it is, without markup, and visibly."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, soft_wrap=True)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts visibly, and everything else as it is."""
        super().print(*(visible(one) if isinstance(one, str) else one for one in objects), **options)


out = Terminal()
err = Terminal(stderr=True)

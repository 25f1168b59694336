"""What may stand in a table that others open with programs of their own."""

from __future__ import annotations

import re
import unicodedata

MAX_CELL = 1000
PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def cell_objection(text: str) -> str:
    """Say why a text cannot stand in a table that spreadsheets open; empty where it can."""
    if len(text) > MAX_CELL:
        return f"has more than {MAX_CELL} characters"
    if re.match(r"[=@+-]", text) and not PLAIN_NUMBER.fullmatch(text):
        return f"begins with {text[0]}, which spreadsheets take for a formula"
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text):
        return "has control characters, or characters that cannot be seen"
    return ""

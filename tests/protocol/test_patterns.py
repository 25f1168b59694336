"""Patterns of file names, against regular expressions where these end in time."""

from __future__ import annotations

import itertools
import re

import pytest

from stimkit.errors import UsageError
from stimkit.protocol.patterns import matching


@pytest.mark.parametrize(
    ("pattern", "expression"),
    [
        ("{a}{b}.png", r"(?P<a>[^\d/]+?)(?P<b>\d+)\.png"),
        ("{a}-{b}.png", r"(?P<a>[^/]+?)-(?P<b>[^/]+?)\.png"),
        ("x{a:d}{b}.png", r"x(?P<a>\d+)(?P<b>[^/]+?)\.png"),
        ("{a}1{b}", r"(?P<a>[^/]+?)1(?P<b>[^/]+?)"),
    ],
)
def test_every_short_name_as_a_regular_expression_has_it(pattern: str, expression: str) -> None:
    names = ["".join(letters) for size in range(1, 6) for letters in itertools.product("a1-", repeat=size)]
    names += [f"{name}.png" for name in names] + [f"x{name}.png" for name in names]
    expected = {name: match.groupdict() for name in names if (match := re.fullmatch(expression, name))}
    assert matching(names, pattern) == expected and expected


def test_many_placeholders_and_long_names_take_no_time() -> None:
    pattern = "_".join(f"{{p{number}}}" for number in range(20)) + ".png"
    assert matching(["_" * 250 + ".jpg", "a_" * 120 + ".jpg"], pattern) == {}
    assert matching(["_".join("abcdefghijklmnopqrst") + ".png"], pattern) != {}
    with pytest.raises(UsageError, match="at most 50 placeholders, this one has 51"):
        matching([], "_".join(f"{{p{number}}}" for number in range(51)))

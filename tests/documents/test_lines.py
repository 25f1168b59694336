"""Line numbers of keys, on TOML that tries to confuse."""

import tomllib

import pytest

from stimkit.documents.lines import line_map, nearest_line

TEXT = '''# a comment with [brackets] and = signs
schema = 1
"quoted.key" = "a = [b] # no comment"
[images]
content = { cat = "c.png", nested.deep = 1.5 }
[layers.style]
A = ["conv1_1"]   # trailing
B = [
  "conv1_1",

  "conv2_1", # comment, with comma
  ["inner",
   'literal \\'],
]
text = """
[not a table]
key = "value"
"""
when = 1979-05-27T07:32:00Z
[[exclude]]
a = 1
[[exclude]]
a.b = -2.5e-3
'''

EXPECTED = {
    ("schema",): 2,
    ("quoted.key",): 3,
    ("images",): 4,
    ("images", "content", "cat"): 5,
    ("images", "content", "nested", "deep"): 5,
    ("layers", "style", "A", 0): 7,
    ("layers", "style", "B", 0): 9,
    ("layers", "style", "B", 1): 11,
    ("layers", "style", "B", 2): 12,
    ("layers", "style", "B", 2, 1): 13,
    ("layers", "style", "text"): 15,
    ("layers", "style", "when"): 19,
    ("exclude", 0, "a"): 21,
    ("exclude", 1, "a", "b"): 23,
}


def test_lines() -> None:
    tomllib.loads(TEXT)
    lines = line_map(TEXT)
    assert {path: lines.get(path) for path in EXPECTED} == EXPECTED


def test_every_key_of_the_document_has_a_line() -> None:
    lines = line_map(TEXT)

    def paths(value: object, path: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(one for key, inner in items for one in paths(inner, (*path, key)))]

    missing = [path for path in paths(tomllib.loads(TEXT), ()) if path and nearest_line(lines, path) is None]
    assert missing == []


@pytest.mark.parametrize(("path", "line"), [(("layers", "style", "A", 7), 7), (("nowhere",), None), ((), None)])
def test_nearest_line_falls_back_to_parents(path: tuple[str | int, ...], line: int | None) -> None:
    assert nearest_line(line_map(TEXT), path) == line

"""Protocol files: what is accepted, and how every mistake is told."""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path

import pytest
import tomli_w

from stimkit.documents.template import protocol_template
from stimkit.errors import ProtocolError
from stimkit.protocol.protocol import Protocol, json_schema
from tests.conftest import ROOT, document

GOOD = """\
schema = 1
name = "layers-by-ratio"
[images]
root = "../data"
content = { cat = "skimage:chelsea", harbour = "contents/harbour.png" }
style = { swirl = "styles/swirl.png" }
[layers.style]
A = ["conv1_1"]
B = { conv1_1 = 0.5, conv2_1 = 0.25 }
[factors]
ratio = [0, 1e-5, 1, inf]
content = ["cat"]
style_layers = ["A", "B"]
replicate = 2
size = [64, [32, 48]]
[synthesis]
max_evaluations = 300
"""


def test_levels_and_order_come_from_the_file() -> None:
    protocol = Protocol.from_toml(GOOD)
    assert protocol.factor_names == ("style", "ratio", "content", "style_layers", "replicate", "size")
    assert protocol.levels("ratio") == (0, 1e-5, 1, math.inf)
    assert protocol.levels("size") == ((64, 64), (32, 48))
    assert protocol.levels("style") == ("swirl",)
    assert protocol.levels("replicate") == (1, 2)
    assert protocol.levels("max_evaluations") == (300,)
    assert protocol.layers.style["B"] == {"conv1_1": 0.5, "conv2_1": 0.25}
    assert protocol.layers.content == {"default": {"conv4_2": None}}


def test_text_of_a_protocol_without_a_file_is_complete() -> None:
    protocol = Protocol.from_dict(document(factors={"ratio": [0, 1e-5, math.inf]}))
    assert Protocol.from_toml(protocol.text) == protocol
    with pytest.raises(ProtocolError, match="TOML cannot express"):
        Protocol.from_dict(document(synthesis={"size": object()}))


def messages(text: str) -> list[str]:
    with pytest.raises(ProtocolError) as caught:
        Protocol.from_toml(text, name="p.toml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 2", "p.toml:1: schema: must be 1: this stimkit reads files of schema 1 (got 2)"),
        ("name =", "nam =", 'p.toml:2: nam: unknown key (did you mean "name"?)'),
        ('"layers-by-ratio"', '"a/b"', "p.toml:2: name: must consist of letters"),
        ("cat = ", "c_t = ", "p.toml:5: images.content.c_t: a name consists of letters, digits and hyphens"),
        ('"contents/harbour.png"', "3", "p.toml:5: images.content.harbour: must be text (got 3)"),
        ('A = ["conv1_1"]', 'A = ["relu1_1"]', 'p.toml:8: layers.style.A[0]: unknown layer "relu1_1": write "conv1_1"'),
        ('A = ["conv1_1"]', 'A = ["conv1_9"]', 'p.toml:8: layers.style.A[0]: unknown layer "conv1_9" (did you mean'),
        ('A = ["conv1_1"]', 'A = "conv1_1"', "p.toml:8: layers.style.A: must be a list of layers"),
        ('A = ["conv1_1"]', "A = []", "p.toml:8: layers.style.A: must name at least one layer"),
        (
            'A = ["conv1_1"]',
            'A = ["conv1_1", "conv1_1"]',
            'p.toml:8: layers.style.A[1]: layer "conv1_1" is named twice',
        ),
        ("conv2_1 = 0.25", "conv2_1 = -1", "p.toml:9: layers.style.B.conv2_1: must be > 0 (got -1)"),
        ("[0, 1e-5, 1, inf]", "[-1e-4]", "p.toml:11: factors.ratio[0]: must be >= 0 (got -0.0001)"),
        ("[0, 1e-5, 1, inf]", "[1e-5, 0.00001]", "p.toml:11: factors.ratio[1]: level 1e-05 is given twice"),
        ("[0, 1e-5, 1, inf]", "[]", "p.toml:11: factors.ratio: must have at least one level (got [])"),
        ("[0, 1e-5, 1, inf]", '["1e-5"]', 'p.toml:11: factors.ratio[0]: must be a number (got "1e-5")'),
        ("[0, 1e-5, 1, inf]", "[nan]", "p.toml:11: factors.ratio[0]: must be >= 0 (got NaN)"),
        ("[0, 1e-5, 1, inf]", "1e-5", "p.toml:11: factors.ratio: must be a list of levels (got 1e-05)"),
        ('["cat"]', '["car"]', 'p.toml:12: factors.content[0]: "car" is not in images.content (did you mean "cat"?)'),
        ('["A", "B"]', '["A", "C"]', 'p.toml:13: factors.style_layers[1]: "C" is not in layers.style'),
        ("replicate = 2", "replicate = 0", "p.toml:14: factors.replicate: must be >= 1 (got 0)"),
        ("replicate = 2", "replicate = 2.5", "p.toml:14: factors.replicate: must be a whole number (got 2.5)"),
        ("replicate = 2", "alpha = [1]", "p.toml:11: factors.ratio: give either ratio (= alpha / beta) or alpha and"),
        ("[64, [32, 48]]", "[99999]", "p.toml:15: factors.size[0]: must be a side in pixels, or [height, width]"),
        ("max_evaluations", "max_evaluation", 'p.toml:17: synthesis.max_evaluation: unknown key (did you mean "max_ev'),
        ("max_evaluations = 300", 'init = "nois"', 'p.toml:17: synthesis.init: must be "noise", "content", "style" or'),
        ("max_evaluations = 300", "rtol = 1", "p.toml:17: synthesis.rtol: must be < 1 (got 1)"),
        ("[synthesis]", "[syntesis]", 'p.toml:16: syntesis: unknown key (did you mean "synthesis"?)'),
        ("schema = 1", "schema = ", "p.toml:1: not valid TOML: invalid value"),
        ("schema = 1", "schema = 1\nschema = 1", "p.toml:2: not valid TOML: cannot overwrite a value"),
    ],
)
def test_every_mistake_names_line_key_rule_and_value(old: str, new: str, message: str) -> None:
    assert old in GOOD
    found = messages(GOOD.replace(old, new, 1))
    assert any(line.startswith(message) for line in found), found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ratio = [": "ratoi = ["}, ['p.toml:11: factors.ratoi: unknown key (did you mean "ratio"?)']),
        (
            {"[factors]": "[factor]", "[0, 1e-5, 1, inf]": "[0, -1]", "replicate = 2": "replicates = 2"},
            [
                'p.toml:10: factor: unknown key (did you mean "factors"?)',
                "p.toml:11: factors.ratio[1]: must be >= 0 (got -1)",
                'p.toml:14: factors.replicates: unknown key (did you mean "replicate"?)',
            ],
        ),
        ({"replicate = 2": "repliacte = 2\nreplicat = 3"}, None),  # one of both is meant
        ({"max_evaluations": "max_evaluation = 3\nmax_evaluations"}, None),  # which is given as well
        ({"max_evaluations": "unlike"}, ["p.toml:17: synthesis.unlike: unknown key"]),
    ],
)
def test_what_a_misspelt_key_means_is_not_missing_as_well(changes: dict[str, str], expected: list[str] | None) -> None:
    text = GOOD
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    found = messages(text)
    if expected is None:
        assert found and all(": unknown key" in line for line in found)
    else:
        assert found == expected


def test_a_protocol_in_python_is_checked_as_a_file_is() -> None:
    given = {
        "schema": 1,
        "name": "p",
        "images": {"content": {"cat": "skimage:chelsea"}},
        "factors": {"ratio": [math.inf]},
    }
    made = Protocol(**given)  # type: ignore[arg-type]
    assert made == Protocol.from_dict(given) and made.text == Protocol.from_dict(given).text
    assert pickle.loads(pickle.dumps(made)) == made == made.model_copy()
    with pytest.raises(ProtocolError) as caught:
        Protocol(**{**given, "factors": {"ratoi": [1]}})  # type: ignore[arg-type]
    assert 'factors.ratoi: unknown key (did you mean "ratio"?)' in str(caught.value)


def test_all_mistakes_are_told_at_once_in_order() -> None:
    text = (
        GOOD.replace("schema = 1", "schema = 3")
        .replace('"conv1_1"', '"conv0"')
        .replace("replicate = 2", "replicat = 2")
    )
    text = text.replace("max_evaluations = 300", "max_evaluations = -1")
    lines = [line.split(": ")[0] for line in messages(text)]
    assert lines == ["p.toml:1", "p.toml:8", "p.toml:14", "p.toml:17"]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"images": {"content": None}}, "there is no content image, so ratio (or alpha) can only be 0"),
        ({"images": {"style": None}}, "there is no style image, so ratio can only be inf (or beta 0)"),
        ({"images": {"style": None, "content": None}}, "name at least one content or style image"),
        ({"factors": {"ratio": None}}, "give ratio (= alpha / beta), or alpha and beta"),
        ({"factors": {"ratio": None, "alpha": [0.0, 1.0], "beta": [0.0]}}, "leave nothing to optimize"),
    ],
)
def test_terms_need_images(sections: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ProtocolError, match=message.replace("(", r"\(").replace(")", r"\)")):
        Protocol.from_dict(document(**sections))


def test_missing_file_says_how_to_start(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="no such file; `stimkit init NAME`"):
        Protocol.load(tmp_path / "none.toml")


def test_json_schema_describes_every_setting() -> None:
    schema = json_schema()
    definitions = schema["$defs"]
    assert set(definitions["Factors"]["properties"]) >= {"content", "style", "ratio", "size", "pooling", "replicate"}
    assert definitions["SynthesisSettings"]["properties"]["max_evaluations"]["default"] == 300
    assert "schema" in schema["properties"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("path", sorted((ROOT / "protocols").glob("*.toml")), ids=lambda path: path.stem)
def test_bundled_protocols_are_valid_and_explain_themselves(path: Path) -> None:
    protocol = Protocol.load(path)
    assert protocol.name == path.stem
    assert path.read_text().startswith("# ")


def test_template_is_valid() -> None:
    assert Protocol.from_toml(protocol_template("pilot")).name == "pilot"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("=cmd|'/C calc'!A0", "kind begins with =, which spreadsheets take for a formula"),
        ("@SUM(1)", "kind begins with @"),
        ("+a", "kind begins with +"),
        ("-a", "kind begins with -"),
        ("a\\u001b[2J", "kind has control characters"),
        ("a\\u202eb", "kind has control characters"),
        ("a\\tb", "kind has control characters"),
        ("a" * 1001, "kind has more than 1000 characters"),
        ("-1.5", ""),
        ("+3", ""),
        ("größer – 日本", ""),
    ],
)
def test_attributes_that_spreadsheets_would_run(value: str, said: str) -> None:
    text = tomli_w.dumps(document()) + f'[images.attributes.content]\ncat = {{ kind = "{value}" }}\n'
    if said:
        with pytest.raises(ProtocolError, match=re.escape(f"images.attributes.content.cat: {said}")):
            Protocol.from_toml(text)
    else:
        assert Protocol.from_toml(text).images.attributes["content"]["cat"]["kind"] == value


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 50_000, "seed = " + "9" * 400, "seed = " + "9" * 5000, "name = 1e999", "[synthesis]\nrtol = 1e999"],
)
def test_deep_and_huge_documents(text: str) -> None:
    with pytest.raises(ProtocolError) as stopped:
        Protocol.from_toml(text)
    assert len(str(stopped.value)) < 2000

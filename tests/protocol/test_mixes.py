"""Mixes in protocols: the levels of their series, what stands for what, and what they cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import stimkit
from stimkit.errors import ProtocolError
from stimkit.protocol.mixes import Mixture, Spaced
from stimkit.protocol.protocol import Protocol
from tests.conftest import document

STYLES = {"cup": "skimage:coffee", "grass": "skimage:grass", "brick": "skimage:brick"}
PAIR = {"of": ["cup", "grass"], "steps": 5}


def mixed(mixes: Any, *, content_mixes: Any = None, **sections: Any) -> Protocol:
    images = {"style": STYLES, "mixes": mixes} | ({"content_mixes": content_mixes} if content_mixes else {})
    lists: dict[str, Any] = {name: sections.pop(name) for name in ("include", "exclude") if name in sections}
    return Protocol.from_dict({**document(images=images, **sections), **lists})


def test_a_series_is_levels_from_image_to_image() -> None:
    protocol = mixed({"sm": PAIR})
    assert protocol.levels("style") == ("cup", "sm-2", "sm-3", "sm-4", "grass", "brick")
    assert protocol.mixtures("style") == {
        "sm-2": Mixture(("cup", "grass"), (0.75, 0.25)),
        "sm-3": Mixture(("cup", "grass"), (0.5, 0.5)),
        "sm-4": Mixture(("cup", "grass"), (0.25, 0.75)),
    }
    positions = {level: values["sm"] for level, values in protocol.images.attributes["style"].items()}
    assert positions == {"cup": "0", "sm-2": "0.25", "sm-3": "0.5", "sm-4": "0.75", "grass": "1"}


def test_a_closed_series_returns_to_its_first_image() -> None:
    protocol = mixed({"wheel": {"of": ["cup", "grass", "brick"], "steps": 6, "closed": True, "path": "geodesic"}})
    assert protocol.levels("style") == ("cup", "wheel-2", "grass", "wheel-4", "brick", "wheel-6")
    assert protocol.mixtures("style")["wheel-6"] == Mixture(("brick", "cup"), (0.5, 0.5), "geodesic")


def test_equal_distances_are_found_later_where_they_are_not_equal_positions() -> None:
    protocol = mixed(
        {"sm": {**PAIR, "spacing": "distance"}, "geo": {**PAIR, "spacing": "distance", "path": "geodesic"}}
    )
    assert protocol.mixtures("style")["sm-2"] == Mixture(("cup", "grass"), (0.75, 0.25))
    assert protocol.mixtures("style")["geo-2"] == Spaced(("cup", "grass"), 1, 5, False, "geodesic")


def test_what_two_series_have_in_common_is_one_level() -> None:
    other_way = {"of": ["grass", "cup"], "steps": 3}
    protocol = mixed({"sm": PAIR, "back": other_way})
    assert protocol.levels("style") == ("cup", "sm-2", "sm-3", "sm-4", "grass", "brick")
    assert protocol.images.attributes["style"]["sm-3"] == {"sm": "0.5", "back": "0.5"}


def test_a_mix_stands_for_its_levels_and_its_ends_for_images() -> None:
    protocol = mixed(
        {"sm": PAIR}, factors={"style": ["brick", "sm"]}, exclude=[{"style": ["sm-1", "sm-3"]}, {"style": "sm-5"}]
    )
    assert protocol.levels("style") == ("brick", "cup", "sm-2", "sm-3", "sm-4", "grass")
    assert {cell.style for cell in stimkit.plan(protocol).cells} == {"brick", "sm-2", "sm-4"}
    assert mixed({"sm": PAIR}, factors={"style": ["sm-1", "sm-2"]}).levels("style") == ("cup", "sm-2")
    rows = [{"style": "sm-1", "ratio": 1e-5}, {"style": "sm-2", "ratio": 1e-4}]
    table = mixed({"sm": PAIR}, factors={"ratio": None, "style_layers": ["one"]}, design={"table": rows})
    assert [cell.style for cell in stimkit.plan(table).cells] == ["cup", "sm-2"]


def test_a_position_is_a_condition() -> None:
    protocol = mixed({"sm": PAIR}, include=[{"sm": [0.25, 0.5]}])
    assert {cell.style for cell in stimkit.plan(protocol).cells} == {"sm-2", "sm-3"}


def test_the_mean_of_files_is_one_level(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "monet").mkdir()
    for number, name in enumerate(("a pond", "haystack_2", ".hidden")):
        Image.new("RGB", (40, 40), (90 * number, 20, 30)).save(tmp_path / "monet" / f"{name}.png")
    images = {"root": str(tmp_path), "mixes": {"monet": {"mean_of": "monet/*.png"}}}
    protocol = Protocol.from_dict(document(images=images))
    assert protocol.levels("style") == ("monet", "cup")
    assert protocol.mixtures("style") == {"monet": Mixture(("monet-a-pond", "monet-haystack-2"), (0.5, 0.5))}
    plan = stimkit.plan(protocol)
    assert not plan.missing and {image.name for image in plan.inputs} == {
        "cat", "cup", "monet-a-pond", "monet-haystack-2"
    }  # fmt: skip


def test_the_mean_of_images_is_one_level() -> None:
    protocol = mixed({"all": {"mean_of": ["cup", "grass", "brick"]}}, factors={"style": ["all"]})
    assert protocol.mixtures("style")["all"].parts == ("brick", "cup", "grass")


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"of": ["cup"], "steps": 5}, "a mix is of two images at least"),
        ({"of": ["cup", "cup"], "steps": 5}, '"cup" is named twice; a series that returns is closed = true'),
        ({"of": ["cup", "gras"], "steps": 5}, '"gras" is not in images.style (did you mean "grass"?)'),
        ({"of": ["cup", "other"], "steps": 5}, '"other" is a mix; mixes are of images'),
        ({"of": ["cup", "other-2"], "steps": 5}, '"other-2" is a mix; mixes are of images'),
        ({"of": ["cup", "grass"]}, "sm.steps: is needed"),
        ({"of": ["cup", "grass"], "steps": 1}, "steps: must be >= 2"),
        ({"of": ["cup", "grass"], "steps": 2}, "steps: must be 3 at least"),
        ({"of": ["cup", "grass"], "steps": 5, "closed": True}, "a closed series goes through three images at least"),
        ({"of": ["cup", "grass", "brick"], "steps": 3, "closed": True}, "must be 4 at least"),
        ({"of": ["cup", "grass"], "steps": 5, "path": "straight"}, 'path: must be "linear" or "geodesic"'),
        ({"of": ["cup", "grass"], "steps": 5, "stesp": 3}, 'unknown key (did you mean "steps"?)'),
        ({"mean_of": ["cup", "grass"], "steps": 3}, "steps: is of a series; a mean of images has none"),
        ({"mean_of": ["cup", "grass"], "of": ["cup", "brick"]}, "of: is of a series"),
        ({"mean_of": ["cup"]}, "a mix is of two images at least"),
        ({"mean_of": "nowhere/*.png"}, "no file matches nowhere/*.png"),
        ({"mean_of": "../*.png"}, "a pattern is relative to images.root"),
        ({"mean_of": "/etc/*"}, "a pattern is relative to images.root"),
        ({}, "a mix is of two images at least"),
        (["cup"], "must be a table"),
        ({"of": "cup", "steps": 3}, "must be a list"),
    ],
)
def test_what_a_mix_cannot_be_is_told(mix: Any, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        mixed({"sm": mix, "other": PAIR})
    assert message in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("mixes", "message"),
    [
        ({"s-m": PAIR}, "a name of letters and digits"),
        ({"cup": PAIR}, '"cup" is an image and would be a level of this mix'),
        ({"ratio": PAIR}, "cannot be called"),
        ({"style": PAIR}, "cannot be called"),
        ({"entropy": PAIR}, "cannot be called"),
    ],
)
def test_names_of_mixes_do_not_clash(mixes: Any, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        mixed(mixes)
    assert message in str(caught.value), str(caught.value)


def test_a_level_is_not_an_image_already() -> None:
    with pytest.raises(ProtocolError) as caught:
        Protocol.from_dict(document(images={"style": {**STYLES, "sm-3": "skimage:moon"}, "mixes": {"sm": PAIR}}))
    assert '"sm-3" is an image and would be a level of this mix' in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "geodesic"}, "of content images is linear"),
        ({"spacing": "distance"}, 'of content images is "position"'),
    ],
)
def test_mixes_of_content_are_linear(change: Any, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        contents = {"cat": "skimage:chelsea", "moon": "skimage:moon"}
        mixes = {"cm": {"of": ["cat", "moon"], "steps": 3, **change}}
        Protocol.from_dict(document(images={"content": contents, "content_mixes": mixes}))
    assert message in str(caught.value)


def test_mixes_are_of_different_pictures() -> None:
    styles = {"cup": "skimage:coffee", "again": "skimage:coffee"}
    images = {"style": styles, "mixes": {"sm": {"of": ["cup", "again"], "steps": 3}}}
    with pytest.raises(ProtocolError) as caught:
        stimkit.plan(Protocol.from_dict(document(images=images, factors={"style": ["sm-2"]})))
    assert '"cup" and "again" are the same picture' in str(caught.value)


def test_regions_and_mixes_do_not_go_together() -> None:
    with pytest.raises(ProtocolError, match="a mix of styles has none"):
        stimkit.plan(mixed({"sm": PAIR}, synthesis={"regions": "grid"}))

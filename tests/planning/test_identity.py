"""Ids and seeds are promises: the same request has the same ones in every version, or the changelog says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

import stimkit
from tests.conftest import document

ONE: dict[str, Any] = {"factors": {"style_layers": ["two"], "ratio": [1e-5]}}
MIX = {"sm": {"of": ["cup", "grass"], "steps": 3, "path": "geodesic"}}
STYLES = {"cup": "skimage:coffee", "grass": "skimage:grass"}
PROMISED: dict[str, tuple[dict[str, Any], str]] = {
    "plain": ({}, "s3ad6c3e1b8:beebd8872870"),
    "another seed": ({"seed": 7}, "s099834f4d0:6331ace7951b"),
    "shared noise": ({"seeds": "shared"}, "sc289baa18a:1bb10f39c72"),
    "one size": ({"synthesis": {"scales": 1}}, "s3ad6c3e1b8:beebd8872870"),
    "coarse to fine": (
        {"synthesis": {"size": 128}, "layers": {"style": {"two": ["conv1_1", "conv3_1"]}}},
        "s413138dd63:531173cb9c70",
    ),
    "history": ({"synthesis": {"history": 10}}, "sd67452af4a:e4fbcf34938d"),
    "free values": ({"synthesis": {"image_range": "free"}}, "s5fce589716:4c5d529be8cf"),
    "filters": ({"model": {"normalize": "filter"}}, "sed8884ecae:771032c06ebe"),
    "as they are": ({"model": {"normalize": "none"}}, "s86f31e4d03:8904acb26768"),
    "mean losses": ({"synthesis": {"loss": "mean"}}, "s048462b2b5:f4499ff4f818"),
    "VGG16": ({"model": {"weights": "random:1", "network": "vgg16"}}, "sefe5286579:4862f5ac556f"),
    "light": ({"output": {"equalize_luminance": 0.2}}, "s4f4d9f62c3:c9819990f62d"),
    "light of the contents": ({"output": {"equalize_luminance": "contents"}}, "sbc440d107c:6c8031b525b6"),
    "mask": (
        {
            "images": {"content": {"cat": "skimage:astronaut"}, "mask": {"all": "skimage:moon"}},
            "factors": {"mask": "*"},
        },
        "s5a0350382c:be8c2dac328f",
    ),
    "mix": ({"images": {"style": STYLES, "mixes": MIX}, "factors": {"style": ["sm-2"]}}, "s07d4695ffd:1d08a34fcbd2"),
    "titration": (
        {"synthesis": {"titrate": "ssim_content", "titrate_value": 0.3}, "factors": {"ratio": None}},
        "s176d6757cb:f8a014805727",
    ),
    "controls": (
        {"controls": {"own_texture": True, "scrambled": True}},
        "s3ad6c3e1b8:beebd8872870 s3d9a061510:e53e123b96fe se2b89afa09:b597db6e47b8",
    ),
    "replicates": ({"factors": {"replicate": 2}}, "s3ad6c3e1b8:beebd8872870 sa33a4ae5fa:1e7d720b7cfa"),
}


def promise(changes: dict[str, Any]) -> str:
    """Ids and seeds of the cells of the small protocol with some changes."""
    sections = {name: {**ONE.get(name, {}), **value} for name, value in changes.items() if isinstance(value, dict)}
    asked = document(**{**ONE, **sections}) | {
        name: value for name, value in changes.items() if not isinstance(value, dict)
    }
    cells = stimkit.plan(stimkit.Protocol.from_dict(asked)).cells
    return " ".join(f"{cell.id}:{cell.seed:x}" for cell in cells)


@pytest.mark.parametrize("name", PROMISED)
def test_ids_are_what_they_were(name: str) -> None:
    changes, promised = PROMISED[name]
    assert promise(changes) == promised


def test_different_requests_have_different_ids() -> None:
    firsts = [promised.split(":")[0] for _, promised in PROMISED.values()]
    assert len(set(firsts) - {firsts[0]}) >= len(firsts) - 4, "but for those whose first cell is the plain one"

"""A preview of ratios: its extremes, its order, its words, and what it does not do."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from PIL import Image

import stimkit
from stimkit.errors import UsageError
from tests.conftest import document, small_plan

Command = Callable[..., tuple[int, str, str]]
IMAGES = {"content": {"cat": "skimage:chelsea", "moon": "skimage:moon"}, "style": {"cup": "skimage:coffee"}}


@pytest.fixture(scope="module")
def found() -> stimkit.Preview:
    return stimkit.preview(small_plan(images=IMAGES), side=32, evaluations=15, device="cpu")


def test_ratios_go_from_all_style_to_all_content(found: stimkit.Preview) -> None:
    first, *between, last = found.looks
    assert (first.ratio, first.content_kept, first.style_kept) == (0, 0, 1)
    assert (last.ratio, last.content_kept, last.style_kept) == (math.inf, 1, 0)
    ratios = [look.ratio for look in between]
    assert np.allclose(np.diff(np.log10(ratios)), 0.75)
    content, style = ([getattr(look, f"{term}_kept") for look in found.looks] for term in ("content", "style"))
    assert np.all(np.diff(content) > -0.08) and np.all(np.diff(style) < 0.08)
    assert found.lowest < found.highest
    inside = [look for look in between if found.lowest <= look.ratio <= found.highest]
    assert inside and all(min(look.content_kept, look.style_kept) > 0.1 for look in inside)


def test_the_picture_has_a_row_for_each_pair(found: stimkit.Preview) -> None:
    assert found.picture.dtype == np.uint8 and found.picture.shape[2] == 3
    one = stimkit.preview(small_plan(), side=32, evaluations=2, device="cpu")
    assert found.picture.shape[0] - one.picture.shape[0] == 32 + 4 and found.picture.shape[1] == one.picture.shape[1]


def test_ratios_are_those_of_the_size_of_the_protocol() -> None:
    """Under the paper's formulas, four times as many positions need a quarter of the ratio; means do not care."""
    for loss, factor in (("paper", 4.0), ("mean", 1.0)):
        small, large = (
            stimkit.preview(small_plan(synthesis={"size": size, "loss": loss}), side=32, evaluations=1, device="cpu")
            for size in (32, 64)
        )
        assert small.looks[4].ratio / large.looks[4].ratio == pytest.approx(factor, rel=0.1)  # noise differs


def test_other_settings_do_not_matter() -> None:
    """Apertures are in degrees of another size, and titration would look for a ratio itself."""
    output = {"aperture": "circle", "aperture_diameter": 3}
    plan = small_plan(output=output, display={"ppd": 10}, synthesis={"init": "content"})
    assert len(stimkit.preview(plan, side=32, evaluations=1, device="cpu").looks) == 9
    titrated = small_plan(factors={"ratio": None}, synthesis={"titrate": "ssim_content", "titrate_value": 0.3})
    assert len(stimkit.preview(titrated, side=32, evaluations=1, device="cpu").looks) == 9


def test_without_two_images_there_is_no_ratio() -> None:
    plan = small_plan(images={"content": None}, factors={"ratio": [0]})
    with pytest.raises(UsageError, match="no cell has a content and a style image"):
        stimkit.preview(plan, device="cpu")


@pytest.mark.slow
def test_the_command(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.toml").write_text(tomli_w.dumps(document(factors={"style_layers": ["one"]})))
    code, out, err = command("preview", "p.toml", "--device", "cpu")
    assert code == 0 and "between style and content: ratios from about" in out, err
    assert out.count("ratio ") == 9 and "all style" in out and "all content" in out
    with Image.open(tmp_path / "small-preview.png") as image:
        assert image.format == "PNG" and image.width > 9 * 80
    code, _, err = command("preview", "p.toml", "--out", "small-preview.png")
    assert code == 2 and "exists already" in err

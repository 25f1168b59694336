"""Where inputs are found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import stimkit
from stimkit.errors import ImageError
from stimkit.images.reading import read_source
from tests.conftest import small_plan


def test_links_of_git_annex_are_followed_where_the_protocol_says_so(tmp_path: Path, photograph: Path) -> None:
    annex = tmp_path / ".git/annex/objects"
    annex.mkdir(parents=True)
    shutil.move(photograph, annex / "SHA256E-1.png")
    images = tmp_path / "study/images"
    images.mkdir(parents=True)
    (images / "photo.png").symlink_to("../../.git/annex/objects/SHA256E-1.png")
    (images / "gone.png").symlink_to("../../.git/annex/objects/none.png")
    section = {"root": str(images), "content": {"photo": "photo.png", "gone": "gone.png"}}
    refused = small_plan(images=section)
    assert "leads out of the image root" in (refused.input("content", "photo").problem or "")
    plan = small_plan(images=section | {"follow_links": True})
    assert plan.input("content", "photo").problem is None and len(plan.input("content", "photo").pixel_sha256) == 64
    assert "is a link to ../../.git/annex/objects/none.png" in (plan.input("content", "gone").problem or "")
    for spec in ("../study/images/../../x.png", "../../.git/annex/objects/SHA256E-1.png"):
        with pytest.raises(ImageError, match="outside the image root"):
            read_source(spec, images, follow_links=True)
    good = small_plan(images={"root": str(images), "content": {"photo": "photo.png"}, "follow_links": True})
    stimkit.run(good, tmp_path / "run", device="cpu")
    (images / "photo.png").unlink()
    (images / "renamed.png").symlink_to("../../.git/annex/objects/SHA256E-1.png")
    again = stimkit.regenerate(tmp_path / "run", tmp_path / "again", inputs=[images], device="cpu")
    assert {one.tier for one in again} == {"identical_file"}

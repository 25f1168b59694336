"""Archives: a run with its inputs, from which its stimuli can be made again elsewhere."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stimkit
from stimkit.auditing.regeneration import regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import ProtocolError, RunFolderError, UsageError
from stimkit.images.png import encode_png
from stimkit.network.sources import load_weights
from stimkit.network.weights import save_weights
from stimkit.records.methods import archive_readme, methods_paragraph
from stimkit.reporting.archive import archive
from stimkit.runfolder.run import Run
from tests.conftest import document, small_plan

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protocol of files beside its run; the style image has no licence."""
    place = tmp_path_factory.mktemp("files")
    for name, seed in (("content", 0), ("style", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        (place / f"{name}.png").write_bytes(encode_png(pixels))
    save_weights(load_weights("pca"), place / "w.safetensors")
    description = "<script>alert(1)</script> & more"
    images = {"content": {"a": "content.png"}, "style": {"b": "style.png"}, "licence": {"a": "CC0-1.0"}}
    sections: dict[str, dict[str, Any]] = {
        "images": images,
        "model": {"weights": "w.safetensors"},
        "factors": {"ratio": [1e-5]},
    }
    plan = stimkit.plan(stimkit.Protocol.from_dict({**document(**sections), "description": description}, base=place))
    stimkit.run(plan, place / "run", device="cpu")
    return place


def test_an_archive_is_a_run_folder_that_can_be_made_again(place: Path, tmp_path: Path) -> None:
    made = archive(place / "run", tmp_path / "set.zip")
    with zipfile.ZipFile(made.path) as packed:
        assert packed.testzip() is None and len(packed.namelist()) == made.files
        packed.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked"
    for line in (unpacked / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((unpacked / name).read_bytes()).hexdigest() == digest
    assert verify(unpacked).findings == ()
    # The style image may not be passed on: it is named with its digest, and whoever has it can go on.
    assert len(made.left_out) == 1 and made.left_out[0].startswith("style image b (pixels sha256 ")
    assert made.left_out[0] in (unpacked / "README.md").read_text()
    assert "\n&lt;script&gt;alert(1)&lt;/script&gt; &amp; more\n" in (unpacked / "README.md").read_text()
    with pytest.raises(stimkit.StimkitError, match="--inputs"):
        regenerate(unpacked, tmp_path / "without", device="cpu")
    (tmp_path / "mine").mkdir()
    shutil.copy(place / "style.png", tmp_path / "mine" / "other-name.png")
    again = regenerate(unpacked, tmp_path / "again", inputs=[tmp_path / "mine"], device="cpu")
    assert {one.tier for one in again} == {"identical_file"}


def test_equal_runs_give_equal_archives(small_run: Run, tmp_path: Path) -> None:
    first, second = (archive(small_run.path, tmp_path / name).path.read_bytes() for name in ("a.zip", "b.zip"))
    assert first == second


def test_the_readme_says_how_the_stimuli_were_made(small_run: Run, tmp_path: Path) -> None:
    archive(small_run.path, tmp_path / "set.zip")
    with zipfile.ZipFile(tmp_path / "set.zip") as packed:
        text = packed.read("README.md").decode()
    for words in (
        "4 stimuli (32 × 32 px)", "style_layers (2), ratio (2)", "weights pca (principal components of photographs",
        "average pooling",
        "Content layers: conv2_1.", "Style layers: conv1_1; conv1_1, conv2_1.", "α/β 1e-05, 0.0001",
        "preconditioned L-BFGS (history 20) for at most 6 evaluations", "white noise of contrast 0.1",
    ):  # fmt: skip
        assert words in text, words


def test_the_methods_name_whatever_is_not_at_its_default(tmp_path: Path) -> None:
    plan = small_plan(
        factors={"target_style": [0.5, 0.1], "style_layers": ["one"]},
        synthesis={"style_scale": 0.5, "fit": "stretch"},
        output={"transfer": "linear", "bits": 16},
    )
    text = methods_paragraph(plan, [], {})
    assert "until it fell by less than a part of 0.0001 over 20 evaluations" in text
    assert "Further settings: transfer linear; bits 16; fit stretch; style_scale 0.5; target_style 0.5, 0.1." in text
    assert "16-bit PNG (linear light)" in archive_readme(plan, text, [], [])
    assert "Further settings" not in methods_paragraph(small_plan(), [], {})


def test_an_archive_holds_no_links(small_run: Run, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    (tmp_path / "elsewhere.png").write_bytes((run / "contact_sheet.png").read_bytes())
    (run / "contact_sheet.png").unlink()
    (run / "contact_sheet.png").symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(RunFolderError, match="1 findings"):
        archive(run, tmp_path / "set.zip")
    assert not (tmp_path / "set.zip").exists()


def test_what_is_not_complete_and_sound_is_refused(
    small_run: Run, place: Path, tmp_path: Path, command: Command
) -> None:
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    next((run / "stimuli").iterdir()).unlink()
    with pytest.raises(RunFolderError, match=r"0 pending cells and 1 findings"):
        archive(run, tmp_path / "set.zip")
    (tmp_path / "there.zip").touch()
    with pytest.raises(UsageError, match="exists already"):
        archive(small_run.path, tmp_path / "there.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "there.zip"]
    code, out, _ = command("archive", place / "run", tmp_path / "set.zip")
    assert code == 0 and "2 of them inputs" in out and "left out: style image b" in out


def test_a_licence_names_an_image() -> None:
    with pytest.raises(ProtocolError, match=r'images\.licence\.cap: "cap" is not an image \(did you mean "cup"\?\)'):
        small_plan(images={"licence": {"cap": "CC0-1.0"}})

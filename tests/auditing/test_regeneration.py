"""Stimuli made again from a run folder, in tiers of equality."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import stimkit
from stimkit.auditing.regeneration import TIERS, Comparison, regenerate
from stimkit.auditing.verification import verify
from stimkit.errors import ImageError, RunFolderError, UsageError, WeightsError
from stimkit.images.pixels import pixel_digest
from stimkit.images.png import encode_png
from stimkit.images.statistics import measure_similarity
from stimkit.network.sources import load_weights
from stimkit.network.weights import save_weights
from stimkit.runfolder.run import Run, read_run
from tests.conftest import ROOT, document, forge

Command = Callable[..., tuple[int, str, str]]


def run_of_files(folder: Path) -> Path:
    """A run whose images and weights are files: folder/protocol, folder/run."""
    place = folder / "protocol"
    place.mkdir()
    for name, seed in (("content", 0), ("style", 1)):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        (place / f"{name}.png").write_bytes(encode_png(pixels))
    save_weights(load_weights("pca"), place / "w.safetensors")
    stimkit.run(stimkit.plan(protocol_of_files(folder)), folder / "run", device="cpu")
    return folder / "run"


def protocol_of_files(folder: Path) -> stimkit.Protocol:
    images = {"content": {"a": "content.png"}, "style": {"b": "style.png"}}
    small = document(images=images, model={"weights": "w.safetensors"}, factors={"ratio": [1e-5]})
    return stimkit.Protocol.from_dict(small, base=folder / "protocol")


def tiers(comparisons: list[Comparison]) -> list[str]:
    return [one.tier for one in comparisons]


def test_the_recorded_batch_gives_the_same_files(small_run: Run, tmp_path: Path) -> None:
    made = regenerate(small_run.path, tmp_path / "again", device="cpu")
    assert tiers(made) == ["identical_file"] * len(small_run.records)
    for one in made:
        assert one.batch == "recorded" and one.max_difference == 0 and one.ssim == 1
        assert one.loss_again == pytest.approx(one.loss_recorded, rel=1e-6)
        again, recorded = (folder / "stimuli" / one.filename for folder in (tmp_path / "again", small_run.path))
        assert again.read_bytes() == recorded.read_bytes()
    listed = pd.read_csv(tmp_path / "again" / "comparison.csv")
    assert listed["stimulus_id"].tolist() == list(small_run.records)


def test_one_cell_of_a_batch_and_a_condition(small_run: Run, tmp_path: Path) -> None:
    third = list(small_run.records)[2]
    (one,) = regenerate(small_run.path, tmp_path / "one", cells=[third], device="cpu")
    assert (one.stimulus_id, one.tier, one.batch) == (third, "identical_file", "recorded")
    assert [path.name for path in (tmp_path / "one" / "stimuli").iterdir()] == [one.filename]
    made = regenerate(small_run.path, tmp_path / "some", where='style_layers == "two" and ratio > 5e-5', device="cpu")
    assert [small_run.records[one.stimulus_id].levels for one in made] == [
        {"content": "cat", "style": "cup", "style_layers": "two", "ratio": "0.0001", "replicate": "1"}
    ]


def test_alone_the_losses_agree(small_run: Run, tmp_path: Path) -> None:
    made = regenerate(small_run.path, tmp_path / "alone", alone=True, device="cpu")
    assert {one.batch for one in made} == {"alone"}
    assert all(TIERS.index(one.tier) <= TIERS.index("losses_within") for one in made)


def test_an_altered_stimulus_is_seen_and_the_tier_says_how_far(
    small_run: Run, tmp_path: Path, command: Command
) -> None:
    """The files are as another machine would have made them: records know them."""
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    records = list(read_run(run).records.values())
    for record, change in zip(records, (0, 1, 90, None), strict=True):
        path = run / "stimuli" / record.filename
        pixels = np.asarray(Image.open(path)).copy()
        if change is None:
            path.unlink()
            continue
        pixels[5, 5, 0] = pixels[5, 5, 0] + change if pixels[5, 5, 0] < 128 else pixels[5, 5, 0] - change
        Image.fromarray(pixels).save(path, compress_level=0)
        digests = {"pixel_sha256": pixel_digest(pixels), "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        forge(run, record.stimulus_id, **digests)
    made = regenerate(run, tmp_path / "again", device="cpu")
    assert tiers(made) == ["identical_pixels", "pixels_within", "losses_within", "identical_file"]
    assert [one.max_difference for one in made] == [0, 1, 90, None]
    assert made[1].changed_fraction == pytest.approx(1 / (32 * 32 * 3))
    ids = [record.stimulus_id for record in records]
    strict = ("regenerate", run, ids[1], "--require", "identical_pixels", "--device", "cpu", "--out")
    code, out, _ = command(*strict, tmp_path / "strict")
    assert code == 5 and "pixels_within" in out
    assert command("regenerate", run, ids[0], "--device", "cpu", "--out", tmp_path / "loose", "--json")[0] == 0


def test_a_file_that_is_not_of_record_is_not_compared_with(small_run: Run, tmp_path: Path, command: Command) -> None:
    """What is made again is the stimulus of record, whatever lies in its place."""
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    first, second, *_ = (run / "stimuli" / record.filename for record in read_run(run).records.values())
    shutil.copyfile(second, first)
    code, out, _ = command("regenerate", run, "--device", "cpu", "--out", tmp_path / "again")
    assert code == 0 and out.count("identical_file") >= 4
    assert out.count("the file in the run is not that of record: see `stimkit verify`") == 1


def test_losses_that_differ_and_the_environment_that_may_be_why(small_run: Run, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    record = next(iter(read_run(run).records.values()))
    losses = record.flat()["losses"]
    losses["file"]["total"] *= 1.5
    forge(run, record.stimulus_id, losses=losses, pixel_sha256="0" * 64, file_sha256="0" * 64)
    (run / "stimuli" / record.filename).unlink()
    environments = json.loads((run / "environment.json").read_text())
    environments[record.env_id]["packages"]["torch"] = "1.0"
    (run / "environment.json").write_text(json.dumps(environments))
    (one,) = regenerate(run, tmp_path / "again", cells=[record.stimulus_id], device="cpu")
    assert one.tier == "differs"
    assert any(text.startswith("packages.torch: 1.0 → ") for text in one.environment_differs)


def test_a_record_cannot_choose_where_files_are_written(small_run: Run, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    record = next(iter(read_run(run).records.values()))
    forge(run, record.stimulus_id, filename="another.png")
    (one,) = regenerate(run, tmp_path / "deep" / "again", cells=[record.stimulus_id], device="cpu")
    assert (one.filename, one.tier) == (record.filename, "identical_file")
    forge(run, record.stimulus_id, filename="../../another.png")
    with pytest.raises(RunFolderError, match="filename"):
        regenerate(run, tmp_path / "deep" / "again2", cells=[record.stimulus_id], device="cpu")
    assert not list(tmp_path.rglob("another.png"))


def test_inputs_are_found_at_their_place_or_by_digest(tmp_path: Path) -> None:
    run = run_of_files(tmp_path)
    assert set(tiers(regenerate(run, tmp_path / "there", device="cpu"))) == {"identical_file"}

    # Everything elsewhere, under other names.
    moved = tmp_path / "elsewhere" / "moved"
    shutil.move(run, moved)
    store = tmp_path / "store" / "deep"
    store.mkdir(parents=True)
    for name, other in (("content.png", "x.png"), ("style.png", "y.png"), ("w.safetensors", "z.safetensors")):
        shutil.move(tmp_path / "protocol" / name, store / other)
    (store / "broken.png").write_bytes(b"no image")
    (store / "broken.pth").write_bytes(b"no weights")
    with pytest.raises((ImageError, WeightsError), match=r"not found.*--inputs"):
        regenerate(moved, tmp_path / "fails", device="cpu")
    made = regenerate(moved, tmp_path / "found", inputs=[tmp_path / "store"], device="cpu")
    with pytest.raises(UsageError, match="nowhere, where inputs are to be looked for, is not a folder"):
        regenerate(moved, tmp_path / "no", inputs=[tmp_path / "nowhere"], device="cpu")
    assert set(tiers(made)) == {"identical_file"}

    # Copies inside the run folder are found without being told.
    shutil.copytree(store, moved / "inputs")
    assert set(tiers(regenerate(moved, tmp_path / "inside", device="cpu"))) == {"identical_file"}


def test_a_run_that_keeps_its_inputs_needs_nothing_else(tmp_path: Path, command: Command) -> None:
    run = run_of_files(tmp_path)
    stimkit.run(stimkit.plan(protocol_of_files(tmp_path)), run, device="cpu", keep_inputs=True)
    assert sorted(path.name.split("-")[0] for path in (run / "inputs").iterdir()) == ["content", "style", "weights"]
    shutil.rmtree(tmp_path / "protocol")
    made = regenerate(run, tmp_path / "again", device="cpu")
    assert tiers(made) == ["identical_file"] * 2
    kept = run / "inputs" / "content-a.png"
    kept.write_bytes(encode_png(np.zeros((40, 40, 3), np.uint8)))
    assert [(one.name, one.path) for one in verify(run).findings] == [("input_altered", "inputs/content-a.png")]
    with pytest.raises(ImageError, match="was not found"):
        regenerate(run, tmp_path / "not", device="cpu")


WITH_OWN_IMAGES = {"cue-conflict.toml"}  # of whoever uses it
BUNDLED = sorted(path for path in (ROOT / "protocols").glob("*.toml") if path.name not in WITH_OWN_IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_every_bundled_protocol_is_made_again_with_the_same_bytes(path: Path, tmp_path: Path) -> None:
    """Smaller and shorter than the protocol says, but with all of its cells."""
    small = tomllib.loads(path.read_text())
    degrees = small.get("display", {}).get("visual_size")
    small["synthesis"] |= {"max_evaluations": 8} | ({} if degrees else {"size": 64})
    if degrees:
        small["display"]["ppd"] = 64 / degrees
    plan = stimkit.plan(stimkit.Protocol.from_dict(small, base=path.parent))
    stimkit.run(plan, tmp_path / "run", device="cpu", deterministic=True)
    assert set(tiers(regenerate(tmp_path / "run", tmp_path / "again", device="cpu"))) == {"identical_file"}


def test_mistakes_are_told_before_anything_is_made(small_run: Run, tmp_path: Path, command: Command) -> None:
    known = next(iter(small_run.records))
    with pytest.raises(RunFolderError, match=rf'no complete stimulus .*did you mean "{known}"'):
        regenerate(small_run.path, tmp_path / "x", cells=[known[:-1] + "z"])
    with pytest.raises(UsageError, match="cannot be evaluated on the manifest"):
        regenerate(small_run.path, tmp_path / "x", where="no_such_column > 3")
    with pytest.raises(UsageError, match="no complete stimulus is asked for"):
        regenerate(small_run.path, tmp_path / "x", where="ratio > 1e9")
    with pytest.raises(UsageError, match="not an empty folder"):
        regenerate(small_run.path, small_run.path)
    assert not (tmp_path / "x").exists()
    code, _, err = command("regenerate", small_run.path, "--require", "equal", "--out", tmp_path / "x")
    assert code == 2 and '"equal" is not a tier' in err


def test_similarity_is_one_for_equal_images_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    noisy = np.clip(image + rng.normal(0, 40, image.shape), 0, 255).astype(np.uint8)
    assert measure_similarity(image, image) == 1
    close = measure_similarity(image, noisy)
    assert close is not None and 0.3 < close < 0.99
    assert measure_similarity(image[:6], image[:6]) is None

"""Audits of images of any origin: factors from names or tables, planted confounds, damaged folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stimkit.auditing.image_set import audit_images, parse_names
from stimkit.errors import UsageError

Command = Callable[..., tuple[int, str, str]]
SHAPES, TEXTURES = ("bear", "knife", "oven"), ("cat", "clock", "dog")
PATTERN = "{shape}{i}-{texture}{j}.png"


def make_set(folder: Path, confound: float) -> Path:
    """Noise images for every pair of categories, whose luminance follows the texture as much as `confound` says."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for shape in SHAPES:
        for index, texture in enumerate(TEXTURES):
            for number in range(1, 5):
                mean = 120 + confound * index + rng.normal(0, 5)
                pixels = np.clip(rng.normal(mean, 20, (24, 24, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{shape}{number}-{texture}{number + 1}.png")
    return folder


def test_a_planted_confound_is_caught_and_without_one_the_set_passes(tmp_path: Path, command: Command) -> None:
    clean, planted = make_set(tmp_path / "clean", 0), make_set(tmp_path / "planted", 15)
    limits = ("--pattern", PATTERN, "--limit", "mean_luminance=0.3", "--limit", "rms_contrast:shape=0.3")
    code, out, _ = command("audit-images", clean, *limits)
    assert code == 0 and "36 of 36 stimuli audited: nothing to object to" in out
    code, out, _ = command("audit-images", planted, *limits, "--out", tmp_path / "audit")
    assert code == 5 and "texture explains" in out and "of the variance of mean_luminance" in out
    assert "shape explains" not in out
    effects = pd.read_csv(tmp_path / "audit" / "effects.csv").query("variable == 'mean_luminance' and model == 'alone'")
    share = effects.set_index("factor")["omega_squared"]
    assert share["texture"] > 0.7 and share["shape"] < 0.1
    code, out, _ = command("audit-images", planted, *limits, "--json")
    assert code == 5 and json.loads(out)["failed"]


def test_names_are_taken_apart() -> None:
    names = ["knife12-clock3.png", "deep/airplane1-bear10.png", "notes.png"]
    table = parse_names(names, PATTERN)
    assert table.to_dict("records") == [
        {"filename": names[0], "shape": "knife", "i": "12", "texture": "clock", "j": "3"},
        {"filename": names[1], "shape": "airplane", "i": "1", "texture": "bear", "j": "10"},
    ]
    assert parse_names(names, "{session}/{name}.png").to_dict("records") == [
        {"filename": names[1], "session": "deep", "name": "airplane1-bear10"}
    ]
    assert parse_names(["a-1.5_x.png"], "{a}-{ratio}_{b}.png").iloc[0].tolist() == ["a-1.5_x.png", "a", "1.5", "x"]
    assert parse_names(["07x.png"], "{n:d}{rest}.png")["n"].tolist() == ["07"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{a}+{b}.png", r"no file matches the pattern \{a\}\+\{b\}\.png; the first file is a-b\.png"),
        ("x.png", "has no {placeholder}"),
        ("{a}-{a}.png", "has {a} twice"),
    ],
)
def test_patterns_that_do_not_fit(pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_names(["a-b.png"], pattern)


def test_combined_factors_find_the_single_image(tmp_path: Path) -> None:
    """The texture's exemplar decides the luminance; its category alone does not show it."""
    folder = make_set(tmp_path / "set", 0)
    for path in folder.iterdir():
        exemplar = path.stem[-1]
        level = 60 + 45 * ((int(exemplar) + path.stem.count("cat")) % 2)
        Image.fromarray(np.random.default_rng(1).integers(level, level + 40, (24, 24, 3)).astype(np.uint8)).save(path)
    found = audit_images(
        folder,
        pattern=PATTERN,
        combine={"style": ("texture", "j")},
        limits={"mean_luminance": {"style": 0.5, "*": 1.0}},
    )
    assert [(one.name, one.detail.split()[0]) for one in found.findings if one.severity == "error"] == [
        ("confound", "style")
    ]
    alone = found.effects.query("variable == 'mean_luminance' and model == 'alone'").set_index("factor")[
        "omega_squared"
    ]
    assert alone["style"] > 0.99 and alone["texture"] < 0.1


def test_a_table_of_factors_and_what_does_not_fit_it(tmp_path: Path, command: Command) -> None:
    folder = make_set(tmp_path / "set", 0)
    names = sorted(path.name for path in folder.iterdir())
    table = pd.DataFrame({"filename": [*names[1:], "gone.png"], "kind": ["a", "b"] * 18})
    table.to_csv(tmp_path / "table.csv", index=False)
    (folder / names[1]).write_bytes(b"no image")
    Image.new("RGB", (30, 20)).save(folder / names[2])
    (folder / names[3]).write_bytes((folder / names[4]).read_bytes())
    found = audit_images(folder, table=tmp_path / "table.csv")
    said = {(one.name, one.severity, one.path) for one in found.findings if one.path}
    assert said >= {
        ("file_without_factors", "warning", names[0]),
        ("factors_without_file", "error", "gone.png"),
        ("unreadable", "error", names[1]),
        ("other_size", "warning", names[2]),
    }
    assert [one.path for one in found.findings if one.name == "duplicate"] == [names[4]]
    assert found.complete == 34 and found.failed
    code, out, _ = command("audit-images", folder, "--factors", tmp_path / "table.csv")
    assert code == 5 and "unreadable (1)" in out


def test_controls_without_structure_and_odd_names(tmp_path: Path, command: Command) -> None:
    """Blank images have no spectral slope, and a column may be called what it likes."""
    folder = tmp_path / "a [b]"
    folder.mkdir()
    for index in range(5):
        pixels = np.random.default_rng(index).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"noise-{index}.png")
        Image.new("RGB", (24, 24), (40 * index, 90, 90)).save(folder / f"blank-{index}.png")
    table = pd.DataFrame(
        {"filename": sorted(path.name for path in folder.iterdir()), "[/x]": ["blank"] * 5 + ["noise"] * 5}
    )
    table.to_csv(tmp_path / "t.csv", index=False)
    code, out, err = command("audit-images", folder, "--factors", tmp_path / "t.csv", "--limit", "entropy=0.5")
    assert code == 5 and "[/x] explains" in out and "a [b]" in out, err


def test_mistakes_are_told(tmp_path: Path, command: Command) -> None:
    folder = make_set(tmp_path / "set", 0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.csv").write_text("file_name,kind\na.png,1\n")
    (tmp_path / "twice.csv").write_text("filename,kind\na.png,1\na.png,2\n")
    cases = {
        (tmp_path / "nowhere", "--pattern", PATTERN): "is not a folder",
        (tmp_path / "empty", "--pattern", PATTERN): "has no images in it",
        (folder,): "either as a table or as a pattern",
        (folder, "--pattern", PATTERN, "--limit", "luminance=0.1"): 'did you mean "mean_luminance"?',
        (folder, "--pattern", PATTERN, "--limit", "entropy:shapes=0.1"): 'did you mean "shape"?',
        (folder, "--pattern", PATTERN, "--limit", "entropy=much"): "is not a number",
        (folder, "--pattern", PATTERN, "--limit", "entropy"): "must have the form NAME=VALUE",
        (folder, "--pattern", PATTERN, "--combine", "style=texture+k"): '"k" is not a factor',
        (folder, "--pattern", "{entropy}.png"): "cannot be called entropy",
        (folder, "--pattern", "{evaluations}.png"): "cannot be called evaluations",
        (folder, "--pattern", "{filename}.png"): "cannot be called filename",
        (folder, "--pattern", PATTERN, "--combine", "filename=shape+i"): "cannot be called filename",
        (folder, "--factors", tmp_path / "other.csv"): 'no column filename (did you mean "file_name"?)',
        (folder, "--factors", tmp_path / "twice.csv"): "names a.png twice",
        (folder, "--factors", tmp_path / "nowhere.csv"): "cannot be read",
    }
    for arguments, message in cases.items():
        code, _, err = command("audit-images", *arguments)
        assert code == 2 and message in err, (arguments, err)

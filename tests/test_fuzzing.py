"""Damaged files of every kind that others give: what reads them says so in one line, and nothing else happens."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

import stimkit
from stimkit.documents.curation import read_curation
from stimkit.errors import StimkitError
from stimkit.images.pixels import MAX_PIXELS
from stimkit.images.png import decode_values
from stimkit.images.reading import decode_image
from stimkit.network.layers import convolutions
from stimkit.network.weights import read_weights
from stimkit.runfolder.run import Run, read_run

pytestmark = pytest.mark.slow
TRIES = 400
OF_FOLDERS = 60  # each of which is verified


def damage(data: bytes, generator: np.random.Generator) -> bytes:
    """Change, cut, repeat or insert bytes, as broken downloads and malicious files do."""
    changed = bytearray(data)
    for _ in range(int(generator.integers(1, 6))):
        at = int(generator.integers(0, max(1, len(changed))))
        kind = generator.integers(0, 5)
        if kind == 0 and changed:
            changed[min(at, len(changed) - 1)] ^= 1 << int(generator.integers(0, 8))
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at:at] = generator.bytes(int(generator.integers(1, 9)))
        elif kind == 3:
            changed[at:at] = changed[at : at + int(generator.integers(1, 64))]
        else:
            number = generator.choice([0, 1, 2**16 - 1, 2**31 - 1, 2**32 - 1])
            changed[at : at + 4] = int(number).to_bytes(4, "big")
    return bytes(changed)


def survive(data: bytes, read: Callable[[bytes], object], tries: int = TRIES) -> int:
    """Read damaged copies: each is read, or refused with an error of stimkit in one line. How many were refused."""
    refused = 0
    for number in range(tries):
        copy = damage(data, np.random.default_rng(number))
        try:
            read(copy)
        except StimkitError as error:
            refused += 1
            assert len(str(error)) < 2000, f"try {number}"
        except Exception as error:
            raise AssertionError(f"try {number}: {type(error).__name__}: {error}") from error
    return refused


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM"])
def test_images(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)

    def read(data: bytes) -> None:
        found = decode_image(data, "x")
        assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
        assert found.shape[0] * found.shape[1] <= MAX_PIXELS

    assert survive(file.getvalue(), read) > 0


def test_stimuli(small_run: Run) -> None:
    data = next((small_run.path / "stimuli").iterdir()).read_bytes()
    assert survive(data, lambda copy: decode_values(copy, "x")) > 0


def test_safetensors(tmp_path: Path) -> None:
    tensors = {
        f"{layer.name}.{part}": np.zeros(
            (layer.channels, layer.in_channels, 3, 3)[: 4 if part == "weight" else 1], "float16"
        )
        for layer in convolutions("vgg19")[:2]
        for part in ("weight", "bias")
    }
    save_file(tensors, tmp_path / "whole.safetensors", {"preprocessing": "caffe"})
    whole = (tmp_path / "whole.safetensors").read_bytes()[:4000]  # the header, and some values

    def read(data: bytes) -> None:
        (tmp_path / "a.safetensors").write_bytes(data)
        read_weights(tmp_path / "a.safetensors")

    assert survive(whole, read) == TRIES, "no part of a network is one"


def test_state_dicts(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "whole.pth")

    def read(data: bytes) -> None:
        (tmp_path / "a.pth").write_bytes(data)
        read_weights(tmp_path / "a.pth")

    assert survive((tmp_path / "whole.pth").read_bytes(), read) == TRIES


@pytest.mark.parametrize(
    "name", ["protocol.lock.json", "journal.csv", "environment.json", "records", "traces", "protocol.toml"]
)
def test_run_folders(small_run: Run, tmp_path: Path, name: str) -> None:
    """Whatever is damaged, verification ends with findings or with one line."""
    folder = tmp_path / "run"
    shutil.copytree(small_run.path, folder)
    target = folder / name
    target = sorted(target.iterdir())[0] if target.is_dir() else target
    whole = target.read_bytes()
    found = 0

    def read(data: bytes) -> None:
        nonlocal found
        target.write_bytes(data)
        found += bool(stimkit.verify(folder).findings) or data == whole

    refused = survive(whole, read, OF_FOLDERS)
    assert found + refused == OF_FOLDERS, "damage that nobody noticed"
    target.write_bytes(whole)
    assert read_run(folder).records.keys() == small_run.records.keys()


def test_answers(small_run: Run, tmp_path: Path) -> None:
    rows = [f"p001,{trial},{one},0.{trial}5,word" for trial, one in enumerate(small_run.records)]
    data = "\n".join(["participant,trial,stimulus_id,rt,note", *rows]).encode()

    def read(copy: bytes) -> None:
        (tmp_path / "a.csv").write_bytes(copy)
        stimkit.join_responses(small_run, [tmp_path / "a.csv"], times="s")

    assert survive(data, read) > 0


def test_curations(tmp_path: Path) -> None:
    row = {"stimulus_id": "s1", "file_sha256": "0" * 64, "verdict": "keep", "note": "x", "at": "2026-11-26T18:30:00Z"}
    data = json.dumps({"schema": 1, "set": "small", "curator": "Ada", "verdicts": [row]}).encode()

    def read(copy: bytes) -> None:
        (tmp_path / "c.json").write_bytes(copy)
        read_curation(tmp_path / "c.json")

    assert survive(data, read) > 0


def test_protocols() -> None:
    data = (Path(__file__).parent.parent / "protocols/quickstart.toml").read_bytes()
    assert survive(data, lambda copy: stimkit.Protocol.from_toml(copy.decode("utf-8", "replace"))) > 0

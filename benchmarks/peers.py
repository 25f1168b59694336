"""Public style-transfer programs, run from a local checkout beside stimkit."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from harness import MODEL, Workshop, plan_of

from stimkit.images.pixels import resize, to_float
from stimkit.images.png import encode_png
from stimkit.images.reading import read_source
from stimkit.network.layers import convolutions
from stimkit.network.sources import load_weights
from stimkit.planning.cells import Plan

CAFFE_MEAN = (103.939, 116.779, 123.68)


Reached = dict[int, tuple[float, torch.Tensor]]
"""Evaluations of a program: the seconds that they took, and the image that it wrote then, (1, 3, height, width)."""


def same_problem(pair: tuple[str, str], size: int, *, max_evaluations: int) -> Plan:
    """What neural-style-pt is asked for, for stimkit: mean losses with weights 1 / N², filters as they are."""
    ratio = 1e-3 if "weights" in MODEL else 1e-4
    model = {"normalize": "none"}
    return plan_of([pair], [ratio], size=size, max_evaluations=max_evaluations, loss="mean", model=model)


def neural_style(
    path: Path, device: torch.device, pair: tuple[str, str], size: int, marks: Sequence[int], optimizer: str
) -> tuple[Workshop, Reached]:
    """Run neural-style-pt's `neural_style.py` with the same images, weights and losses; its files at the marks.

    Its loss weights are multiplied by 1e5: with small losses its L-BFGS stops at once. Also returns the workshop of the
    same problem for stimkit.
    """
    scale, every = 1e5, math.gcd(*marks)
    plan = same_problem(pair, size, max_evaluations=max(marks))
    workshop = Workshop(plan, device)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for kind, name in (("content", "c0"), ("style", "s0")):
            pixels = resize(read_source(plan.input(kind, name).spec, plan.protocol.root).pixels, (size, size), "crop")
            (place / f"{kind}.png").write_bytes(encode_png(pixels))
        torch.save(caffe_state(), place / "vgg19-same.pth")
        command = [
            sys.executable, "-u", "neural_style.py", "-content_image", place / "content.png", "-style_image",
            place / "style.png", "-image_size", size, "-num_iterations", max(marks), "-model_file",
            place / "vgg19-same.pth", "-disable_check", "-pooling", "avg", "-tv_weight", 0, "-content_weight",
            scale * plan.cells[0].ratio, "-style_weight", scale, "-print_iter", 1, "-save_iter", every, "-seed", 0,
            "-optimizer", optimizer, "-output_image", place / "out.png",
            "-gpu", "c" if device.type == "cpu" else device.index or 0,
        ]  # fmt: skip
        process = subprocess.Popen([str(one) for one in command], cwd=path, stdout=subprocess.PIPE, text=True)
        began, times = None, []
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Running optimization"):
                began = time.perf_counter()
            if re.match(r"\s*Total loss: ", line) and began is not None:
                times.append(time.perf_counter() - began)
        if process.wait() != 0:
            raise SystemExit(f"{path} failed")
        files = {mark: place / ("out.png" if mark == max(marks) else f"out_{mark}.png") for mark in marks}
        images = {mark: to_float(read_source(file.name, place).pixels) for mark, file in files.items()}
    return workshop, {mark: (times[mark - 1], torch.from_numpy(image)[None]) for mark, image in images.items()}


def caffe_state() -> dict[str, torch.Tensor]:
    """The weights that are measured with under torchvision's names, for BGR images, 0 to 255, minus caffe's mean."""
    weights = load_weights(MODEL.get("weights", "pca"))
    tensors = {name: torch.from_numpy(value) for name, value in weights.tensors.items()}
    if weights.preprocessing != "caffe":
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        kernel = tensors["conv1_1.weight"] / (255 * std)[:, None, None]
        shift = (torch.tensor(CAFFE_MEAN).flip(0) / 255 - mean) * 255
        tensors["conv1_1.bias"] = tensors["conv1_1.bias"] + torch.einsum("oikl,i->o", kernel, shift)
        tensors["conv1_1.weight"] = kernel.flip(1)
    return {
        f"features.{layer.torchvision_index}.{part}": tensors[f"{layer.name}.{part}"].contiguous()
        for layer in convolutions("vgg19")
        for part in ("weight", "bias")
    }

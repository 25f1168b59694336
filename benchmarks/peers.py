"""Public style-transfer programs, run from a local checkout beside stimkit."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
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
Peer = Callable[[Workshop, Path, Sequence[int]], Reached]
"""A program that solves a workshop's first cell; in a folder that has its images as content.png and style.png."""

SCALE = 1e5
"""Of all loss weights of neural-style-pt: with small losses its L-BFGS stops at once."""

# style-transfer-pytorch with the losses, layers and network of the cell. What stays its own is how it optimizes: sizes
# that grow by √2, Adam whose moments go along, values clipped after each step, a running mean of images.
MULTI_SCALE = """
import json, sys, time, torch
from PIL import Image
from torchvision import models
import style_transfer.style_transfer as peer

ask = json.loads(sys.argv[1])
network = models.vgg19()
network.load_state_dict(torch.load("same.pth", weights_only=True), strict=False)
models.vgg19 = lambda weights: network
peer.VGGFeatures._change_padding_mode = staticmethod(lambda convolution, mode: convolution)
peer.VGGFeatures.pooling_scales = {"average": 1.0}

class GramLoss(peer.nn.Module):
    def __init__(self, target):
        super().__init__()
        self.target = target[1]

    @staticmethod
    def get_target(features):
        flat = features.flatten(2)
        return features.new_zeros(1), flat @ flat.transpose(1, 2) / flat[0].numel()

    def forward(self, features):
        return (self.get_target(features)[1] - self.target).square().mean()

class Caffe(peer.nn.Module):
    def forward(self, image):
        return 255 * image.flip(1) - torch.tensor(ask["mean"])[:, None, None]

peer.StyleLossW2 = GramLoss
images = [Image.open(name + ".png").convert("RGB") for name in ("content", "style")]
for mark in ask["marks"]:
    torch.manual_seed(0)
    one = peer.StyleTransfer(pooling="average")
    one.model.normalize = Caffe()
    one.style_weights = [1.0] * len(one.style_layers)
    began = time.perf_counter()
    one.stylize(images[0], images[1:], content_weight=ask["ratio"], tv_weight=0.0, min_scale=ask["size"] // 2,
                end_scale=ask["size"], initial_iterations=mark - 2 * (mark // 4), iterations=mark // 4)
    print("seconds", time.perf_counter() - began, flush=True)
    one.get_image().save(f"out_{mark}.png")
"""


def same_problem(pair: tuple[str, str], size: int, ratio: float, *, max_evaluations: int) -> Plan:
    """What the programs are asked for, for stimkit: mean losses with weights 1 / N², filters as they are."""
    model = {"normalize": "none"}
    return plan_of([pair], [ratio], size=size, max_evaluations=max_evaluations, loss="mean", model=model)


def peers(path: Path) -> dict[str, Peer]:
    """The program of a checkout with each of its optimizers, by names for the table."""
    if (path / "neural_style.py").exists():
        return {f"neural-style-pt, {name}": partial(neural_style, path, name) for name in ("lbfgs", "adam")}
    if (path / "style_transfer" / "style_transfer.py").exists():
        return {"style-transfer-pytorch, adam": partial(multi_scale, path)}
    raise SystemExit(f"{path}: neither neural-style-pt nor style-transfer-pytorch")


def solve(peer: Peer, workshop: Workshop, marks: Sequence[int]) -> Reached:
    """What a program makes of the first cell of a workshop."""
    size = workshop.plan.cells[0].settings.size
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for kind, name in (("content", "c0"), ("style", "s0")):
            source = workshop.plan.input(kind, name).spec
            pixels = resize(read_source(source, workshop.plan.protocol.root).pixels, size, "crop")
            (place / f"{kind}.png").write_bytes(encode_png(pixels))
        return peer(workshop, place, marks)


def neural_style(path: Path, optimizer: str, workshop: Workshop, place: Path, marks: Sequence[int]) -> Reached:
    """neural-style-pt, by its own command line."""
    (cell,), device = workshop.plan.cells, workshop.device
    every = math.gcd(*marks)
    torch.save(caffe_state(), place / "vgg19-same.pth")
    command = [
        sys.executable, "-u", "neural_style.py", "-content_image", place / "content.png", "-style_image",
        place / "style.png", "-image_size", cell.settings.size[0], "-num_iterations", max(marks), "-model_file",
        place / "vgg19-same.pth", "-disable_check", "-pooling", "avg", "-tv_weight", 0, "-content_weight",
        SCALE * cell.ratio, "-style_weight", SCALE, "-print_iter", 1, "-save_iter", every, "-seed", 0,
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
    names = {mark: "out.png" if mark == max(marks) else f"out_{mark}.png" for mark in marks}
    return {mark: (times[mark - 1], read_file(place, name)) for mark, name in names.items()}


def multi_scale(path: Path, workshop: Workshop, place: Path, marks: Sequence[int]) -> Reached:
    """style-transfer-pytorch, by its Python interface, from half the size up, with its proportions of iterations."""
    (cell,) = workshop.plan.cells
    torch.save(caffe_state(), place / "same.pth")
    ask = json.dumps({"marks": list(marks), "ratio": cell.ratio, "size": cell.settings.size[0], "mean": CAFFE_MEAN})
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-c", MULTI_SCALE, ask]
    run = subprocess.run(command, cwd=place, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    times = [float(line.split()[1]) for line in run.stdout.splitlines() if line.startswith("seconds ")]
    return {mark: (taken, read_file(place, f"out_{mark}.png")) for mark, taken in zip(marks, times, strict=True)}


def read_file(place: Path, name: str) -> torch.Tensor:
    """An image file as values from 0 to 1, (1, 3, height, width)."""
    return torch.from_numpy(to_float(read_source(name, place).pixels))[None]


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

"""Public style-transfer programs, run from a local checkout beside stimkit."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from harness import PAIRS, Curve, Workshop, plan_of

from stimkit.images.pixels import resize
from stimkit.images.png import encode_png
from stimkit.images.reading import read_source
from stimkit.network.layers import convolutions
from stimkit.network.sources import load_weights

CAFFE_MEAN = (103.939, 116.779, 123.68)


def neural_style(path: Path, device: torch.device, size: int, evaluations: int) -> tuple[Workshop, Curve]:
    """Run neural-style-pt's `neural_style.py` on the first pair, with the same images, weights and losses.

    Its losses are those of the convention "mean" with weights 1/N², its network input is caffe's; the first
    convolution of the embedded weights is rewritten for that. Its loss weights are multiplied by 1e5: with
    small losses its L-BFGS stops at once. Also returns the workshop of the same problem for stimkit.
    """
    ratio, scale = 1e-4, 1e5
    plan = plan_of(PAIRS[:1], [ratio], size=size, max_evaluations=evaluations, loss="mean")
    workshop = Workshop(plan, device)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for kind, name in (("content", "c0"), ("style", "s0")):
            pixels = resize(read_source(plan.input(kind, name).spec, plan.protocol.root).pixels, (size, size), "crop")
            (place / f"{kind}.png").write_bytes(encode_png(pixels))
        torch.save(caffe_state(), place / "vgg19-embedded.pth")
        command = [
            sys.executable, "-u", "neural_style.py", "-content_image", place / "content.png", "-style_image",
            place / "style.png", "-image_size", size, "-num_iterations", evaluations, "-model_file",
            place / "vgg19-embedded.pth", "-disable_check", "-pooling", "avg", "-tv_weight", 0, "-content_weight",
            scale * ratio, "-style_weight", scale, "-print_iter", 1, "-save_iter", 0, "-seed", 0, "-output_image",
            place / "out.png", "-gpu", "c" if device.type == "cpu" else device.index or 0,
        ]  # fmt: skip
        process = subprocess.Popen([str(one) for one in command], cwd=path, stdout=subprocess.PIPE, text=True)
        began, times, losses = None, [], []
        assert process.stdout is not None
        for line in process.stdout:
            now = time.perf_counter()
            if line.startswith("Running optimization"):
                began = now
            if found := re.match(r"\s*Total loss: ([\d.e+-]+)", line):
                times.append(now - (began or now))
                losses.append(float(found[1]) / scale)
        if process.wait() != 0:
            raise SystemExit(f"{path} failed")
    return workshop, Curve(np.array(times), np.fmin.accumulate(np.array(losses)))


def caffe_state() -> dict[str, torch.Tensor]:
    """The embedded weights under torchvision's names, for images in BGR, 0 to 255, minus caffe's mean."""
    tensors = {name: torch.from_numpy(value) for name, value in load_weights("pca").tensors.items()}
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

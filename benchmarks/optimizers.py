"""Which optimizer makes the best file with as much work, on the bundled protocols and several kinds of weights."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import MODEL, PROTOCOLS, ROOT, Section, Workshop, table

import stimkit
from stimkit.network.layers import convolutions
from stimkit.network.weights import Weights, save_weights, tensor_digest
from stimkit.synthesis import lbfgs
from stimkit.synthesis import preconditioners as precondition

MARKS, SIZE = (40, 100), 64

# Settings of a protocol, or (in capitals) constants that are no settings.
VARIANTS: dict[str, dict[str, Any]] = {
    "stimkit's defaults": {},
    "one size": {"scales": 1},
    "history 10": {"history": 10},
    "history 30": {"history": 30},
    "spectrum 1/f^0.7": {"POWER": 0.7},
    "spectrum 1/f^1": {"POWER": 1.0},
    "rising steps are taken": {"GROWTH": 1e9},
    "first step 0.1": {"FIRST_STEP": 0.1},
    "first step 0.005": {"FIRST_STEP": 0.005},
    "initial contrast 0.5": {"init_contrast": 0.5},
    "no preconditioner": {"preconditioner": "none"},
    "values are free": {"image_range": "free"},
    "the plain method": {
        "scales": 1, "preconditioner": "none", "history": 100, "init_contrast": 1.0, "image_range": "free",
    },
    "Adam": {"optimizer": "adam"},
}  # fmt: skip


@contextmanager
def constants(variant: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Set the constants of a variant, and give the settings that are left."""
    defaults: dict[str, Any] = lbfgs.LBFGS.__init__.__kwdefaults__  # type: ignore[assignment]
    before = precondition.POWER, dict(defaults)
    precondition.POWER = variant.get("POWER", precondition.POWER)
    defaults |= {key.lower(): variant[key] for key in ("GROWTH", "FIRST_STEP") if key in variant}
    try:
        yield {key: value for key, value in variant.items() if key.islower()}
    finally:
        precondition.POWER = before[0]
        defaults.update(before[1])


def untrained(path: Path) -> None:
    """Weights of another kind: He's random initialization, which no photograph has touched."""
    rng = np.random.default_rng(0)
    tensors = {}
    for layer in convolutions("vgg19"):
        shape = (layer.channels, layer.in_channels, 3, 3)
        tensors[f"{layer.name}.weight"] = rng.normal(0, (2 / (9 * layer.in_channels)) ** 0.5, shape).astype(np.float32)
        tensors[f"{layer.name}.bias"] = np.zeros(layer.channels, np.float32)
    save_weights(Weights("he", tensors, "torchvision", tensor_digest(tensors)), path)


def file_loss(protocol: Path, network: str, settings: dict[str, Any], device: torch.device) -> float:
    """Total loss of the file of the last cell of a protocol."""
    document = tomllib.loads(protocol.read_text())
    document["images"]["root"] = str(ROOT / "data")
    document["model"] = {**document.get("model", {}), "weights": network}
    document["synthesis"] = {**document["synthesis"], "size": SIZE, "rtol": 0.0, **settings}
    plan = stimkit.plan(stimkit.Protocol.from_dict(document))
    return Workshop(plan, device).make([plan.main_cells[-1]])[0].stimulus.measured.total


def measure(device: torch.device, *, quick: bool) -> Section:
    protocols, marks = PROTOCOLS[: 1 if quick else None], MARKS[: 1 if quick else None]
    rows: list[list[str]] = []
    base: dict[tuple[str, str, int], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        untrained(Path(folder) / "he.safetensors")
        kinds = {"embedded": "pca", "untrained": str(Path(folder) / "he.safetensors")}
        if "weights" in MODEL:
            kinds = {"trained": MODEL["weights"], **kinds}
        for name, variant in VARIANTS.items():
            with constants(variant) as settings:
                found = {
                    (kind, protocol.stem, mark): file_loss(
                        protocol, network, {**settings, "max_evaluations": mark}, device
                    )
                    for kind, network in kinds.items()
                    for protocol in protocols
                    for mark in marks
                }
            base = base or found
            entries = []
            for kind in kinds:
                for mark in marks:
                    ratios = [found[key] / base[key] for key in found if (key[0], key[2]) == (kind, mark)]
                    entries.append(f"{np.exp(np.log(ratios).mean()):.2f}")
                entries.append(f"{max(ratios):.2f}")
            rows.append([name, *entries])
            print("optimizers", rows[-1], flush=True)
    header = ["variant"]
    for kind in kinds:
        header += [*(f"{kind}, {mark}" for mark in marks), "worst"]
    text = (
        f"Total loss of the file after the work of {' and '.join(map(str, marks))} evaluations, relative to the "
        f"defaults': geometric mean over the last cell of each of {len(protocols)} bundled protocols at {SIZE} px, and "
        "the worst cell at the last mark. Below 1 is better than the default. Untrained weights are He's random "
        "initialization.\n\n" + table(header, rows)
    )
    return Section("Optimizer", text)

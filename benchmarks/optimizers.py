"""Which optimizer reaches a loss with the fewest evaluations, on the bundled protocols and two kinds of weights."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import PROTOCOLS, ROOT, Section, Workshop, table

import stimkit
from stimkit.network.layers import convolutions
from stimkit.network.weights import Weights, save_weights, tensor_digest
from stimkit.synthesis import lbfgs
from stimkit.synthesis import preconditioners as precondition

EVALUATIONS, MARKS, CELLS, SIZE = 120, (40, 80, 120), 2, 64

# Settings of a protocol, or (in capitals) constants that are no settings.
VARIANTS: dict[str, dict[str, Any]] = {
    "stimkit's defaults": {},
    "history 20": {"history": 20},
    "history 100": {"history": 100},
    "spectrum 1/f^0.7": {"POWER": 0.7},
    "spectrum 1/f^1": {"POWER": 1.0},
    "rising steps are taken": {"GROWTH": 1e9},
    "first step 0.1": {"FIRST_STEP": 0.1},
    "initial contrast 0.5": {"init_contrast": 0.5},
    "no preconditioner, history 10": {"preconditioner": "none"},
    "no preconditioner, history 100": {"preconditioner": "none", "history": 100},
    "Adam": {"optimizer": "adam"},
}


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


def curves(
    protocol: Path, network: str, settings: dict[str, Any], device: torch.device, cells: int
) -> list[np.ndarray]:
    """Lowest total loss so far, relative to the first, of some cells of a protocol."""
    document = tomllib.loads(protocol.read_text())
    document["images"]["root"] = str(ROOT / "data")
    document["model"] = {**document.get("model", {}), "weights": network}
    document["synthesis"] = {
        **document["synthesis"], "size": SIZE, "max_evaluations": EVALUATIONS, "rtol": 0.0, **settings,
    }  # fmt: skip
    plan = stimkit.plan(stimkit.Protocol.from_dict(document))
    workshop = Workshop(plan, device)
    chosen = [plan.cells[index] for index in np.linspace(0, len(plan.cells) - 1, cells).round().astype(int)]
    found = []
    for cell in chosen:
        trace = workshop.batch([cell]).run()[0][0].trace[:, 2]
        lowest = np.fmin.accumulate(trace)
        found.append(np.pad(lowest, (0, EVALUATIONS - len(lowest)), mode="edge"))
    return found


def needed(curve: np.ndarray, goal: float) -> float:
    """Evaluations until a loss is reached; twice the limit where it is not."""
    reached = np.nonzero(curve <= goal)[0]
    return reached[0] + 1 if len(reached) else 2 * EVALUATIONS


def measure(device: torch.device, *, quick: bool) -> Section:
    protocols = PROTOCOLS[: 1 if quick else None]
    rows: list[list[str]] = []
    base: dict[tuple[str, str, int], np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        untrained(Path(folder) / "he.safetensors")
        kinds = {"embedded": "pca", "untrained": str(Path(folder) / "he.safetensors")}
        for name, variant in VARIANTS.items():
            with constants(variant) as settings:
                found = {
                    (kind, protocol.stem, index): curve
                    for kind, network in kinds.items()
                    for protocol in protocols
                    for index, curve in enumerate(curves(protocol, network, settings, device, 1 if quick else CELLS))
                }
            base = base or found
            entries = []
            for kind in kinds:
                for mark in MARKS:
                    ratios = [
                        needed(found[key], base[key][mark - 1]) / needed(base[key], base[key][mark - 1])
                        for key in found
                        if key[0] == kind
                    ]
                    entries.append(f"{np.exp(np.log(ratios).mean()):.2f}")
                entries.append(f"{max(ratios):.1f}")
            rows.append([name, *entries])
            print("optimizers", rows[-1], flush=True)
    header = ["variant"]
    for kind in kinds:
        header += [*(f"{kind}, to {mark}" for mark in MARKS), "worst"]
    text = (
        f"Evaluations to the total loss that the defaults have after {', '.join(map(str, MARKS))} evaluations, "
        f"relative to theirs: geometric mean over {CELLS} cells of each bundled protocol at {SIZE} px, and the worst "
        f"cell at the last mark; a loss that is not reached in {EVALUATIONS} counts as {2 * EVALUATIONS}. Below 1 is "
        "faster than the default. Runs of the same cell that differ by rounding alone differ by about a tenth here. "
        "Untrained weights are He's random initialization, rescaled to unit mean activation.\n\n" + table(header, rows)
    )
    return Section("Optimizer", text)

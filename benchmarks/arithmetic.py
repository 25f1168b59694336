"""What a precision costs and what it does to the losses; what deterministic algorithms cost."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import torch
from harness import MODEL, PAIRS, ROOT, Section, Workshop, plan_of, spread, table

import stimkit
from stimkit.errors import DeviceError
from stimkit.planning.crossing import plan as make_plan
from stimkit.synthesis.devices import check_precision, determinism

MAX_SECONDS = 400  # a precision that would take longer gets fewer cells


def quickstart(precision: str, device: torch.device, size: int | None = None) -> Workshop:
    """The cells of the quickstart in another precision, and of another size if one is given."""
    document = tomllib.loads((ROOT / "protocols/quickstart.toml").read_text())
    document["synthesis"] |= {"precision": precision} | ({"size": size} if size else {})
    document["model"] = document.get("model", {}) | MODEL
    return Workshop(make_plan(stimkit.Protocol.from_dict(document, base=ROOT / "protocols")), device)


def precision_row(precision: str, device: torch.device, exact: dict[str, float], *, quick: bool) -> list[object]:
    try:
        check_precision(precision, device)  # type: ignore[arg-type]
    except DeviceError:
        return [precision, "this device has none", "", 0]
    workshop = quickstart(precision, device)
    cells = workshop.plan.cells[:: 4 if quick else 3 if device.type == "cpu" else 1]
    evaluations = cells[0].settings.max_evaluations
    trial = Workshop(
        plan_of(PAIRS[:1], [1e-5], size=128, max_evaluations=3 if device.type == "cpu" else 60, precision=precision),
        device,
    )
    each = trial.batch(trial.plan.cells).seconds_per_evaluation()
    cells = cells[: max(1, int(MAX_SECONDS / (each * evaluations)))]
    times, ratios = [], []
    for cell in cells:
        key = f"{cell.content} {cell.style} {cell.levels['style_layers']}"
        batch = workshop.batch([cell])
        times.append(batch.seconds_per_evaluation())
        (result,), _ = batch.run()
        exact.setdefault(key, result.optimized.total)
        ratios.append(result.optimized.total / exact[key])
    return [precision, spread(times, 3), spread(ratios, 4), len(cells)]


def determinism_ratio(device: torch.device, rounds: int = 5) -> list[float]:
    evaluations = 12 if device.type == "cpu" else 60
    plan = plan_of(PAIRS[:1], [1e-6], size=224, max_evaluations=evaluations)
    batch = Workshop(plan, device).batch(plan.cells * (1 if device.type == "cpu" else 32))
    ratios = []
    for _ in range(rounds):
        times: dict[bool, float] = {}
        for on in (False, True):
            with determinism(on):
                times[on] = batch.seconds_per_evaluation()
        ratios.append(times[True] / times[False])
    return ratios


def same_bits(device: torch.device) -> bool:
    """Whether a batch that is run twice in deterministic mode gives the same bits."""
    plan = plan_of(PAIRS[:2], [1e-6], size=64, max_evaluations=40)
    images = []
    for _ in range(2):
        with determinism(True):
            results, _ = Workshop(plan, device).batch(plan.cells).run()
        images.append(np.stack([one.image for one in results]))
    first, second = images
    return bool(np.array_equal(first, second))


def graphs(device: torch.device) -> str:
    if device.type != "cuda":
        return "CUDA graphs: need a CUDA device."
    rows = []
    for count in (1, 8, 64):
        plan = plan_of(PAIRS[:1], [1e-6], size=224, max_evaluations=60, precision="bfloat16")
        batch = Workshop(plan, device).batch(plan.cells * count)
        replayed, eager = (batch.seconds_per_evaluation(graph=graph) for graph in (True, False))
        with determinism(True):
            one, other = (batch.run(graph=graph)[0][0].image for graph in (True, False))
        rows.append([count, f"{1e3 * eager:.2f}", f"{1e3 * replayed:.2f}", f"{np.abs(one - other).max():.1e}"])
    return "CUDA graphs (224 px, bfloat16):\n\n" + table(
        ["batch", "eager, ms", "replayed, ms", "largest difference of pixels (deterministic)"], rows
    )


def measure(device: torch.device, *, quick: bool) -> Section:
    exact: dict[str, float] = {}
    rows: list[Any] = []
    for precision in ("float64", "float32", "tf32", "bfloat16"):
        rows.append(precision_row(precision, device, exact, quick=quick))
        print("arithmetic", rows[-1], flush=True)
    ratios = determinism_ratio(device, 2 if quick else 5)
    same = same_bits(device)
    text = (
        "The quickstart's cells, each alone: seconds an evaluation, and the final total loss (re-evaluated in float32) "
        "relative to that of the float64 optimization; medians and ranges over cells. The optimization amplifies "
        "rounding: single cells differ by some percent either way.\n\n"
        + table(["precision", "s an evaluation", "final loss ÷ float64's", "cells"], rows)
        + f"\n\n`--deterministic`: time ÷ time without {spread(ratios)}; the same batch twice gives "
        f"{'the same bits' if same else 'DIFFERENT bits'}.\n\n{graphs(device)}"
    )
    return Section("Precision and determinism", text, {"deterministic mode is bit-identical": "yes" if same else "NO"})

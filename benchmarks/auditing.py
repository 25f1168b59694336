"""What it costs to check a set: files, statistics, losses, report."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import PAIRS, Section, plan_of, table, wait

import stimkit
from stimkit.auditing.audit import audit
from stimkit.auditing.evidence import read_evidence
from stimkit.auditing.losses import LossCheck
from stimkit.auditing.remeasurement import BATCH_PIXELS
from stimkit.auditing.verification import verify
from stimkit.images.pixels import to_float
from stimkit.images.reading import decode_image
from stimkit.images.statistics import measure_files
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import PlanInputs
from stimkit.reporting.report import report
from stimkit.stimuli.networks import Networks
from stimkit.synthesis.devices import network_arithmetic

SIZE, SET = 224, 1280  # pixels, stimuli of the set that times are projected to
ROUNDS = 3


def seconds(work: Callable[[], Any]) -> float:
    """Median seconds of a few rounds."""
    spans = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        spans.append(time.perf_counter() - began)
    return statistics.median(spans)


def forward(plan: Plan, paths: list[Path], device: torch.device) -> None:
    """The bare network on all files twice, as often as an audit of the losses needs it."""
    network = Networks(PlanInputs(plan), device).reference(plan.cells[0].settings)
    images = [to_float(decode_image(path.read_bytes(), path.name)) for path in paths]
    step = max(1, BATCH_PIXELS[device.type] // SIZE**2)
    with torch.no_grad(), network_arithmetic("float32"):
        for start in range(0, len(images), step):
            batch = torch.from_numpy(np.stack(images[start : start + step])).to(device)
            for _ in range(2):
                network.features(batch, plan.cells[0].layers)
    wait(device)


def measure(device: torch.device, *, quick: bool) -> Section:
    ratios = [10.0 ** -(4 + step / 10) for step in range(8 if quick else 64)]
    plan = plan_of(PAIRS[:1], ratios, size=SIZE, max_evaluations=1)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        stimkit.run(plan, run, device=str(device))
        return section(plan, run, device)


def section(plan: Plan, run: Path, device: torch.device) -> Section:
    opened = stimkit.open_run(run)
    paths = [run / "stimuli" / opened.filename(record) for record in opened.records.values()]
    stimuli = [(plan.by_id[one], read_evidence(opened, record, {})) for one, record in opened.records.items()]

    def decode_all() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda path: decode_image(path.read_bytes(), path.name), paths))

    def silent(done: int, total: int) -> None: ...

    def measure_losses() -> None:
        LossCheck(plan, PlanInputs(plan), device).measure(stimuli)

    spans = {
        "reading the files": seconds(lambda: [path.read_bytes() for path in run.rglob("*") if path.is_file()]),
        "`stimkit verify`": seconds(lambda: verify(run)),
        "decoding": seconds(decode_all),
        "image statistics": seconds(lambda: measure_files(paths, silent)),
        "bare network, two images a stimulus": seconds(lambda: forward(plan, paths, device)),
        "losses again": seconds(measure_losses),
        "`stimkit audit`": seconds(lambda: audit(run, device=str(device))),
        "`stimkit report --no-losses`": seconds(lambda: report(run, device=str(device), losses=False)),
    }
    rows = [[name, f"{span:.2f}", f"{span * SET / len(paths) / 60:.1f}"] for name, span in spans.items()]
    size = (run / "report.html").stat().st_size / 1e6
    text = (
        f"{len(paths)} stimuli of {SIZE} px, {ROUNDS} rounds each; with {os.cpu_count()} cores. The report has"
        f" {size:.1f} MB, 4.8 of them for its plotting library.\n\n"
        + table(["what", "seconds", f"minutes for {SET:,} (projected)"], rows)
    )
    network = spans["losses again"] / spans["bare network, two images a stimulus"]
    return Section("Audit", text, {"losses again ÷ bare network": f"{network:.2f}"})

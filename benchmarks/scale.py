"""Large sets: 1,280 stimuli, growth of time and memory, planning."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import tomllib

import numpy as np
import torch
from harness import HERE, PAIRS, PROTOCOLS, ROOT, Section, Workshop, plan_of, table

import stimkit
from stimkit.planning import cost
from stimkit.running.batching import choose_batch_size, group_cells
from stimkit.synthesis.minimization import COMPACT_BELOW

SET, SIZE, EVALUATIONS, MEASURED = 1280, 224, 500, 64
SET_GOAL = "1,280 cells, 224 px, 500 evaluations (< 5 minutes on an H200)"
RUN = ROOT / "runs" / "published-set"
# Both are run in processes of their own.
PLAN = """
import json, sys, time, stimkit
began = time.perf_counter()
plan = stimkit.plan(stimkit.Protocol.from_dict(json.loads(sys.argv[1])))
seconds = time.perf_counter() - began
assert "torch" not in sys.modules
from memory import peak_memory
print(len(plan.cells), seconds, peak_memory())
"""
ONE_CELL = """
import json, sys, stimkit, torch
from memory import peak_memory
stimkit.synthesize("skimage:chelsea", "skimage:coffee", ratio=0, content_layers=["conv2_1"], max_evaluations=12,
                   rtol=0.0, **json.loads(sys.argv[1]))
print(torch.cuda.max_memory_allocated() if sys.argv[2] == "cuda" else peak_memory())
"""


def in_process(code: str, *arguments: str) -> list[str]:
    """Run code in a new interpreter; return the words that it prints."""
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, cwd=HERE)
    return run.stdout.split()


def whole_set(device: torch.device, *, quick: bool) -> tuple[str, str]:
    """The cue-conflict set on a GPU: made, audited and reported, as a user does it."""
    cells, evaluations = (16, 20) if quick else (SET, EVALUATIONS)
    ratios = np.logspace(-7, -4, cells // len(PAIRS) ** 2).tolist()
    plan = plan_of(PAIRS, ratios, size=SIZE, max_evaluations=evaluations, precision="bfloat16", crossed=True)
    size = choose_batch_size(plan.cells[0].settings, "conv5_1", device)
    shutil.rmtree(RUN, ignore_errors=True)
    spans = {}
    for name, work in (
        ("run", lambda: stimkit.run(plan, RUN, device=str(device))),
        ("audit", lambda: stimkit.audit(RUN, device=str(device))),
        ("report", lambda: stimkit.report(RUN, device=str(device))),
    ):
        began = time.perf_counter()
        found = work()
        spans[name] = time.perf_counter() - began
        print("scale", name, f"{spans[name]:.1f} s", flush=True)
        if name == "audit":
            assert isinstance(found, stimkit.Audit) and not found.failed
    opened = stimkit.open_run(RUN)
    alone = sum(record.wall_time_s or 0 for record in opened.records.values())
    weight = sum(path.stat().st_size for path in RUN.rglob("*") if path.is_file())
    peak = torch.cuda.max_memory_allocated() / 1e9
    what = f"{len(plan.cells):,} cells of {SIZE} px, {evaluations} evaluations each, bfloat16, batches of {size}"
    text = (
        f"{what}: **{spans['run'] / 60:.1f} minutes** (measured, from the first image that is read to the last table; "
        f"{alone / 60:.1f} of them are the optimization). `stimkit audit` with all losses took {spans['audit']:.0f} s, "
        f"`stimkit report` {spans['report']:.0f} s. The run folder has {weight / 1e6:.0f} MB, its report "
        f"{(RUN / 'report.html').stat().st_size / 1e6:.1f} MB; at most {peak:.1f} GB of the GPU's memory were in use."
    )
    return text, f"{spans['run'] / 60:.1f} minutes (measured)"


def published_set(device: torch.device, *, quick: bool) -> tuple[str, str]:
    """The cue-conflict set, projected from a part of it."""
    cells, evaluations = 4 if quick else MEASURED, 6
    precision = "float32"
    ratios = [1e-5, 1e-6, 1e-7, 0]
    plan = plan_of(PAIRS, ratios, size=SIZE, max_evaluations=evaluations, precision=precision)
    workshop = Workshop(plan, device)
    chosen = (list(plan.cells) * (cells // len(plan.cells) + 1))[:cells]
    size = choose_batch_size(chosen[0].settings, "conv5_1", device)
    began, counted = time.perf_counter(), 0.0
    for start in range(0, len(chosen), size):
        results, _ = workshop.batch(chosen[start : start + size]).run()
        counted += sum(one.work for one in results)
    taken = time.perf_counter() - began
    total = taken / counted * SET * EVALUATIONS
    how = f"PROJECTED from {len(chosen)} cells with {evaluations} evaluations each ({taken:.0f} s)"
    words = f"{total / 60:.1f} minutes" if total < 7200 else f"{total / 3600:.1f} hours"
    what = f"1,280 cells of {SIZE} px, {EVALUATIONS} evaluations each, {precision}, batches of {size}"
    text = f"{what}: **{words}** ({how})."
    return text, f"{words} (projected)"


def batch_memory(device: torch.device) -> str:
    """Memory of batches on a GPU: what the model says, what tensors took, what torch kept."""
    rows = []
    for precision in ("float32", "bfloat16"):
        for size, count in ((128, 64), (224, 16), (224, 64), (224, 128), (512, 24)):
            plan = plan_of(PAIRS[:1], [0], size=size, max_evaluations=12, precision=precision)
            batch = Workshop(plan, device).batch(plan.cells * count)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            batch.run()
            peak, kept = (one() - before for one in (torch.cuda.max_memory_allocated, torch.cuda.max_memory_reserved))
            model = count * cost.cell_bytes("conv5_1", plan.cells[0].settings)
            rows.append([precision, size, count, *(f"{value / 1e9:.2f}" for value in (model, peak, kept))])
            print("memory", rows[-1], flush=True)
    header = ["precision", "px", "batch", "memory model, GB", "peak of tensors, GB", "peak that torch held, GB"]
    return "Memory of a batch, style layers conv1_1 … conv5_1:\n\n" + table(header, rows)


def growth(device: torch.device) -> str:
    """Memory and time of one evaluation over size and depth: what the model says, and what is measured."""
    rows = []
    for size in (128, 224, 256, 512):
        for layers in (["conv1_1", "conv2_1"], ["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"]):
            arguments = {"style_layers": layers, "size": size, "device": str(device)}
            (used,) = map(float, in_process(ONE_CELL, json.dumps(arguments), device.type))
            plan = plan_of(PAIRS[:1], [0], size=size, max_evaluations=8)
            cell = plan.cells[0]
            shared = cost.shared_bytes("cpu", layers[-1]) if device.type == "cpu" else 0
            model = shared + cost.cell_bytes(layers[-1], cell.settings)
            flops = cost.evaluation_flops(layers, layers, (size, size))
            rows.append([size, layers[-1], f"{flops / 1e9:.1f}", f"{used / 1e9:.2f}", f"{model / 1e9:.2f}"])
            print("growth", rows[-1], flush=True)
    return table(["px", "deepest layer", "GFLOP an evaluation", "peak memory, GB", "memory model, GB"], rows)


def planning() -> tuple[str, str]:
    rows = []
    for replicates in (1, 64, 512, 4096, 100_000):
        document = {
            "schema": 1, "name": "p", "images": {"root": str(ROOT / "data"), "content": {"cat": "skimage:chelsea"},
            "style": {"swirl": "styles/swirl.png"}}, "factors": {"ratio": [1e-6], "replicate": replicates},
        }  # fmt: skip
        count, taken, memory = in_process(PLAN, json.dumps(document))
        rows.append([count, f"{float(taken):.2f}", f"{float(memory) / 1e9:.2f}"])
        print("planning", rows[-1], flush=True)
    return table(["cells", "s", "peak memory, GB"], rows), f"{rows[-1][1]} s for {rows[-1][0]} cells, torch not loaded"


def occupancy(device: torch.device, *, quick: bool) -> str:
    """How much of a batch's work is done for cells that have stopped, with the bundled protocols' stop rules."""
    rows = []
    for path in PROTOCOLS[: 1 if quick else None]:
        text = path.read_text().replace('root = "../data"', f'root = "{ROOT / "data"}"')
        document = tomllib.loads(text)
        document["synthesis"] |= {"size": 64}
        plan = stimkit.plan(stimkit.Protocol.from_dict(document))
        cells = list(plan.cells)[:: max(1, len(plan.cells) // 6)]
        needed = computed = 0
        lengths: list[int] = []
        for group in group_cells(cells).values():
            batch = Workshop(plan, device).batch(group)
            results, _ = batch.run()
            counts = sorted(one.evaluations for one in results)
            lengths += counts
            needed += sum(counts)
            computed += compacted(counts)
        rows.append([path.stem, len(cells), f"{min(lengths)} – {max(lengths)}", f"{100 * (1 - needed / computed):.1f}"])
        print("occupancy", rows[-1], flush=True)
    return table(["protocol", "cells", "evaluations until they stopped", "% of rows computed for stopped cells"], rows)


def compacted(counts: list[int]) -> int:
    """Rows computed for cells that stop after `counts` evaluations, in one batch that is compacted."""
    rows, computed, evaluation = len(counts), 0, 0
    for done, count in enumerate(sorted(counts), 1):
        computed += rows * (count - evaluation)
        evaluation = count
        if len(counts) - done <= COMPACT_BELOW * rows:
            rows = len(counts) - done
    return computed


def measure(device: torch.device, *, quick: bool) -> Section:
    text, goal = (whole_set if device.type == "cuda" else published_set)(device, quick=quick)
    print("scale", text, flush=True)
    if device.type == "cuda":
        return Section("Large sets", "\n\n".join([text, batch_memory(device)]), {SET_GOAL: goal})
    plans, seconds = planning()
    parts = [text, "Planning:", plans]
    if not quick:
        parts += ["Memory of one cell in a process of its own:", growth(device)]
    parts += [
        "Cells of a batch stop at different times. The batch is made smaller once a quarter of its rows has stopped; "
        "what replacing stopped cells by pending ones could still gain is the last column:",
        occupancy(device, quick=quick),
    ]
    return Section(
        "Large sets",
        "\n\n".join(parts),
        {
            SET_GOAL: goal,
            "planning 100,000 cells takes seconds (any device)": seconds,
        },
    )

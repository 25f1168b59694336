"""Several processes: what a driver and workers cost, what two of them gain, and the memory of a driver."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from harness import HERE, ROOT, Section, table

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PLANNED = 100_000
# All run in processes of their own, with one thread for each that computes.
TIMED = """
import json, sys, tempfile, time
from pathlib import Path
import stimkit
from stimkit.running.clusters import local_workers
from stimkit.running.driver import run_on_cluster
from stimkit.running.session import RunOptions

if __name__ == "__main__":
    document, workers, batch, rounds = json.loads(sys.argv[1])
    plan = stimkit.plan(stimkit.Protocol.from_dict(document))
    first = stimkit.plan(stimkit.Protocol.from_dict({**document, "factors": {**document["factors"], "replicate": 2}}))
    with tempfile.TemporaryDirectory() as folder:
        def timed(go, plan, name):
            began = time.perf_counter()
            go(plan, Path(folder) / name)
            return time.perf_counter() - began
        if workers:
            with local_workers(["cpu"] * workers, threads=1) as (client, _):
                go = lambda plan, out: run_on_cluster(plan, out, client, RunOptions(device="cpu", batch_size=batch))
                timed(go, first, "warm")
                print(*[timed(go, plan, str(one)) for one in range(rounds)])
        else:
            go = lambda plan, out: stimkit.run(plan, out, device="cpu", batch_size=batch)
            timed(go, first, "warm")
            print(*[timed(go, plan, str(one)) for one in range(rounds)])
"""
DRIVER = """
import json, sys, tempfile, time
from pathlib import Path
import stimkit
from memory import peak_memory
from stimkit.errors import Interrupted
plan = stimkit.plan(stimkit.Protocol.from_dict(json.loads(sys.argv[1])))
planned = peak_memory()
from distributed import LocalCluster
from stimkit.running.clusters import scheduler_at
from stimkit.running.driver import run_on_cluster
from stimkit.running.session import RunOptions
if __name__ == "__main__":
    began = time.perf_counter()
    loaded = peak_memory()
    options = RunOptions(device="cpu", batch_size=16)
    started = None
    def stop(event):
        global started
        started = started or time.perf_counter()
        if time.perf_counter() - started > 10:
            raise Interrupted(15)
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        with scheduler_at(cluster.scheduler_address) as client, tempfile.TemporaryDirectory() as folder:
            try:
                run_on_cluster(plan, Path(folder) / "run", client, options, on_event=stop)
            except Interrupted:
                pass
    print(len(plan.cells), planned, loaded, peak_memory(), started - began)
"""


def document(size: int, evaluations: int, replicates: int) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "processes",
        "images": {
            "root": str(ROOT / "data"),
            "content": {"cat": "skimage:chelsea"},
            "style": {"swirl": "styles/swirl.png"},
        },
        "factors": {"ratio": [1e-6], "replicate": replicates},
        "synthesis": {"size": size, "max_evaluations": evaluations},
    }


def in_process(code: str, *arguments: str) -> list[float]:
    """Run code in a new interpreter with one thread; return the numbers that it prints last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.py"  # a file: worker processes import the main module
        path.write_text(code)
        run = subprocess.run(
            [sys.executable, str(path), *arguments], capture_output=True, text=True, check=True, cwd=HERE,
            env={**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": f"{HERE}:{ROOT}"},
        )  # fmt: skip
    return [float(word) for word in run.stdout.split("\n")[-2].split()]


def measure(device: torch.device, *, quick: bool) -> Section:
    rounds = 1 if quick else 3
    rows, medians = [], {}
    for name, size, evaluations, cells, batch in (("small", 48, 10, 16, 4), ("large", 96, 10, 8, 1)):
        request = document(size, evaluations, 4 if quick else cells)
        for workers in (0, 1, 2):
            times = in_process(TIMED, json.dumps([request, workers, batch, rounds]))
            medians[name, workers] = statistics.median(times)
            how = f"{workers} workers" if workers else "no driver"
            spread = f"{min(times):.2f} – {max(times):.2f}"
            rows.append(
                [f"{cells} of {size} px, {evaluations} evaluations", how, f"{medians[name, workers]:.2f}", spread]
            )
            print("processes", rows[-1], flush=True)
    overhead = (medians["small", 1] - medians["small", 0]) / (4 if quick else 16)
    gain = medians["large", 1] / medians["large", 2]
    replicates = 1000 if quick else PLANNED
    count, planned, loaded, peak, seconds = in_process(DRIVER, json.dumps(document(128, 50, replicates)))
    memory = (
        f"A driver of {count:,.0f} cells: {planned / 1e9:.2f} GB when it has planned, {loaded / 1e9:.2f} GB with torch"
        f" and Dask loaded, at most {peak / 1e9:.2f} GB while it gives work (10 s, no worker takes any);"
        f" {seconds:.0f} s from the plan to the first tasks (files of the run folder are written then)."
    )
    text = "\n\n".join(
        [
            "Each worker has one thread, as has the run without a driver; start of the processes not counted.",
            table(["cells", "", "s (median)", "s (range)"], rows),
            f"The driver costs {1000 * overhead:.0f} ms a cell (small cells, batches of 4, one worker); two workers"
            f" are {gain:.2f} × as fast as one (large cells).",
            memory,
        ]
    )
    return Section(
        "Several processes",
        text,
        {
            "overhead of driver and worker, a cell (on a CPU)": f"{1000 * overhead:.0f} ms",
            "two workers of one thread against one (on a CPU)": f"{gain:.2f} ×",
            "memory of a driver of 100,000 cells (on a CPU)": f"{peak / 1e9:.2f} GB",
        },
    )

"""What one evaluation costs beside the bare network, and how much memory a cell takes.

    python benchmarks/evaluation.py [--device auto] [--sizes 128 224 256] [--batches 1 4] [--write]

One evaluation is everything that synthesis does for it: preconditioner, network forward and backward, losses, the
L-BFGS step, stop rules, trace. The bare network is forward and backward to the image of the same network, in the same
process, the two in turn; the table gives medians and the range of the ratio over the rounds. `--write` replaces the
section of this device in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import stimkit
from stimkit import weights
from stimkit.batch import Targets, build_initial, build_objective
from stimkit.environment import device_name
from stimkit.images import fit, read_source, to_float
from stimkit.precision import choose_device
from stimkit.synthesis import synthesize_batch
from stimkit.vgg import VGG19

ROUNDS, SHORT, LONG = 7, 2, 6
RESULTS = Path(__file__).parent / "RESULTS.md"


def protocol(size: int, batch: int, evaluations: int) -> stimkit.Protocol:
    return stimkit.Protocol.from_dict(
        {
            "schema": 1,
            "name": "benchmark",
            "images": {"content": {"cat": "skimage:chelsea"}, "style": {"cup": "skimage:coffee"}},
            "factors": {"ratio": [1e-6], "replicate": batch},
            "synthesis": {"size": size, "max_evaluations": evaluations, "rtol": 0.0},
        }
    )


class Case:
    """A batch of cells of one size on one device."""

    def __init__(self, size: int, batch: int, device: torch.device) -> None:
        self.device = device
        self.plans = {count: stimkit.plan(protocol(size, batch, count)) for count in (SHORT, LONG)}
        self.network = VGG19(weights.load("pca"), device=device)
        cells = self.plans[LONG].cells
        targets = Targets(self.network, self._load)
        self.objective = build_objective(cells, targets, device)
        self.initial = build_initial(cells, targets, device)

    def _load(self, kind: str, name: str, size: tuple[int, int], how: str):
        return to_float(fit(read_source(self.plans[LONG].input(kind, name).spec, Path()).pixels, size, how))

    def _seconds(self, work) -> float:
        self._wait()
        began = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def bare(self) -> float:
        """Seconds of one forward and backward of the network alone."""
        image = self.initial.detach().requires_grad_()

        def work() -> None:
            deepest = self.network.features(image, ["conv5_1"])["conv5_1"]
            torch.autograd.grad(deepest, image, torch.ones_like(deepest))

        return self._seconds(work)

    def evaluation(self) -> float:
        """Seconds of one evaluation: the difference between a long and a short synthesis."""
        times = {}
        for count, plan in self.plans.items():
            settings = plan.cells[0].settings
            arguments = (self.network, self.network, self.objective, self.initial, settings)
            times[count] = self._seconds(lambda arguments=arguments: synthesize_batch(*arguments))
        return (times[LONG] - times[SHORT]) / (LONG - SHORT)


def measure(size: int, batch: int, device: torch.device) -> str:
    case = Case(size, batch, device)
    case.bare(), case.evaluation()
    rows = []
    for _ in range(ROUNDS):
        before, evaluation, after = case.bare(), case.evaluation(), case.bare()
        rows.append((evaluation, (before + after) / 2))
    ratios = [evaluation / bare for evaluation, bare in rows]
    evaluation, bare = (statistics.median(column) * 1e3 for column in zip(*rows, strict=True))
    return (
        f"| {size} | {batch} | {bare:.1f} | {evaluation:.1f} | **{statistics.median(ratios):.2f}** "
        f"| {min(ratios):.2f} – {max(ratios):.2f} |"
    )


def peak_memory(size: int, device: str) -> float:
    """Peak resident memory in GB of a process that makes one cell."""
    code = (
        f"import stimkit, resource; stimkit.synthesize('skimage:chelsea', 'skimage:coffee', ratio=1e-6, size={size},"
        f" max_evaluations=12, device={device!r}); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(run.stdout) * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 224, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    lines = [
        f"## One evaluation, {device_name(device)}",
        "",
        f"stimkit {stimkit.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} CPU threads, float32, style layers conv1_1 … conv5_1, medians of {ROUNDS} rounds.",
        "",
        "| px | batch | bare network, ms | evaluation, ms | evaluation ÷ bare | range |",
        "|---|---|---|---|---|---|",
    ]
    for size in arguments.sizes:
        for batch in arguments.batches:
            lines.append(measure(size, batch, device))
            print(lines[-1], flush=True)
    lines += ["", f"Peak resident memory for one 256 px cell: {peak_memory(256, str(device)):.2f} GB.", ""]
    if device.type == "cuda":
        lines[-2] += f" Peak GPU memory in this process: {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB."
    print("\n".join(lines))
    if arguments.write:
        replace_section("\n".join(lines))


def replace_section(section: str) -> None:
    """Put a section in the place of the one with the same heading, or at the end."""
    text = RESULTS.read_text() if RESULTS.exists() else "# Measured results\n"
    heading = section.splitlines()[0]
    parts = [part for part in text.split("\n## ") if f"## {part}".splitlines()[0] != heading]
    RESULTS.write_text("\n## ".join(parts).rstrip() + "\n\n" + section)


if __name__ == "__main__":
    main()

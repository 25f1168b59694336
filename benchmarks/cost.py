"""What one evaluation costs beside the bare network, and beside the arithmetic that the device can do."""

from __future__ import annotations

from functools import partial

import torch
from harness import PAIRS, STYLE_LAYERS, Section, Workshop, plan_of, seconds, spread, table

from stimkit.network.layers import Precision
from stimkit.planning import cost
from stimkit.synthesis.batch import Batch
from stimkit.synthesis.devices import network_arithmetic
from stimkit.synthesis.minimization import Minimization
from stimkit.synthesis.synthesis import loss_units
from stimkit.synthesis.synthesis import measure as measure_losses

ROUNDS = 5
HEADER = [
    "px", "batch", "precision", "ms a cell", "evaluation ÷ bare", "faster bare layout", "GFLOP/s", "matrix product",
    "% of it",
]  # fmt: skip
SIZES = {"cpu": (128, 224, 256, 512), "cuda": (224, 512)}
BATCHES = {"cpu": (1, 4), "cuda": (1, 8, 24, 128)}
FEW = (1, 24)  # batches in float32 on a GPU, where it takes several times as long as the other precisions
LARGEST = 128 * 224 * 224  # pixels of a batch on a GPU: beyond, feature maps have more than 2^31 elements
MATRIX = {"cpu": 3072, "cuda": 8192}
CPU_BATCH_PIXELS = 4 * 256 * 256


def bare(batch: Batch, layout: torch.memory_format) -> object:
    """Forward and backward of the network alone, by torch's own convolutions."""
    network = batch.network
    pool = torch.nn.functional.avg_pool2d
    x = batch.initial.detach().to(network.dtype).clone(memory_format=layout).requires_grad_()
    y = x
    with network_arithmetic(batch.settings.precision):
        for name, (weight, bias) in network._kernels.items():
            if name.endswith("_1") and name != "conv1_1":
                y = pool(y, 2)
            weight = weight[:, : y.shape[1]].contiguous(memory_format=layout)  # without channels of zeros
            y = torch.relu(torch.nn.functional.conv2d(y, weight, bias, padding=1))
            if name == "conv5_1":
                break
        return torch.autograd.grad(y, x, torch.ones_like(y))


def ceiling(device: torch.device, precision: Precision) -> float:
    """FLOP/s of a large matrix product at a precision."""
    n = MATRIX[device.type]
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    with network_arithmetic(precision):
        a @ b
        return 2 * n**3 / min(seconds(lambda: a @ b, device) for _ in range(5))


def row(size: int, count: int, precision: Precision, device: torch.device) -> tuple[list[str], float, float, float]:
    evaluations = 9 if device.type == "cpu" else 30
    plan = plan_of(PAIRS[:1], [1e-6], size=size, max_evaluations=evaluations, precision=precision)
    batch = Workshop(plan, device).batch(plan.cells * count)
    layouts = (torch.contiguous_format, torch.channels_last)
    for layout in layouts:
        bare(batch.batch, layout)
    flops = count * cost.evaluation_flops(STYLE_LAYERS, STYLE_LAYERS, (size, size))
    ratios, rates, own, tops, last = [], [], [], [], []
    rounds = ROUNDS if device.type == "cpu" else 3
    for _ in range(rounds):
        spans = [seconds(partial(bare, batch.batch, layout), device) for layout in layouts]
        alone = min(spans)
        last.append(spans[1] == alone)
        evaluation = batch.seconds_per_evaluation()
        ratios.append(evaluation / alone)
        rates.append(flops / evaluation)
        own.append(flops / alone)
        tops.append(ceiling(device, precision))
    share = [rate / top for rate, top in zip(rates, tops, strict=True)]
    middle = rounds // 2
    median = sorted(rates)[middle]
    cells = [
        str(size), str(count), precision, f"{1e3 * flops / median / count:.2f}", spread(ratios),
        "channels last" if sum(last) > middle else "channels first",
        f"{median / 1e9:.0f}", f"{max(tops) / 1e9:.0f}", spread([100 * one for one in share], 0),
    ]  # fmt: skip
    return cells, sorted(ratios)[middle], sorted(share)[middle], median / sorted(own)[middle]


def launches(device: torch.device) -> str:
    """What the profiler counts in one evaluation that is not replayed as a graph."""
    plan = plan_of(PAIRS[:1], [1e-6], size=224, max_evaluations=30, precision="bfloat16")
    batch = Workshop(plan, device).batch(plan.cells * 8).batch
    units = loss_units(measure_losses(batch.reference, batch.objective, batch.initial))
    search = Minimization(batch, units, graph=False)
    for _ in range(3):
        search.evaluate()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        search.evaluate()
    events = {one.key: one.count for one in profiler.key_averages()}
    kernels = sum(count for key, count in events.items() if "LaunchKernel" in key)
    waits = sum(count for key, count in events.items() if key in ("cudaStreamSynchronize", "cudaEventSynchronize"))
    copies = sum(count for key, count in events.items() if key.startswith("Memcpy") and "DtoD" not in key)
    return (
        f"One evaluation launches {kernels} kernels, waits {waits} times for the device and copies {copies} times "
        "between host and device (counted by the profiler, without a graph; a graph is one launch)."
    )


def measure(device: torch.device, *, quick: bool) -> Section:
    rows, best, shares, relative = [], [], [], []
    precisions: list[Precision] = ["float32"] if device.type == "cpu" else ["float32", "tf32", "bfloat16"]
    for precision in precisions:
        for size in SIZES[device.type][: 1 if quick else None]:
            largest = CPU_BATCH_PIXELS if device.type == "cpu" else LARGEST
            batches = FEW if device.type == "cuda" and precision == "float32" else BATCHES[device.type]
            for count in batches:
                if count * size * size > largest:
                    continue
                try:
                    cells, ratio, share, own = row(size, count, precision, device)
                except torch.OutOfMemoryError:
                    rows.append([str(size), str(count), precision, "does not fit", "", "", "", "", ""])
                    continue
                print("cost", cells, flush=True)
                rows.append(cells)
                best.append(ratio)
                shares.append(share)
                relative.append(own)
    text = (
        "One evaluation is preconditioner, network, losses, L-BFGS step, stop rules and trace. The bare network is "
        "forward and backward to the image by torch's own convolutions, in the faster of its two layouts, measured in "
        "turn with it. Rates count the arithmetic of direct convolutions, so that Winograd's can exceed the rate of "
        f"the matrix product. Style layers conv1_1 … conv5_1; medians (and ranges) of {ROUNDS} rounds (3 on a GPU).\n\n"
        + table(HEADER, rows)
    )
    if device.type == "cuda":
        text += "\n\n" + launches(device)
    first = "evaluation ÷ bare network (≤ 1.10 on a CPU, ≤ 1.25 on a GPU at the best batch)"
    goals = {first: f"{min(best):.2f} – {max(best):.2f}"}
    if device.type == "cpu":
        goals["share of the bare network's own rate on a CPU (≥ 90 %)"] = (
            f"{100 * min(relative):.0f} – {100 * max(relative):.0f} %"
        )
    else:
        goals["share of a large matrix product's rate on an H200 (≥ 50 %)"] = f"up to {100 * max(shares):.0f} %"
    return Section("One evaluation", text, goals)

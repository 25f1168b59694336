"""Time to the same loss: stimkit beside torch.optim.LBFGS as the literature uses it, and beside another program."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from harness import PAIRS, PLOTS, Curve, Section, Workshop, plan_of, spread, table, wait
from peers import neural_style
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from stimkit.network.layers import LAYERS, convolutions
from stimkit.network.vgg import preprocess
from stimkit.planning.cells import Cell, Plan
from stimkit.running.batching import choose_batch_size
from stimkit.synthesis.devices import network_arithmetic
from stimkit.synthesis.synthesis import measure as measure_losses

RATIOS = (0, 1e-6, 1e-5)
FILE_RATIOS = (1e-6, 1e-5)
COUNTS = {"bfloat16": (25, 50, 75, 100, 150, 200), "tf32": (25, 50, 100, 150), "float32": (50, 100)}
FILE_HEADER = ["precision", "plain's evaluations", "cells that reach it", "× sooner, all of them", "single cells"]
GOAL = "to the plain method's loss after 100 / 200 / 300 evaluations (≥ 5 × sooner on a CPU, ≥ 15 × on an H200)"
MARKS = (100, 200, 300)  # evaluations of the plain method whose losses are to be reached


def plain(
    workshop: Workshop, cell: Cell, evaluations: int, keep: Callable[[int, torch.Tensor], None] | None = None
) -> Curve:
    """The method of the literature: torch's modules, one cell, full-contrast noise, history 100, unit steps.

    `keep` is given the number of every evaluation and the image that it is of.
    """
    objective = workshop.batch([cell]).batch.objective
    device = workshop.device
    modules: list[nn.Module] = make_layers(cfgs["E"], batch_norm=False)[: LAYERS["conv5_1"].torchvision_index + 2]
    network = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(one, nn.MaxPool2d) else one for one in modules)).to(device)
    for layer in convolutions("vgg19"):
        if layer.torchvision_index < len(network):
            tensors = {
                kind: torch.from_numpy(workshop.weights.tensors[f"{layer.name}.{kind}"]) for kind in ("weight", "bias")
            }
            network[layer.torchvision_index].load_state_dict(tensors)
    for module in network:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    network.requires_grad_(False)
    wanted = {LAYERS[name].torchvision_index + 1: name for name in objective.layers}
    generator = torch.Generator().manual_seed(cell.seed % 2**31)
    image = torch.rand(1, 3, *cell.settings.size, generator=generator).to(device).requires_grad_()

    def total() -> torch.Tensor:
        x, found = preprocess(image, workshop.weights.preprocessing), {}
        for index, module in enumerate(network):
            x = module(x)
            if index in wanted:
                found[wanted[index]] = x
        loss = torch.zeros((), device=device)
        for at, (name, target) in enumerate(objective.content_targets.items()):
            loss = (
                loss + objective.alpha[0] * objective.content_weights[0, at] * (found[name] - target).square().sum() / 2
            )
        for at, (name, target) in enumerate(objective.style_targets.items()):
            flat = found[name].flatten(2)
            gram = torch.bmm(flat, flat.transpose(1, 2)) / flat.shape[2]
            loss = loss + objective.beta[0] * objective.style_weights[0, at] * (gram - target).square().mean() / 4
        return loss

    with torch.no_grad():
        scale = 1e5 / float(total())  # so that neither its first step nor its tolerances see a tiny loss
    optimizer = torch.optim.LBFGS(
        [image],
        lr=1,
        history_size=100,
        max_iter=evaluations,
        max_eval=evaluations,
        tolerance_grad=0,
        tolerance_change=0,
    )
    times, losses = [], []
    wait(device)
    began = time.perf_counter()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = scale * total()
        loss.backward()
        losses.append(float(loss.detach()) / scale)
        times.append(time.perf_counter() - began)
        if keep is not None:
            keep(len(losses), image.detach())
        return loss

    with network_arithmetic("float32" if device.type == "cpu" else "tf32"):  # as torch does without being told
        optimizer.step(closure)
    return Curve(np.array(times), np.fmin.accumulate(np.array(losses)))


def ours(workshop: Workshop, cells: list[Cell]) -> list[Curve]:
    """The same cells by stimkit, in batches; a cell's seconds are its share of the batch's."""
    size = choose_batch_size(cells[0].settings, "conv5_1", workshop.device)
    curves = []
    for start in range(0, len(cells), size):
        batch = workshop.batch(cells[start : start + size])
        results, clock = batch.run()
        at = np.interp(np.arange(1, len(results[0].trace) + 1), *np.array(clock).T)
        for result in results:
            curves.append(Curve(at[: len(result.trace)] / len(results), np.fmin.accumulate(result.trace[:, 2])))
    return curves


def compare(device: torch.device, size: int, evaluations: int, pairs: list[tuple[str, str]]) -> tuple[str, str]:
    """Race over pairs and ratios at one size: the text, and the gains of the whole set at the marks in words."""
    marks = marks_within(evaluations)
    plan = plan_of(pairs, RATIOS, size=size, max_evaluations=evaluations)
    workshop = Workshop(plan, device)
    mine = ours(workshop, list(plan.cells))
    rows: list[list[str]] = []
    speedups: dict[int, list[tuple[float, float]]] = {mark: [] for mark in marks}
    curves = []
    for cell, curve in zip(plan.cells, mine, strict=True):
        theirs = plain(workshop, cell, evaluations)
        curves.append((cell, theirs, curve))
        entries = []
        for mark in marks:
            goal = float(theirs.loss[mark - 1])
            gain = theirs.time_to(goal) / curve.time_to(goal)
            speedups[mark].append((theirs.time_to(goal), curve.time_to(goal)))
            entries.append(f"{gain:.1f}" if gain else "not reached")
        end = min(len(theirs.loss), len(curve.loss))
        rows.append([label(plan, cell), f"{theirs.loss[end - 1]:.4g}", f"{curve.loss[end - 1]:.4g}", *entries])
        print("race", size, rows[-1], flush=True)
    plot(plan, curves, size, device)
    gains = {}
    summary = []
    for mark in marks:
        both = np.array(speedups[mark])
        reached = both[np.isfinite(both[:, 1])]
        gains[mark] = reached[:, 0].sum() / reached[:, 1].sum()
        summary.append(
            f"to its loss after {mark} evaluations {gains[mark]:.1f} × sooner (all {len(reached)} of {len(both)} cells "
            f"that reach it; median of all {np.median(both[:, 0] / both[:, 1]):.1f} ×)"
        )
    header = ["cell", f"plain, {evaluations} evaluations", f"stimkit, {evaluations}"]
    header += [f"× sooner to plain's loss at {mark}" for mark in marks]
    text = (
        f"**{size} px**: {'; '.join(summary)}.\n\n{table(header, rows)}\n\n![curves](plots/{plot_name(size, device)})"
    )
    return text, " / ".join(f"{gain:.1f}" for gain in gains.values()) + f" × at {size} px"


def marks_within(evaluations: int) -> list[int]:
    return [mark for mark in MARKS if mark <= evaluations]


def label(plan: Plan, cell: Cell) -> str:
    """A cell in words."""
    names = [Path(plan.input(kind, getattr(cell, kind)).spec.split(":")[-1]).stem for kind in ("content", "style")]
    return f"{names[0]}, {names[1]}, {cell.ratio:g}"


def plot_name(size: int, device: torch.device) -> str:
    return f"race-{device.type}-{size}.png"


def plot(plan: Plan, curves: list[tuple[Cell, Curve, Curve]], size: int, device: torch.device) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = len(RATIOS)
    figure, axes = pyplot.subplots(
        len(curves) // columns, columns, figsize=(10, 2.2 * len(curves) // columns), squeeze=False
    )
    for axis, (cell, theirs, mine) in zip(axes.flat, curves, strict=True):
        axis.loglog(theirs.seconds, theirs.loss, color="0.6", label="torch.optim.LBFGS")
        axis.loglog(mine.seconds, mine.loss, color="C0", label="stimkit")
        axis.set_title(label(plan, cell), fontsize=8)
        axis.tick_params(labelsize=7, which="both")
    axes[0, 0].legend(fontsize=7)
    figure.supxlabel("seconds a cell", fontsize=8)
    figure.supylabel("total loss (float32)", fontsize=8)
    figure.tight_layout()
    PLOTS.mkdir(exist_ok=True)
    figure.savefig(PLOTS / plot_name(size, device), dpi=90)
    pyplot.close(figure)


def measure(device: torch.device, *, quick: bool, peer_path: Path | None) -> Section:
    if device.type == "cuda":
        return file_race(device, quick=quick)
    if quick:
        races = [compare(device, 64, 100, PAIRS[:1])]
    else:
        races = [compare(device, 128, 200, PAIRS), compare(device, 256, 200, PAIRS[:1])]
    texts = [text for text, _ in races]
    if peer_path is not None:
        size, evaluations = (64, 100) if quick else (128, 200)
        workshop, theirs = neural_style(peer_path, device, size, evaluations)
        (mine,) = ours(workshop, list(workshop.plan.cells))
        texts.append(beside(theirs, mine, size, marks_within(evaluations)))
    intro = (
        "The plain method is `torch.optim.LBFGS` with unit steps and a history of 100 on torch's own modules, one cell "
        "after the other, from full-contrast noise; both minimize the same total loss in float32. A speedup compares "
        "the seconds in which each first reaches the loss that the plain method has after so many evaluations."
    )
    return Section("Time to the same loss", "\n\n".join([intro, *texts]), {GOAL: "; ".join(gain for _, gain in races)})


def file_race(device: torch.device, *, quick: bool) -> Section:
    """64 cells on a GPU: the plain method one after the other, stimkit as one batch, by the losses of their files."""
    size, evaluations = (64, 100) if quick else (224, 300)
    marks = marks_within(evaluations)
    pairs, ratios = PAIRS[: 1 if quick else None], FILE_RATIOS[: 1 if quick else None]
    copies = 64 // (len(pairs) * len(ratios))
    plan = plan_of(pairs, ratios, size=size, max_evaluations=evaluations)
    workshop = Workshop(plan, device)
    theirs = [plain_files(workshop, cell, evaluations, marks) for cell in plan.cells]
    rows = []
    gains: dict[str, str] = {}
    for precision, counts in COUNTS.items():
        files = []
        for count in counts[: 1 if quick else None]:
            other = plan_of(pairs, ratios, size=size, max_evaluations=count, precision=precision)
            again = Workshop(other, device)
            again.make(other.cells[:1])  # loads and chooses what is loaded and chosen once in a process
            made = again.make(list(other.cells) * copies)[: len(other.cells)]
            files.append((count, made[0].synthesis.seconds, [one.stimulus.measured.total for one in made]))
        found = []
        for mark in marks:
            spans = [(one[mark][0], first_below(files, at, one[mark][1])) for at, one in enumerate(theirs)]
            reached = [(long, short) for long, short in spans if np.isfinite(short)]
            together = sum(long for long, _ in reached) / sum(short for _, short in reached) if reached else 0
            found.append(f"{together:.0f}")
            singly = spread([long / short for long, short in reached], 0) if reached else ""
            rows.append([precision, mark, f"{len(reached)} of {len(spans)}", found[-1], singly])
            print("race", rows[-1], flush=True)
        gains[precision] = " / ".join(found)
    counted = "; ".join(f"{precision}: {', '.join(map(str, counts))}" for precision, counts in COUNTS.items())
    text = (
        f"{len(plan.cells)} cells of {size} px. The plain method is `torch.optim.LBFGS` with unit steps and a history "
        "of 100 on torch's own modules, one cell after the other, from full-contrast noise. stimkit makes them in a "
        "batch of 64; a cell's seconds are its share of the batch's. Both are compared by the loss of the 8-bit image "
        "in float32: seconds until the plain method's file after so many evaluations, divided by those of the shortest "
        f"of stimkit's optimizations ({counted} evaluations) whose file is as good.\n\n" + table(FILE_HEADER, rows)
    )
    goal = "; ".join(f"{gain} × in {precision}" for precision, gain in gains.items())
    return Section("Time to the same loss", text, {GOAL: goal})


def plain_files(workshop: Workshop, cell: Cell, evaluations: int, marks: list[int]) -> dict[int, tuple[float, float]]:
    """Seconds and the loss of the file that the plain method has after so many evaluations."""
    images: dict[int, torch.Tensor] = {}

    def keep(number: int, image: torch.Tensor) -> None:
        if number in marks:
            images[number] = (image.clamp(0, 1) * 255).round() / 255

    seconds = plain(workshop, cell, evaluations, keep).seconds
    batch = workshop.batch([cell]).batch
    return {
        mark: (float(seconds[mark - 1]), measure_losses(batch.reference, batch.objective, image)[0].total)
        for mark, image in images.items()
    }


def first_below(files: list[tuple[int, float, list[float]]], at: int, loss: float) -> float:
    """Seconds of the shortest optimization whose file of a cell is as good; infinite where none is."""
    return next((seconds for _, seconds, losses in files if losses[at] <= loss), float("inf"))


def beside(theirs: Curve, mine: Curve, size: int, marks: list[int]) -> str:
    """The table of another program's curve and ours."""
    goals = [float(theirs.loss[mark - 1]) for mark in marks]
    rows = [
        [name, f"{curve.seconds[-1] / len(curve.loss):.3f}", f"{curve.loss[0]:.4g}"]
        + [f"{curve.time_to(goal):.1f}" for goal in goals]
        for name, curve in (("neural-style-pt", theirs), ("stimkit", mine))
    ]
    rows.append(["× sooner", "", "", *(f"{theirs.time_to(goal) / mine.time_to(goal):.1f}" for goal in goals)])
    header = ["program", "s an evaluation", "first loss", *(f"s to its loss at {mark}" for mark in marks)]
    return (
        f"**Beside neural-style-pt** ({size} px, chelsea and swirl, convention mean; it starts from its own faint "
        "noise, its loss weights times 1e5; seconds from the start of its optimization):\n\n" + table(header, rows)
    )

"""Time to the same loss: stimkit beside torch.optim.LBFGS as the literature uses it, and beside another program."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from harness import PAIRS, PLOTS, Curve, Section, Workshop, plan_of, table, wait
from peers import neural_style
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from stimkit.network.layers import CONVOLUTIONS, LAYERS
from stimkit.network.sources import load_weights
from stimkit.planning.cells import Cell, Plan
from stimkit.running.batching import choose_batch_size
from stimkit.synthesis.devices import network_arithmetic

RATIOS = (0, 1e-6, 1e-5)
MARKS = (100, 200, 300)  # evaluations of the plain method whose losses are to be reached


def plain(workshop: Workshop, cell: Cell, evaluations: int) -> Curve:
    """The method of the literature: torch's modules, one cell, full-contrast noise, history 100, unit steps."""
    objective = workshop.batch([cell]).batch.objective
    device = workshop.device
    modules: list[nn.Module] = make_layers(cfgs["E"], batch_norm=False)[: LAYERS["conv5_1"].torchvision_index + 2]
    network = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(one, nn.MaxPool2d) else one for one in modules)).to(device)
    source = load_weights("pca").tensors
    for layer in CONVOLUTIONS:
        if layer.torchvision_index < len(network):
            tensors = {kind: torch.from_numpy(source[f"{layer.name}.{kind}"]) for kind in ("weight", "bias")}
            network[layer.torchvision_index].load_state_dict(tensors)
    for module in network:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    network.requires_grad_(False)
    wanted = {LAYERS[name].torchvision_index + 1: name for name in objective.layers}
    mean, std = (
        torch.tensor(one, device=device)[:, None, None] for one in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    generator = torch.Generator().manual_seed(cell.seed % 2**31)
    image = torch.rand(1, 3, *cell.settings.size, generator=generator).to(device).requires_grad_()

    def total() -> torch.Tensor:
        x, found = (image - mean) / std, {}
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
        return loss

    with network_arithmetic("float32"):
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


def set_size(device: torch.device) -> int:
    """Cells of the race: 12 (pairs × ratios) once on a CPU; 64 and more on a GPU, where they share batches."""
    return 1 if device.type == "cpu" else 6


def compare(device: torch.device, size: int, evaluations: int, pairs: list[tuple[str, str]]) -> tuple[str, str]:
    """Race over pairs and ratios at one size: the text, and the gains of the whole set at the marks in words."""
    marks = marks_within(evaluations)
    plan = plan_of(pairs, RATIOS, size=size, max_evaluations=evaluations)
    workshop = Workshop(plan, device)
    workshop.batch(plan.cells[:1]).run() if device.type == "cuda" else None
    cells = list(plan.cells) * set_size(device)
    mine = ours(workshop, cells)[: len(plan.cells)]
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
    if quick:
        races = [compare(device, 64, 100, PAIRS[:1])]
    elif device.type == "cpu":
        races = [compare(device, 128, 200, PAIRS), compare(device, 256, 200, PAIRS[:1])]
    else:
        races = [compare(device, 224, 300, PAIRS)]
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
    goal = "to the plain method's loss after 100 / 200 / 300 evaluations (≥ 5 × sooner on a CPU, ≥ 15 × on an H200)"
    return Section("Time to the same loss", "\n\n".join([intro, *texts]), {goal: "; ".join(gain for _, gain in races)})


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

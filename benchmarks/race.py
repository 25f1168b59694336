"""Time to a file that is as good: stimkit beside torch.optim.LBFGS as the literature uses it, and another program."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from harness import MODEL, PAIRS, Section, Workshop, plan_of, table, wait
from peers import peers, same_problem, solve
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from stimkit.network.layers import LAYERS, convolutions
from stimkit.network.vgg import preprocess
from stimkit.planning.cells import Cell, Plan
from stimkit.running.batching import choose_batch_size
from stimkit.stimuli.stimulus import Made
from stimkit.synthesis.devices import network_arithmetic
from stimkit.synthesis.synthesis import measure as measure_losses

RATIOS = (1e-7, 1e-6, 1e-5)
MARKS = (100, 200)  # evaluations of the plain method whose losses are to be reached
PEER_MARKS = (200, 500)
PEER_RATIOS = {True: (1e-4, 1e-3), False: (1e-5, 1e-4)}
"""By whether the filters are a file: those of the embedded ones weigh content ten times as much."""
COUNTS = (10, 15, 20, 30, 40, 60, 80, 120, 200)  # evaluations of stimkit's optimizations that are tried
CLOSE = 0.1  # how closely the smallest number that is enough is sought between these, relative to it
PRECISIONS = {"cpu": ("float32",), "cuda": ("bfloat16", "tf32")}
ON_A_GPU = 64  # cells of a batch
GOAL = (
    "to the plain method's loss / file after 200 evaluations (≥ 4 × / ≥ 10 × sooner on a CPU, ≥ 15 × to its file on an"
    " H200)"
)
PLAIN = (
    "The plain method is `torch.optim.LBFGS` with unit steps and a history of 100 on torch's own modules, one cell "
    "after the other, from full-contrast noise; both minimize the same total loss. stimkit's cells are optimized "
    f"anew with {', '.join(map(str, COUNTS))} evaluations at most, and between these: compared are the seconds of the "
    "shortest optimization whose 8-bit file is as good as the plain method's image, before it is clipped and rounded "
    "(loss) or after (file). On a GPU stimkit makes 64 cells at once, and a cell's seconds are its share."
)
PEERS = (
    "Convention mean, filters not rescaled, the same images and filters; seconds from the start of a program's "
    "optimization, and the loss of its 8-bit file. neural-style-pt is run by its own command line, from its own faint "
    "noise, its loss weights times 1e5. Of style-transfer-pytorch the losses are replaced by these, so that what is "
    "compared is how it optimizes: from the photograph at half the size up in steps of √2, with a running mean of its "
    "images; evaluations are counted over all sizes, in its proportions."
)
PEER_GOAL = "to a peer's file after 200 / 500 evaluations (≥ 5 × sooner on a CPU)"


@dataclass(frozen=True)
class Mark:
    """Another program after some evaluations."""

    seconds: float
    optimized: float
    """Its total loss; infinite where it is not known."""
    file: float
    """That of its 8-bit image."""


@dataclass(frozen=True)
class File:
    """What an optimization of stimkit gave: seconds of a cell, and the loss of its file."""

    evaluations: int
    seconds: float
    loss: float


def plain(workshop: Workshop, cell: Cell, marks: Sequence[int]) -> list[tuple[float, torch.Tensor]]:
    """The method of the literature: torch's modules, one cell, full-contrast noise, history 100, unit steps.

    The seconds until each of some evaluations, and the image (1, 3, height, width) that it is of.
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
        max_iter=max(marks),
        max_eval=max(marks),
        tolerance_grad=0,
        tolerance_change=0,
    )
    counted, reached = 0, {}
    wait(device)
    began = time.perf_counter()

    def closure() -> torch.Tensor:
        nonlocal counted
        optimizer.zero_grad()
        loss = scale * total()
        loss.backward()
        wait(device)
        counted += 1
        if counted in marks:
            reached[counted] = (time.perf_counter() - began, image.detach().clone())
        return loss

    with network_arithmetic("float32" if device.type == "cpu" else "tf32"):  # as torch does without being told
        optimizer.step(closure)
    return [reached[mark] for mark in marks]


def plain_marks(workshop: Workshop, cell: Cell, marks: Sequence[int]) -> list[Mark]:
    """The plain method at its marks, by losses that are measured as stimkit's are."""
    return [
        Mark(seconds, loss_of(workshop, cell, image), loss_of_file(workshop, cell, image))
        for seconds, image in plain(workshop, cell, marks)
    ]


def loss_of(workshop: Workshop, cell: Cell, image: torch.Tensor) -> float:
    """Total loss of an image (1, 3, height, width)."""
    batch = workshop.batch([cell]).batch
    return measure_losses(batch.reference, batch.objective, image)[0].total


def loss_of_file(workshop: Workshop, cell: Cell, image: torch.Tensor) -> float:
    """Total loss of an image as a file of 8 bits holds it."""
    return loss_of(workshop, cell, (image.clamp(0, 1) * 255).round() / 255)


def ours(device: torch.device, goals: list[float], make: Callable[..., Plan]) -> list[list[File]]:
    """Optimizations of each cell of a plan, with more and more evaluations until its file is as good as its goal.

    `make` gives the plan for a largest number of evaluations.
    """
    found: list[list[File]] = [[] for _ in goals]
    first = make(max_evaluations=2)
    Workshop(first, device).make(first.cells[:1])  # what is loaded and chosen once in a process; the rest is not timed

    def attempt(count: int, left: list[int]) -> None:
        plan = make(max_evaluations=count)
        workshop = Workshop(plan, device)
        for at, one in zip(left, in_batches(workshop, [plan.cells[at] for at in left]), strict=True):
            found[at].append(File(count, one.synthesis.seconds, one.stimulus.measured.total))
        words = [f"{files[-1].loss / goal:.2f}" for files, goal in zip(found, goals, strict=True)]
        print("race", count, words, flush=True)

    for count in COUNTS:
        if left := [at for at, files in enumerate(found) if not files or files[-1].loss > goals[at]]:
            attempt(count, left)
    for at, files in enumerate(found):
        few, enough = [0, *COUNTS][COUNTS.index(files[-1].evaluations)], files[-1].evaluations
        while files[0].loss > goals[at] and best(files, goals[at]) and enough - few > max(1, CLOSE * enough):
            middle = (few + enough) // 2
            attempt(middle, [at])
            few, enough = (few, middle) if files[-1].loss <= goals[at] else (middle, enough)
        files.sort(key=lambda one: one.evaluations)
    return found


def in_batches(workshop: Workshop, cells: list[Cell]) -> list[Made]:
    """Make cells in batches that suit the device: on a GPU all of them, again and again, as one large one."""
    if workshop.device.type == "cuda":
        return workshop.make(cells * (ON_A_GPU // len(cells)))[: len(cells)]
    size = choose_batch_size(cells[0].settings, "conv5_1", workshop.device)
    return [one for start in range(0, len(cells), size) for one in workshop.make(cells[start : start + size])]


def best(files: list[File], loss: float) -> File | None:
    """The first file that is as good."""
    return next((file for file in files if file.loss <= loss), None)


def gain(seconds: float, files: list[File], loss: float) -> float:
    """How many times sooner a file is as good; 0 where none is."""
    return seconds / file.seconds if (file := best(files, loss)) else 0.0


def compare(device: torch.device, size: int, pairs: list[tuple[str, str]], marks: Sequence[int]) -> tuple[str, str]:
    """Race over pairs and ratios at one size: the text, and the medians at the last mark in words."""
    plan = plan_of(pairs, RATIOS, size=size, max_evaluations=max(marks))
    workshop = Workshop(plan, device)
    theirs = [plain_marks(workshop, cell, marks) for cell in plan.cells]
    texts: list[str] = []
    words: list[str] = []
    for precision in PRECISIONS[device.type]:
        goals = [one[-1].optimized for one in theirs]
        files = ours(device, goals, partial(plan_of, pairs, RATIOS, size=size, precision=precision))
        rows, gains = [], []
        for cell, other, mine in zip(plan.cells, theirs, files, strict=True):
            both = [(gain(one.seconds, mine, one.optimized), gain(one.seconds, mine, one.file)) for one in other]
            gains.append(both)
            as_good = best(mine, other[-1].optimized) or mine[-1]
            losses = [f"{other[-1].optimized:.4g}", f"{other[-1].file:.4g}", f"{as_good.loss:.4g}"]
            shown = [in_words(value) for pair in both for value in pair]
            rows.append([label(plan, cell), *losses, as_good.evaluations, *shown])
            print("race", size, precision, rows[-1], flush=True)
        medians = np.median(np.array(gains), axis=0)
        header = ["cell", f"plain after {max(marks)}", "its file", "stimkit's file", "evaluations"]
        header += [f"× to plain's {what} at {mark}" for mark in marks for what in ("loss", "file")]
        shown = ["median", "", "", "", "", *map(in_words, medians.flatten())]
        texts.append(f"In {precision}:\n\n{table(header, [*rows, shown])}")
        words.append(f"{' / '.join(map(in_words, medians[-1]))} × in {precision}")
    return "\n\n".join(texts), "; ".join(words)


def in_words(value: float) -> str:
    return f"{value:.1f}" if value else "not reached"


def label(plan: Plan, cell: Cell) -> str:
    """A cell in words."""
    names = [Path(plan.input(kind, getattr(cell, kind)).spec.split(":")[-1]).stem for kind in ("content", "style")]
    return f"{names[0]}, {names[1]}, {cell.ratio:g}"


def beside(
    paths: Sequence[Path], device: torch.device, size: int, pairs: list[tuple[str, str]], marks: Sequence[int]
) -> tuple[str, str]:
    """stimkit beside other programs, with each of their optimizers, by their own files; also the medians in words."""
    texts, words = [], []
    problems = [(pair, ratio) for pair in pairs for ratio in PEER_RATIOS["weights" in MODEL]]
    for name, peer in (both for path in paths for both in peers(path).items()):
        rows, gains = [], []
        for pair, ratio in problems:
            workshop = Workshop(same_problem(pair, size, ratio, max_evaluations=max(marks)), device)
            (cell,) = workshop.plan.cells
            theirs = [
                Mark(seconds, np.inf, loss_of_file(workshop, cell, image.to(device)))
                for seconds, image in solve(peer, workshop, marks).values()
            ]
            (mine,) = ours(device, [min(one.file for one in theirs)], partial(same_problem, pair, size, ratio))
            gains.append([gain(one.seconds, mine, one.file) for one in theirs])
            as_good = best(mine, theirs[-1].file) or mine[-1]
            losses = [f"{theirs[-1].file:.4g}", f"{as_good.loss:.4g}", as_good.evaluations]
            rows.append([label(workshop.plan, cell), *losses, *map(in_words, gains[-1])])
            print("peer", name, rows[-1], flush=True)
        medians = [in_words(value) for value in np.median(np.array(gains), axis=0)]
        header = ["cell", f"its file after {max(marks)}", "stimkit's file", "evaluations"]
        header += [f"× to its file after {mark}" for mark in marks]
        texts.append(f"**{name}**:\n\n{table(header, [*rows, ['median', '', '', '', *medians]])}")
        words.append(f"{name}: {' / '.join(medians)} ×")
    return "\n\n".join(texts), "; ".join(words)


def measure(device: torch.device, *, quick: bool, peer_paths: Sequence[Path]) -> Iterator[Section]:
    """A section for each size, and one for the other program: each takes long on a CPU."""
    marks = (20, 40) if quick else MARKS
    for size, pairs in [(64, PAIRS[:1])] if quick else [(128, PAIRS[:2]), (256, PAIRS[:2])]:
        text, words = compare(device, size, pairs, marks)
        yield Section(f"Time to a file that is as good, {size} px", f"{PLAIN}\n\n{text}", {f"{size} px, {GOAL}": words})
    if peer_paths:
        size, pairs, marks = (64, PAIRS[:1], marks) if quick else (128, PAIRS[:3], PEER_MARKS)
        text, words = beside(peer_paths, device, size, pairs, marks)
        yield Section(f"Time to another program's file, {size} px", f"{PEERS}\n\n{text}", {PEER_GOAL: words})

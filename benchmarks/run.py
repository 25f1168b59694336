"""Measure everything that stimkit claims about speed, in one call, and write it to benchmarks/RESULTS.md.

    pip install -e '.[plot]'
    python benchmarks/run.py [--device auto] [--only cost race …] [--peer PATH …] [--quick]

`--peer` is a checkout of neural-style-pt or style-transfer-pytorch (or each of them, with two options), which is run on
the same images and weights; what it needs has to be installed. `--weights` measures with a file of filters instead of
the embedded ones. `--quick` shows that everything runs, and keeps nothing. Everything takes some hours on a CPU and
some minutes on an H200; `--only` does it in parts. Results of each kind of device are kept apart: a CPU and a GPU fill
the same page one after the other.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import arithmetic
import auditing
import cost
import equality
import optimizers
import processes
import race
import scale
import torch
from harness import HERE, MODEL, Section, store

from stimkit.synthesis.devices import choose_device

# The order is that of importance: on a machine that is lent for a time, the first ones are there when it ends.
PARTS: dict[str, Callable[..., Section | Iterator[Section]]] = {
    "cost": cost.measure,
    "race": race.measure,
    "scale": scale.measure,
    "arithmetic": arithmetic.measure,
    "equality": equality.measure,
    "optimizers": optimizers.measure,
    "audit": auditing.measure,
    "processes": processes.measure,
}
CPU_ONLY = {"optimizers", "processes"}  # what says the same of any device, or is about processors
KINDS = {"cpu": "CPU", "cuda": "GPU"}
INTRODUCTION = """# Measured results

Written by `python benchmarks/run.py`; do not edit. Machines are shared and their clocks vary: compare ratios, which
were measured side by side in one run, and not seconds between tables. A GPU's numbers come from the same script, run
where there is one.
"""


def page(results: dict[str, dict[str, Any]]) -> str:
    """RESULTS.md: the goals first, then every section of every kind of device."""
    goals = list(dict.fromkeys(goal for kind in results.values() for one in kind.values() for goal in one["goals"]))
    lines = [INTRODUCTION, "| goal | " + " | ".join(KINDS.values()) + " |", "|---" * (1 + len(KINDS)) + "|"]
    for goal in goals:
        entries = [
            next(
                (one["goals"][goal] for one in results.get(kind, {}).values() if goal in one["goals"]),
                missing(kind, goal),
            )
            for kind in KINDS
        ]
        lines.append(f"| {goal} | " + " | ".join(entries) + " |")
    for kind, name in KINDS.items():
        for title, one in results.get(kind, {}).items():
            lines += ["", f"## {title}, {name}", "", f"{one['hardware']}; {one['date']}.", "", one["text"]]
        if not results.get(kind):
            lines += [
                "",
                f"## {name}",
                "",
                f"Not measured yet: `python benchmarks/run.py --device {kind}` needs such a device.",
            ]
    return "\n".join(lines) + "\n"


def missing(kind: str, goal: str) -> str:
    elsewhere = "any device" in goal or "on a CPU" in goal.split("(")[0] or goal.endswith("(on a CPU)")
    return "not measured yet: needs a GPU" if kind == "cuda" and not elsewhere else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peer", type=Path, action="append", default=[])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(PARTS))
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    if arguments.weights:
        MODEL["weights"] = str(arguments.weights.resolve())
    for name, measure in PARTS.items():
        if (arguments.only and name not in arguments.only) or (device.type != "cpu" and name in CPU_ONLY):
            continue
        extra = {"peer_paths": [path.resolve() for path in arguments.peer]} if name == "race" else {}
        found = measure(device, quick=arguments.quick, **extra)
        for section in [found] if isinstance(found, Section) else found:
            keep(named(section, arguments.weights), device, quick=arguments.quick)


def named(section: Section, weights: Path | None) -> Section:
    """A section whose title and goals say which filters were measured."""
    if weights is None:
        return section
    goals = {f"{goal}, {weights.stem}": value for goal, value in section.goals.items()}
    return replace(section, title=f"{section.title}, {weights.stem}", goals=goals)


def keep(section: Section, device: torch.device, *, quick: bool) -> None:
    """Print a section, and keep it in results.json and RESULTS.md."""
    print(f"\n## {section.title}\n\n{section.text}\n", flush=True)
    if not quick:
        store(device.type, device, section)
        (HERE / "RESULTS.md").write_text(page(json.loads((HERE / "results.json").read_text())))


if __name__ == "__main__":
    main()

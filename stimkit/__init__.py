"""stimkit: controlled stimulus sets for perception experiments, by neural style transfer.

    protocol = stimkit.Protocol.load("protocols/quickstart.toml")
    plan = stimkit.plan(protocol)
    stimkit.run(plan, "runs/quickstart")
    results = stimkit.open_run("runs/quickstart")

Names are imported when they are first used, so that `import stimkit` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stimkit.version import __version__

if TYPE_CHECKING:
    from stimkit.errors import StimkitError
    from stimkit.planning.cells import Cell, Plan
    from stimkit.planning.crossing import plan
    from stimkit.protocol.protocol import Protocol
    from stimkit.runfolder.results import Results, open_run
    from stimkit.running.events import RunSummary
    from stimkit.running.runner import run
    from stimkit.stimuli.single import synthesize
    from stimkit.synthesis.synthesis import Synthesis

__all__ = [
    "Cell",
    "Plan",
    "Protocol",
    "Results",
    "RunSummary",
    "StimkitError",
    "Synthesis",
    "__version__",
    "open_run",
    "plan",
    "run",
    "synthesize",
]

_HOMES = {
    "errors": ("StimkitError",),
    "planning.cells": ("Cell", "Plan"),
    "planning.crossing": ("plan",),
    "protocol.protocol": ("Protocol",),
    "runfolder.results": ("Results", "open_run"),
    "running.events": ("RunSummary",),
    "running.runner": ("run",),
    "stimuli.single": ("synthesize",),
    "synthesis.synthesis": ("Synthesis",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'stimkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stimkit.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value

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

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stimkit.cells import Cell as Cell
    from stimkit.cells import Plan as Plan
    from stimkit.errors import StimkitError as StimkitError
    from stimkit.planning import plan as plan
    from stimkit.protocol import Protocol as Protocol
    from stimkit.results import Results as Results
    from stimkit.results import open_run as open_run
    from stimkit.runner import RunSummary as RunSummary
    from stimkit.runner import run as run
    from stimkit.single import synthesize as synthesize
    from stimkit.synthesis import Synthesis as Synthesis

_HOME = {
    "Cell": "cells",
    "Plan": "cells",
    "Protocol": "protocol",
    "Results": "results",
    "RunSummary": "runner",
    "StimkitError": "errors",
    "Synthesis": "synthesis",
    "open_run": "results",
    "plan": "planning",
    "run": "runner",
    "synthesize": "single",
}
__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stimkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stimkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value

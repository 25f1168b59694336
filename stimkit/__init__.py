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
    from stimkit.errors import StimkitError as StimkitError
    from stimkit.planning.cells import Cell as Cell
    from stimkit.planning.cells import Plan as Plan
    from stimkit.planning.crossing import plan as plan
    from stimkit.protocol.protocol import Protocol as Protocol
    from stimkit.runfolder.results import Results as Results
    from stimkit.runfolder.results import open_run as open_run
    from stimkit.running.runner import RunSummary as RunSummary
    from stimkit.running.runner import run as run
    from stimkit.stimuli.single import synthesize as synthesize
    from stimkit.synthesis.synthesis import Synthesis as Synthesis

_HOME = {
    "Cell": "planning.cells",
    "Plan": "planning.cells",
    "Protocol": "protocol.protocol",
    "Results": "runfolder.results",
    "RunSummary": "running.runner",
    "StimkitError": "errors",
    "Synthesis": "synthesis.synthesis",
    "open_run": "runfolder.results",
    "plan": "planning.crossing",
    "run": "running.runner",
    "synthesize": "stimuli.single",
}
__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stimkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stimkit.{_HOME[name]}"), name)
    globals()[name] = value
    return value

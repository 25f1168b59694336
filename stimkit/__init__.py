"""stimkit: controlled stimulus sets for perception experiments, by neural style transfer.

    ask           Protocol  plan  Plan  Cell  preview  Preview
    make          run  run_shard  collect  RunSummary  Event
    one image     synthesize  Synthesis
    read          open_run  Run
    check         diff  Difference  verify  Verification  audit  Audit  Finding  audit_images
    make again    regenerate  Comparison
    tell          report  archive  Archive
    show          TrialDesign  make_trials  TrialLists  export  join_responses  Joined
    scale         scale  Scales  simulate  Observer  norm
    measure       measure_stimuli  measure_features  compare_stimuli  Comparisons
    errors        StimkitError, and its children in stimkit.errors

These names stay what they are from version to version; everything else may change. What takes a run takes its folder,
or what `open_run` gives. Names are imported when they are first used, so that `import stimkit` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stimkit.version import __version__

if TYPE_CHECKING:
    from stimkit.archiving.archive import Archive, archive
    from stimkit.auditing.audit import Audit, audit
    from stimkit.auditing.findings import Finding
    from stimkit.auditing.image_set import audit_images
    from stimkit.auditing.regeneration import Comparison, regenerate
    from stimkit.auditing.verification import Verification, verify
    from stimkit.differences.changes import Difference, diff
    from stimkit.errors import StimkitError
    from stimkit.experiment.export.formats import export
    from stimkit.experiment.responses import Joined, join_responses
    from stimkit.experiment.trials.design import TrialDesign
    from stimkit.experiment.trials.lists import TrialLists, make_trials
    from stimkit.features.comparing import Comparisons, compare_stimuli
    from stimkit.features.writing import measure_features
    from stimkit.measures.measuring import measure_stimuli
    from stimkit.planning.cells import Cell, Plan
    from stimkit.planning.crossing import plan
    from stimkit.protocol.protocol import Protocol
    from stimkit.reporting.report import report
    from stimkit.runfolder.run import Run, open_run
    from stimkit.running.events import Event, RunSummary
    from stimkit.running.preview import Preview, preview
    from stimkit.running.runner import collect, run, run_shard
    from stimkit.scaling.norms import norm
    from stimkit.scaling.observers import Observer, simulate
    from stimkit.scaling.scales import Scales, scale
    from stimkit.stimuli.single import synthesize
    from stimkit.synthesis.synthesis import Synthesis

__all__ = [
    "Archive",
    "Audit",
    "Cell",
    "Comparison",
    "Comparisons",
    "Difference",
    "Event",
    "Finding",
    "Joined",
    "Observer",
    "Plan",
    "Preview",
    "Protocol",
    "Run",
    "RunSummary",
    "Scales",
    "StimkitError",
    "Synthesis",
    "TrialDesign",
    "TrialLists",
    "Verification",
    "__version__",
    "archive",
    "audit",
    "audit_images",
    "collect",
    "compare_stimuli",
    "diff",
    "export",
    "join_responses",
    "make_trials",
    "measure_features",
    "measure_stimuli",
    "norm",
    "open_run",
    "plan",
    "preview",
    "regenerate",
    "report",
    "run",
    "run_shard",
    "scale",
    "simulate",
    "synthesize",
    "verify",
]

_HOMES = {
    "auditing.audit": "Audit audit",
    "auditing.findings": "Finding",
    "auditing.image_set": "audit_images",
    "auditing.regeneration": "Comparison regenerate",
    "auditing.verification": "Verification verify",
    "differences.changes": "Difference diff",
    "errors": "StimkitError",
    "experiment.export.formats": "export",
    "experiment.responses": "Joined join_responses",
    "experiment.trials.design": "TrialDesign",
    "experiment.trials.lists": "TrialLists make_trials",
    "features.comparing": "Comparisons compare_stimuli",
    "features.writing": "measure_features",
    "measures.measuring": "measure_stimuli",
    "planning.cells": "Cell Plan",
    "planning.crossing": "plan",
    "protocol.protocol": "Protocol",
    "archiving.archive": "Archive archive",
    "reporting.report": "report",
    "runfolder.run": "Run open_run",
    "running.events": "Event RunSummary",
    "running.preview": "Preview preview",
    "running.runner": "collect run run_shard",
    "scaling.norms": "norm",
    "scaling.observers": "Observer simulate",
    "scaling.scales": "Scales scale",
    "stimuli.single": "synthesize",
    "synthesis.synthesis": "Synthesis",
}
"""What is public, by its module."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'stimkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"stimkit.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value

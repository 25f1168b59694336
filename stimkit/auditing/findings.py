"""Findings of an audit: their names and severities, and the rules that find them in a table of stimuli."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stimkit.auditing.verification import KINDS

SEVERITIES = ("error", "warning", "notice")
FINDINGS = {
    **KINDS,
    "loss_mismatch": "a recorded loss is not the one that is computed again from the image",
    "loss_inconsistent": "recorded losses do not add up, or contradict the trace",
    "statistic_mismatch": "a recorded image statistic is not that of the file",
    "confound": "a variable follows a factor that it must not follow",
    "failed": "no usable image was found",
    "unreadable": "an image cannot be read",
    "pending": "a cell has no complete stimulus",
    "losses_not_checked": "losses could not be computed again",
    "not_converged": "the total loss was still falling when the optimization ended",
    "stalled": "no step lowered the loss any more",
    "rolled_back": "evaluations were taken back because they were not finite",
    "clipping": "many channel values were outside of 0 to 1",
    "loss_increase": "what follows the optimization increased the total loss",
    "not_equalized": "luminance, contrast, histogram or spectrum miss the target of equalization",
    "outlier": "a value is far from those of its replicates, or from what the factors predict",
    "other_size": "an image has not the size of most",
    "duplicate": "two files hold the same pixels",
    "file_without_factors": "a file that the factors do not account for",
    "factors_without_file": "a row of the factors has no file",
    "rejected": "a rule of [accept] does not hold",
    "no_better_than_chance": "unrelated images of the set are as close to a target as the stimulus",
}
"""Names of findings, the gravest first, and what they mean. Those of `stimkit.auditing.verification` are errors."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    name: str
    """One of `FINDINGS`."""
    severity: str
    """One of `SEVERITIES`; errors fail the audit."""
    stimulus_id: str
    """Empty for a finding about the set."""
    detail: str
    value: float | None = None
    limit: float | None = None
    path: str = ""
    """The file, relative to the run folder, where it is about one."""


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """The gravest first; within a severity and name, the furthest beyond its limit."""
    names = list(FINDINGS)

    def key(finding: Finding) -> tuple[Any, ...]:
        excess = abs(finding.value or 0.0) / finding.limit if finding.limit else 0.0
        place = names.index(finding.name)
        return SEVERITIES.index(finding.severity), place, -excess, finding.path, finding.stimulus_id

    return sorted(findings, key=key)

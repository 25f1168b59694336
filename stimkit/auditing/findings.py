"""Findings of audits and verifications: their names, what they mean, and how grave they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

SEVERITIES = ("error", "warning", "notice")
FILE_FINDINGS = {
    "lock_altered": "the resolved protocol does not describe its own cells",
    "journal_damaged": "the journal of what was committed is missing, or is not as it was written",
    "protocol_altered": "protocol.toml is not the one that the run was made with",
    "environment_damaged": "environment.json cannot be read, or is not as it was written",
    "record_damaged": "a record cannot be read",
    "record_altered": "a record is not the one that was committed, contradicts the resolved protocol or itself",
    "stimulus_missing": "a complete cell has no stimulus file; running the protocol again makes it again",
    "stimulus_altered": "a stimulus is not the file that was committed",
    "stimulus_swapped": "a stimulus file holds another cell's stimulus",
    "trace_missing": "a complete cell has no trace; running the protocol again makes it again",
    "trace_altered": "a trace is not the one that was committed",
    "input_altered": "a kept input is not the one that the run was made from",
    "input_missing": "an input was kept, and its copy is not there any more",
    "measurements_altered": "a table of measurements is not the one that was committed; measuring again makes it again",
    "linked": "a file is a link that leaves the folder, or has another name elsewhere: changes there change it here",
    "extra_file": "a file that no cell accounts for",
    "table_missing": "a derived table is not there; running the protocol again rebuilds it",
    "table_altered": "a derived table differs from the records; running the protocol again rebuilds it",
}
"""Findings about the files of a run folder: what is not as it was committed. All of them are errors, but for files that
are beside those of the run."""
FINDINGS = {
    **FILE_FINDINGS,
    "loss_mismatch": "a recorded loss is not the one that is computed again from the image",
    "loss_inconsistent": "recorded losses do not add up, or contradict the trace",
    "initial_differs": "the image that the optimization began with is not made again to the bit",
    "recognition_mismatch": "a classifier takes a stimulus for something else than what is recorded",
    "statistic_mismatch": "a recorded image statistic is not that of the file",
    "confound": "a variable follows a factor that it must not follow",
    "not_measured": "a variable that the protocol has a rule about was not measured of any stimulus, or of too few",
    "failed": "no usable image was found",
    "unreadable": "an image cannot be read",
    "pending": "a cell has no complete stimulus",
    "losses_not_checked": "losses could not be computed again",
    "recognition_not_checked": "the classifier of the run was not found",
    "dominated": "a filter carries most of a layer's content or style loss, or a layer most of the whole one",
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
    "not_monotone": "along a series, stimuli do not go steadily from one image to the next",
    "limit_within_chance": "a limit for what a factor may explain is one that clean sets of this design would exceed",
    "nearly_same": "two stimuli are nearly the same picture",
    "not_recognized": "a classifier does not recognize an image that stimuli were made from",
    "observer_disagrees": "by the losses of another network, stimuli are in another order",
    "no_better_than_chance": "unrelated images of the set are as close to a target as the stimulus",
}
"""Names of findings, the gravest first, and what they mean."""


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


def rank(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings: the gravest first; within a severity and name, the furthest beyond its limit."""
    names = list(FINDINGS)

    def key(finding: Finding) -> tuple[Any, ...]:
        excess = abs(finding.value or 0.0) / finding.limit if finding.limit else 0.0
        place = names.index(finding.name)
        return SEVERITIES.index(finding.severity), place, -excess, finding.path, finding.stimulus_id

    return sorted(findings, key=key)

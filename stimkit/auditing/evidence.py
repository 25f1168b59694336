"""What the files of complete cells hold, read once, and how that differs from their records and from each other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stimkit.auditing.findings import Finding
from stimkit.errors import ImageError, RunFolderError
from stimkit.files import read_file
from stimkit.images.likeness import closest_pairs, pixel_difference
from stimkit.images.png import Shown, Values, decode_values, to_shown, values_digest
from stimkit.records.record import trace_digest
from stimkit.records.schema import Record
from stimkit.runfolder.run import Run

# Root mean square, of 255 steps. The closest pairs of the bundled protocols differ by 4.9 (reconstructions of a content
# from conv1 and conv2) to 67, replicates from other noise by 26, adjacent ones of a series of 24 by 34.
NEARLY_SAME = 3.0
MOST_PAIRS = 500  # of small copies that are close, whose files are compared


@dataclass(frozen=True)
class Evidence:
    """The files of a complete cell."""

    record: Record
    findings: tuple[Finding, ...]
    """What of the files is not what the record says."""
    png: bytes | None
    """The stimulus's file; None for a failed cell, or where it cannot be read."""
    values: Values | None
    """What it decodes to."""
    trace: NDArray[Any] | None


Portray = Callable[[Evidence], str | None]
"""Makes the picture of a stimulus that a report shows."""


def read_evidence(run: Run, record: Record, owners: Mapping[str | None, str]) -> Evidence:
    """Read stimulus and trace of a complete cell; `owners` are ids of stimuli by the digests of their files."""
    path = f"stimuli/{run.filename(record)}"
    png, problem = (None, None) if record.status == "failed" else _read_stimulus(run, record, path)
    values, damage = None, ""
    if png is not None:
        try:
            values = decode_values(png, path)
        except ImageError as error:
            damage = str(error)
    trace, trace_problem = _read_trace(run, record)
    problems = [problem, trace_problem]
    if png is not None:
        problems += _compare(record, path, png, values, damage, owners)
    return Evidence(record, tuple(problem for problem in problems if problem is not None), png, values, trace)


def _finding(name: str, path: str, record: Record, detail: str) -> Finding:
    return Finding(name, "error", record.stimulus_id, detail, path=path)


def _read_stimulus(run: Run, record: Record, path: str) -> tuple[bytes | None, Finding | None]:
    try:
        return read_file(run.path / path), None
    except OSError as error:
        return None, _finding("stimulus_missing", path, record, error.strerror or str(error))


def _compare(
    record: Record, path: str, png: bytes, values: Values | None, damage: str, owners: Mapping[str | None, str]
) -> Iterator[Finding]:
    """How a stimulus differs from its record; `damage` says why it cannot be decoded."""
    digest = hashlib.sha256(png).hexdigest()
    same_pixels = values is not None and values_digest(values) == record.pixel_sha256
    if digest != record.file_sha256 and digest in owners:
        yield _finding("stimulus_swapped", path, record, f"it is the stimulus of {owners[digest]}")
    elif values is None:
        yield _finding("stimulus_altered", path, record, damage)
    elif digest != record.file_sha256:
        how = "its bytes differ, its pixels are unchanged" if same_pixels else "its pixels differ"
        yield _finding("stimulus_altered", path, record, how)
    elif not same_pixels:
        detail = "pixel_sha256 is not that of its stimulus, whose file is unchanged"
        yield _finding("record_altered", f"records/{record.stimulus_id}.json", record, detail)


def _read_trace(run: Run, record: Record) -> tuple[NDArray[Any] | None, Finding | None]:
    path = f"traces/{record.stimulus_id}.npy"
    if not (run.path / path).is_file():
        return None, _finding("trace_missing", path, record, "no such file")
    try:
        trace = run.trace(record.stimulus_id)
    except RunFolderError as error:
        return None, _finding("trace_altered", path, record, str(error))
    if trace_digest(trace) != record.trace_sha256:
        return trace, _finding("trace_altered", path, record, "its values differ")
    return trace, None


def find_twins(run: Run, copies: Mapping[str, NDArray[np.float32]]) -> Iterator[Finding]:
    """Find pairs of stimuli that are nearly the same picture, given small copies of all by id."""
    names = [name for name in run.records if name in copies]  # in their order, whichever was looked at first
    pairs = closest_pairs(np.stack([copies[name] for name in names]), NEARLY_SAME, MOST_PAIRS) if len(names) > 1 else []
    seen = lru_cache(maxsize=64)(partial(_seen, run))
    for one, other in ((names[first], names[second]) for first, second in pairs):
        difference = pixel_difference(seen(one), seen(other))
        if difference <= NEARLY_SAME:
            detail = f"it is nearly the same as {other}: {difference:.2g} of 255 steps, root mean square"
            yield Finding("nearly_same", "notice", one, detail, difference, NEARLY_SAME)


def _seen(run: Run, stimulus_id: str) -> Shown:
    return to_shown(run.image(stimulus_id), run.records[stimulus_id].settings.encoding)

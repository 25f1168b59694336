"""What a report shows, as JSON values: design, stimuli with thumbnails, losses, traces, findings, effects."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ValidationError

from stimkit.auditing.audit import Examination
from stimkit.auditing.evidence import Evidence
from stimkit.auditing.findings import FINDINGS
from stimkit.auditing.saving import audit_values
from stimkit.columns import FURTHER, MEASURES, OUTCOMES, SSIM_CONTENT
from stimkit.files import json_values
from stimkit.images.png import to_picture
from stimkit.planning.cells import Cell, Plan
from stimkit.protocol.mixes import KEY_OF, steps_of
from stimkit.protocol.protocol import Protocol
from stimkit.records.schema import COLUMN_OF, Record
from stimkit.records.stages import STAGES, TERMS
from stimkit.records.tables import described_columns
from stimkit.runfolder.run import Run

THUMBNAIL_BUDGET = 36_000_000  # bytes of all thumbnails, as they stand in the file
LARGEST_THUMBNAIL, SMALLEST_THUMBNAIL = 384, 96  # pixels of the longer side
BYTES_PER_PIXEL = 0.8  # of a WebP thumbnail of a texture, in base64 (0.35 to 0.7 were seen)
TRACE_POINTS = 60  # of a trace, as it is drawn
ThinTrace = Mapping[str, list[Any]]  # evaluations, and the losses there
VARIABLES = (*MEASURES, SSIM_CONTENT, *OUTCOMES, *FURTHER)


class _Explained(BaseModel):
    layer: str
    factor: str
    omega_squared: float | None
    p_permutation: float | None


class _MadeDistances(BaseModel):
    """What a table of distances says beside its columns."""

    layers: list[str]
    form: str
    observer: str
    mapped: float
    explained: list[_Explained]
    neighbours: dict[str, list[tuple[str, float]]]


def gather_contents(run: Run, found: Examination) -> dict[str, Any]:
    """Gather what the report of a run shows. Values that are not finite become null."""
    audited = audit_values(found.audit)
    measured = {row["stimulus_id"]: row for row in audited["stimuli"]}
    described = described_columns(run.records.values())
    further = [column for column in described.values() if column not in (*COLUMN_OF.values(), *VARIABLES)]
    known = [variable for variable in (*VARIABLES, *further) if variable.name in found.audit.stimuli]
    traces = _thin_out(run, found.traces)
    stimuli = []
    for record in run.records.values():
        row = measured.get(record.stimulus_id, {})
        values = [_number(row.get(variable.name)) for variable in known]
        cell, image = run.plan.by_id[record.stimulus_id], found.portraits.get(record.stimulus_id)
        stimuli.append(_stimulus(record, cell, values, traces[record.stimulus_id], image))
    stages = {stage for record in run.records.values() for stage in record.losses.stages()}
    return {
        "name": run.plan.protocol.name,
        "curations": [one.model_dump(mode="json") for one in run.plan.protocol.accept.curation],
        "design": list(run.plan.factors),
        "factors": _factors(run.plan),
        "series": _series(run.plan.protocol),
        "variables": [variable._asdict() for variable in known],
        "columns": {column.name: column.long_name for column in described.values()},
        "stages": [stage for stage in STAGES if stage in stages],
        "stimuli": stimuli,
        "findings": [{**finding, "meaning": FINDINGS[finding["name"]]} for finding in audited["findings"]],
        "effects": audited["effects"],
        "distances": _distances(run),
        "images": audited["images"],
        "cues": audited["cues"],
    }


def _number(value: Any) -> Any:
    """A number of a plot, which has no place for infinity."""
    return None if isinstance(value, str) else value


def _factors(plan: Plan) -> dict[str, list[str]]:
    """What stimuli can be arranged and filtered by; an empty level is that of controls without one."""
    roles = list(dict.fromkeys(cell.role for cell in plan.cells))
    found = {"role": roles, **plan.factors, **plan.attributes}
    return {
        name: [*levels, ""] if len(roles) > 1 and name != "role" else list(levels) for name, levels in found.items()
    }


def _series(protocol: Protocol) -> list[dict[str, Any]]:
    """The series of mixes: their levels in order, and the images that they go through."""
    found = []
    for kind in KEY_OF:
        mixes = protocol.mixes(kind)
        for name, steps in steps_of(mixes).items():
            mix = mixes[name]
            levels = [{"level": step.level, "position": step.position} for step in steps]
            if not mix.mean_of:
                found.append({"name": name, "kind": kind, "steps": levels, "images": mix.of, "closed": mix.closed})
    return found


def _distances(run: Run) -> dict[str, Any] | None:
    """What `stimkit distances` found of the stimuli as they are; None where it was not asked."""
    table = run.measurements.get("distances")
    if table is None:
        return None
    current = {stimulus_id for stimulus_id, record in run.records.items() if table.of(record)}
    try:
        made = _MadeDistances.model_validate(json_values(dict(table.made)))
    except ValidationError:  # of a table that somebody else made
        return None
    neighbours = {
        stimulus_id: [pair for pair in pairs if pair[0] in current]
        for stimulus_id, pairs in made.neighbours.items()
        if stimulus_id in current
    }
    left: dict[str, Any] = {} if current >= table.values.keys() else {"explained": []}
    return {**made.model_dump(), "neighbours": neighbours, **left}


def _stimulus(record: Record, cell: Cell, values: list[Any], trace: ThinTrace, image: str | None) -> dict[str, Any]:
    parameters = {name: value for name, value in record.row().items() if not name.startswith("loss_")}
    return {
        "id": cell.id,
        "file": f"stimuli/{cell.filename}",
        "status": record.status,
        "levels": {"role": cell.role, **cell.levels, **cell.attributes},
        "image": image,
        "parameters": {name: value for name, value in parameters.items() if value not in (None, "")},
        "distances": {
            kind: {image: record.distance(kind, image) for image in images} for kind, images in record.distances.items()
        },
        "losses": {stage: losses.model_dump() for stage, losses in record.losses.stages().items()},
        "values": values,
        "trace": trace,
        "attempts": [attempt.model_dump() for attempt in record.attempts[:-1]],
    }


def thumbnails_for(run: Run) -> Callable[[Evidence], str | None]:
    """How the stimuli of a run are shown: as data URLs, all of them together within a budget."""
    sizes = [record.settings.size for record in run.records.values()]
    side, budget = thumbnail_side(sizes), THUMBNAIL_BUDGET // len(sizes)
    return lambda evidence: thumbnail(evidence, side, budget)


def thumbnail_side(sizes: Sequence[tuple[int, int]]) -> int:
    """Longer side of the thumbnails: what the budget allows, but never more than the stimuli have."""
    allowed = math.sqrt(THUMBNAIL_BUDGET / BYTES_PER_PIXEL / len(sizes))
    return int(min(LARGEST_THUMBNAIL, max(SMALLEST_THUMBNAIL, allowed), max(max(size) for size in sizes)))


def thumbnail(evidence: Evidence, side: int, budget: int) -> str | None:
    """A stimulus as a data URL, the file itself where it is small and plain; None where there is no image."""
    if evidence.values is None or evidence.png is None:
        return None
    encoding = evidence.record.settings.encoding
    plain = encoding.transfer == "srgb" and encoding.bits == 8
    if plain and max(evidence.values.shape[:2]) <= side and 4 * len(evidence.png) <= 3 * budget:
        return "data:image/png;base64," + base64.b64encode(evidence.png).decode()
    image = to_picture(evidence.values, encoding)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _thin_out(run: Run, traces: Mapping[str, NDArray[Any]]) -> dict[str, ThinTrace]:
    """Losses by id, thinned out to evaluations that are the same for all stimuli, and the last one of each."""
    nothing = np.zeros((0, len(TERMS)))  # of a trace that cannot be read, which is among the findings
    whole = {stimulus_id: traces.get(stimulus_id, nothing) for stimulus_id in run.records}
    longest = max(map(len, whole.values()))
    grid = np.unique(np.rint(np.geomspace(1, max(1, longest), TRACE_POINTS)).astype(int))
    return {stimulus_id: _thinned(trace, grid) for stimulus_id, trace in whole.items()}


def _thinned(trace: Any, grid: Any) -> ThinTrace:
    chosen = np.unique([*grid[grid < len(trace)], len(trace)] if len(trace) else []).astype(int)
    columns = {
        term: [_rounded(value) for value in trace[chosen - 1, index].tolist()] for index, term in enumerate(TERMS)
    }
    return {"evaluation": chosen.tolist(), **columns}


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None

"""What a report shows, as JSON values: design, stimuli with thumbnails, losses, traces, findings, effects."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stimkit.auditing.audit import Audit, as_json
from stimkit.auditing.findings import FINDINGS
from stimkit.columns import COLUMNS, FURTHER, MEASURES, OUTCOMES, SSIM_CONTENT
from stimkit.errors import ImageError, RunFolderError
from stimkit.images.png import Encoding, read_picture
from stimkit.planning.cells import Cell, Plan
from stimkit.records.record import STAGES, Record, flatten
from stimkit.runfolder.store import RunStore

THUMBNAIL_BUDGET = 36_000_000  # bytes of all thumbnails, as they stand in the file
MAX_THUMBNAIL, MIN_THUMBNAIL = 384, 96  # pixels of the longer side
BYTES_PER_PIXEL = 0.8  # of a WebP thumbnail of a texture, in base64 (0.35 to 0.7 were seen)
TRACE_POINTS = 60
Trace = Mapping[str, list[Any]]  # evaluations, and the losses there
TERMS = ("content", "style", "total")
VARIABLES = (*MEASURES, SSIM_CONTENT, *OUTCOMES, *FURTHER)


def report_data(
    store: RunStore, plan: Plan, records: Sequence[Record], found: Audit, on_count: Callable[[int, int], None]
) -> dict[str, Any]:
    """Gather what the report of a run shows. Values that are not finite become null."""
    audited = as_json(found)
    measured = {row["stimulus_id"]: row for row in audited["stimuli"]}
    known = [variable for variable in VARIABLES if variable.name in found.stimuli]
    traces = _traces(store, records)
    sizes = [plan.by_id[record["stimulus_id"]].settings.size for record in records]
    side = _thumbnail_side(sizes)
    stimuli = []
    for record in records:
        cell = plan.by_id[record["stimulus_id"]]
        values = [measured.get(cell.id, {}).get(variable.name) for variable in known]
        # The file is the one of the plan: a record could name any other.
        path = store.path / "stimuli" / cell.filename
        image = (
            None if record["status"] == "failed" else _thumbnail(path, record, side, THUMBNAIL_BUDGET // len(records))
        )
        stimuli.append(_stimulus(record, cell, values, traces[cell.id], image))
        on_count(len(stimuli), len(records))
    return {
        "name": plan.protocol.name,
        "design": list(plan.factors),
        "factors": _factors(plan),
        "variables": [variable._asdict() for variable in known],
        "columns": {column.name: column.long_name for column in COLUMNS},
        "stages": [stage for stage in STAGES if any(stage in record["losses"] for record in records)],
        "stimuli": stimuli,
        "findings": [{**one, "meaning": FINDINGS[one["name"]]} for one in audited["findings"]],
        "effects": audited["effects"],
    }


def _factors(plan: Plan) -> dict[str, list[str]]:
    """What stimuli can be arranged and filtered by; an empty level is that of controls without one."""
    roles = list(dict.fromkeys(cell.role for cell in plan.cells))
    found = {"role": roles, **plan.factors, **plan.attributes}
    return {
        name: [*levels, ""] if len(roles) > 1 and name != "role" else list(levels) for name, levels in found.items()
    }


def _stimulus(record: Record, cell: Cell, values: list[Any], trace: Trace, image: str | None) -> dict[str, Any]:
    parameters = {name: value for name, value in flatten(record).items() if not name.startswith("loss_")}
    return {
        "id": cell.id,
        "file": f"stimuli/{cell.filename}",
        "status": record["status"],
        "levels": {"role": cell.role, **cell.levels, **cell.attributes},
        "image": image,
        "parameters": {name: value for name, value in parameters.items() if value not in (None, "")},
        "losses": record["losses"],
        "values": values,
        "trace": trace,
        "attempts": record["attempts"][:-1],
    }


def _thumbnail_side(sizes: Sequence[tuple[int, int]]) -> int:
    """Longer side of the thumbnails: what the budget allows, but never more than the stimuli have."""
    allowed = math.sqrt(THUMBNAIL_BUDGET / BYTES_PER_PIXEL / len(sizes))
    return int(min(MAX_THUMBNAIL, max(MIN_THUMBNAIL, allowed), max(max(size) for size in sizes)))


def _thumbnail(path: Path, record: Record, side: int, budget: int) -> str | None:
    """A stimulus as a data URL, the file itself where it is small and plain; None where there is no such file."""
    plain = record["transfer"] == "srgb" and record["bits"] == 8
    try:
        image = read_picture(path, Encoding(record["transfer"], record["gamma"]))
        if plain and max(image.size) <= side and 4 * path.stat().st_size <= 3 * budget:
            return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    except (OSError, ImageError):
        return None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _traces(store: RunStore, records: Sequence[Record]) -> dict[str, Trace]:
    """Losses by id, thinned out to evaluations that are the same for all stimuli, and the last one of each."""
    whole: dict[str, Any] = {}
    for record in records:
        try:
            whole[record["stimulus_id"]] = store.trace(record["stimulus_id"])
        except RunFolderError:  # which is among the findings
            whole[record["stimulus_id"]] = np.zeros((0, len(TERMS)))
    longest = max(map(len, whole.values()))
    grid = np.unique(np.rint(np.geomspace(1, max(1, longest), TRACE_POINTS)).astype(int))
    return {stimulus_id: _thinned(trace, grid) for stimulus_id, trace in whole.items()}


def _thinned(trace: Any, grid: Any) -> Trace:
    chosen = np.unique([*grid[grid < len(trace)], len(trace)] if len(trace) else []).astype(int)
    columns = {
        term: [_rounded(value) for value in trace[chosen - 1, index].tolist()] for index, term in enumerate(TERMS)
    }
    return {"evaluation": chosen.tolist(), **columns}


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None

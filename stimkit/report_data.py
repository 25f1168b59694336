"""What a report shows, as JSON values: design, stimuli with thumbnails, losses, traces, findings, effects."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stimkit.audit import Audit
from stimkit.cells import Plan
from stimkit.findings import FINDINGS
from stimkit.measures import MEASURES, OUTCOMES, SSIM_CONTENT, Column
from stimkit.record import COLUMNS, STAGES, Record, flatten
from stimkit.store import RunStore

THUMBNAIL_BUDGET = 30_000_000  # bytes of all thumbnails, as they stand in the file
MAX_THUMBNAIL, MIN_THUMBNAIL = 384, 96  # pixels of the longer side
BYTES_PER_PIXEL = 0.5  # of a WebP thumbnail of a texture, in base64
TRACE_POINTS = 60
TERMS = ("content", "style", "total")
FURTHER = (
    Column("clipped", "1", "fraction of channel values that were clipped"),
    Column("loss_increase", "1", "relative increase of the total loss by clipping and rounding"),
    Column("still_falling", "1", "relative decrease of the total loss over the last evaluations"),
    Column("content_chance_relative", "1", "content loss / that of the median unrelated image"),
    Column("content_chance_percentile", "%", "unrelated images that are as close to the content target"),
    Column("style_chance_relative", "1", "style loss / that of the median unrelated image"),
    Column("style_chance_percentile", "%", "unrelated images that are as close to the style target"),
)
VARIABLES = (*MEASURES, SSIM_CONTENT, *OUTCOMES, *FURTHER)


def report_data(
    store: RunStore, plan: Plan, records: Sequence[Record], found: Audit, on_count: Callable[[int, int], None]
) -> dict[str, Any]:
    """Gather what the report of a run shows. Values that are not finite become null."""
    measured = {row["stimulus_id"]: row for row in found.stimuli.to_dict("records")}
    known = [variable for variable in VARIABLES if variable.name in found.stimuli]
    side = _thumbnail_side(records)
    stimuli = []
    for record in records:
        stimuli.append(_stimulus(store, record, measured.get(record["stimulus_id"], {}), known, side))
        on_count(len(stimuli), len(records))
    return {
        "name": plan.protocol.name,
        "factors": {name: list(levels) for name, levels in plan.factors.items()},
        "variables": [variable._asdict() for variable in known],
        "columns": {column.name: column.long_name for column in COLUMNS},
        "stages": list(STAGES),
        "stimuli": stimuli,
        "findings": [{**asdict(one), "meaning": FINDINGS[one.name]} for one in found.findings],
        "effects": json.loads(found.effects.to_json(orient="records")),
    }


def _stimulus(
    store: RunStore, record: Record, measured: Mapping[Hashable, Any], variables: Sequence[Column], side: int
) -> dict[str, Any]:
    parameters = {name: value for name, value in flatten(record).items() if not name.startswith("loss_")}
    return {
        "id": record["stimulus_id"],
        "file": f"stimuli/{record['filename']}",
        "status": record["status"],
        "levels": record["levels"],
        "size": [record["width_px"], record["height_px"]],
        "image": _thumbnail(store.path / "stimuli" / record["filename"], side),
        "parameters": {name: value for name, value in parameters.items() if value not in (None, "")},
        "losses": record["losses"],
        "values": [_finite(measured.get(variable.name)) for variable in variables],
        "trace": _trace(store, record),
        "attempts": record["attempts"][:-1],
    }


def _thumbnail_side(records: Sequence[Record]) -> int:
    """Longer side of the thumbnails: what the budget allows, but never more than the stimuli have."""
    allowed = math.sqrt(THUMBNAIL_BUDGET / BYTES_PER_PIXEL / max(1, len(records)))
    largest = max((max(record["height_px"], record["width_px"]) for record in records), default=MIN_THUMBNAIL)
    return int(min(MAX_THUMBNAIL, max(MIN_THUMBNAIL, allowed), largest))


def _thumbnail(path: Path, side: int) -> str | None:
    """A stimulus as a data URL, as it is where it is small enough; None where there is no such file."""
    try:
        with Image.open(path) as image:
            if max(image.size) <= side:
                return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, format="WEBP", quality=80, method=4)
    except OSError:
        return None
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _trace(store: RunStore, record: Record) -> Mapping[str, list[Any]]:
    """Losses over evaluations, thinned out evenly on a logarithmic axis."""
    trace = store.trace(record["stimulus_id"])
    if not len(trace):
        return {"evaluation": [], **{term: [] for term in TERMS}}
    chosen = np.unique(np.rint(np.geomspace(1, len(trace), TRACE_POINTS)).astype(int))
    columns = {
        term: [_finite(float(f"{value:.5g}")) for value in trace[chosen - 1, index]] for index, term in enumerate(TERMS)
    }
    return {"evaluation": chosen.tolist(), **columns}


def _finite(value: Any) -> float | None:
    number = float("nan") if value is None else float(value)
    return number if math.isfinite(number) else None

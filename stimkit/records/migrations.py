"""Steps that bring records of older schemas to the current one; what has a default needs none."""

from __future__ import annotations

from stimkit.documents.schemas import Document, Schema

_OF_ATTEMPT = ("seed", "status_reason", "stop_reason", "evaluations", "batch_id", "batch_size", "batch_slot")


def _with_attempts(record: Document) -> Document:
    """Records of schema 1 knew a single attempt for each cell."""
    return {**record, "attempt": 1, "attempts": [{key: record[key] for key in _OF_ATTEMPT}]}


def _with_slope(record: Document) -> Document:
    """Records of schema 3 knew mean and contrast of whole files, which are those inside where there is no aperture."""
    if record.get("aperture", "none") != "none":
        return record
    return {**record, **{f"{name}_inside": record[name] for name in ("mean_luminance", "rms_contrast")}}


def _with_words(record: Document) -> Document:
    """Records of schema 4 said whether filters were rescaled; nothing else was."""
    return {**record, "normalize": "filter" if record["normalize"] else "none"}


def _with_free_range(record: Document) -> Document:
    """Stimuli of schema 5 were optimized over any values."""
    return {**record, "image_range": "free"}


def _with_one_scale(record: Document) -> Document:
    """Stimuli of schema 6 were optimized at their own size alone."""
    return {**record, "scales": 1}


RECORD = Schema(
    "record", 9, {1: _with_attempts, 3: _with_slope, 4: _with_words, 5: _with_free_range, 6: _with_one_scale}
)

"""Documents of older schemas, brought to the current one by pure steps; newer ones are refused."""

from __future__ import annotations

from stimkit.documents.schemas import Document, Schema


def _with_attempts(record: Document) -> Document:
    """Records of schema 1 knew a single attempt for each cell."""
    attempt = {key: record[key] for key in ATTEMPT_KEYS}
    return {**record, "attempt": 1, "attempts": [attempt]}


def _with_output(record: Document) -> Document:
    """Records of schema 2 knew factors only, and no way from the optimized image to the stimulus but rounding."""
    return {
        **record,
        "attributes": {},
        "role": "main",
        "control_of": "",
        "colour": "free",
        "regions": "whole",
        "region_count": 2,
        "region_scaling": 0.5,
        "titrate": "none",
        "titrate_value": 0.0,
        "titrate_tolerance": 0.01,
        "titrate_lowest": 1e-7,
        "titrate_highest": 1e-3,
        "titrate_runs": 8,
        "titrate_error": None,
        "mask_id": "",
        "mask_sha256": "",
        **{f"equalize_{what}": "none" for what in ("luminance", "contrast", "histogram", "spectrum")},
        "gamut": "iterate",
        "aperture": "none",
        "equalize_weight": 0.3,
        **dict.fromkeys(("aperture_diameter", "aperture_ramp", "aperture_sigma", "ppd"), 0.0),
        "background": 0.2159,
        "transfer": "srgb",
        "gamma": 2.2,
        "bits": 8,
        "rounding": "nearest",
        **dict.fromkeys(("height_deg", "width_deg", "equalize_error")),
        **dict.fromkeys(("mean_luminance_optimized", "rms_contrast_optimized")),
    }


def _with_slope(record: Document) -> Document:
    """Records of schema 3 knew white noise only, and mean and contrast of whole files."""
    whole = record["aperture"] == "none"
    inside = {f"{name}_inside": record[name] if whole else None for name in ("mean_luminance", "rms_contrast")}
    return {**record, "init_slope": 0.0, **inside}


ATTEMPT_KEYS = ("seed", "status_reason", "stop_reason", "evaluations", "batch_id", "batch_size", "batch_slot")
"""What a record keeps of each attempt at its cell."""

RECORD = Schema("record", 4, {1: _with_attempts, 2: _with_output, 3: _with_slope})

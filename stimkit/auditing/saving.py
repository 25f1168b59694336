"""Audits as files: tables and JSON."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from stimkit.auditing.audit import Audit
from stimkit.auditing.findings import Finding
from stimkit.files import json_text, json_values, storage_errors, write_atomically
from stimkit.records.tables import csv_bytes

AUDIT_SCHEMA = 1
AUDIT_FOLDER = "audit"  # in the run folder


def save_audit(found: Audit, folder: Path) -> Path:
    """Write findings.csv, stimuli.csv, effects.csv and audit.json into a folder, and return it.

    Where a classifier looked at the images of the protocol, images.csv says what it took them for.
    """
    findings = pd.DataFrame(
        [asdict(finding) for finding in found.findings], columns=[field.name for field in fields(Finding)]
    )
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tables = {"findings": findings, "stimuli": found.stimuli, "effects": found.effects}
        tables |= {"images": found.images} if len(found.images) else {}
        for name, frame in tables.items():
            write_atomically(folder / f"{name}.csv", csv_bytes(frame))
        write_atomically(folder / "audit.json", (json_text(audit_values(found), ascii_only=True) + "\n").encode())
    return folder


def audit_values(found: Audit) -> dict[str, Any]:
    """Return an audit as JSON values."""
    values: dict[str, Any] = json_values(
        {
            "schema": AUDIT_SCHEMA,
            "planned": found.planned,
            "complete": found.complete,
            "failed": found.failed,
            "findings": [asdict(finding) for finding in found.findings],
            "effects": found.effects.to_dict("records"),
            "stimuli": found.stimuli.to_dict("records"),
            "images": found.images.to_dict("records"),
            "cues": {**asdict(found.cues), "shape_bias": found.cues.shape_bias} if found.cues else None,
        }
    )
    return values

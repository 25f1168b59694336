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
    """Write findings.csv, stimuli.csv, effects.csv and audit.json into a folder, and return it."""
    findings = pd.DataFrame(
        [asdict(finding) for finding in found.findings], columns=[field.name for field in fields(Finding)]
    )
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in (("findings", findings), ("stimuli", found.stimuli), ("effects", found.effects)):
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
        }
    )
    return values

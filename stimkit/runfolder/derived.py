"""What is derived from a run's records, and can be rebuilt from them at any time."""

from __future__ import annotations

from stimkit.images.png import encode_png
from stimkit.planning.cells import Plan
from stimkit.records.record import Record
from stimkit.records.tables import dataset, losses_csv, manifest_csv, netcdf_bytes
from stimkit.runfolder.contact_sheet import contact_sheet, numbered
from stimkit.runfolder.store import CONTROLS_SHEET, RunStore


def rebuild(store: RunStore, plan: Plan) -> list[Record]:
    """Write manifest.csv, losses.csv, manifest.nc and the contact sheets from the records; return these."""
    records = store.records()
    if not records:
        return records
    store.write("manifest.csv", manifest_csv(records))
    store.write("losses.csv", losses_csv(records))
    store.write("manifest.nc", netcdf_bytes(dataset(store, records)))
    design = [record for record in records if record["role"] == "main"]
    controls = [record for record in records if record["role"] != "main"]
    if design:
        store.write("contact_sheet.png", encode_png(contact_sheet(store.path / "stimuli", design, plan.factors)))
    if controls:
        rows = numbered(controls, "role", lambda record: record["role"])
        store.write(CONTROLS_SHEET, encode_png(contact_sheet(store.path / "stimuli", *rows)))
    return records

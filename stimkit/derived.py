"""What is derived from a run's records, and can be rebuilt from them at any time."""

from __future__ import annotations

from stimkit.cells import Plan
from stimkit.contact_sheet import contact_sheet
from stimkit.images import encode_png
from stimkit.manifest import dataset, losses_csv, manifest_csv, netcdf_bytes
from stimkit.record import Record
from stimkit.store import RunStore


def rebuild(store: RunStore, plan: Plan) -> list[Record]:
    """Write manifest.csv, losses.csv, manifest.nc and contact_sheet.png from the records; return these."""
    records = store.records()
    if not records:
        return records
    store.write("manifest.csv", manifest_csv(records))
    store.write("losses.csv", losses_csv(records))
    store.write("manifest.nc", netcdf_bytes(dataset(store, records)))
    store.write("contact_sheet.png", encode_png(contact_sheet(store.path / "stimuli", records, plan.factors)))
    return records

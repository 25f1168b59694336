"""What is derived from a run's records, and can be rebuilt from them at any time."""

from __future__ import annotations

from stimkit.images.png import encode_png
from stimkit.records.dataset import netcdf_bytes
from stimkit.records.schema import Record
from stimkit.records.tables import CSV_TABLES, table_names
from stimkit.runfolder.contact_sheet import draw_contact_sheet, number_by_row
from stimkit.runfolder.layout import CONTROLS_SHEET, SHEET
from stimkit.runfolder.run import Run


def rebuild(run: Run) -> list[Record]:
    """Write the tables and the contact sheets from the records; return these.

    Raises `RunFolderError` where a record or trace cannot be read, `StorageError` where a file cannot be written.
    """
    run.check_readable()
    store, records = run.store, list(run.records.values())
    if not records:
        return records
    for name in table_names(records):
        store.write(name, CSV_TABLES[name](records) if name in CSV_TABLES else netcdf_bytes(run.dataset))
    stimuli = store.path / "stimuli"
    design = [record for record in records if record.role == "main"]
    controls = [record for record in records if record.role != "main"]
    if design:
        planned = [cell.levels for cell in run.plan.main_cells]
        store.write(SHEET, encode_png(draw_contact_sheet(stimuli, design, run.plan.factors, planned)))
    if controls:
        numbered = number_by_row(controls, "role", lambda record: record.role)
        store.write(CONTROLS_SHEET, encode_png(draw_contact_sheet(stimuli, *numbered)))
    return records

"""Whether tables in a run folder are those that its records give, or those that were committed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr

from stimkit.auditing.findings import Finding
from stimkit.planning.resolved import RESOLVED
from stimkit.records.schema import COLUMN_OF, Record
from stimkit.records.stages import STAGES, TERMS
from stimkit.runfolder.run import Run


def _later_columns(records: Sequence[Record]) -> set[str]:
    """Columns that tables may lack: those that the files of the records have no values of, as earlier ones do not."""
    known = {name for record in records for name in record.names}
    has_all_stages = "equalize_luminance" in known  # which came with the columns of the stage `equalized`
    for record in records:
        stages = STAGES if has_all_stages else record.losses.stages()
        known |= {f"loss_{term}_{stage}" for stage in stages for term in TERMS}
    return COLUMN_OF.keys() - known


def check_measurements(run: Run) -> Iterator[Finding]:
    """Check tables of measurements: that they can be read, and are those that were committed."""
    for path, reason in run.damaged_measurements.items():
        yield Finding("measurements_altered", "error", "", reason, path=path)


def csv_agrees(data: bytes, expected: bytes, records: Sequence[Record]) -> bool:
    """Whether a CSV table holds what is expected of records; one of an earlier stimkit may lack later columns."""
    if data == expected:
        return True
    table, whole = (pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False) for content in (data, expected))
    if "normalize" in table:
        table["normalize"] = table["normalize"].replace({"True": "filter", "False": "none"})
    later = whole.columns.difference(table.columns)
    return _later_columns(records).issuperset(later) and table.equals(whole.drop(columns=later))


def netcdf_agrees(data: bytes, expected: bytes, records: Sequence[Record]) -> bool:
    """Whether a NetCDF manifest holds what is expected; one of an earlier stimkit may lack later variables.

    Attributes are compared, units too, but for words about the variables, which may change from version to version.
    """
    if data == expected:
        return True
    table, whole = _load(data), _load(expected)
    if "normalize" in table and table["normalize"].dtype.kind in "bi":  # before it was a word
        words = np.where(table["normalize"].values, "filter", "none").astype(object)
        table["normalize"] = (table["normalize"].dims, words, table["normalize"].attrs)
    later = set(whole.variables) - set(table.variables)
    return (
        _attributes(table) == _attributes(whole)
        and all(table[name].attrs.get("units") == whole[name].attrs.get("units") for name in table.variables)
        and _later_columns(records).issuperset(map(str, later))
        and table.equals(whole.drop_vars(later))
    )


def _attributes(table: xr.Dataset) -> dict[str, Any]:
    """Attributes of a manifest as they would be written today."""
    lock = RESOLVED.read(json.loads(table.attrs["protocol_lock"]), "the lock in the table")
    return {**table.attrs, "protocol_lock": lock, "manifest_schema": None}


def _load(data: bytes) -> xr.Dataset:
    store = xr.backends.NetCDF4DataStore(netCDF4.Dataset("manifest.nc", memory=data))
    with xr.open_dataset(store) as found:
        return found.load()

"""The manifest as an xarray Dataset and as NetCDF, with units and descriptions."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from stimkit.errors import StorageError
from stimkit.network.layers import LAYERS
from stimkit.records.schema import Record
from stimkit.records.stages import STAGES, TERMS, StageLosses
from stimkit.records.tables import described_columns, factor_names, to_table

MANIFEST_SCHEMA = 2
_BY_STAGE = {f"loss_{term}_{stage}" for term in TERMS for stage in STAGES}
_OF_DISTANCE = re.compile("(content|style)_distance_")
_BY_CHANNEL = ("mean_r", "mean_g", "mean_b")


def to_dataset(
    records: Sequence[Record], traces: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]
) -> xr.Dataset:
    """Build the manifest of a run from its records, and the traces of all of them by id.

    Dimension `stimulus` carries every factor, id, seed and digest as coordinates; losses by layer have
    `stage` and `style_layer` or `content_layer`, traces `trace_step`; NaN where a cell has no such value. `attributes`
    are those of the Dataset beside its schema and factors: what else the run says.
    """
    frame, factors, described = to_table(records), factor_names(records), described_columns(records)
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {"stage": _stages(records), "channel": ["red", "green", "blue"]}
    for name in frame.columns:
        if name in _BY_STAGE or name in _BY_CHANNEL or _OF_DISTANCE.match(name):
            continue
        column = described.get(name)
        what = "level of the factor" if name in factors else "attribute or mark"
        described_as = (column.long_name, column.units) if column else (f"{what} {name}", "")
        values = frame[name]
        numeric = values.dtype.kind in "fiu"
        array = values.to_numpy() if values.dtype.kind in "fiub" else values.fillna("").astype(str).to_numpy(object)
        is_measure = column is not None and column.units != "" and numeric and name not in factors
        (variables if is_measure else coordinates)[name] = ("stimulus", array, _attributes(*described_as))
    variables |= _stage_losses(records) | _layer_losses(records) | _distances(records) | _traces(records, traces)
    variables["channel_mean"] = (
        ("stimulus", "channel"),
        frame[list(_BY_CHANNEL)].to_numpy(float),
        _attributes("mean of the channel (sRGB encoding, 0 to 1)", "1"),
    )
    for term in ("content", "style"):
        coordinates[f"{term}_layer"] = _layers(records, term)
        if images := _series_images(records, term):
            coordinates[f"{term}_image"] = images
    first = {"title": attributes["title"], "manifest_schema": MANIFEST_SCHEMA, "factors": ";".join(factors)}
    return xr.Dataset(variables, coordinates, {**first, **attributes})


def to_grid(manifest: xr.Dataset) -> xr.Dataset:
    """Unstack `stimulus` into one dimension for each factor with several levels, without controls.

    Cells that are not there become NaN (or empty). Coordinates other than factors become variables.
    """
    manifest = manifest.isel(stimulus=manifest["role"].values == "main")
    factors = [name for name in manifest.attrs["factors"].split(";") if len(np.unique(manifest[name])) > 1]
    others = [
        name for name, coordinate in manifest.coords.items() if coordinate.dims == ("stimulus",) and name not in factors
    ]
    flat = manifest.reset_coords(others)
    if not factors:
        return flat
    return (
        flat.set_index(stimulus=factors).unstack("stimulus")
        if len(factors) > 1
        else flat.swap_dims(stimulus=factors[0])
    )


def netcdf_bytes(manifest: xr.Dataset) -> bytes:
    """Write a Dataset as NetCDF4 and return the file. Raises `StorageError` where there is no room for it."""
    encoding = {
        name: {"zlib": True}
        for name, variable in manifest.variables.items()  # `data_vars` would look for the coordinates of each
        if name not in manifest.coords and variable.dtype.kind == "f" and variable.ndim > 1
    }
    try:  # by way of a file: what is written into memory cannot be appended to later
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "manifest.nc"
            manifest.to_netcdf(path, engine="netcdf4", encoding=encoding)
            data: bytes = path.read_bytes()
            return data
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", "") or error
        raise StorageError(
            f"NetCDF cannot be written in the folder for temporary files: {reason}; make room there, or name another in"
            " TMPDIR"
        ) from error


def _attributes(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units} if units else {"long_name": long_name}


def _layers(records: Sequence[Record], term: str) -> list[str]:
    used = {name for record in records for name in record.layer_weights(term)}
    return [name for name in LAYERS if name in used]


def _stage_losses(records: Sequence[Record]) -> dict[str, Any]:
    names = {
        "content": "content loss, unweighted",
        "style": "style loss, unweighted",
        "total": "total loss, alpha · content + beta · style",
    }
    stages = _stages(records)
    return {
        f"loss_{term}": (
            ("stimulus", "stage"),
            np.array([[_loss(record, stage, term) for stage in stages] for record in records]),
            _attributes(long_name, "1"),
        )
        for term, long_name in names.items()
    }


def _layer_losses(records: Sequence[Record]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    stages = _stages(records)
    for term in ("content", "style"):
        layers = _layers(records, term)
        losses = np.array(
            [[[_loss(record, stage, term, layer) for layer in layers] for stage in stages] for record in records]
        ).reshape(len(records), len(stages), len(layers))
        weights = [[record.layer_weights(term).get(layer, 0.0) for layer in layers] for record in records]
        variables[f"{term}_loss_by_layer"] = (
            ("stimulus", "stage", f"{term}_layer"),
            losses,
            _attributes(f"{term} loss of one layer, unweighted", "1"),
        )
        variables[f"{term}_weight"] = (
            ("stimulus", f"{term}_layer"),
            np.array(weights).reshape(len(records), len(layers)),
            _attributes(f"weight of the layer in the {term} loss", "1"),
        )
    return variables


def _series_images(records: Sequence[Record], term: str) -> list[str]:
    """The images that the series of a run go through."""
    return list(dict.fromkeys(image for record in records for image in record.distances.get(term, {})))


def _distances(records: Sequence[Record]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for term in ("content", "style"):
        images, layers = _series_images(records, term), _layers(records, term)
        if images:
            found = [[record.distances.get(term, {}).get(image, {}) for image in images] for record in records]
            values = [[[one.get(layer) for layer in layers] for one in row] for row in found]
            variables[f"{term}_distance"] = (
                ("stimulus", f"{term}_image", f"{term}_layer"),
                np.array(values, float),
                _attributes(f"{term} loss of the file to an image of its series, of one layer, unweighted", "1"),
            )
    return variables


def _traces(records: Sequence[Record], traces: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    length = max(len(traces[record.stimulus_id]) for record in records)
    padded = np.full((len(records), length, len(TERMS)), np.nan, np.float32)
    for row, record in enumerate(records):
        trace = traces[record.stimulus_id]
        padded[row, : len(trace)] = trace
    return {
        f"trace_{term}": (
            ("stimulus", "trace_step"),
            padded[:, :, column],
            _attributes(f"{term} loss at every evaluation", "1"),
        )
        for column, term in enumerate(TERMS)
    }


def _stages(records: Sequence[Record]) -> list[str]:
    """The stages that any of the stimuli has losses of."""
    return [stage for stage in STAGES if any(getattr(record.losses, stage) is not None for record in records)]


def _loss(record: Record, stage: str, term: str, layer: str | None = None) -> float:
    losses: StageLosses | None = getattr(record.losses, stage)
    if losses is None:
        return np.nan
    value = losses.sum(term) if layer is None else losses.layers(term).get(layer)
    return np.nan if value is None else value

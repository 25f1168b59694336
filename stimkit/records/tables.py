"""The manifest: records as an xarray Dataset, NetCDF and CSV, with units and descriptions."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from stimkit.columns import COLUMNS
from stimkit.network.layers import LAYERS
from stimkit.protocol.settings import OUTPUT_KEYS
from stimkit.records.record import INSIDE, STAGES, STATISTICS, Record, flatten
from stimkit.runfolder.store import RunStore

MANIFEST_SCHEMA = 2
_OUTPUT_COLUMNS = (
    *OUTPUT_KEYS, "colour", "regions", "region_count", "region_scaling", "mask_id", "mask_sha256", "height_deg",
    "width_deg", "mean_luminance_optimized", "rms_contrast_optimized", "equalize_error", "titrate", "titrate_value",
    "titrate_tolerance", "titrate_lowest", "titrate_highest", "titrate_runs", "titrate_error", "loss_content_equalized",
    "loss_style_equalized", "loss_total_equalized",
)  # fmt: skip
LATER_COLUMNS = frozenset({"attempt", "role", "control_of", "init_slope", *INSIDE, *_OUTPUT_COLUMNS})
"""Columns that tables of an earlier schema do not have."""
TERMS = ("content", "style", "total")
_BY_STAGE = {f"loss_{term}_{stage}" for term in TERMS for stage in STAGES}
NAMES = ("content", "style", "mask", "content_layers", "style_layers")
"""Factors whose levels are names, also where they are digits."""
_NUMBER = r"-?(0|[1-9]\d*)(\.\d+)?(e-?\d+)?|inf"
_EXACT_DIGITS = 15  # more than that a double does not hold
_BY_CHANNEL = ("mean_r", "mean_g", "mean_b")


def table(records: Sequence[Record]) -> pd.DataFrame:
    """One row a stimulus: its id, the levels of its factors, attributes, then everything in `COLUMNS`."""
    first = ("stimulus_id", "filename")
    frame = pd.DataFrame(
        [
            {**{key: record[key] for key in first}, **record["levels"], **record["attributes"], **flatten(record)}
            for record in records
        ]
    )
    frame["alpha_beta_ratio"] = frame["alpha_beta_ratio"].astype(float)
    for name in STATISTICS:  # which a lost cell has none of
        frame[name] = frame[name].astype(float)
    for name in (*factor_names(records), *attribute_names(records)):
        if name not in NAMES:
            frame[name] = numbers_if_all(frame[name])
    return frame


def factor_names(records: Sequence[Record]) -> tuple[str, ...]:
    """The factors of the design, in the order of the protocol."""
    return tuple(dict.fromkeys(factor for record in records for factor in record["levels"]))


def attribute_names(records: Sequence[Record]) -> tuple[str, ...]:
    """What follows from the factors: attributes of the images, and marks."""
    return tuple(dict.fromkeys(name for record in records for name in record["attributes"]))


def numbers_if_all(labels: pd.Series[Any]) -> pd.Series[Any]:
    """Labels as numbers, where all are written as numbers are ("01" is a name); NaN where there is none."""
    given = labels[labels.notna() & (labels != "")].astype(str)
    if not len(given) or not given.str.fullmatch(_NUMBER).all() or given.str.len().max() > _EXACT_DIGITS:
        return labels
    numbers = pd.to_numeric(given)
    finite = np.isfinite(numbers) | (given == "inf")
    return numbers.reindex(labels.index) if finite.all() and numbers.nunique() == given.nunique() else labels


def manifest_csv(records: Sequence[Record]) -> bytes:
    """manifest.csv: `table` in a form that PsychoPy, R and spreadsheets read; empty where there is no value."""
    return csv_bytes(table(records))


def losses_csv(records: Sequence[Record]) -> bytes:
    """losses.csv: one row for every loss of every stimulus, by stage, term and layer, unweighted."""
    frame = pd.DataFrame(_loss_rows(records), columns=["stimulus_id", "stage", "term", "layer", "weight", "value"])
    return csv_bytes(frame)


def _loss_rows(records: Iterable[Record]) -> Iterator[tuple[Any, ...]]:
    for record in records:
        weights = {term: _layer_weights(record, term) for term in ("content", "style")}
        factors = {"content": record["alpha"], "style": record["beta"]}
        for stage, losses in record["losses"].items():
            for term in ("content", "style"):
                for layer, value in losses[f"{term}_layers"].items():
                    yield record["stimulus_id"], stage, term, layer, weights[term][layer], value
                if losses[term] is not None:
                    yield record["stimulus_id"], stage, term, "all", factors[term], losses[term]
            yield record["stimulus_id"], stage, "total", "all", 1.0, losses["total"]


def _layer_weights(record: Record, term: str) -> dict[str, float]:
    names = [name for name in record[f"{term}_layers_used"].split(";") if name]
    weights = [float(weight) for weight in record[f"{term}_layer_weights"].split(";") if weight]
    return dict(zip(names, weights, strict=True))


def dataset(store: RunStore, records: Sequence[Record]) -> xr.Dataset:
    """Build the manifest of a run folder, from its records, as a Dataset.

    Dimension `stimulus` carries every factor, id, seed and digest as coordinates; losses by layer have
    `stage` and `style_layer` or `content_layer`, traces `trace_step`; NaN where a cell has no such value.
    Attributes hold the protocol, the resolved protocol and the environment.
    """
    frame, factors, lock = table(records), factor_names(records), store.lock_contents()
    described = {column.name: column for column in COLUMNS}
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {"stage": _stages(records), "channel": ["red", "green", "blue"]}
    for name in frame.columns:
        if name in _BY_STAGE or name in _BY_CHANNEL:
            continue
        column = described.get(name)
        what = "level of the factor" if name in factors else "attribute or mark"
        described_as = (column.long_name, column.units) if column else (f"{what} {name}", "")
        values = frame[name]
        numeric = values.dtype.kind in "fiu"
        array = values.to_numpy() if values.dtype.kind in "fiub" else values.fillna("").astype(str).to_numpy(object)
        is_measure = column is not None and column.units != "" and numeric and name not in factors
        (variables if is_measure else coordinates)[name] = ("stimulus", array, _attributes(*described_as))
    variables |= _stage_losses(records) | _layer_losses(records) | _traces(store, records)
    variables["channel_mean"] = (
        ("stimulus", "channel"),
        frame[list(_BY_CHANNEL)].to_numpy(float),
        _attributes("mean of the channel (sRGB encoding, 0 to 1)", "1"),
    )
    for term in ("content", "style"):
        coordinates[f"{term}_layer"] = _layers(records, term)
    attributes: dict[str, Any] = {
        "title": lock["protocol"]["name"],
        "manifest_schema": MANIFEST_SCHEMA,
        "factors": ";".join(factors),
        "protocol": store.text("protocol.toml"),
        "protocol_lock": json.dumps(lock),
        "environment": store.text("environment.json"),
    }
    return xr.Dataset(variables, coordinates, attributes)


def to_grid(manifest: xr.Dataset) -> xr.Dataset:
    """Unstack `stimulus` into one dimension for each factor with several levels, without controls.

    Cells that are not there become NaN (or empty). Coordinates other than factors become variables.
    """
    manifest = manifest.isel(stimulus=manifest["role"].values == "main")
    factors = [name for name in manifest.attrs["factors"].split(";") if len(np.unique(manifest[name])) > 1]
    others = [name for name, one in manifest.coords.items() if one.dims == ("stimulus",) and name not in factors]
    flat = manifest.reset_coords(others)
    if not factors:
        return flat
    return (
        flat.set_index(stimulus=factors).unstack("stimulus")
        if len(factors) > 1
        else flat.swap_dims(stimulus=factors[0])
    )


def netcdf_bytes(manifest: xr.Dataset) -> bytes:
    """Write a Dataset as NetCDF4 and return the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.nc"
        encoding = {
            name: {"zlib": True} for name, one in manifest.data_vars.items() if one.dtype.kind == "f" and one.ndim > 1
        }
        manifest.to_netcdf(path, engine="netcdf4", encoding=encoding)
        return path.read_bytes()


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """A table as UTF-8 CSV; empty where there is no value."""
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _attributes(long_name: str, units: str) -> dict[str, str]:
    return {"long_name": long_name, "units": units} if units else {"long_name": long_name}


def _layers(records: Sequence[Record], term: str) -> list[str]:
    used = {name for record in records for name in _layer_weights(record, term)}
    return [name for name in LAYERS if name in used]


def _stage_losses(records: Sequence[Record]) -> dict[str, Any]:
    names = {
        "content": "content loss, unweighted",
        "style": "style loss, unweighted",
        "total": "total loss, alpha · content + beta · style",
    }
    return {
        f"loss_{term}": (
            ("stimulus", "stage"),
            np.array([[_loss(record, stage, term) for stage in _stages(records)] for record in records]),
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
            [
                [
                    [_number(record["losses"].get(stage, {}).get(f"{term}_layers", {}).get(layer)) for layer in layers]
                    for stage in stages
                ]
                for record in records
            ]
        ).reshape(len(records), len(stages), len(layers))
        weights = [[_layer_weights(record, term).get(layer, 0.0) for layer in layers] for record in records]
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


def _traces(store: RunStore, records: Sequence[Record]) -> dict[str, Any]:
    traces = [store.trace(record["stimulus_id"]) for record in records]
    length = max(len(trace) for trace in traces)
    padded = np.full((len(traces), length, len(TERMS)), np.nan, np.float32)
    for row, trace in enumerate(traces):
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
    return [stage for stage in STAGES if any(stage in record["losses"] for record in records)]


def _loss(record: Record, stage: str, term: str) -> float:
    return _number(record["losses"].get(stage, {}).get(term))


def _number(value: float | None) -> float:
    return np.nan if value is None else value

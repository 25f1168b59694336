"""Features of a run as NetCDF: a row for each stimulus, written as they are measured."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimkit.auditing.verification import OnCount
from stimkit.documents.progress import show_progress
from stimkit.errors import StorageError, UsageError
from stimkit.features.components import principal_components
from stimkit.features.dissimilarities import Measure, check_measure, dissimilarity_matrix, order_by_condition
from stimkit.features.matlab import check_matlab, write_matlab
from stimkit.features.measuring import (
    FeatureForm,
    FeatureRow,
    Measuring,
    check_form,
    check_layers,
    list_rows,
    seen_by,
    shape_of,
)
from stimkit.files import storage_errors
from stimkit.planning.inputs import InputSource
from stimkit.records.schema import Record
from stimkit.records.selection import select
from stimkit.records.tables import attribute_names, factor_names, to_table
from stimkit.runfolder.run import AnyRun, Run, read_run
from stimkit.synthesis.devices import choose_device
from stimkit.version import __version__

MAX_COMPARED = 10_000  # images whose inner products are held in memory, in 0.8 GB
FORM_WORDS = {
    "gram": "Gram matrix of the responses, divided by the number of positions",
    "mean": "mean of the responses over positions",
    "flat": "responses",
}
FORM_DIMENSIONS: dict[FeatureForm, tuple[str, ...]] = {
    "gram": ("filter", "other_filter"),
    "mean": ("filter",),
    "flat": ("filter", "y", "x"),
}


@dataclass(frozen=True)
class _Request:
    """What is asked for."""

    layers: Sequence[str]
    form: FeatureForm
    components: int
    measure: Measure | None
    replicates: int
    """Rows in succession that belong to one condition of `crossnobis`; otherwise 1."""
    size: tuple[int, int]

    @property
    def derived(self) -> bool:
        """Whether something that follows from all features of a layer is written instead of them."""
        return self.components > 0 or self.measure is not None

    def shape(self, layer: str) -> tuple[int, ...]:
        return shape_of(layer, self.form, self.size)


def measure_features(
    run: AnyRun,
    out: str | Path,
    layers: Sequence[str],
    *,
    form: str = "mean",
    components: int = 0,
    measure: str | None = None,
    where: str | None = None,
    inputs: bool = False,
    observer: str | None = None,
    device: str = "auto",
    on_progress: OnCount | None = None,
    progress: bool | None = None,
) -> Path:
    """Write what the network makes of the accepted stimuli of a run into a new NetCDF or .mat file, and return it.

    >>> stimkit.measure_features("runs/quickstart", "features.nc", ["conv1_1", "conv4_2"], form="mean").name
    'features.nc'

    `form` is `gram` (N × N, divided by the number of positions), `mean` (N) or `flat` (N × height × width); with
    `components`, so many principal components of these over the rows, and with `measure` (`euclidean`, `correlation`,
    `crossnobis`) their dissimilarities: of `crossnobis`, those of conditions over replicates. `where` is a condition
    on the manifest; with `inputs`, the content and style images follow the stimuli, in the size that the network was
    shown them. Ids, roles, factors and attributes are coordinates of the dimension `stimulus`. What is measured is
    the file that observers see, with the network, pooling and rescaling of the stimuli, or those of an `observer` of
    the protocol. `on_progress` is called with the images that are done and all of them. Raises `UsageError` for layers,
    forms, measures, observers and conditions that are not there, for stimuli of several networks or sizes, and for more
    than a .mat file holds; `StorageError` where there is too little room, before anything is measured; `ImageError`
    and `WeightsError` where inputs are not found.
    """
    run, target = read_run(run), Path(out)
    run.check_readable()
    if target.exists():
        raise UsageError(f"{target} exists already; give another name")
    rows = list_rows(run, select_records(run, where), inputs=inputs)
    source: InputSource = run.inputs(())
    if observer is not None:
        rows, source = seen_by(run, rows, source, observer)
    settings = rows[0].cell.settings
    wanted = _Request(
        check_layers(layers, settings),
        check_form(form),
        components,
        None if measure is None else check_measure(measure),
        1,
        settings.size,
    )
    if wanted.derived:
        _check_comparable(wanted, len(rows), inputs=inputs)
    if wanted.measure == "crossnobis":
        rows, replicates = order_by_condition(rows)
        wanted = replace(wanted, replicates=replicates)
    if inputs and wanted.form == "flat" and settings.style_size != settings.size:
        raise UsageError("style images have another size than the stimuli: leave them out, or take mean or gram")
    asked = 4 * len(rows) * sum(int(np.prod(wanted.shape(layer))) for layer in wanted.layers)
    check_room(asked, f"{', '.join(wanted.layers)} of {len(rows)} images as {wanted.form}", target.parent)
    if target.suffix == ".mat":
        check_matlab({layer: (len(rows), *(() if wanted.derived else wanted.shape(layer))) for layer in wanted.layers})
    measuring = Measuring(run, source, choose_device(device))
    with (
        storage_errors(target),
        tempfile.TemporaryDirectory(dir=target.parent) as folder,
        show_progress(on_progress, progress, lambda show: partial(show, "features")) as tell,
    ):
        part = Path(folder) / "features.nc"
        with netCDF4.Dataset(part, "w") as file:
            _describe(file, run, rows[:: wanted.replicates], wanted)
            file.setncatts({"observer": observer or "", "weights_sha256": source.weights(settings).digest})
            _write(file, measuring.measure(rows, wanted.layers, wanted.form), len(rows), wanted, tell)
        if target.suffix == ".mat":
            write_matlab(part, part := part.with_suffix(".mat"))
        part.rename(target)
    return target


def select_records(run: Run, where: str | None) -> list[Record]:
    """Records of the accepted stimuli that meet a condition. Raises `UsageError` where there are none."""
    records = [record for record in run.records.values() if record.status == "accepted"]
    if where is not None:
        records = [run.records[stimulus_id] for stimulus_id in select(to_table(records), where)["stimulus_id"]]
    if not records:
        raise UsageError("no accepted stimulus is selected")
    return records


def _check_comparable(wanted: _Request, count: int, *, inputs: bool) -> None:
    """Raise `UsageError` where so many images have no such components or dissimilarities."""
    if wanted.components and wanted.measure:
        raise UsageError("dissimilarities are of the features themselves: leave out the number of components")
    if wanted.components >= count:
        raise UsageError(f"{count} images have at most {count - 1} principal components")
    if wanted.measure and count < 2:
        raise UsageError("dissimilarities compare at least 2 images")
    if count > MAX_COMPARED:
        raise UsageError(f"{count:,} images cannot be compared at once, at most {MAX_COMPARED:,}: choose with --where")
    if inputs and wanted.measure == "crossnobis":
        raise UsageError("crossnobis compares replicates, which images of the protocol do not have: leave them out")


def check_room(asked: int, what: str, folder: Path) -> None:
    """Raise `StorageError` where features of so many bytes would not have room on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if asked > free:
        raise StorageError(
            f"{what} are {asked / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {folder}: take fewer layers or"
            " stimuli, or another form"
        )


def _describe(file: netCDF4.Dataset, run: Run, rows: Sequence[FeatureRow], wanted: _Request) -> None:
    """Dimensions, coordinates and attributes."""
    file.createDimension("stimulus", len(rows))
    records = [row.record for row in rows if row.record is not None]
    table = to_table(records).set_index("stimulus_id", drop=False)
    names = [name for name in (*factor_names(records), *attribute_names(records)) if name in table]
    if wanted.replicates > 1:
        names.remove("replicate")
    coordinates: dict[str, list[Any]] = {
        "name": [row.name for row in rows],
        "role": [row.role for row in rows],
        **{name: [table[name].get(row.name) if row.record else None for row in rows] for name in names},
    }
    for name, values in coordinates.items():
        column = pd.Series(values, dtype=object)
        numeric = column.dropna().map(lambda value: isinstance(value, int | float | np.number)).all()
        if numeric and name not in ("name", "role") and column.notna().any():
            file.createVariable(name, "f8", ("stimulus",))[:] = column.astype(float).to_numpy()
        else:
            file.createVariable(name, str, ("stimulus",))[:] = column.fillna("").astype(str).to_numpy(object)
    settings = rows[0].cell.settings
    file.setncatts(
        {
            "title": run.plan.protocol.name,
            "form": wanted.form,
            "dissimilarity_measure": wanted.measure or "",
            "layers": ",".join(wanted.layers),
            "weights": settings.weights,
            "network": settings.network,
            "pooling": settings.pooling,
            "normalize": settings.normalize,
            "stimkit_version": __version__,
        }
    )


def _write(
    file: netCDF4.Dataset,
    features: Iterable[tuple[int, Mapping[str, NDArray[np.float32]]]],
    count: int,
    wanted: _Request,
    on_progress: OnCount | None,
) -> None:
    """Write features, or what follows from them, of so many images."""
    folder = Path(file.filepath()).parent
    stores = {layer: _store(file, layer, count, wanted, folder) for layer in wanted.layers}
    fill(stores, features, count, on_progress)
    _derive(file, stores, wanted)


def fill(
    stores: Mapping[str, Any],
    features: Iterable[tuple[int, Mapping[str, NDArray[np.float32]]]],
    count: int,
    on_progress: OnCount | None,
) -> None:
    """Put features of so many images into the stores of their layers, in the shape of the rows there."""
    for index, found in features:
        for layer, values in found.items():
            stores[layer][index] = values.reshape(stores[layer].shape[1:])
        if on_progress:
            on_progress(index + 1, count)


def _derive(file: netCDF4.Dataset, stores: Mapping[str, Any], wanted: _Request) -> None:
    """Write the dissimilarities or components of features, where they are asked for."""
    if wanted.measure is not None:
        file.createDimension("other_stimulus", file.dimensions["stimulus"].size)
        for layer in wanted.layers:
            variable = file.createVariable(layer, "f8", ("stimulus", "other_stimulus"))
            variable.long_name = f"{wanted.measure} dissimilarity of the {FORM_WORDS[wanted.form]}"
            variable[:] = dissimilarity_matrix(stores[layer], wanted.measure, wanted.replicates)
    if wanted.components:
        file.createDimension("component", wanted.components)
        for layer in wanted.layers:
            scores, explained = principal_components(stores[layer], wanted.components)
            variable = file.createVariable(layer, "f4", ("stimulus", "component"))
            variable.long_name = f"principal components of the {FORM_WORDS[wanted.form]}"
            variable[:] = scores
            file.createVariable(f"{layer}_explained", "f4", ("component",))[:] = explained


def _store(file: netCDF4.Dataset, layer: str, count: int, wanted: _Request, folder: Path) -> Any:
    """Where the features of a layer go: into their variable, or into a file beside it until all are there."""
    shape = wanted.shape(layer)
    if wanted.derived:
        values: NDArray[np.float32] = np.memmap(folder / layer, np.float32, "w+", shape=(count, int(np.prod(shape))))
        return values
    names = [f"{layer}_{name}" for name in FORM_DIMENSIONS[wanted.form]]
    for name, length in zip(names, shape, strict=True):
        file.createDimension(name, length)
    variable = file.createVariable(layer, "f4", ("stimulus", *names), zlib=True, chunksizes=(1, *shape))
    variable.long_name = FORM_WORDS[wanted.form]
    return variable

"""Distances between the stimuli of a run: nearest neighbours, a map of the set, what the factors explain of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stimkit.auditing.verification import OnCount
from stimkit.columns import Column
from stimkit.documents.progress import show_progress
from stimkit.effects.chance import levels_of_factor
from stimkit.effects.multivariate import explain_distances
from stimkit.errors import UsageError
from stimkit.features.dissimilarities import dissimilarity_matrix
from stimkit.features.measuring import FeatureForm, Measuring, check_form, check_layers, list_rows, seen_by, shape_of
from stimkit.features.writing import MAX_COMPARED, check_room, fill, select_records
from stimkit.files import storage_errors, whole_folder, write_json
from stimkit.images.light import Array
from stimkit.planning.inputs import InputSource
from stimkit.records.tables import attribute_names, csv_bytes, factor_names, to_table
from stimkit.runfolder.measuring import enter_measurements
from stimkit.runfolder.run import AnyRun, Run, read_run
from stimkit.scaling.similarity import scale_classically
from stimkit.synthesis.devices import choose_device
from stimkit.version import __version__

ALL_LAYERS = "all"
NEIGHBOURS = 5
DISTANCE_TABLE = "distances"
DISTANCE_COLUMNS = (
    Column("map_x", "1", "first coordinate of the stimulus in the map of distances (classical scaling)"),
    Column("map_y", "1", "second coordinate of the stimulus in the map of distances (classical scaling)"),
    Column("nearest_distance", "1", "distance to the nearest stimulus / median distance of all pairs"),
)


@dataclass(frozen=True)
class Comparisons:
    """How the stimuli of a run differ."""

    neighbours: pd.DataFrame
    """For each layer, and all layers together, the nearest stimuli of each: layer, stimulus_id, rank, neighbour_id,
    distance, relative (to the median distance of all pairs of the layer)."""
    explained: pd.DataFrame
    """For each layer and factor, what part of squared distances it explains: see `explain_distances`."""
    map: pd.DataFrame
    """Coordinates of each stimulus, of all layers together, and how far its nearest is."""
    mapped: float
    """The part of the variance that is in the map."""


def compare_stimuli(
    run: AnyRun,
    layers: Sequence[str] | None = None,
    *,
    form: str = "gram",
    where: str | None = None,
    observer: str | None = None,
    device: str = "auto",
    on_progress: OnCount | None = None,
    progress: bool | None = None,
) -> Comparisons:
    """Compare the accepted stimuli of a run with each other by what a network makes of them.

    >>> found = stimkit.compare_stimuli("runs/quickstart", ["conv1_1", "conv2_1"])
    >>> found.map.shape, sorted(found.neighbours["layer"].unique())
    ((8, 4), ['all', 'conv1_1', 'conv2_1'])

    Distances are Euclidean, of the Gram matrices (`gram`), mean responses (`mean`) or responses (`flat`) of each
    layer, by default those that the stimuli were made with. All layers together have the root of the mean of their
    squared distances, each layer's divided by its mean. The map enters the manifest (`map_x`, `map_y`,
    `nearest_distance`); the report shows it. Raises `UsageError` for layers, forms, observers and conditions that are
    not there, for fewer than 3 or more than 10,000 stimuli, and stimuli of several networks or sizes; `StorageError`
    where there is too little room for the features.
    """
    run = read_run(run)
    run.check_readable()
    records = select_records(run, where)
    if not 3 <= len(records) <= MAX_COMPARED:
        raise UsageError(f"3 to {MAX_COMPARED:,} stimuli are compared, and {len(records):,} are chosen")
    rows = list_rows(run, records, inputs=False)
    source: InputSource = run.inputs(())
    if observer is not None:
        rows, source = seen_by(run, rows, source, observer)
    own = {layer for row in rows for layer in row.cell.layers}
    chosen = check_layers(list(layers) if layers else sorted(own), rows[0].cell.settings)
    measuring = Measuring(run, source, choose_device(device))
    with show_progress(on_progress, progress, lambda show: partial(show, "features")) as tell:
        squared = _squared_distances(run, measuring, rows, chosen, check_form(form), tell)
    squared[ALL_LAYERS] = np.mean([one / max(one.mean(), 1e-300) for one in squared.values()], axis=0)
    names = [record.stimulus_id for record in records]
    table = to_table(records)
    factors = [name for name in (*factor_names(records), *attribute_names(records)) if name != "replicate"]
    main = np.flatnonzero(table["role"] == "main")  # controls lack levels
    levels = {name: levels_of_factor(table[name].iloc[main]).tolist() for name in factors}
    explained = pd.concat(
        [explain_distances(one[np.ix_(main, main)], levels).assign(layer=layer) for layer, one in squared.items()]
    )
    coordinates, mapped = scale_classically(np.sqrt(squared[ALL_LAYERS]))
    neighbours = pd.concat([_neighbours(np.sqrt(one), names, layer) for layer, one in squared.items()])
    nearest = neighbours[(neighbours["layer"] == ALL_LAYERS) & (neighbours["rank"] == 1)]["relative"].to_numpy(float)
    placed = pd.DataFrame(
        {"stimulus_id": names, "map_x": coordinates[:, 0], "map_y": coordinates[:, 1], "nearest_distance": nearest}
    )
    order = ["layer", *(name for name in explained if name != "layer")]
    found = Comparisons(neighbours.reset_index(drop=True), explained[order].reset_index(drop=True), placed, mapped)
    made = {"by": f"stimkit distances {__version__}", "layers": chosen, "form": form, "observer": observer or ""}
    _enter(run, found, {**made, "weights_sha256": source.weights(rows[0].cell.settings).digest, "mapped": mapped})
    return found


def describe_distances(found: Comparisons) -> Iterator[str]:
    """What the factors explain of the distances, and which stimuli are the nearest, in words."""
    for row in found.explained[found.explained["layer"] == ALL_LAYERS].to_dict("records"):
        part = f"{row['factor']} explains {row['omega_squared']:.2f} of the squared distances"
        yield f"{part}, p {row['p_permutation']:.2g} by permutation"
    nearest = found.neighbours[(found.neighbours["layer"] == ALL_LAYERS) & (found.neighbours["rank"] == 1)]
    first = nearest.sort_values("relative").to_dict("records")[0]
    pair = f"{first['stimulus_id']} and {first['neighbour_id']}"
    yield f"the nearest are {pair}: {first['relative']:.2g} of the median distance; the map holds {found.mapped:.0%}"


def save_distances(found: Comparisons, out: Path) -> None:
    """Write neighbours.csv, explained.csv and map.csv into a new folder."""
    with whole_folder(out) as folder:
        for name in ("neighbours", "explained", "map"):
            (folder / f"{name}.csv").write_bytes(csv_bytes(getattr(found, name)))
        write_json(folder / "map.json", {"mapped": found.mapped})


def _enter(run: Run, found: Comparisons, made: Mapping[str, Any]) -> None:
    """Take the map into the manifest, and the rest of it beside the map."""
    values = found.map.set_index("stimulus_id").to_dict("index")
    of_all = found.neighbours[found.neighbours["layer"] == ALL_LAYERS]
    nearest = {
        str(stimulus): [[row["neighbour_id"], round(row["relative"], 6)] for row in group.to_dict("records")]
        for stimulus, group in of_all.groupby("stimulus_id", sort=False)
    }
    further = {"neighbours": nearest, "explained": found.explained.to_dict("records")}
    enter_measurements(run, DISTANCE_TABLE, DISTANCE_COLUMNS, values, {**made, **further})  # type: ignore[arg-type]


def _squared_distances(
    run: Run,
    measuring: Measuring,
    rows: Sequence[Any],
    layers: Sequence[str],
    form: FeatureForm,
    on_progress: OnCount | None,
) -> dict[str, Array]:
    """Squared distances (n, n) by layer. Features are on disk until all stimuli have theirs."""
    sizes = {layer: int(np.prod(shape_of(layer, form, rows[0].cell.settings.size))) for layer in layers}
    check_room(4 * len(rows) * sum(sizes.values()), f"{', '.join(layers)} of {len(rows)} stimuli as {form}", run.path)
    with (
        storage_errors(run.path),
        tempfile.TemporaryDirectory(dir=run.path, prefix=".distances-", suffix=".tmp") as folder,
    ):
        stores = {
            layer: np.memmap(Path(folder) / layer, np.float32, "w+", shape=(len(rows), size))
            for layer, size in sizes.items()
        }
        fill(stores, measuring.measure(rows, layers, form), len(rows), on_progress)
        return {layer: dissimilarity_matrix(store, "euclidean") for layer, store in stores.items()}


def _neighbours(distances: Array, names: Sequence[str], layer: str) -> pd.DataFrame:
    """The nearest stimuli of each."""
    middle = max(float(np.median(distances[np.triu_indices(len(distances), 1)])), 1e-300)
    others = distances + np.diag(np.full(len(distances), np.inf))
    order = np.argsort(others, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(distances) - 1)]
    rows = [
        (layer, names[one], rank, names[other], distances[one, other], distances[one, other] / middle)
        for one, nearest in enumerate(order)
        for rank, other in enumerate(nearest, 1)
    ]
    columns = ["layer", "stimulus_id", "rank", "neighbour_id", "distance", "relative"]
    return pd.DataFrame(rows, columns=columns)

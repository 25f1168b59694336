"""Distances between stimuli are those of their Gram matrices; the map, neighbours and the report follow from them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import stimkit
from stimkit.columns import Column
from stimkit.errors import UsageError
from stimkit.features.comparing import Comparisons, compare_stimuli
from stimkit.runfolder.measuring import enter_measurements
from stimkit.runfolder.run import Run
from tests.conftest import small_plan

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("compared") / "run"
    shutil.copytree(small_run.path, folder)
    return stimkit.open_run(folder)


@pytest.fixture(scope="module")
def found(run: Run) -> Comparisons:
    return compare_stimuli(run, ["conv1_1", "conv2_1"], device="cpu")


def test_neighbours_are_those_of_gram_matrices(run: Run, found: Comparisons, tmp_path: Path) -> None:
    grams = xr.load_dataset(
        stimkit.measure_features(run.path, tmp_path / "g.nc", ["conv1_1", "conv2_1"], form="gram", device="cpu")
    )
    names, together = list(run.records), []
    for layer in ("conv1_1", "conv2_1"):
        rows = grams[layer].values.reshape(4, -1).astype(float)
        squares = ((rows[:, None] - rows[None]) ** 2).mean(2)
        together.append(squares / squares.mean())
        first = found.neighbours.query("layer == @layer and rank == 1").set_index("stimulus_id")
        for index, name in enumerate(names):
            others = np.sqrt(squares[index]) + np.where(np.arange(4) == index, np.inf, 0)
            assert first.loc[name, "neighbour_id"] == names[others.argmin()]
            assert first.loc[name, "distance"] == pytest.approx(others.min(), rel=1e-4)
    distances = np.sqrt(np.mean(together, axis=0))
    middle = np.median(distances[np.triu_indices(4, 1)])
    nearest = (distances + np.diag([np.inf] * 4)).min(0) / middle
    assert found.map["nearest_distance"].to_numpy() == pytest.approx(nearest, rel=1e-4)
    places = found.map[["map_x", "map_y"]].to_numpy()
    drawn = np.linalg.norm(places[:, None] - places[None], axis=2)
    assert (drawn <= distances + 1e-6).all() and 0.5 < found.mapped <= 1


def test_factors_explain_by_layer(found: Comparisons) -> None:
    assert set(found.explained["layer"]) == {"conv1_1", "conv2_1", "all"}
    assert set(found.explained["factor"]) == {"style_layers", "ratio"}
    assert found.explained["eta_squared"].between(0, 1).all()


def test_the_map_is_in_the_manifest_and_in_the_report(run: Run, found: Comparisons, tmp_path: Path) -> None:
    table = pd.read_csv(run.path / "manifest.csv")
    assert table["map_x"].tolist() == pytest.approx(found.map["map_x"].tolist())
    assert stimkit.verify(run.path).findings == ()
    html = stimkit.report(run.path, tmp_path / "report.html", device="cpu", losses=False).read_text()
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    shown = json.loads(text)["distances"]
    assert shown["layers"] == ["conv1_1", "conv2_1"] and shown["mapped"] == pytest.approx(found.mapped)
    first = next(iter(run.records))
    assert [name for name, _ in shown["neighbours"][first]] == found.neighbours.query(
        "layer == 'all' and stimulus_id == @first"
    )["neighbour_id"].tolist()


def test_the_command_writes_tables(small_run: Run, tmp_path: Path, command: Command) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    code, said, _ = command("distances", tmp_path / "run", "--as", "mean", "--out", tmp_path / "out")
    assert code == 0 and "nearest" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "neighbours.csv", "explained.csv", "map.csv", "map.json",
    }  # fmt: skip
    assert set(pd.read_csv(tmp_path / "out/neighbours.csv")["layer"]) == {"conv1_1", "conv2_1", "all"}
    code, _, said = command("distances", tmp_path / "run", "--out", tmp_path / "out")
    assert code == 2 and "not an empty folder" in said
    code, _, said = command("distances", tmp_path / "run", "--layers", "conv9_1", "--out", tmp_path / "more")
    assert code == 2 and 'unknown layer "conv9_1"' in said


def test_controls_are_not_what_factors_explain(tmp_path: Path) -> None:
    plan = small_plan(controls={"texture": True, "untouched": True}, factors={"style_layers": ["one"]})
    stimkit.run(plan, tmp_path / "run", device="cpu")
    found = compare_stimuli(tmp_path / "run", device="cpu")
    assert len(found.map) == len(plan.cells) > len(plan.main_cells) == 2
    assert found.explained.empty, "two stimuli with a level each"


def test_what_was_made_again_has_no_neighbours_in_the_report(small_run: Run, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    compare_stimuli(tmp_path / "run", ["conv1_1"], device="cpu")
    first, *others = small_run.records
    enter_measurements(
        stimkit.open_run(tmp_path / "run"), "looks", [Column("bright", "1", "")], {first: {"bright": 0.0}}, {}
    )
    again = small_plan(accept={"measured": {"bright": [0.5, 1]}, "retries": 1})
    assert stimkit.run(again, tmp_path / "run", device="cpu").made == 1
    html = stimkit.report(tmp_path / "run", device="cpu", losses=False).read_text()
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    shown = json.loads(text)["distances"]
    assert set(shown["neighbours"]) == set(others) and shown["explained"] == []
    assert first not in {name for pairs in shown["neighbours"].values() for name, _ in pairs}


def test_sets_too_small_are_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="3 to 10,000 stimuli are compared, and 2 are chosen"):
        compare_stimuli(run, where="ratio == 1e-5", device="cpu")

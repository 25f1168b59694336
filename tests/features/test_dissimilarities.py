"""Dissimilarities are those of their formulas, written down directly in NumPy."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import stimkit
from stimkit.errors import UsageError
from stimkit.features.dissimilarities import dissimilarity_matrix
from stimkit.runfolder.run import Run
from tests.conftest import small_plan

ROWS = np.random.default_rng(3).normal(2, 1, size=(6, 700)).astype(np.float32)


def crossnobis_by_pairs(rows: np.ndarray) -> np.ndarray:
    """Rows (conditions, replicates, values): the mean over ordered pairs of replicates."""
    found = np.zeros((len(rows), len(rows)))
    for i, j in permutations(range(len(rows)), 2):
        apart = rows[i].astype(float) - rows[j]
        found[i, j] = np.mean([apart[a] @ apart[b] for a, b in permutations(range(len(apart)), 2)]) / rows.shape[2]
    return found


def test_euclidean_and_correlation() -> None:
    rows = ROWS.astype(float)
    assert dissimilarity_matrix(ROWS, "euclidean") == pytest.approx(
        ((rows[:, None] - rows[None]) ** 2).mean(2), abs=1e-12
    )
    assert dissimilarity_matrix(ROWS, "correlation") == pytest.approx(1 - np.corrcoef(rows), abs=1e-12)


def test_crossnobis() -> None:
    for replicates in (2, 3):
        expected = crossnobis_by_pairs(ROWS.reshape(-1, replicates, ROWS.shape[1]))
        assert dissimilarity_matrix(ROWS, "crossnobis", replicates) == pytest.approx(expected, abs=1e-12)


def test_conditions_of_noise_alone_are_alike_by_crossnobis() -> None:
    """Unbiased: by chance on either side of 0, where Euclidean distances are 2 σ²."""
    rows = np.random.default_rng(0).normal(size=(80, 500)).astype(np.float32)
    apart = dissimilarity_matrix(rows, "crossnobis", 2)[np.triu_indices(40, 1)]
    assert abs(apart.mean()) < 0.01 and 0.3 < (apart < 0).mean() < 0.7
    assert dissimilarity_matrix(rows, "euclidean")[np.triu_indices(80, 1)].mean() == pytest.approx(2, rel=0.02)


def test_a_row_that_does_not_vary_has_no_correlation() -> None:
    rows = ROWS[:3].copy()
    rows[1] = 0
    found = dissimilarity_matrix(rows, "correlation")
    assert np.isnan(found[1, [0, 2]]).all() and found[0, 2] > 0 and (np.diag(found) == 0).all()


def test_dissimilarity_to_the_style_image_is_four_times_its_loss(small_run: Run, tmp_path: Path) -> None:
    target = stimkit.measure_features(
        small_run.path, tmp_path / "f.nc", ["conv1_1"], form="gram", measure="euclidean", inputs=True, device="cpu"
    )
    found = xr.load_dataset(target)
    assert found["conv1_1"].dims == ("stimulus", "other_stimulus")
    assert found.attrs["dissimilarity_measure"] == "euclidean"
    (style,) = np.flatnonzero(found["role"].values == "style_image")
    for row, name in enumerate(found["name"].values[:4]):
        loss = small_run.records[str(name)].losses.file.style_layers["conv1_1"]
        assert loss is not None and float(found["conv1_1"][row, style]) == pytest.approx(4 * loss, rel=1e-4)


def test_crossnobis_of_a_run(tmp_path: Path) -> None:
    plan = small_plan(
        factors={"style_layers": ["one"], "ratio": [1e-5, 1e-3, 1e-1], "replicate": 2}, synthesis={"max_evaluations": 2}
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    rows = stimkit.measure_features(tmp_path / "run", tmp_path / "rows.nc", ["conv2_1"], device="cpu")
    features = xr.load_dataset(rows)
    asked = {"measure": "crossnobis", "device": "cpu"}
    found = xr.load_dataset(
        stimkit.measure_features(tmp_path / "run", tmp_path / "rdm.nc", ["conv2_1"], **asked)  # type: ignore[arg-type]
    )
    assert found["ratio"].values.tolist() == [1e-5, 1e-3, 1e-1] and "replicate" not in found
    by_condition = np.stack(
        [features["conv2_1"].values[features["ratio"].values == ratio] for ratio in found["ratio"].values]
    )
    assert found["conv2_1"].values == pytest.approx(crossnobis_by_pairs(by_condition), rel=1e-5, abs=1e-12)
    with pytest.raises(UsageError, match="these have 1, 2 and 1: choose with --where"):
        stimkit.measure_features(
            tmp_path / "run",
            tmp_path / "none.nc",
            ["conv2_1"],
            where="ratio < 0.01 or replicate == 1",
            **asked,  # type: ignore[arg-type]
        )


def test_layers_are_conditions_and_not_replicates(tmp_path: Path) -> None:
    """Reconstructions from two layers; both belong to the stimuli of all sets of content layers, and have no level."""
    plan = small_plan(
        layers={"content": {"shallow": ["conv1_1"], "deep": ["conv2_1"]}},
        factors={"style_layers": ["one"], "ratio": [1e-5], "content_layers": "*", "replicate": 2},
        controls={"reconstruction": ["conv1_1", "conv2_1"]},
        synthesis={"max_evaluations": 1},
    )
    made = [cell for cell in plan.cells if cell.role == "reconstruction"]
    assert {cell.levels["content_layers"] for cell in made} == {""} and len(made) == 4
    stimkit.run(plan, tmp_path / "run", device="cpu")
    wanted: dict[str, Any] = {"measure": "crossnobis", "where": 'role == "reconstruction"', "device": "cpu"}
    found = stimkit.measure_features(tmp_path / "run", tmp_path / "rdm.nc", ["conv1_1"], **wanted)
    assert xr.load_dataset(found)["conv1_1"].shape == (2, 2)

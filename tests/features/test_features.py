"""Features of a run: they are those of the losses, and their components those of NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.io import loadmat

import stimkit
from stimkit.errors import UsageError
from stimkit.features.components import principal_components
from stimkit.features.matlab import check_matlab
from stimkit.runfolder.run import Run
from tests.conftest import small_plan

Command = Callable[..., tuple[int, str, str]]


def measured(run: Run, target: Path, layers: list[str], **options: Any) -> xr.Dataset:
    found: xr.Dataset = xr.load_dataset(stimkit.measure_features(run.path, target, layers, device="cpu", **options))
    return found


def test_losses_follow_from_exported_gram_matrices(small_run: Run, tmp_path: Path) -> None:
    """E_l of each stimulus, from its Gram matrix and that of its style image (paper: a quarter of the mean square)."""
    found = measured(small_run, tmp_path / "f.nc", ["conv2_1", "conv1_1"], form="gram", inputs=True)
    assert found.attrs["layers"] == "conv1_1,conv2_1" and found["conv1_1"].shape == (6, 64, 64)
    by_name = {str(name): index for index, name in enumerate(found["name"].values)}
    (style,) = np.flatnonzero(found["role"].values == "style_image")
    for record in small_run.records.values():
        for layer, loss in record.losses.file.style_layers.items():
            one, other = (found[layer].values[row].astype(float) for row in (by_name[record.stimulus_id], style))
            assert np.mean((one - other) ** 2) / 4 == pytest.approx(loss, rel=1e-4)


def test_losses_follow_from_exported_responses(small_run: Run, tmp_path: Path) -> None:
    """C_l of each stimulus: half of the sum of squares."""
    found = measured(small_run, tmp_path / "f.nc", ["conv2_1"], form="flat", inputs=True)
    assert found["conv2_1"].dims == ("stimulus", "conv2_1_filter", "conv2_1_y", "conv2_1_x")
    (content,) = np.flatnonzero(found["role"].values == "content_image")
    for row, name in enumerate(found["name"].values[:4]):
        squares = (found["conv2_1"].values[row].astype(float) - found["conv2_1"].values[content]) ** 2
        loss = small_run.records[str(name)].losses.file.content_layers["conv2_1"]
        assert squares.sum() / 2 == pytest.approx(loss, rel=1e-5)


def test_factors_are_coordinates(small_run: Run, tmp_path: Path) -> None:
    found = measured(small_run, tmp_path / "f.nc", ["conv1_1"], inputs=True)
    assert found["style_layers"].values.tolist() == ["one", "one", "two", "two", "", ""]
    assert found["ratio"].values[:4].tolist() == [1e-5, 1e-4] * 2 and np.isnan(found["ratio"].values[4:]).all()
    assert found["role"].values.tolist() == ["main"] * 4 + ["content_image", "style_image"]
    assert found.attrs["weights_sha256"] == next(iter(small_run.records.values())).weights_sha256
    chosen = measured(small_run, tmp_path / "g.nc", ["conv1_1"], where="ratio == 1e-5")
    assert chosen.sizes["stimulus"] == 2 and (chosen["conv1_1"].values == found["conv1_1"].values[[0, 2]]).all()


def test_components_are_those_of_a_decomposition() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 5000)).astype(np.float32)
    scores, explained = principal_components(rows, 4)
    centred = rows.astype(float) - rows.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(scores) == pytest.approx(np.abs(left[:, :4] * values[:4]), rel=1e-6, abs=1e-6)
    assert explained == pytest.approx(values[:4] ** 2 / np.sum(values**2))
    assert (np.abs(scores).max(0) == scores.max(0)).all()


def test_components_of_a_run(small_run: Run, tmp_path: Path) -> None:
    found = measured(small_run, tmp_path / "f.nc", ["conv1_1", "conv2_1"], form="gram", components=2)
    told: list[tuple[int, int]] = []
    whole = measured(
        small_run,
        tmp_path / "g.nc",
        ["conv2_1"],
        form="gram",
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    expected, _ = principal_components(whole["conv2_1"].values.reshape(4, -1), 2)
    assert found["conv2_1"].dims == ("stimulus", "component")
    assert found["conv2_1"].values == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert 0 < float(found["conv2_1_explained"].sum()) <= 1.0001


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        (["conv1_7"], {}, "conv1_7"),
        ([], {}, "name the layers"),
        (["conv1_1"], {"form": "grams"}, '"grams" is not a form of features (did you mean "gram"?)'),
        (["conv1_1"], {"components": 4}, "at most 3 principal components"),
        (["conv1_1"], {"measure": "euclid"}, '"euclid" is not a measure of dissimilarity (did you mean "euclidean"?)'),
        (["conv1_1"], {"measure": "euclidean", "components": 2}, "leave out the number of components"),
        (
            ["conv1_1"],
            {"measure": "euclidean", "where": 'style_layers == "one" and ratio == 1e-5'},
            "at least 2 images",
        ),
        (["conv1_1"], {"measure": "crossnobis"}, "at least 2 conditions with at least 2 replicates"),
        (["conv1_1"], {"measure": "crossnobis", "inputs": True}, "leave them out"),
        (["conv1_1"], {"where": "ratio > 1"}, "no accepted stimulus is selected"),
    ],
)
def test_mistakes_are_named(small_run: Run, tmp_path: Path, layers: list[str], options: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        stimkit.measure_features(small_run.path, tmp_path / "f.nc", layers, device="cpu", **options)
    assert message in str(caught.value) and not list(tmp_path.iterdir())


def test_stimuli_of_one_network_and_size(tmp_path: Path) -> None:
    plan = small_plan(
        factors={"style_layers": ["one"], "ratio": [1e-5], "pooling": ["average", "max"], "size": [32, 48]},
        synthesis={"max_evaluations": 1, "size": None},
    )
    stimkit.run(plan, tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match="2 networks; choose those of one with --where"):
        stimkit.measure_features(tmp_path / "run", tmp_path / "f.nc", ["conv1_1"], device="cpu")
    with pytest.raises(UsageError, match="2 sizes"):
        stimkit.measure_features(
            tmp_path / "run", tmp_path / "f.nc", ["conv1_1"], where='pooling == "max"', device="cpu"
        )


def test_the_command(small_run: Run, tmp_path: Path, command: Command) -> None:
    asked = ("--layers", "conv1_1,conv2_1", "--as", "mean", "--device", "cpu", "--out", tmp_path / "f.nc")
    code, out, err = command("features", small_run.path, *asked)
    assert code == 0 and "conv1_1,conv2_1 as mean" in out, err
    code, out, err = command("features", small_run.path, *asked)
    assert code == 2 and "exists already" in err


@pytest.mark.parametrize("options", [{"form": "gram"}, {"components": 2}, {"measure": "correlation"}])
def test_matlab_files_hold_what_netcdf_files_hold(small_run: Run, tmp_path: Path, options: dict[str, Any]) -> None:
    wanted = measured(small_run, tmp_path / "f.nc", ["conv1_1"], **options)
    stimkit.measure_features(small_run.path, tmp_path / "f.mat", ["conv1_1"], device="cpu", **options)
    found = loadmat(tmp_path / "f.mat", simplify_cells=True)
    assert (found["conv1_1"] == wanted["conv1_1"].values).all()
    assert found["name"].tolist() == wanted["name"].values.tolist() and found["ratio"].tolist() == [1e-5, 1e-4] * 2
    assert found["attributes"]["weights_sha256"] == wanted.attrs["weights_sha256"]


def test_more_than_a_matlab_file_holds_is_refused() -> None:
    with pytest.raises(UsageError, match=r"conv1_1 is larger than the 2 GB .* ncread"):
        check_matlab({"conv1_1": (1000, 64, 100, 100)})


def test_an_image_that_was_used_in_several_forms_is_not_one_row(tmp_path: Path) -> None:
    images = {"content": {"cat": "skimage:chelsea", "moon": "skimage:moon"}}
    plan = small_plan(
        images=images, factors={"style_layers": ["one"], "ratio": [1e-5], "content": "*"},
        synthesis={"max_evaluations": 1, "colour": "covariance"},
    )  # fmt: skip
    stimkit.run(plan, tmp_path / "run", device="cpu")
    asked: dict[str, Any] = {"form": "gram", "inputs": True, "device": "cpu"}
    with pytest.raises(UsageError, match="the style image cup was used in 2 forms, of size or colour"):
        stimkit.measure_features(tmp_path / "run", tmp_path / "f.nc", ["conv1_1"], **asked)
    few = stimkit.measure_features(tmp_path / "run", tmp_path / "f.nc", ["conv1_1"], where='content == "cat"', **asked)
    assert xr.load_dataset(few)["role"].values.tolist() == ["main", "content_image", "style_image"]

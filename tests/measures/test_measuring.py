"""Measures of a run: into its manifest, by the network that is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import stimkit
from stimkit.auditing.rules import find_disagreements, find_unjudged
from stimkit.columns import Column
from stimkit.errors import RunFolderError, UsageError
from stimkit.images.statistics import measure_image
from stimkit.measures.measuring import GROUPS
from stimkit.runfolder.measuring import enter_measurements
from stimkit.runfolder.run import Run
from tests.conftest import pixels_of, small_plan

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with other observers: the network that it was made with, and one with random filters."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    observers = {"same": {"weights": "pca"}, "other": {"weights": "random:4", "normalize": "none"}}
    stimkit.run(small_plan(observers=observers, factors={"ratio": [1e-4]}), folder, device="cpu")
    return stimkit.measure_stimuli(folder, ["observers", "statistics", "variances"], device="cpu")


def test_the_network_of_a_run_sees_what_was_recorded(run: Run) -> None:
    table = pd.read_csv(run.path / "manifest.csv")
    for term in ("content", "style"):
        recorded, seen = table[f"loss_{term}_file"], table[f"observer_same_{term}"]
        assert seen.to_numpy() == pytest.approx(recorded.to_numpy(), rel=1e-4)
        relative = table[f"loss_{term}_file"] / table[f"loss_{term}_initial"]
        assert table[f"observer_same_{term}_relative"].to_numpy() == pytest.approx(relative.to_numpy(), rel=1e-4)
        assert (np.abs(table[f"observer_other_{term}"] / recorded - 1) > 0.05).all()


def test_statistics_are_those_of_the_files(run: Run) -> None:
    for stimulus_id, record in run.records.items():
        measured = {column.name: value for column, value in record.measured.items()}
        wanted = measure_image(pixels_of(run, stimulus_id))
        assert all(measured[name] == pytest.approx(wanted[name]) for name in ("entropy", "colourfulness", "michelson"))
        assert -1 < measured["ssim_content"] < 1 and measured["cnn_sparseness"] > 0


def test_features_can_be_those_of_an_observer(run: Run, tmp_path: Path) -> None:
    values = [
        xr.load_dataset(
            stimkit.measure_features(
                run.path, tmp_path / f"{name}.nc", ["conv1_1"], form="mean", observer=name, device="cpu"
            )
        )
        for name in (None, "same", "other")
    ]
    assert (values[0]["conv1_1"].values == values[1]["conv1_1"].values).all()
    assert not np.allclose(values[0]["conv1_1"].values, values[2]["conv1_1"].values, rtol=0.1)
    assert values[2].attrs["weights"] == "random:4" and values[2].attrs["observer"] == "other"
    with pytest.raises(UsageError, match=r'no observer "othr" .did you mean "other"'):
        stimkit.measure_features(run.path, tmp_path / "x.nc", ["conv1_1"], observer="othr", device="cpu")


def test_a_set_of_one_network_says_how_to_name_others(small_run: Run, tmp_path: Path, command: Command) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    code, _, said = command("measure", tmp_path / "run", "observers", "--device", "cpu")
    assert code == 2 and "[observers]" in said
    code, _, said = command("measure", tmp_path / "run", "phogg")
    assert code == 2 and 'did you mean "phog"' in said
    code, said, _ = command("measure", tmp_path / "run", "phog")
    assert code == 0 and "phog_complexity" in said
    code, _, said = command("measure", tmp_path / "run", "similarity")
    assert code == 2 and "are not on this machine" in said


def test_an_observer_without_a_layer_of_the_set_is_refused(tmp_path: Path) -> None:
    sixteen = {"sixteen": {"weights": "random:1", "network": "vgg16"}}
    deep = small_plan(observers=sixteen, layers={"content": ["conv3_4"]}, synthesis={"max_evaluations": 1})
    stimkit.run(deep, tmp_path / "run", device="cpu")
    with pytest.raises(UsageError, match='observer sixteen: "conv3_4" is not a layer of VGG16'):
        stimkit.measure_stimuli(tmp_path / "run", ["observers"], device="cpu")


def test_groups_have_columns_of_their_own(small_run: Run, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    cheap = [name for name in GROUPS if name not in ("observers", "similarity", "orientation")]
    found = stimkit.measure_stimuli(tmp_path / "run", cheap, device="cpu")
    names = [column.name for table in found.measurements.values() for column in table.columns]
    assert len(names) == len(set(names)) > 11 and stimkit.verify(found.path).findings == ()


def test_another_order_of_the_stimuli_is_told() -> None:
    generator = np.random.default_rng(0)
    losses = generator.random(30)
    table = pd.DataFrame(
        {"loss_style_file": losses, "observer_same_style": losses**2, "observer_same_style_relative": 1}
    )
    assert list(find_disagreements(table)) == []
    (found,) = find_disagreements(table.assign(observer_other_style=generator.random(30)))
    assert found.name == "observer_disagrees" and "other orders 30 stimuli otherwise" in found.detail
    assert list(find_disagreements(table.assign(observer_other_style=generator.random(30))[:9])) == []


def test_limits_of_what_was_not_measured_are_told(small_run: Run, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "run")
    limits = {"measured": {"bright": {"style_layers": 0.5}}}
    stimkit.run(small_plan(audit=limits), tmp_path / "run", device="cpu")
    before = stimkit.audit(tmp_path / "run", device="cpu", losses=False)
    assert [one.detail for one in before.findings if one.name == "not_measured"] == [
        "bright: see stimkit measure and stimkit norm"
    ]
    run = stimkit.open_run(tmp_path / "run")
    values = {name: {"bright": float(record.levels["style_layers"] == "one")} for name, record in run.records.items()}
    enter_measurements(run, "looks", [Column("bright", "1", "")], values, {})
    found = stimkit.audit(tmp_path / "run", device="cpu", losses=False)
    assert found.failed and any("of the variance of bright" in one.detail for one in found.findings)


def test_a_stimulus_that_is_not_the_recorded_one_is_not_measured(small_run: Run, tmp_path: Path) -> None:
    """Its values would be taken for those of the file that the record is about, once that is back."""
    shutil.copytree(small_run.path, tmp_path / "run")
    one, other = (tmp_path / "run/stimuli" / record.filename for record in list(small_run.records.values())[:2])
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    with pytest.raises(RunFolderError, match="is not the stimulus that its record is about"):
        stimkit.measure_stimuli(tmp_path / "run", ["statistics"], device="cpu")
    with pytest.raises(RunFolderError, match="is not the stimulus that its record is about"):
        stimkit.measure_features(tmp_path / "run", tmp_path / "f.nc", ["conv1_1"], device="cpu")
    assert not (tmp_path / "run/measurements").exists()


def test_limits_that_are_not_judged_are_told() -> None:
    """A variable that nobody measured, one of too few stimuli; what is the same for all needs no judgement."""
    stimuli = pd.DataFrame({"few": [1.0, np.nan, np.nan], "same": [2.0, 2, 2], "judged": [1.0, 2, 3]})
    effects = pd.DataFrame({"variable": ["judged"], "factor": ["style"]})
    found = list(find_unjudged(["few", "same", "judged", "absent"], effects, stimuli))
    assert {one.detail.partition(":")[0] for one in found} == {"few", "absent"}
    assert {one.name for one in found} == {"not_measured"}


def test_other_networks_look_at_steps_by_distance_that_began_with_the_style(tmp_path: Path) -> None:
    """The picture of a step is known once its weights are."""
    series = {"m": {"of": ["cup", "grass"], "steps": 3, "spacing": "distance", "path": "geodesic"}}
    images = {"style": {"cup": "skimage:coffee", "grass": "skimage:grass"}, "mixes": series}
    plan = small_plan(
        images=images, observers={"same": {"weights": "pca"}}, factors={"style": ["m-2"], "ratio": [0]},
        synthesis={"init": "style", "max_evaluations": 2},
    )  # fmt: skip
    stimkit.run(plan, tmp_path / "run", device="cpu")
    for record in stimkit.measure_stimuli(tmp_path / "run", ["observers"], device="cpu").records.values():
        seen = {column.name: value for column, value in record.measured.items()}
        assert seen["observer_same_style"] == pytest.approx(record.losses.file.style, rel=1e-4)

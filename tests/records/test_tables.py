"""The manifest: tables, NetCDF, and losses that anybody can compute again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
import torch.nn.functional as F
import xarray as xr
from PIL import Image
from safetensors.numpy import load_file

import stimkit
from stimkit.errors import RunFolderError
from stimkit.records.dataset import to_grid
from stimkit.records.schema import COLUMNS
from stimkit.runfolder.run import Run
from tests.conftest import ROOT, small_plan


def test_folder_holds_what_the_design_says(small_run: Run) -> None:
    names = {path.name for path in small_run.path.iterdir() if not path.name.startswith(".")}
    assert names == {
        "protocol.toml", "protocol.lock.json", "environment.json", "journal.csv", "stimuli", "records", "traces",
        "manifest.csv", "losses.csv", "manifest.nc", "contact_sheet.png",
    }  # fmt: skip
    for record in small_run.records.values():
        assert record.filename.startswith("cat_cup_")
        assert record.filename.endswith(f"_r1_{record.stimulus_id}.png")
        data = (small_run.path / "stimuli" / record.filename).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record.file_sha256
    assert len(list((small_run.path / "stimuli").iterdir())) == 4
    environments = json.loads((small_run.path / "environment.json").read_text())
    assert {record.env_id for record in small_run.records.values()} == set(environments)
    assert next(iter(environments.values()))["packages"]["stimkit"] == stimkit.__version__


def numpy_recomputation(run: Path, row: pd.Series[Any]) -> tuple[float, float]:
    """Content and style loss from the PNG, the inputs and the weights, without stimkit's network or losses."""
    packed = load_file(ROOT / "stimkit" / "network" / "pca.safetensors")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def squared(array: np.ndarray) -> np.ndarray:
        side = min(array.shape[:2])
        top, left = (array.shape[0] - side) / 2, (array.shape[1] - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(Image.fromarray(array).resize((32, 32), Image.Resampling.LANCZOS, box=box))

    def maps(pixels: np.ndarray) -> dict[str, np.ndarray]:
        x = torch.from_numpy(((pixels / 255 - mean) / std).transpose(2, 0, 1)[None])
        found = {}
        for name in ("conv1_1", "conv1_2", "conv2_1"):
            if name == "conv2_1":
                x = F.avg_pool2d(x, 2)
            pairs = packed[f"{name}.pairs"].astype(np.float32)
            filters = np.concatenate([pairs, -pairs, packed[f"{name}.rest"].astype(np.float32)])
            filters = filters * packed[f"{name}.scale"][:, None, None, None]
            x = F.relu(
                F.conv2d(
                    x, torch.from_numpy(filters).double(), torch.from_numpy(packed[f"{name}.bias"]).double(), padding=1
                )
            )
            found[name] = x[0].flatten(1).numpy()
        return found

    stimulus = maps(np.asarray(Image.open(run / "stimuli" / row["filename"])))
    content, style = maps(squared(skimage.data.chelsea())), maps(squared(skimage.data.coffee()))
    content_loss = 0.5 * ((stimulus["conv2_1"] - content["conv2_1"]) ** 2).sum()
    style_loss = 0.0
    layers = row["style_layers_used"].split(";")
    for layer in layers:
        f, a = stimulus[layer], style[layer]
        n, m = f.shape
        style_loss += ((f @ f.T - a @ a.T) ** 2).sum() / (4 * n**2 * m**2) / len(layers)
    return float(content_loss), float(style_loss)


def test_file_losses_can_be_recomputed_by_anyone(small_run: Run) -> None:
    table = pd.read_csv(small_run.path / "manifest.csv")
    for _, row in table.iterrows():
        content, style = numpy_recomputation(small_run.path, row)
        assert row["loss_content_file"] == pytest.approx(content, rel=1e-4)
        assert row["loss_style_file"] == pytest.approx(style, rel=1e-4)
        assert row["loss_total_file"] == pytest.approx(row["alpha"] * content + row["beta"] * style, rel=1e-4)


def test_manifest_csv_is_plain_and_complete(small_run: Run) -> None:
    table = pd.read_csv(small_run.path / "manifest.csv")
    assert table["stimulus_id"].tolist() == [cell.id for cell in small_plan().cells]
    assert set(table.columns) >= {column.name for column in COLUMNS} | {"content", "style", "style_layers", "ratio"}
    assert all(name.isidentifier() and name == name.lower() for name in table.columns)
    assert table["ratio"].tolist() == [1e-5, 1e-4, 1e-5, 1e-4]
    assert not table["stimulus_id"].map(lambda text: text[1:]).eq("").any()
    assert (table["status"] == "accepted").all()


def test_losses_csv_adds_up(small_run: Run) -> None:
    rows = pd.read_csv(small_run.path / "losses.csv")
    assert set(rows["stage"]) == {"initial", "optimized", "file"}
    for (_, _), part in rows.groupby(["stimulus_id", "stage"]):
        by_layer = part[(part["term"] == "style") & (part["layer"] != "all")]
        whole = part[(part["term"] == "style") & (part["layer"] == "all")]["value"].item()
        assert (by_layer["weight"] * by_layer["value"]).sum() == pytest.approx(whole, rel=1e-5)
        terms = part[(part["layer"] == "all") & (part["term"] != "total")]
        total = part[part["term"] == "total"]["value"].item()
        assert (terms["weight"] * terms["value"]).sum() == pytest.approx(total, rel=1e-5)


def test_netcdf_opens_with_units_and_long_names(small_run: Run) -> None:
    with xr.open_dataset(small_run.path / "manifest.nc") as manifest:
        assert dict(manifest.sizes) == {
            "stimulus": 4, "stage": 3, "style_layer": 2, "content_layer": 1, "trace_step": 6, "channel": 3,
        }  # fmt: skip
        for name, variable in manifest.data_vars.items():
            assert variable.attrs.get("long_name") and variable.attrs.get("units"), name
        assert manifest["style_layer"].values.tolist() == ["conv1_1", "conv2_1"]
        assert np.isnan(manifest["style_loss_by_layer"].sel(style_layer="conv2_1")).sum() == 2 * 3
        assert manifest["style_weight"].values.tolist() == [[1, 0], [1, 0], [0.5, 0.5], [0.5, 0.5]]
        assert "schema = 1" in manifest.attrs["protocol"]
        assert set(manifest["env_id"].values) == set(json.loads(manifest.attrs["environment"]))
        for name in ("stimulus_id", "seed", "content_sha256", "weights_sha256", "ratio", "replicate"):
            assert manifest[name].dims == ("stimulus",) and name in manifest.coords
        grid = to_grid(manifest)
        cell = grid["loss_total"].sel(style_layers="two", ratio=1e-4, stage="file")
        expected = small_run.dataset["loss_total"].sel(stage="file").values[3]
        assert float(cell) == pytest.approx(expected)


def test_opened_run_gives_images_on_demand(small_run: Run) -> None:
    some = next(iter(small_run.records))
    assert small_run.image(some).shape == (32, 32, 3)
    assert small_run.to_grid().sizes["ratio"] == 2
    with pytest.raises(RunFolderError, match="has no stimulus"):
        small_run.image("snothere")


def test_trace_ends_where_the_optimized_loss_is(small_run: Run) -> None:
    with xr.open_dataset(small_run.path / "manifest.nc") as manifest:
        lowest = manifest["trace_total"].min("trace_step")
        assert (manifest["loss_total"].sel(stage="optimized") <= lowest * 1.001).all()

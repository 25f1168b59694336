"""Figures of a run show what the run folder holds."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

import stimkit
from stimkit.errors import UsageError
from stimkit.runfolder.run import Run


def xs(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xdata(), float)


def ys(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata(), float)


def pictures(figure: object) -> dict[tuple[str, str], np.ndarray]:
    """The pixels of a grid by the words of its row and column."""
    fields = np.array(figure.axes).reshape(figure.axes[0].get_subplotspec().get_gridspec().get_geometry())  # type: ignore[attr-defined]
    found = {}
    for (i, j), axes in np.ndenumerate(fields):
        images = [one for one in axes.get_children() if isinstance(one, AxesImage)]
        if images:
            found[fields[i, 0].get_ylabel(), fields[0, j].get_title()] = np.asarray(images[0].get_array())
    return found


def test_a_grid_shows_each_stimulus_at_its_levels(small_run: Run) -> None:
    shown = pictures(small_run.plot.grid("style_layers", "ratio"))
    assert len(shown) == len(small_run.records)
    manifest = small_run.dataset
    for stimulus_id in small_run.records:
        at = manifest.isel(stimulus=list(manifest.stimulus_id.values).index(stimulus_id))
        pixels = shown[str(at.style_layers.item()), format(at.ratio.item(), ".3g")]
        assert np.array_equal(pixels, small_run.image(stimulus_id))
    assert len(pictures(small_run.plot.grid())) == len(small_run.records)
    one = pictures(small_run.plot.grid(where=f"stimulus_id == {stimulus_id!r}"))
    assert list(one) == [("", "")] and np.array_equal(one["", ""], pixels)


def test_traces_and_losses_are_those_of_the_folder(small_run: Run) -> None:
    figure = small_run.plot.traces("ratio", term="style")
    (axes,) = figure.axes
    drawn = sorted(tuple(np.asarray(line.get_ydata())) for line in axes.lines)
    assert drawn == sorted(tuple(small_run.trace(one)[:, 1]) for one in small_run.records)
    legend = axes.get_legend()
    assert legend is not None and {text.get_text() for text in legend.get_texts()} == {
        format(level, ".3g") for level in np.unique(small_run.dataset.ratio)
    }
    content, style, total = small_run.plot.losses("style_layers").axes
    assert [one.get_title() for one in (content, style, total)] == ["content", "style", "total"]
    values = np.sort(np.concatenate([np.asarray(line.get_ydata()) for line in total.lines]))
    assert np.allclose(values, np.sort(small_run.dataset.loss_total.sel(stage="file")))
    (axes,) = small_run.plot.statistic("wall_time_s").axes
    assert axes.get_ylabel() == "wall_time_s (s)"


def test_a_map_has_the_coordinates_of_the_manifest(small_run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no map yet: stimkit distances"):
        small_run.plot.map()
    folder = Path(shutil.copytree(small_run.path, tmp_path / "run"))
    stimkit.compare_stimuli(folder, ["conv1_1"], device="cpu")
    run = stimkit.open_run(folder)
    (axes,) = run.plot.map("ratio").axes
    drawn = sorted(zip(*(np.concatenate([get(line) for line in axes.lines]) for get in (xs, ys)), strict=True))
    assert np.allclose(drawn, sorted(zip(run.dataset.map_x.values, run.dataset.map_y.values, strict=True)))


def test_a_figure_is_a_picture_in_a_notebook(small_run: Run) -> None:
    figure = small_run.plot.statistic("mean_luminance", by="ratio")
    assert getattr(figure, "_repr_png_")().startswith(b"\x89PNG")  # noqa: B009


def test_what_is_not_there_is_told(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r'"ratoi" is not a factor or an attribute .did you mean "ratio"'):
        small_run.plot.grid("ratoi")
    with pytest.raises(UsageError, match='"styles" is not a loss'):
        small_run.plot.traces(term="styles")
    with pytest.raises(UsageError, match='"filename" is not a column of numbers'):
        small_run.plot.statistic("filename")
    with pytest.raises(UsageError, match="has no stimulus for which ratio > 1 holds"):
        small_run.plot.losses(where="ratio > 1")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match='pip install "stimkit\\[plot'):
        small_run.plot.grid()

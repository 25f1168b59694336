"""Figures of a run, for notebooks and papers: `Run.plot`. They need matplotlib, which is not installed with stimkit."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stimkit.documents.figures import new_figure
from stimkit.errors import RunFolderError, UsageError, check_choice
from stimkit.images.png import read_picture
from stimkit.records.schema import Record
from stimkit.records.selection import select
from stimkit.records.stages import STAGES, TERMS
from stimkit.records.tables import attribute_names, described_columns, factor_names, numbers_if_all, to_table
from stimkit.runfolder.contact_sheet import split_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PICTURES = 400


class RunPlots:
    """Figures of a run folder: each returns a `matplotlib.figure.Figure`, to be shown, changed or saved.

    `by` is a factor or an attribute of the images, `where` a condition on columns of the manifest. All of them raise
    `UsageError` where matplotlib is not installed, for names that are not there, and where no stimulus is left,
    `RunFolderError` where a file that they show cannot be read.
    """

    def __init__(self, folder: Path, records: Mapping[str, Record], trace: Callable[[str], NDArray[Any]]) -> None:
        self._folder, self._trace = folder, trace
        self._records = {name: record for name, record in records.items() if record.status != "failed"}

    def grid(
        self, rows: Sequence[str] | str | None = None, columns: Sequence[str] | str | None = None, *, where: str = ""
    ) -> Figure:
        """Stimuli as pictures, with factors on the axes; by default the slower factors of the protocol run down.

        A field shows the first of its stimuli: give `where` to choose, as `where="replicate == 2"`.
        """
        chosen = self._chosen(where)
        across, down = _names(columns), _names(rows)
        if rows is None and columns is None:
            levels = [(name, tuple(chosen[name].astype(str).unique())) for name in self._factors]
            axes = split_axes([one for one in levels if len(one[1]) > 1])
            down, across = ([name for name, _ in axis] for axis in axes)
        self._check((*down, *across))
        row_keys, column_keys = (self._keys(chosen, names) for names in (down, across))
        if len(row_keys) * len(column_keys) > MAX_PICTURES:
            raise UsageError(
                f"{len(row_keys)} × {len(column_keys)} pictures are more than {MAX_PICTURES}; give `where`"
            )
        first: dict[tuple[Any, ...], str] = {}
        for key, stimulus_id in zip(self._all_keys(chosen, [*down, *across]), chosen["stimulus_id"], strict=True):
            first.setdefault(key, stimulus_id)
        figure = new_figure((1.3 * len(column_keys) + 0.9, 1.3 * len(row_keys) + 0.5))
        fields = figure.subplots(len(row_keys), len(column_keys), squeeze=False)
        for (i, row), (j, column) in product(enumerate(row_keys), enumerate(column_keys)):
            self._picture(fields[i, j], first.get((*row, *column)))
            if i == 0:
                fields[i, j].set_title(_words(column), fontsize=8)
            if j == 0:
                fields[i, j].set_ylabel(_words(row), fontsize=8)
        figure.supxlabel(" × ".join(across), fontsize=8)
        figure.supylabel(" × ".join(down), fontsize=8)
        return figure

    def traces(self, by: str = "", *, term: str = "total", where: str = "") -> Figure:
        """Losses over evaluations, a line for each stimulus, coloured by a factor. `term`: content, style or total."""
        check_choice(term, TERMS, "a loss")
        chosen = self._chosen(where)
        figure = new_figure((6.4, 4.0))
        axes: Axes = figure.subplots()
        for level, colour, group in self._groups(chosen, by):
            for number, stimulus_id in enumerate(group["stimulus_id"]):
                trace = self._trace(stimulus_id)[:, TERMS.index(term)]
                axes.plot(np.arange(1, len(trace) + 1), trace, color=colour, lw=0.9, label="" if number else level)
        axes.set(xlabel="evaluation", ylabel=f"{term} loss", yscale="log")
        return _finished(figure, axes, by)

    def losses(self, by: str = "", *, stage: str = "file", where: str = "") -> Figure:
        """Content, style and total loss of each stimulus at a stage, by the levels of a factor; bars are medians."""
        check_choice(stage, STAGES, "a stage")
        chosen = self._chosen(where)
        figure = new_figure((8.4, 3.2))
        for axes, term in zip(figure.subplots(1, len(TERMS)), TERMS, strict=True):
            self._strip(axes, chosen, f"loss_{term}_{stage}", by)
            axes.set(title=term, yscale="log", ylabel=f"loss of the {stage}" if term == TERMS[0] else "")
        return figure

    def statistic(self, name: str, by: str = "", *, where: str = "") -> Figure:
        """Any column of numbers of the manifest, by the levels of a factor; bars are medians."""
        chosen = self._chosen(where)
        numbers = [column for column in chosen.columns if chosen[column].dtype.kind in "fiu"]
        check_choice(name, numbers, "a column of numbers")
        figure = new_figure((5.4, 3.6))
        axes: Axes = figure.subplots()
        self._strip(axes, chosen, name, by)
        column = described_columns(self._records.values()).get(name)
        units = f" ({column.units})" if column and column.units not in ("", "1") else ""
        axes.set_ylabel(f"{name}{units}")
        return figure

    def map(self, by: str = "", *, where: str = "") -> Figure:
        """The map of the set that `stimkit distances` enters: stimuli that are close on it are alike to the network."""
        chosen = self._chosen(where)
        if "map_x" not in chosen or chosen["map_x"].isna().all():
            raise UsageError(f"{self._folder} has no map yet: stimkit distances {self._folder}")
        figure = new_figure((5.0, 4.2))
        axes: Axes = figure.subplots()
        for level, colour, group in self._groups(chosen, by):
            axes.plot(group["map_x"], group["map_y"], "o", ms=6, color=colour, alpha=0.85, label=level)
        axes.set(xlabel="first dimension", ylabel="second dimension", aspect="equal")
        return _finished(figure, axes, by)

    @property
    def _factors(self) -> tuple[str, ...]:
        return factor_names(list(self._records.values()))

    def _chosen(self, where: str) -> pd.DataFrame:
        """The stimuli that can be shown: of a condition, or the design's."""
        table = to_table(list(self._records.values())) if self._records else pd.DataFrame({"stimulus_id": []})
        if len(table):
            table = select(table, where) if where else table[table["role"] == "main"]
        if not len(table):
            raise UsageError(f"{self._folder} has no stimulus{f' for which {where} holds' if where else ''}")
        for name in self._axes:  # controls lack levels
            table[name] = table[name].astype(object).where(table[name].notna() & (table[name] != ""), "–")
        return table

    @property
    def _axes(self) -> tuple[str, ...]:
        """What stimuli can be arranged by."""
        return (*self._factors, *attribute_names(list(self._records.values())), "role")

    def _check(self, names: Sequence[str]) -> None:
        for name in names:
            check_choice(name, self._axes, "a factor or an attribute")

    def _keys(self, chosen: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """The combinations of levels that are there, in the order of the design."""
        return list(dict.fromkeys(self._all_keys(chosen, names)))

    def _all_keys(self, chosen: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """The levels of each stimulus."""
        return list(zip(*(chosen[name] for name in names), strict=True)) if names else [()] * len(chosen)

    def _groups(self, chosen: pd.DataFrame, by: str) -> list[tuple[str, Any, pd.DataFrame]]:
        """Levels of a factor, each with a colour and its stimuli."""
        if not by:
            return [("", "#1f5fa8", chosen)]
        self._check([by])
        colours = importlib.import_module("matplotlib").colormaps
        levels = list(dict.fromkeys(chosen[by]))
        ordered = numbers_if_all(chosen[by]).dtype.kind in "fiu" or len(levels) > 10
        several = max(len(levels) - 1, 1)
        shades = [
            colours["viridis"](0.9 * at / several) if ordered else colours["tab10"](at) for at in range(len(levels))
        ]
        return [
            (_words([level]), shade, chosen[chosen[by] == level]) for level, shade in zip(levels, shades, strict=True)
        ]

    def _strip(self, axes: Axes, chosen: pd.DataFrame, column: str, by: str) -> None:
        """Values as points side by side, for each level of a factor, and their medians."""
        groups = self._groups(chosen, by)
        for at, (_, colour, group) in enumerate(groups):
            values = group[column].to_numpy(float)
            spread = np.linspace(-0.25, 0.25, len(values)) if len(values) > 1 else np.zeros(1)
            axes.plot(at + spread, values, "o", ms=4, color=colour)
            if np.isfinite(values).any():
                axes.hlines(np.nanmedian(values), at - 0.35, at + 0.35, color="black", lw=1.2)
        axes.set_xticks(range(len(groups)), [level for level, _, _ in groups], rotation=30, ha="right", fontsize=8)
        axes.set_xlabel(by)
        axes.spines[["top", "right"]].set_visible(False)

    def _picture(self, axes: Axes, stimulus_id: str | None) -> None:
        axes.set(xticks=[], yticks=[])
        if stimulus_id is None:
            axes.set_frame_on(False)
            return
        record = self._records[stimulus_id]
        path = self._folder / "stimuli" / record.filename
        try:
            axes.imshow(np.asarray(read_picture(path, record.settings.encoding)), interpolation="none")
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror or error}") from None


def _names(names: Sequence[str] | str | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _words(levels: Iterable[Any]) -> str:
    """Levels below each other, numbers with three digits."""
    return "\n".join(format(level, ".3g") if isinstance(level, float) else str(level) for level in levels)


def _finished(figure: Figure, axes: Axes, by: str) -> Figure:
    axes.spines[["top", "right"]].set_visible(False)
    if by:
        axes.legend(title=by, fontsize=8, frameon=False)
    return figure

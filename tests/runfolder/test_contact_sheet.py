"""The contact sheet: what is there, what is not, and what must not be shown to anybody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stimkit.images.pixels import Pixels
from stimkit.records.schema import Record
from stimkit.runfolder.contact_sheet import ALARM, BACKGROUND, FAINT, draw_contact_sheet
from stimkit.runfolder.run import Run
from tests.conftest import changed


def tiles(sheet: Pixels, run: Run) -> dict[tuple[str, str], Pixels]:
    """The places of a sheet of 2 × 2 by their levels."""
    height, width = sheet.shape[0] - 24, sheet.shape[1] - 24
    rows, columns = (height - 32 - 4 - 32, height - 32), (width - 32 - 4 - 32, width - 32)
    levels = run.plan.factors
    return {
        (row, column): sheet[y : y + 32, x : x + 32]
        for row, y in zip(levels["style_layers"], rows, strict=True)
        for column, x in zip(levels["ratio"], columns, strict=True)
    }


def has(tile: Pixels, colour: tuple[int, int, int]) -> bool:
    return bool((tile == colour).all(axis=2).any())


def key_of(record: Record) -> tuple[str, str]:
    return record.levels["style_layers"], record.levels["ratio"]


@pytest.fixture
def drawn(small_run: Run) -> dict[tuple[str, str], Pixels]:
    first, second, third, _ = small_run.records.values()
    shown = [changed(first, status="rejected"), second]
    planned = [first.levels, second.levels, third.levels]
    folder = small_run.path / "stimuli"
    return tiles(draw_contact_sheet(folder, shown, small_run.plan.factors, planned), small_run)


def test_what_is_rejected_pending_or_excluded(small_run: Run, drawn: dict[tuple[str, str], Pixels]) -> None:
    rejected, accepted, pending, excluded = (drawn[key_of(record)] for record in small_run.records.values())
    assert has(rejected, ALARM) and not has(rejected, FAINT)
    assert not has(accepted, ALARM) and np.array_equal(accepted, small_run.image(list(small_run.records)[1]))
    assert has(pending, FAINT) and has(pending, BACKGROUND)
    assert (excluded == BACKGROUND).all()


def test_a_missing_file_is_told(small_run: Run, tmp_path: Path) -> None:
    sheet = draw_contact_sheet(tmp_path, list(small_run.records.values()), small_run.plan.factors)
    assert all(has(tile, FAINT) for tile in tiles(sheet, small_run).values())

"""The contact sheet: all stimuli of a run in one picture, the design's factors on its axes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stimkit.errors import ImageError
from stimkit.images.pixels import Pixels
from stimkit.images.png import read_picture
from stimkit.records.schema import Record

MAX_SHEET_SIDE = 6000  # pixels of the whole sheet
MAX_THUMBNAIL, MIN_THUMBNAIL = 192, 24
MAX_ACROSS = 12
NUMBER = "number"  # stands for a factor where a design is not a grid
FILLED = 0.5  # part of a grid that must be there to draw it as one
GAP, GROUP_GAP, MARGIN, LINE = 4, 14, 24, 20
BACKGROUND, INK, FAINT, ALARM = (250, 250, 248), (30, 30, 30), (150, 150, 145), (190, 30, 30)

AxisLevels = tuple[str, ...]
Axis = Sequence[tuple[str, AxisLevels]]  # factors with their levels, slowest first


def draw_contact_sheet(
    folder: Path,
    records: Sequence[Record],
    factors: Mapping[str, AxisLevels],
    planned: Iterable[Mapping[str, str]] | None = None,
) -> Pixels:
    """Draw the stimuli in `folder` as a labelled grid.

    A cell without an image is drawn as an empty frame that says why, a rejected one in a red frame; what is not among
    the levels of the cells that are `planned` is left empty. The slower factors of the protocol run down, the faster
    ones across; factors with one level are named in the heading. A design that fills less than half of the grid is
    drawn as rows of its slowest factor.
    """
    varied = _independent([(name, levels) for name, levels in factors.items() if len(levels) > 1], records)
    if varied and len(records) < FILLED * math.prod(len(levels) for _, levels in varied):
        name = varied[0][0]
        records, factors = number_by_row(records, name, lambda record: record.levels[name])
        varied = list(factors.items())
    rows, columns = split_axes(varied)
    row_keys, column_keys = _keys(rows), _keys(columns)
    by_levels = {tuple(record.levels[name] for name, _ in varied): record for record in records}
    names = [name for name, _ in varied]
    known = by_levels.keys() | {tuple(levels.get(name, "") for name in names) for levels in planned or ()}
    size = _thumbnail_size(records, len(row_keys), len(column_keys))
    left, top = MARGIN + _label_width(rows), MARGIN + LINE * (2 + len(columns))
    xs, ys = _offsets(column_keys, size[0], left), _offsets(row_keys, size[1], top)
    sheet = Image.new("RGB", (xs[-1] + size[0] + MARGIN, ys[-1] + size[1] + MARGIN), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    constant = ", ".join(f"{name} {levels[0]}" for name, levels in factors.items() if len(levels) == 1 and levels[0])
    _text(draw, (MARGIN, MARGIN - 4), constant, FAINT)
    _label_columns(draw, columns, column_keys, xs, size[0])
    _label_rows(draw, rows, row_keys, ys, size[1])
    for row, y in zip(row_keys, ys, strict=True):
        for column, x in zip(column_keys, xs, strict=True):
            if (at := (*row, *column)) in known:
                _paste(sheet, draw, folder, by_levels.get(at), (x, y), size)
    return np.asarray(sheet)


def _independent(varied: list[tuple[str, AxisLevels]], records: Sequence[Record]) -> list[tuple[str, AxisLevels]]:
    """Factors without those whose level follows from that of another one, as where factors are linked."""
    kept: list[tuple[str, AxisLevels]] = []
    for name, levels in varied:
        pairs = [{(record.levels[other], record.levels[name]) for record in records} for other, _ in kept]
        seen = {record.levels[name] for record in records}
        if len(seen) < len(levels) or all(len(pair) > len({one for one, _ in pair}) for pair in pairs):
            kept.append((name, levels))
    return kept


def number_by_row(
    records: Sequence[Record], name: str, row_of: Callable[[Record], str]
) -> tuple[list[Record], dict[str, AxisLevels]]:
    """Records with two factors of a sheet: a row, and their number in it, for designs that are not full grids."""
    counts: Counter[str] = Counter()
    placed = []
    for record in records:
        row = row_of(record)
        counts[row] += 1
        placed.append(record.model_copy(update={"levels": {name: row, NUMBER: str(counts[row])}}))
    numbers = tuple(str(number) for number in range(1, max(counts.values()) + 1))
    return placed, {name: tuple(counts), NUMBER: numbers}


def split_axes(varied: Axis) -> tuple[Axis, Axis]:
    """Split factors into rows and columns: as many of the fastest ones across as fit `MAX_COLUMNS`."""
    first = len(varied)
    while first > 0 and math.prod(len(levels) for _, levels in varied[first - 1 :]) <= MAX_ACROSS:
        first -= 1
    if first == len(varied) and varied:
        first -= 1  # one long factor: across all the same
    if first == 0 and len(varied) > 1:
        first = 1  # never everything in one row
    return varied[:first], varied[first:]


def _keys(axis: Axis) -> list[AxisLevels]:
    keys: list[AxisLevels] = [()]
    for _, levels in axis:
        keys = [(*key, level) for key in keys for level in levels]
    return keys


def _thumbnail_size(records: Sequence[Record], rows: int, columns: int) -> tuple[int, int]:
    height = max(record.height_px for record in records)
    width = max(record.width_px for record in records)
    room = min((MAX_SHEET_SIDE - 400) / (columns * width), (MAX_SHEET_SIDE - 400) / (rows * height))
    scale = min(1.0, MAX_THUMBNAIL / max(height, width), max(room, MIN_THUMBNAIL / max(height, width)))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _offsets(keys: Sequence[AxisLevels], step: int, start: int) -> list[int]:
    """Positions of rows or columns: a wider gap wherever a slower factor changes."""
    offsets, at = [], start
    for index, key in enumerate(keys):
        if index:
            at += step + (GROUP_GAP if key[:-1] != keys[index - 1][:-1] else GAP)
        offsets.append(at)
    return offsets


def _label_width(rows: Axis) -> int:
    if not rows:
        return 0
    font = _font()
    return 16 + max(int(font.getlength(f"{name} {level}")) for name, levels in rows for level in levels)


def _label_columns(
    draw: ImageDraw.ImageDraw, axis: Axis, keys: Sequence[AxisLevels], xs: Sequence[int], width: int
) -> None:
    for depth, (name, _) in enumerate(axis):
        y = MARGIN + LINE * (depth + 1) + 6
        for index, key in enumerate(keys):
            if index == 0 or key[: depth + 1] != keys[index - 1][: depth + 1]:
                across = sum(other[: depth + 1] == key[: depth + 1] for other in keys)
                label = f"{name} {key[depth]}"
                fits = _font().getlength(label) <= across * width
                _text(draw, (xs[index], y), label if fits else key[depth], INK)


def _label_rows(
    draw: ImageDraw.ImageDraw, axis: Axis, keys: Sequence[AxisLevels], ys: Sequence[int], height: int
) -> None:
    for index, key in enumerate(keys):
        lines = [f"{name} {level}" for (name, _), level in zip(axis, key, strict=True)]
        for line, text in enumerate(lines[: max(1, height // LINE)]):
            _text(draw, (MARGIN, ys[index] + LINE * line), text, INK)


def _paste(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    folder: Path,
    record: Record | None,
    at: tuple[int, int],
    size: tuple[int, int],
) -> None:
    word: str = record.status if record else "pending"
    frame = (*at, at[0] + size[0] - 1, at[1] + size[1] - 1)
    image = None
    if record is not None and word != "failed":
        try:
            image = read_picture(folder / record.filename, record.settings.encoding)
        except (OSError, ImageError):
            word = "unreadable"
    if image is None:
        draw.rectangle(frame, outline=FAINT)
        if _word_width(word) <= size[0]:
            _text(draw, (at[0] + 6, at[1] + 4), word, FAINT)
        return
    scale = min(size[0] / image.width, size[1] / image.height)
    shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    sheet.paste(image.resize(shape, Image.Resampling.LANCZOS), at)
    if word == "rejected":
        draw.rectangle(frame, outline=ALARM, width=3)
        if (width := _word_width(word)) <= size[0]:
            draw.rectangle((*at, at[0] + width - 1, at[1] + LINE), fill=ALARM)
            _text(draw, (at[0] + 6, at[1] + 1), word, BACKGROUND)


def _word_width(word: str) -> int:
    """Pixels of a word with a margin on both sides."""
    return int(_font().getlength(word)) + 12


def _text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: tuple[int, int, int]) -> None:
    draw.text(at, text, fill=colour, font=_font())


def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=14)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font

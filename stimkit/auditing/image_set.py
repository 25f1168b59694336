"""Audit a folder of images that stimkit did not make: do image statistics follow a factor?"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from stimkit.auditing.audit import Audit
from stimkit.auditing.findings import Finding, rank
from stimkit.auditing.rules import OUTLYING, find_confounds, find_outliers
from stimkit.columns import MEASURES, SSIM_CONTENT
from stimkit.documents.messages import EVERY
from stimkit.effects.variance import explain
from stimkit.errors import UsageError, did_you_mean
from stimkit.files import read_file
from stimkit.images.reading import image_files
from stimkit.images.statistics import measure_files
from stimkit.protocol.limits import AuditLimits
from stimkit.protocol.patterns import matching, placeholders

SIZE_AND_DIGEST = ("height_px", "width_px", "pixel_sha256")
MEASURED = tuple(measure.name for measure in MEASURES)
_TAKEN = {*MEASURED, SSIM_CONTENT.name, *OUTLYING, "filename", "stimulus_id", "problem", *SIZE_AND_DIGEST}


def audit_images(
    folder: str | Path,
    *,
    table: str | Path | None = None,
    pattern: str | None = None,
    combine: Mapping[str, Sequence[str]] = {},
    limits: Mapping[str, Mapping[str, float]] = {},
    on_count: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Measure all images in and below a folder and say how much of each statistic the factors explain.

    >>> found = stimkit.audit_images("runs/quickstart/stimuli", pattern="{content}_{style}_{rest}.png")
    >>> found.complete, "style" in set(found.effects["factor"])
    (8, True)

    Factors come from a `table` (CSV with a column `filename`, relative to the folder), or from the names of the files
    by a `pattern` such as `{shape}{i}-{texture}{j}.png`; see `parse_names`. `combine` makes factors of others:
    `{"style": ("texture", "j")}`. `limits` are the largest parts of a statistic's variance (ω²) that a factor may
    explain, by factor, or for every one as `{"mean_luminance": {"*": 0.2}}`. Raises `UsageError` for a folder without
    images, a table that does not fit, a pattern that no file matches, an unknown statistic or factor.
    """
    place = Path(folder)
    if not place.is_dir():
        raise UsageError(f"{folder} is not a folder")
    if (table is None) == (pattern is None):
        raise UsageError("give the factors either as a table or as a pattern of the file names")
    paths = image_files(place)
    names = [path.relative_to(place).as_posix() for path in paths]
    if not names:
        raise UsageError(f"{folder} has no images in it")
    factors = _read_table(Path(table)) if table is not None else parse_names(names, str(pattern))
    factors = _combined(factors, combine)
    design = [name for name in factors.columns if name != "filename"]
    _check_limits(limits, [name for name in design if name != "replicate"])
    rows = measure_files(paths, on_count)
    stimuli = pd.DataFrame([{"filename": name, **row} for name, row in zip(names, rows, strict=True)])
    found = list(_of_files(stimuli, factors))
    readable = stimuli[stimuli["problem"].isna()] if "problem" in stimuli else stimuli
    stimuli = factors.merge(readable, on="filename").rename(columns={"filename": "stimulus_id"})
    if stimuli.empty:
        raise UsageError(f"no image in {folder} is accounted for by the factors")
    found += find_outliers(stimuli, AuditLimits(), design)
    explained = explain(stimuli, design, MEASURED)
    found += find_confounds(explained, limits)
    return Audit(len(factors), len(stimuli), tuple(rank(found)), stimuli, explained)


def parse_names(names: Sequence[str], pattern: str) -> pd.DataFrame:
    """Factors from file names: one row for each name that matches, one column for each `{placeholder}`.

    See `stimkit.protocol.patterns.matching`. Raises `UsageError` for a pattern without placeholders or one that no name
    matches.
    """
    if "filename" in placeholders(pattern):
        raise UsageError("a placeholder cannot be called filename")
    rows = [{"filename": name, **values} for name, values in matching(names, pattern).items()]
    if not rows:
        raise UsageError(f"no file matches the pattern {pattern}; the first file is {names[0]}")
    return pd.DataFrame(rows)


def _read_table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(io.BytesIO(read_file(path)), dtype=str, keep_default_na=False)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a CSV table: {error}") from error
    if "filename" not in table:
        hint = did_you_mean("filename", table.columns)
        raise UsageError(f"{path} has no column filename{hint}; it has {', '.join(table.columns)}")
    twice = table["filename"][table["filename"].duplicated()]
    if len(twice):
        raise UsageError(f"{path} names {twice.iloc[0]} twice")
    return table


def _combined(factors: pd.DataFrame, combine: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    factors = factors.copy()
    for name, parts in combine.items():
        for part in parts:
            if part not in factors:
                raise UsageError(f'"{part}" is not a factor{did_you_mean(part, factors.columns)}')
        factors[name] = factors[list(parts)].agg("-".join, axis=1)
    clash = (set(factors.columns) - {"filename"} | ({"filename"} & combine.keys())) & _TAKEN
    if clash:
        raise UsageError(f"a factor cannot be called {', '.join(sorted(clash))}: that is a column of the result")
    return factors


def _check_limits(limits: Mapping[str, Mapping[str, float]], factors: Sequence[str]) -> None:
    for variable, limit in limits.items():
        if variable not in MEASURED:
            raise UsageError(f'"{variable}" is not measured{did_you_mean(variable, MEASURED)}')
        for factor in limit:
            if factor not in (EVERY, *factors):
                raise UsageError(f'"{factor}" is not a factor{did_you_mean(factor, factors)}')


def _of_files(stimuli: pd.DataFrame, factors: pd.DataFrame) -> Iterator[Finding]:
    known, there = set(factors["filename"]), set(stimuli["filename"])
    for name in sorted(there - known):
        yield Finding("file_without_factors", "warning", "", "no factors", path=name)
    for name in sorted(known - there):
        yield Finding("factors_without_file", "error", "", "no such image", path=name)
    if "problem" in stimuli:
        for row in stimuli[stimuli["problem"].notna()].to_dict("records"):
            yield Finding("unreadable", "error", "", str(row["problem"]), path=str(row["filename"]))
        stimuli = stimuli[stimuli["problem"].isna()]
    if stimuli.empty:
        return
    sizes = stimuli["height_px"].astype(int).astype(str) + " × " + stimuli["width_px"].astype(int).astype(str)
    usual = sizes.mode().iloc[0]
    for name, size in zip(stimuli["filename"], sizes, strict=True):
        if size != usual:
            yield Finding("other_size", "warning", "", f"{size} px, most have {usual} px", path=name)
    for _, group in stimuli.groupby("pixel_sha256"):
        first, *others = group["filename"]
        for name in others:
            yield Finding("duplicate", "warning", "", f"the same pixels as {first}", path=name)

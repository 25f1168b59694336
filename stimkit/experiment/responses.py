"""After the experiment: the answers of participants beside what the manifest says about their stimuli."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from stimkit.columns import BASIC, Column
from stimkit.errors import UsageError, did_you_mean
from stimkit.experiment.response_files import ID_COLUMN, read_all
from stimkit.experiment.response_units import UNITS, implausible, unit_of
from stimkit.experiment.trial_levels import ODD, with_trial_levels
from stimkit.files import whole_folder, write_atomically
from stimkit.records.dataset import netcdf_bytes
from stimkit.records.tables import attribute_names, csv_bytes, described_columns, factor_names, to_table
from stimkit.runfolder.run import AnyRun, read_run
from stimkit.version import __version__

JOINED = (
    "role", "control_of", "status", "alpha_beta_ratio", "loss_content_file", "loss_style_file", "loss_total_file",
    *BASIC,
)  # fmt: skip
"""Columns of the manifest that are joined by default, beside factors and attributes."""
RESPONSES = "responses.csv"  # in the folder of joined answers
_MARKS = ("participant", "kind")  # coordinates too: kind is main, practice or catch
PERSON = ("participant", "subject", "observer", "participant_id", "subject_id")  # what a column of people is called


@dataclass(frozen=True)
class Joined:
    """Responses with what the manifest says about their stimuli."""

    responses: pd.DataFrame
    """One row a response, of all columns of the files, then of the manifest; those of the stimulus at a place of the
    trial end in the place."""
    unknown: pd.DataFrame
    """Rows whose stimulus is not in the run."""
    without_stimulus: int
    """Rows that show no stimulus, such as instructions."""
    unanswered: tuple[str, ...]
    """Accepted stimuli of the run without a response."""
    dataset: xr.Dataset
    """`responses` along the dimension `row`; factors, attributes, ids and kinds of trials are coordinates."""


def join_responses(
    run: AnyRun, files: Sequence[str | Path], *, columns: Sequence[str] | None = None, times: str | None = None
) -> Joined:
    """Join the responses in files to the manifest of a run.

    >>> import pandas as pd
    >>> shown = list(stimkit.open_run("runs/quickstart").records)
    >>> answers = pd.DataFrame({"participant": "p001", "trial": range(8), "stimulus_id": shown, "rt": 0.7})
    >>> answers.to_csv("p001.csv")
    >>> joined = stimkit.join_responses("runs/quickstart", ["p001.csv"], times="s")
    >>> joined.responses[["participant", "rt", "style", "alpha_beta_ratio"]].shape
    (8, 4)

    Files are CSV, TSV, XLSX or JSON (a list of objects) of PsychoPy, jsPsych or anything else that has a column
    `stimulus_id`, or `stim_file`; with several stimuli in a trial `stimulus_id_1`, `stimulus_id_2`, ... `columns` of
    the manifest are joined beside factors and attributes, by default `JOINED`. Where a file has a factor or attribute
    already, its values must be those of the manifest; where it has another column, the manifest's begins with
    `stimulus_`. Trials of several stimuli also have the levels that all of them share, such as `style`, and those of
    the odd one, `style_odd`.

    Times come out in seconds: what jsPsych and PsychoPy record is known, and `times` is the unit of other programs, "s"
    or "ms". `correct` comes out as 0, 1 or missing. What was recorded stays in `rt_recorded` and the like.

    Raises `RunFolderError` for a folder that is not a run folder, `UsageError` for files that cannot be read or have no
    such column, trials that are there twice, responses of another run, values that the manifest contradicts.
    """
    run = read_run(run)
    run.check_readable()
    if times not in (None, *UNITS):
        raise UsageError(f'times are recorded in {" or ".join(UNITS)}, not in "{times}"')
    records = list(run.records.values())
    manifest = to_table([record for record in records if record.status != "failed"]).set_index(
        "stimulus_id", drop=False
    )
    factors, attributes = factor_names(records), attribute_names(records)
    wanted = _wanted(manifest, (*factors, *attributes), columns)
    tables, digests = read_all([Path(file) for file in files], times)
    read = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if read.empty:
        raise UsageError(f"there are no responses in {', '.join(map(str, files)) or 'no file'}")
    places = _places(read)
    shown = read[[f"stimulus_id{place}" for place in places]].notna().any(axis=1)
    responses = read[shown].reset_index(drop=True)
    known = _known(responses, places, manifest.index)
    if not known.any():
        raise UsageError(
            f"{run.path} has none of the stimuli in {', '.join(map(str, files))}; are they of another run?"
        )
    unknown, responses = responses[~known], responses[known].reset_index(drop=True)
    _check_twice(responses)
    joined = _with_manifest(responses, manifest, wanted, places, ("role", *factors, *attributes))
    if len(places) > 1:
        joined = with_trial_levels(joined, places, (*factors, *attributes))
    given = joined[joined["response"].notna()] if "response" in joined else joined
    answered = {stimulus_id for place in places for stimulus_id in given[f"stimulus_id{place}"].dropna()}
    accepted = manifest.index[manifest["status"] == "accepted"]
    return Joined(
        responses=joined,
        unknown=unknown,
        without_stimulus=int((~shown).sum()),
        unanswered=tuple(str(stimulus_id) for stimulus_id in accepted if stimulus_id not in answered),
        dataset=_dataset(joined, described_columns(records), wanted, (*factors, *attributes), digests),
    )


def person_column(table: pd.DataFrame) -> str | None:
    """The column that says who answered, by what such columns are called; None where there is none."""
    return next((name for name in PERSON if name in table), None)


def save_joined(joined: Joined, out: str | Path) -> None:
    """Write responses.csv, responses.nc and, where there are any, unknown.csv and unanswered.csv into a new folder."""
    with whole_folder(Path(out)) as folder:
        (folder / RESPONSES).write_bytes(csv_bytes(joined.responses))
        write_atomically(folder / "responses.nc", netcdf_bytes(joined.dataset))
        if len(joined.unknown):
            (folder / "unknown.csv").write_bytes(csv_bytes(joined.unknown))
        if joined.unanswered:
            (folder / "unanswered.csv").write_bytes(csv_bytes(pd.DataFrame({"stimulus_id": joined.unanswered})))


def _wanted(manifest: pd.DataFrame, design: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    for name in columns or ():
        if name not in manifest:
            raise UsageError(f'the manifest has no column "{name}"{did_you_mean(name, map(str, manifest.columns))}')
    return [
        name for name in dict.fromkeys((*design, *(JOINED if columns is None else columns))) if name != "stimulus_id"
    ]


def _places(read: pd.DataFrame) -> list[str]:
    return sorted(name.removeprefix("stimulus_id") for name in map(str, read.columns) if ID_COLUMN.fullmatch(name))


def _known(responses: pd.DataFrame, places: Sequence[str], ids: Any) -> Any:
    """Which rows have stimuli of the run only."""
    known = np.ones(len(responses), bool)
    for place in places:
        named = responses[f"stimulus_id{place}"]
        known &= np.asarray(named.isna() | named.isin(ids), bool)
    return known


def _check_twice(responses: pd.DataFrame) -> None:
    person = person_column(responses)
    if person is None or "trial" not in responses:
        return
    key = [person, *(name for name in ("session", "trial") if name in responses)]
    known = responses.dropna(subset=[person, "trial"])
    twice = known[known.duplicated(key, keep=False)]
    if len(twice):
        one = twice.iloc[0]
        of_it = ", ".join(f"{name} {one[name]}" for name in key)
        within = ", ".join(sorted(set(twice["response_file"])))
        raise UsageError(f"{len(twice)} responses are to the same trial, as {of_it}, in {within}; give each file once")


# --- joining --------------------------------------------------------------------------------------------------


def _with_manifest(
    responses: pd.DataFrame, manifest: pd.DataFrame, wanted: Sequence[str], places: Sequence[str], design: Sequence[str]
) -> pd.DataFrame:
    joined = responses.copy()
    for place in places:
        found = manifest[list(wanted)].reindex(responses[f"stimulus_id{place}"].astype(object))
        for name in wanted:
            column, values = f"{name}{place}", found[name].to_numpy()
            if column in responses and name in design:
                _check_agreement(responses, column, f"stimulus_id{place}", values)
            joined[column if name in design or column not in responses else f"stimulus_{column}"] = values
    return joined


def _check_agreement(responses: pd.DataFrame, column: str, stimulus: str, values: Any) -> None:
    """Responses must say of their stimuli what the manifest says, where they say anything."""
    for given, value, one in zip(responses[column], values, responses[stimulus], strict=True):
        if not pd.isna(given) and given != "" and not _same(given, value):
            raise UsageError(f'a response says {column} "{given}" of {one}, and the manifest says "{value}"')


def _same(given: Any, value: Any) -> bool:
    try:
        return bool(np.isclose(float(given), float(value), rtol=1e-9, atol=0))
    except (TypeError, ValueError):
        return str(given) == str(value)


def _dataset(
    joined: pd.DataFrame,
    described: Mapping[str, Column],
    wanted: Sequence[str],
    design: Sequence[str],
    digests: Mapping[Path, str],
) -> xr.Dataset:
    variables: dict[str, Any] = {}
    coordinates: dict[str, Any] = {}
    names = _netcdf_names([str(name) for name in joined.columns])
    for name in map(str, joined.columns):
        base = re.sub(r"_\d+$", "", name) if name not in wanted else name
        column = described.get(base) if base in wanted else None
        attributes = {"long_name": column.long_name} if column else {}
        if units := column.units if column else unit_of(name, joined):
            attributes["units"] = units
        plain = base.removesuffix(ODD)
        target = coordinates if plain in (*design, *_MARKS) or ID_COLUMN.fullmatch(name) else variables
        attributes |= {"column": name} if names[name] != name else {}
        target[names[name]] = ("row", _plain(joined[name]), attributes)
    sources = json.dumps({str(file): f"sha256:{digest}" for file, digest in digests.items()})
    return xr.Dataset(variables, coordinates, {"stimkit_version": __version__, "response_files": sources})


def _netcdf_names(columns: Sequence[str]) -> dict[str, str]:
    """Names that NetCDF takes, all different from each other and from that of the dimension, by names of columns."""
    names: dict[str, str] = {}
    taken = {"row"}
    for column in columns:
        plain = re.sub(r"[^\w.@+ -]", "_", column).strip()
        plain = plain if re.match(r"\w", plain) else f"_{plain}"
        plain = plain.encode()[:200].decode(errors="ignore")  # of 256 bytes that NetCDF allows
        found = next(name for name in chain([plain], (f"{plain}_{n}" for n in count(2))) if name not in taken)
        names[column] = found
        taken.add(found)
    return names


def _plain(values: Any) -> Any:
    """An array that NetCDF holds: numbers, with NaN where there is none, or text."""
    if pd.api.types.is_bool_dtype(values) and not values.isna().any():
        return values.to_numpy(bool)
    if pd.api.types.is_numeric_dtype(values):
        whole = pd.api.types.is_integer_dtype(values) and not values.isna().any()
        return values.to_numpy(np.int64) if whole else values.to_numpy(float, na_value=np.nan)
    return values.astype(object).where(values.notna(), "").map(str).to_numpy(object)


def count_responses(joined: Joined) -> Iterator[str]:
    """What was joined, in words."""
    people = (
        f" of {joined.responses['participant'].nunique()} participants" if "participant" in joined.responses else ""
    )
    yield f"{len(joined.responses):,} responses{people}"
    if "kind" in joined.responses:
        kinds = joined.responses["kind"].value_counts()
        yield ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    if words := implausible(joined.responses):
        yield words
    if joined.without_stimulus:
        yield f"{joined.without_stimulus:,} rows show no stimulus"
    if len(joined.unknown):
        yield f"{len(joined.unknown):,} rows show stimuli that are not in the run: unknown.csv"
    if joined.unanswered:
        yield f"{len(joined.unanswered):,} stimuli have no response: unanswered.csv"

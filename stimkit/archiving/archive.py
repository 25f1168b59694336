"""Put a run and what belongs to it into one archive, for a repository such as OSF or Zenodo."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stimkit.archiving.answers import dataset_files, read_answers
from stimkit.archiving.papers import Held, citation, licence_text, readme
from stimkit.archiving.paths import shorten_paths
from stimkit.auditing.audit import examine
from stimkit.auditing.saving import AUDIT_FOLDER, save_audit
from stimkit.auditing.verification import verify
from stimkit.documents.progress import OnPhase, show_phases
from stimkit.errors import ImageError, RunFolderError, UsageError, WeightsError
from stimkit.experiment.export.data_dictionary import describe_columns
from stimkit.experiment.export.stimulus_set import gather_stimuli
from stimkit.files import EPOCH, read_file, storage_errors, write_atomically
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import InputFile, input_files
from stimkit.records.methods import methods_paragraph
from stimkit.records.tables import csv_bytes, table_names
from stimkit.reporting.contents import thumbnails_for
from stimkit.reporting.report import REPORT_FILE, write_report
from stimkit.runfolder.journal import JOURNAL, file_digest, lengthen
from stimkit.runfolder.layout import CLUTTER, CONTROLS_SHEET, FOLDERS, INPUTS, MEASUREMENTS_FOLDER, SHEET
from stimkit.runfolder.run import AnyRun, Run, read_run

COMPRESSED = {".png", ".npy", ".nc"}
LISTS = "trials"  # folder of an archive
TRIAL_FILES = ("design.toml", "trials.csv", "trials.json", "balance.csv")


@dataclass(frozen=True)
class Archive:
    """What an archive holds."""

    path: Path
    files: int
    inputs: tuple[str, ...]
    left_out: tuple[str, ...]
    """Inputs that the archive does not hold, and why."""
    shortened: tuple[str, ...] = ()
    """Paths of the machine that the archive has only the last parts of."""


def archive(
    run: AnyRun,
    out: str | Path,
    *,
    inputs: Sequence[str | Path] = (),
    trials: Sequence[str | Path] = (),
    answers: Sequence[str | Path] = (),
    audit: bool = True,
    device: str = "auto",
    on_phase: OnPhase | None = None,
    progress: bool | None = None,
) -> Archive:
    """Write a complete, sound run folder as a ZIP archive, which unpacked is a run folder with its inputs.

    >>> archive = stimkit.archive("runs/quickstart", "quickstart.zip", audit=False)
    >>> archive.path.name, len(archive.left_out)
    ('quickstart.zip', 2)

    It holds stimuli, records, traces, tables, protocol, lock, environment; those image files and weights whose
    licence the protocol names (`[images] licence`, `[publication] weights_licence`), found by digest as `regenerate`
    does; with `audit`, which takes `device`, `on_phase` and `progress` as `stimkit.audit` does, a report and the tables
    of an audit; trial lists in the folders `trials` and answers in the folders `answers`, as `stimkit trials` and
    `stimkit join` wrote them; a data dictionary, README, LICENCE, CITATION.cff and SHA256SUMS. Absolute paths are
    shortened to their last parts. Equal runs give equal archives without an audit, where no weights file is in them,
    whose header has no fixed order.

    Raises `RunFolderError` where cells are pending or `verify` finds anything, `UsageError` where `out` exists or a
    folder is not of its kind, `ImageError` or `WeightsError` where an input is not found.
    """
    path = Path(out)
    if path.exists():
        raise UsageError(f"{path} exists already; give another name")
    run = read_run(run)
    _check_sound(run)
    lists = _named(trials)
    of_lists = [member for name, folder in lists.items() for member in _trial_files(name, folder)]
    tables = read_answers([Path(folder) for folder in answers])
    with storage_errors(path), tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".archive-") as building:
        copy, gathered = Path(building) / "run", Path(building) / "inputs"
        licences = _gather_inputs(run, inputs, gathered, others=audit)
        _copy_run(run, copy)
        shortened = shorten_paths(copy)
        _keep_inputs(copy, gathered, licences)
        made = read_run(copy)
        if audit:
            with show_phases(on_phase, progress) as tell:
                portray = thumbnails_for(made)
                found = examine(made, inputs=[gathered], device=device, on_phase=tell, portray=portray)
            save_audit(found.audit, copy / AUDIT_FOLDER)
            write_report(made, found, copy / REPORT_FILE, losses_checked=True)
        left_out = [
            f"{file.label}: the protocol names no licence"
            for file in input_files(made.plan, made.inputs())
            if file.name not in licences
        ]
        held = Held(sorted(licences), left_out, list(lists), list(tables), audit, bool(shortened))
        below = ((name, _without(building, name, data)) for name, data in _files_below(copy))
        members = [*below, *of_lists, *_words(made, held, licences, tables)]
        write_atomically(path, _zip(members))
    return Archive(path, len(members) + 1, tuple(held.inputs), tuple(left_out), shortened)


def _words(
    run: Run, held: Held, licences: Mapping[str, str], answers: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, bytes]]:
    """What is told about a run: answers, a data dictionary, README, LICENCE and CITATION.cff."""
    plan, records = run.plan, list(run.records.values())
    protocol = plan.protocol
    stimuli = gather_stimuli(run, where='role != ""', status=("accepted", "rejected"))
    if answers:
        yield from dataset_files(stimuli, answers, protocol.publication)
    tables = {name: pd.read_csv(run.path / name) for name in table_names(records) if name.endswith(".csv")}
    yield "data_dictionary.csv", csv_bytes(describe_columns(stimuli, {**tables, **answers}))
    methods = methods_paragraph(plan, records, run.environments)
    yield "README.md", readme(plan, methods, held, records[0].stimulus_id).encode()
    yield "LICENCE", licence_text(protocol, {f"{INPUTS}/{name}": one for name, one in licences.items()}).encode()
    yield "CITATION.cff", citation(protocol).encode()


def _named(folders: Sequence[str | Path]) -> dict[str, Path]:
    """Folders of trial lists by their names. Raises `UsageError` where two have the same."""
    named = {Path(folder).resolve().name: Path(folder) for folder in folders}
    if len(named) < len(folders):
        raise UsageError("two folders of trial lists have the same name: rename one of them")
    return named


def _check_sound(run: Run) -> None:
    checked = verify(run)
    if checked.errors or checked.complete < checked.planned:
        raise RunFolderError(
            f"an archive is made of a complete, sound run, but {run.path} has {checked.planned - checked.complete}"
            f" pending cells and {checked.errors} findings of `stimkit verify`"
        )


def _licence_of(file: InputFile, plan: Plan) -> str:
    """The licence that the protocol names of an input; empty where it names none."""
    if file.image is None:
        return plan.protocol.publication.weights_licence
    return plan.protocol.images.licence.get(file.image.name, "")


def _gather_inputs(run: Run, folders: Sequence[str | Path], target: Path, *, others: bool) -> dict[str, str]:
    """Write the inputs that have a licence into a folder, and return these by name; with `others` also those that are
    found."""
    target.mkdir()
    licences = {}
    for file in input_files(run.plan, run.inputs(folders)):
        if licence := _licence_of(file, run.plan):
            licences[file.name] = licence
        elif not others:
            continue
        try:
            (target / file.name).write_bytes(file.read())
        except (ImageError, WeightsError):
            if licence:
                raise
    return licences


def _copy_run(run: Run, target: Path) -> None:
    """Copy what belongs to a run folder, without its inputs and what audits and reports left in it."""
    store = run.store
    names = ["protocol.toml", store.lock_file.name, "environment.json", *table_names(run.records.values()), SHEET]
    names += [name for name in (CONTROLS_SHEET, JOURNAL) if (store.path / name).is_file()]
    folders = [folder for folder in (*FOLDERS, MEASUREMENTS_FOLDER) if (store.path / folder).is_dir()]
    there = [(folder, path.name) for folder in folders for path in sorted((store.path / folder).iterdir())]
    names += [f"{folder}/{name}" for folder, name in there if not CLUTTER.fullmatch(name)]
    for name in names:
        _copy(store.path / name, target / name)


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        raise RunFolderError(f"{source} is a link; an archive is made of files")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _keep_inputs(copy: Path, gathered: Path, free: Iterable[str]) -> None:
    """Put the inputs that have a licence into the copy of a run, and enter those, and what is not there, into its
    journal, where it has one."""
    for name in free:
        _copy(gathered / name, copy / INPUTS / name)
    journal = read_run(copy).journal
    if journal is None:
        return
    digests = {f"{INPUTS}/{name}": file_digest(read_file(copy / INPUTS / name)) for name in free}
    kept = [name for name in journal.digests if name.startswith(f"{INPUTS}/") and journal.last(name)]
    entries = [(name, "") for name in kept if name not in digests]
    entries += [(name, digest) for name, digest in digests.items() if journal.objection(name, digest)]
    write_atomically(copy / JOURNAL, lengthen(read_file(copy / JOURNAL), entries))


def _trial_files(name: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """The files of trial lists. Raises `UsageError` where a folder does not hold them."""
    participants = sorted(folder.glob("participants/*.csv"))
    for file in (*(folder / one for one in TRIAL_FILES), *participants):
        if not file.is_file() or file.is_symlink():
            raise UsageError(
                f"{folder} has no {file.name}: it is not a folder of trial lists that `stimkit trials` wrote"
            )
        yield f"{LISTS}/{name}/{file.relative_to(folder).as_posix()}", read_file(file)


def _files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        yield path.relative_to(folder).as_posix(), read_file(path)


def _without(building: str, name: str, data: bytes) -> bytes:
    """What an audit says, without the folder where it was made: of inputs that it did not find."""
    return data.replace(building.encode(), b"") if name.startswith((f"{AUDIT_FOLDER}/", REPORT_FILE)) else data


def _zip(members: Sequence[tuple[str, bytes]]) -> bytes:
    """An archive of files, and of their checksums."""
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(members))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in (*members, ("SHA256SUMS", sums.encode())):
            method = zipfile.ZIP_STORED if Path(name).suffix in COMPRESSED else zipfile.ZIP_DEFLATED
            file.writestr(zipfile.ZipInfo(name, EPOCH), data, method)
    return buffer.getvalue()

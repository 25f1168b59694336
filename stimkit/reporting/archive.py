"""Put a run and its inputs into one archive, for a repository such as OSF or Zenodo."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stimkit.auditing.verification import verify
from stimkit.errors import RunFolderError, UsageError
from stimkit.files import EPOCH, read_file, storage_errors, write_atomically
from stimkit.planning.inputs import input_files
from stimkit.records.methods import archive_readme, methods_paragraph
from stimkit.records.tables import table_names
from stimkit.runfolder.journal import JOURNAL, file_digest, lengthen
from stimkit.runfolder.layout import CLUTTER, CONTROLS_SHEET, FOLDERS, INPUTS, SHEET
from stimkit.runfolder.run import AnyRun, Run, read_run

COMPRESSED = {".png", ".npy", ".nc"}


@dataclass(frozen=True)
class Archive:
    """What an archive holds."""

    path: Path
    files: int
    inputs: tuple[str, ...]
    left_out: tuple[str, ...]
    """Inputs that the archive does not hold, and why."""


def archive(run: AnyRun, out: str | Path, *, inputs: Sequence[str | Path] = ()) -> Archive:
    """Write a complete, sound run folder as a ZIP archive, which unpacked is a run folder with its inputs.

    >>> archive = stimkit.archive("runs/quickstart", "quickstart.zip")
    >>> archive.path.name, len(archive.left_out)
    ('quickstart.zip', 2)

    It holds stimuli, records, traces, tables, protocol, lock, environment; weights that are a file, and those
    image files whose licence the protocol names (`[images] licence`), found by digest as `regenerate` does;
    a README with a paragraph of methods; and SHA256SUMS. Equal runs give equal archives, where no weights
    file (whose header has no fixed order) is in them.

    Raises `RunFolderError` where cells are pending or `verify` finds anything, `UsageError` where `out`
    exists, `ImageError` or `WeightsError` where an input is not found.
    """
    path = Path(out)
    if path.exists():
        raise UsageError(f"{path} exists already; give another name")
    run = read_run(run)
    checked = verify(run)
    if checked.errors or checked.complete < checked.planned:
        raise RunFolderError(
            f"an archive is made of a complete, sound run, but {run.path} has {checked.planned - checked.complete}"
            f" pending cells and {checked.errors} findings of `stimkit verify`"
        )
    plan = run.plan
    licensed = plan.protocol.images.licence
    found = {f"{INPUTS}/{name}": data for name, data in input_files(plan, run.inputs(inputs), licensed)}
    left_out = [
        f"{image.kind} image {image.name} (pixels sha256 {image.pixel_sha256}): the protocol names no licence"
        for image in plan.inputs
        if not image.spec.startswith("skimage:") and image.name not in licensed
    ]
    methods = methods_paragraph(plan, list(run.records.values()), run.environments)
    readme = archive_readme(plan, methods, sorted(found), left_out)
    members = [*_run_files(run), *_journal(run, found), *found.items(), ("README.md", readme.encode())]
    with storage_errors(path):
        write_atomically(path, _zip(members))
    return Archive(path, len(members) + 1, tuple(sorted(found)), tuple(left_out))


def _journal(run: Run, inputs: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The journal of a run, where it has one, with the inputs of the archive and without those that it lacks."""
    journal = run.journal
    if journal is None:
        return
    kept = [name for name in journal.digests if name.startswith(f"{INPUTS}/") and journal.last(name)]
    entries = [(name, "") for name in kept if name not in inputs]
    digests = {name: file_digest(data) for name, data in inputs.items()}
    entries += [(name, digest) for name, digest in digests.items() if journal.objection(name, digest)]
    yield JOURNAL, lengthen(read_file(run.path / JOURNAL), entries)


def _run_files(run: Run) -> Iterator[tuple[str, bytes]]:
    store = run.store
    names = ["protocol.toml", store.lock_file.name, "environment.json", *table_names(run.records.values()), SHEET]
    names += [CONTROLS_SHEET] if (store.path / CONTROLS_SHEET).is_file() else []
    there = [(folder, path.name) for folder in FOLDERS for path in sorted((store.path / folder).iterdir())]
    names += [f"{folder}/{name}" for folder, name in there if not CLUTTER.fullmatch(name)]
    for name in names:
        if (store.path / name).is_symlink():
            raise RunFolderError(f"{store.path / name} is a link; an archive is made of files")
        yield name, read_file(store.path / name)


def _zip(members: Sequence[tuple[str, bytes]]) -> bytes:
    """An archive of files, and of their checksums."""
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(members))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in (*members, ("SHA256SUMS", sums.encode())):
            method = zipfile.ZIP_STORED if Path(name).suffix in COMPRESSED else zipfile.ZIP_DEFLATED
            file.writestr(zipfile.ZipInfo(name, EPOCH), data, method)
    return buffer.getvalue()

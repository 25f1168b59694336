"""Put a run and its inputs into one archive, for a repository such as OSF or Zenodo."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stimkit.auditing.verification import verify
from stimkit.errors import RunFolderError, UsageError
from stimkit.files import storage_errors, write_atomically
from stimkit.planning.inputs import FoundInputs, input_files
from stimkit.planning.resolved import plan_of
from stimkit.records.methods import archive_readme, methods_paragraph
from stimkit.runfolder.store import CLUTTER, CONTROLS_SHEET, DERIVED, FOLDERS, INPUTS, RunStore

EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file in the archive, so that equal runs give equal archives
COMPRESSED = {".png", ".npy", ".nc"}


@dataclass(frozen=True)
class Bundle:
    """What an archive holds."""

    path: Path
    files: int
    inputs: tuple[str, ...]
    left_out: tuple[str, ...]
    """Inputs that the archive does not hold, and why."""


def bundle(run: str | Path, out: str | Path, *, inputs: Sequence[str | Path] = ()) -> Bundle:
    """Write a complete, sound run folder as a ZIP archive, which unpacked is a run folder with its inputs.

    It holds stimuli, records, traces, tables, protocol, lock, environment; weights that are a file, and those
    image files whose licence the protocol names (`[images] licence`), found by digest as `regenerate` does;
    a README with a paragraph of methods; and SHA256SUMS. Equal runs give equal archives, where no weights
    file (whose header has no fixed order) is in them.

    Raises `RunFolderError` where cells are pending or `verify` finds anything, `UsageError` where `out`
    exists, `ImageError` or `WeightsError` where an input is not found.
    """
    store, path = RunStore.open(run), Path(out)
    if path.exists():
        raise UsageError(f"{path} exists already; give another name")
    checked = verify(run)
    if checked.findings or checked.complete < checked.planned:
        raise RunFolderError(
            f"an archive is made of a complete, sound run, but {run} has {checked.planned - checked.complete} pending"
            f" cells and {len(checked.findings)} findings of `stimkit verify`"
        )
    plan = plan_of(store.lock_contents(), base=store.origin())
    licensed = plan.protocol.images.licence
    source = FoundInputs(plan, store.input_folders(inputs))
    found = {f"{INPUTS}/{name}": data for name, data in input_files(plan, source, licensed)}
    left_out = [
        f"{one.kind} image {one.name} (pixels sha256 {one.pixel_sha256}): the protocol names no licence"
        for one in plan.inputs
        if not one.spec.startswith("skimage:") and one.name not in licensed
    ]
    methods = methods_paragraph(plan, store.records(), store.environments())
    readme = archive_readme(plan, methods, sorted(found), left_out)
    members = [*_run_files(store), *found.items(), ("README.md", readme.encode())]
    with storage_errors(path):
        write_atomically(path, _zip(members))
    return Bundle(path, len(members) + 1, tuple(sorted(found)), tuple(left_out))


def _run_files(store: RunStore) -> Iterator[tuple[str, bytes]]:
    names = ["protocol.toml", store.lock_file.name, "environment.json", *DERIVED]
    names += [CONTROLS_SHEET] if (store.path / CONTROLS_SHEET).is_file() else []
    there = [(folder, path.name) for folder in FOLDERS for path in sorted((store.path / folder).iterdir())]
    names += [f"{folder}/{name}" for folder, name in there if not CLUTTER.fullmatch(name)]
    for name in names:
        if (store.path / name).is_symlink():
            raise RunFolderError(f"{store.path / name} is a link; an archive is made of files")
        yield name, (store.path / name).read_bytes()


def _zip(members: Sequence[tuple[str, bytes]]) -> bytes:
    """An archive of files, and of their checksums."""
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(members))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (*members, ("SHA256SUMS", sums.encode())):
            method = zipfile.ZIP_STORED if Path(name).suffix in COMPRESSED else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, method)
    return buffer.getvalue()

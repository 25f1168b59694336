"""Put a run and its inputs into one archive, for a repository such as OSF or Zenodo."""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stimkit import weights
from stimkit.atomic import write_atomically
from stimkit.cells import Plan
from stimkit.errors import RunFolderError, UsageError
from stimkit.images import encode_png
from stimkit.inputs import FoundInputs
from stimkit.lock import plan_of
from stimkit.methods import archive_readme, methods_paragraph
from stimkit.store import DERIVED, FOLDERS, INPUTS, RunStore, storage_errors
from stimkit.verify import verify

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
    found, left_out = collect_inputs(plan, store.input_folders(inputs))
    methods = methods_paragraph(plan, store.records(), store.environments())
    readme = archive_readme(plan, methods, sorted(found), left_out)
    members = [*_run_files(store), *((name, data) for name, data in found.items()), ("README.md", readme.encode())]
    with storage_errors(path):
        write_atomically(path, _zip(members))
    return Bundle(path, len(members) + 1, tuple(sorted(found)), tuple(left_out))


def collect_inputs(plan: Plan, folders: Sequence[Path]) -> tuple[dict[str, bytes], list[str]]:
    """Files of the inputs that may be passed on, by their names in an archive; and what is left out, and why.

    Images are written as PNG, which keeps their pixels and so their digests. Samples of scikit-image and weights
    with a name need no file.
    """
    source = FoundInputs(plan, folders)
    files: dict[str, bytes] = {}
    left_out: list[str] = []
    for one in plan.inputs:
        if one.spec.startswith("skimage:"):
            continue
        if one.name in plan.protocol.images.licence:
            files[f"{INPUTS}/{one.kind}-{one.name}.png"] = encode_png(source.image(one.kind, one.name))
        else:
            left_out.append(
                f"{one.kind} image {one.name} (pixels sha256 {one.pixel_sha256}): the protocol names no licence"
            )
    for settings in {cell.settings.weights: cell.settings for cell in plan.cells}.values():
        if settings.weights not in weights.known_names():
            found = source.weights(settings)
            files[f"{INPUTS}/weights-{found.digest[:12]}.safetensors"] = _weights_file(found)
    return files, left_out


def _weights_file(found: weights.Weights) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        weights.save_file(found, path)
        return path.read_bytes()


def _run_files(store: RunStore) -> Iterator[tuple[str, bytes]]:
    names = ["protocol.toml", store.lock_file.name, "environment.json", *DERIVED]
    names += [f"{folder}/{path.name}" for folder in FOLDERS for path in sorted((store.path / folder).iterdir())]
    for name in names:
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

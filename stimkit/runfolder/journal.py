"""The journal of a run folder: the digests of records, inputs and the resolved protocol, as they were committed.

Each line is `file,sha256,chain`. `chain` is the sha256 of the chain before it, the file and the digest, so that no line
can be changed or taken out but the last ones without a trace. The last line of a file counts. What has no digest was
taken out of the folder on purpose, as inputs without a licence are out of an archive.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stimkit.files import read_file, write_atomically

JOURNAL = "journal.csv"
HEADER = "file,sha256,chain\n"
_TAIL = 4096  # bytes that hold the last line


@dataclass(frozen=True)
class Journal:
    """What was committed to a run folder."""

    digests: dict[str, list[str]] = field(default_factory=dict)
    """The digests of each file as it was committed, the last one last; an empty one where it was taken out."""
    damage: str = ""
    """Why the journal is not to be trusted; empty for a sound one."""

    def objection(self, name: str, digest: str) -> str:
        """Why a file of a digest cannot be the one that was committed; empty where it is."""
        if name not in self.digests:
            return f"{JOURNAL} does not know it"
        if self.is_older(name, digest):
            return "it is older than the one that was committed last: run the protocol again"
        return "" if digest == self.last(name) else "it is not the one that was committed"

    def is_older(self, name: str, digest: str) -> bool:
        """Whether a file was committed, but not last: writing it anew may have been interrupted."""
        return digest in self.digests.get(name, []) and digest != self.last(name)

    def last(self, name: str) -> str:
        """The digest of a file as it was committed last; empty for one that was not, or was taken out."""
        return self.digests.get(name, [""])[-1]


def read_journal(folder: Path) -> Journal:
    """Read the journal of a run folder; one that cannot be read is returned as damaged."""
    try:
        first, *lines = read_file(folder / JOURNAL).decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        return Journal(damage=getattr(error, "strerror", "") or str(error))
    digests: dict[str, list[str]] = {}
    chain, damage = "", "" if f"{first}\n" == HEADER else "line 1 is not its header"
    for number, line in enumerate(lines[:-1], 2):  # what comes after the last line was interrupted
        name, digest, _ = [*line.rsplit(",", 2), "", ""][:3]
        entry, chain = _entry(chain, name, digest)
        if f"{line}\n" != entry:
            return Journal(digests, f"line {number} is not the one that was written")
        digests.setdefault(name, []).append(digest)
    return Journal(digests, damage)


def begin_journal(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write the journal of a folder anew, of files as they are now. Raises `OSError`."""
    entries = ((name, file_digest(data)) for name, data in files)
    write_atomically(folder / JOURNAL, lengthen(HEADER.encode(), entries))


def extend_journal(folder: Path, name: str, data: bytes) -> None:
    """Enter a file that is about to be written; nobody else may write the journal meanwhile. Raises `OSError`."""
    if not (folder / JOURNAL).exists():
        begin_journal(folder, ())
    with (folder / JOURNAL).open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, end - _TAIL))
        tail = file.read()
        tail = tail[: tail.rfind(b"\n") + 1]  # without what an interrupted commit left
        file.seek(start + len(tail))
        file.truncate()
        file.write(lengthen(tail, [(name, file_digest(data))])[len(tail) :])
        file.flush()
        os.fsync(file.fileno())


def take_out(folder: Path, name: str) -> None:
    """Enter that a file is about to be taken out; nobody else may write the journal meanwhile. Raises `OSError`."""
    write_atomically(folder / JOURNAL, lengthen(read_file(folder / JOURNAL), [(name, "")]))


def lengthen(journal: bytes, entries: Iterable[tuple[str, str]]) -> bytes:
    """Return a journal, of which the last line is enough, with further entries: files and digests."""
    last = journal.splitlines()[-1].decode()
    chain = "" if last == HEADER.rstrip("\n") else last.rpartition(",")[2]
    lines = []
    for name, digest in entries:
        line, chain = _entry(chain, name, digest)
        lines.append(line)
    return journal + "".join(lines).encode()


def _entry(chain: str, name: str, digest: str) -> tuple[str, str]:
    """The line of an entry after a chain, and the chain that it ends with."""
    after = hashlib.sha256(f"{chain},{name},{digest}".encode()).hexdigest()
    return f"{name},{digest},{after}\n", after


def file_digest(data: bytes) -> str:
    """The digest that the journal has of a file: its sha256."""
    return hashlib.sha256(data).hexdigest()

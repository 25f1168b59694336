"""The errors of stimkit and the exit codes that the command line gives them.

    StimkitError            1   something stimkit did not expect
    ├── UsageError          2   the request cannot be carried out as it stands
    │   ├── ProtocolError       a protocol file breaks rules (all of them, with lines)
    │   ├── ImageError          an input image is missing, damaged or unusable
    │   ├── WeightsError        network weights are missing, damaged or of the wrong shape
    │   ├── DeviceError         the device asked for is not there, or too small
    │   └── RunFolderError      the output folder belongs to something else
    │       └── LaterVersionError   it was written by a later version of stimkit
    ├── StorageError        6   the disk is full or a file cannot be written; run again to go on
    └── Interrupted         130 or 143: a signal stopped the run after what was complete was kept

Further exit codes that no error stands for: 0 done, 3 cells are pending (`plan --check`),
4 some cells failed or were rejected, 5 a check found something. Every message says what is wrong, where, and
what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice


class StimkitError(Exception):
    """Base of all errors that stimkit raises on purpose."""

    exit_code = 1


class UsageError(StimkitError):
    """The request cannot be carried out as it stands."""

    exit_code = 2


MAX_PROBLEMS = 50
"""How many problems of a protocol a message names."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule of a protocol file."""

    key: str
    message: str
    line: int | None = None


class ProtocolError(UsageError):
    """A protocol breaks one or more rules; `problems` holds every one of them."""

    def __init__(self, problems: Iterable[Problem], name: str = "protocol") -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.line or 0, p.key)))
        lines = [self._line(problem, name) for problem in self.problems[:MAX_PROBLEMS]]
        more = len(self.problems) - len(lines)
        super().__init__("\n".join([*lines, f"{name}: and {more:,} more"] if more else lines))

    @staticmethod
    def _line(problem: Problem, name: str) -> str:
        where = name if problem.line is None else f"{name}:{problem.line}"
        return f"{where}: {problem.key}: {problem.message}" if problem.key else f"{where}: {problem.message}"


class ImageError(UsageError):
    """An input image is missing, damaged or unusable."""


class WeightsError(UsageError):
    """Network weights are missing, damaged or of the wrong shape."""


class DeviceError(UsageError):
    """The device asked for is not there, or too small for the work."""


class RunFolderError(UsageError):
    """The output folder belongs to something else, or another process is writing it."""


class LaterVersionError(RunFolderError):
    """The run folder was written by a later version of stimkit."""


class StorageError(StimkitError):
    """A file could not be written; what was complete before is intact."""

    exit_code = 6


class Interrupted(StimkitError):
    """A signal asked to stop; complete cells are kept and the same command goes on from there."""

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__("stopped on request; run the same command again to go on")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean "x"?)` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name[:100], list(islice(known, 1000)), n=1, cutoff=0.5)
    return f' (did you mean "{close[0]}"?)' if close else ""


def check_choice(name: str, known: Collection[str], what: str) -> None:
    """Raise `UsageError` for a name that is not known, saying what it is not, and what there is."""
    if name not in known:
        raise UsageError(f'"{name}" is not {what}{did_you_mean(name, known)}: give {", ".join(known)}')

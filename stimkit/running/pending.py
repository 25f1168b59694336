"""Which cells of a plan still have to be made, and which records must be judged again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stimkit.errors import RunFolderError
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.recognition import cue_digest
from stimkit.records.measurements import with_measurements
from stimkit.records.record import judge, requested_values
from stimkit.records.schema import Record, build_record
from stimkit.records.stages import Attempt
from stimkit.runfolder.journal import file_digest
from stimkit.runfolder.store import RunStore

Look = Callable[[Record], Mapping[str, Any]]
"""The columns of recognition of a record's stimulus."""


@dataclass(frozen=True)
class Task:
    """A cell to be made, at its next attempt."""

    cell: Cell
    earlier: tuple[Attempt, ...] = ()
    """The attempts at it before this one."""
    replaces: tuple[int, str | None] | None = None
    """The attempt and the digest of the stimulus that is there, where the cell is complete, and made again all the
    same."""


@dataclass(frozen=True)
class Pending:
    """What is to be done about some cells of a run folder."""

    tasks: tuple[Task, ...]
    judged: tuple[Record, ...]
    """Records that say something else by the rules as they are now."""
    lost: tuple[str, ...] = ()
    """Ids of cells that were complete, and are made again since a file of theirs is missing or empty."""


def find_pending(
    store: RunStore, plan: Plan, cells: Sequence[Cell], *, retry_failed: bool = False, look: Look | None = None
) -> Pending:
    """Find what a run folder still needs of some cells of a plan.

    A complete cell is judged by the rules as they are now, and made again where it is not accepted and tries are left.
    Its last attempt is repeated, with the same seed, where its files are gone, or where it failed and is to be tried
    again. Where the protocol has a classifier that has not seen a stimulus yet, `look` says what it takes it for.
    Raises `RunFolderError` where a record cannot be read, or is not the one that was committed.
    """
    tasks: list[Task] = []
    judged: list[Record] = []
    lost: list[str] = []
    complete = store.completed() if len(cells) == len(plan.cells) else store.completed(cell.id for cell in cells)
    journal = store.journal() if complete else None
    tables, damaged = store.measurements()
    for name, reason in damaged.items():  # by which stimuli may have been rejected
        raise RunFolderError(
            f"{store.path / name}: {reason}; restore it, measure again, or `stimkit measure --remove` it"
        )
    for cell in cells:
        if cell.id not in complete:
            tasks.append(Task(cell))
            lost += [cell.id] if store.has_empty_record(cell.id) else []
            continue
        data = store.record_bytes(cell.id)
        name = f"records/{cell.id}.json"
        digest = file_digest(data)
        is_older = journal is not None and journal.is_older(name, digest)
        if journal and not is_older and (objection := journal.objection(name, digest)):
            raise RunFolderError(
                f"{store.path / name}: {objection}; restore it from a copy of the folder, or"
                " delete it to have its stimulus made again"
            )
        stored = with_measurements(store.record_of(cell.id, data), tables.values())
        record = judge_again(_recognized(store, plan, stored, look), plan)
        if is_older or record.flat() != stored.flat():
            judged.append(record)
        tried = len(record.attempts)
        is_lost = store.lacks_files(stored) and store.lacks_files(record)  # a renaming may have been interrupted
        there = (record.attempt, record.file_sha256)
        if record.status != "accepted" and tried <= plan.protocol.accept.retries:
            tasks.append(Task(cell.at_attempt(tried + 1), record.attempts, replaces=there))
        elif is_lost or (retry_failed and record.status == "failed"):
            tasks.append(Task(cell.at_attempt(tried), record.attempts[:-1], replaces=there))
            lost += [cell.id] if is_lost else []
    return Pending(tuple(tasks), tuple(judged), tuple(lost))


def _recognized(store: RunStore, plan: Plan, record: Record, look: Look | None) -> Record:
    """A record with what the classifier of the plan takes its stimulus for, as long as the file is there."""
    wanted = cue_digest(plan, plan.by_id[record.stimulus_id])
    if look is None or record.recognition_sha256 == wanted or record.status == "failed" or store.lacks_files(record):
        return record
    return build_record({**record.flat(), **look(record)}, f"record of {record.stimulus_id}").with_measured(
        record.measured
    )


def judge_again(record: Record, plan: Plan) -> Record:
    """Return a record as the plan and its rules would have it now.

    What the id does not depend on may have changed: attributes, pixels per degree, which cells a control belongs to.
    """
    cell = plan.by_id[record.stimulus_id].as_recorded(record.attempt, record.alpha)
    anew = build_record({**record.flat(), **requested_values(cell, plan)}, f"record of {cell.id}")
    return anew if anew.status == "failed" else judge(anew.with_measured(record.measured), plan)

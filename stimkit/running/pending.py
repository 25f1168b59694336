"""Which cells of a plan still have to be made, and which records must be judged again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stimkit.planning.cells import Cell, Plan
from stimkit.records.record import judge, requested_values
from stimkit.records.schema import Attempt, Record, build_record
from stimkit.runfolder.store import RunStore


@dataclass(frozen=True)
class Task:
    """A cell to be made, at its next attempt."""

    cell: Cell
    earlier: tuple[Attempt, ...] = ()
    """The attempts at it before this one."""
    replaces: bool = False
    """Whether it is complete, and made again all the same."""


@dataclass(frozen=True)
class Pending:
    """What is to be done about some cells of a run folder."""

    tasks: tuple[Task, ...]
    judged: tuple[Record, ...]
    """Records that say something else by the rules as they are now."""


def find_pending(store: RunStore, plan: Plan, cells: Sequence[Cell], *, retry_failed: bool = False) -> Pending:
    """Find what a run folder still needs of some cells of a plan.

    A complete cell is judged by the rules as they are now, and made again where it is not accepted and tries are left.
    Its last attempt is repeated, with the same seed, where its files are gone, or where it failed and is to be tried
    again. Raises `RunFolderError` where a record cannot be read.
    """
    tasks: list[Task] = []
    judged: list[Record] = []
    complete = store.completed() if len(cells) == len(plan.cells) else store.completed(cell.id for cell in cells)
    for cell in cells:
        if cell.id not in complete:
            tasks.append(Task(cell))
            continue
        stored = store.record(cell.id)
        record = judge_again(stored, plan)
        if record.flat() != stored.flat():
            judged.append(record)
        tried = len(record.attempts)
        if record.status != "accepted" and tried <= plan.protocol.accept.retries:
            tasks.append(Task(cell.at_attempt(tried + 1), record.attempts, replaces=True))
        elif store.lacks_files(stored) or (retry_failed and record.status == "failed"):
            tasks.append(Task(cell.at_attempt(tried), record.attempts[:-1], replaces=True))
    return Pending(tuple(tasks), tuple(judged))


def judge_again(record: Record, plan: Plan) -> Record:
    """Return a record as the plan and its rules would have it now.

    What the id does not depend on may have changed: attributes, pixels per degree, which cells a control belongs to.
    """
    cell = plan.by_id[record.stimulus_id].as_recorded(record.attempt, record.alpha)
    anew = build_record({**record.flat(), **requested_values(cell, plan)}, f"record of {cell.id}")
    return anew if anew.status == "failed" else judge(anew, plan)

"""What a run folder still needs of a plan, and what of it is judged anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stimkit.planning.cells import Cell, Plan
from stimkit.records.record import DEGREES, Attempt, Record, judged, request
from stimkit.runfolder.store import RunStore


def judge_again(store: RunStore, plan: Plan, cells: Sequence[Cell]) -> dict[str, Record]:
    """Records of those of some cells that are complete and whose status is another one by the rules as they are now."""
    changed = {}
    for stimulus_id in _completed(store, plan, cells):
        record = store.record(stimulus_id)
        # What the id does not depend on may be another now: attributes, pixels per degree, whose control it is.
        cell = plan.by_id[stimulus_id].as_recorded(record)
        status = {**request(cell, plan), **dict(zip(DEGREES, cell.settings.degrees or (None, None), strict=True))}
        status["filename"] = cell.filename
        if record["status"] != "failed":
            status |= judged({**record, **status}, plan)
        if any(record[key] != value for key, value in status.items()):
            *earlier, last = record["attempts"]
            anew = {**record, **status}
            attempts = [*earlier, {**last, "status_reason": anew["status_reason"]}]
            changed[stimulus_id] = {**anew, "attempts": attempts}
    return changed


def pending_cells(
    store: RunStore,
    plan: Plan,
    cells: Sequence[Cell],
    *,
    retry_failed: bool = False,
    judged_anew: Mapping[str, Record] = {},
) -> tuple[list[Cell], dict[str, list[Attempt]]]:
    """Those of some cells that are to be made, each at its next attempt, and the attempts before that.

    A complete cell is made again where its stimulus is not accepted and tries are left. Its last attempt is repeated,
    with the same seed, where its files are gone, or where it failed and is to be tried again.
    """
    pending, attempts = [], {}
    complete = _completed(store, plan, cells)
    for cell in cells:
        if cell.id not in complete:
            pending.append(cell)
            continue
        stored = store.record(cell.id)
        record = judged_anew.get(cell.id, stored)  # which may give its file another name
        tried = len(record["attempts"])
        if record["status"] != "accepted" and tried <= plan.protocol.accept.retries:
            pending.append(cell.at_attempt(tried + 1))
            attempts[cell.id] = record["attempts"]
        elif store.lacks_files(stored) or (retry_failed and record["status"] == "failed"):
            pending.append(cell.at_attempt(tried))
            attempts[cell.id] = record["attempts"][:-1]
    return pending, attempts


def _completed(store: RunStore, plan: Plan, cells: Sequence[Cell]) -> set[str]:
    ids = {cell.id for cell in cells}
    return store.completed() & ids if len(ids) == len(plan.cells) else store.completed(ids)

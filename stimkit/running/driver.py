"""Run a plan on many processes, devices and machines: a driver that gives batches to workers of a Dask cluster.

The run folder, not the cluster, is what knows what is done: workers commit there themselves, and a task that is
repeated finds what is complete. Few tasks are under way at a time, so that a process that dies takes few with it: Dask
counts its death against every task that was on its list.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distributed import Client, Future, KilledWorker, wait
from distributed.client import FuturesCancelledError
from distributed.comm.core import CommClosedError

from stimkit import errors
from stimkit.errors import StimkitError, StorageError
from stimkit.planning.cells import Plan
from stimkit.protocol.settings import Settings
from stimkit.records.record import Execution, lost_record
from stimkit.runfolder.store import RunStore
from stimkit.running.batching import choose_batch_size, group_cells
from stimkit.running.events import Committed, OnEvent, Outcome, Running, RunSummary
from stimkit.running.pending import Task, find_pending
from stimkit.running.session import RunOptions, Session, carry_out
from stimkit.running.worker import Order, Result, batch_sizes, lock_digest, make_cells
from stimkit.synthesis.environment import describe_environment
from stimkit.synthesis.minimization import Progress
from stimkit.version import __version__

WINDOW = 2  # batches that each worker has on its list
DEVICE_TRIES = 3  # how often a batch is given to a worker after a device failed on it
POLL = 0.3  # seconds
COUNT_EVERY = 2.0  # seconds between looks at who works
RESTART_WITHIN = 60.0
WORKERS_WITHIN = 120.0  # seconds in which a local cluster has workers (again)
VISIBLE_WITHIN = 60.0  # seconds in which a slow file system shows records that workers wrote
TOGETHER, SINGLE, BY_ITSELF = range(3)


@dataclass(frozen=True)
class Job:
    """Cells that are given to a worker: a batch; one cell of a batch that ended a process; or that cell by itself."""

    cells: tuple[str, ...]
    company: int = TOGETHER
    avoid: tuple[str, ...] = ()
    """Workers on which a device failed."""


def run_on_cluster(
    plan: Plan,
    out: str | Path,
    client: Client,
    options: RunOptions,
    *,
    workers_come_back: bool = True,
    on_event: OnEvent | None = None,
) -> RunSummary:
    """Make every pending cell of a plan on the workers of a Dask cluster; see `stimkit.run`.

    Workers need stimkit in the same version and the run folder at the same path. A cell that ends its process each
    time, also by itself, is recorded as failed. `workers_come_back`: wait for as long as there are no workers (a queue
    of a cluster), else give up after a while. Raises what `run` does, and `StimkitError` where the scheduler or all
    workers are gone; complete cells are kept, and tables written.
    """

    def make(session: Session) -> str:
        driver = _Driver(session, client, workers_come_back=workers_come_back)
        try:
            if session.tasks:
                driver.run()
        finally:
            driver.stop()
            _await_records(session.store, driver.committed)
        return f"{driver.most_workers} workers"

    return carry_out(plan, out, options, on_event, make)


def _await_records(store: RunStore, committed: Iterable[str]) -> None:
    """Wait until a slow file system shows what workers on other machines have committed."""
    until = time.monotonic() + VISIBLE_WITHIN
    missing = set(committed)
    while (missing := missing - store.completed(missing)) and time.monotonic() < until:
        time.sleep(POLL)


class _Driver:
    """Gives jobs to workers, few at a time, and deals with what becomes of them."""

    def __init__(self, session: Session, client: Client, *, workers_come_back: bool) -> None:
        self._session, self._client, self._workers_come_back = session, client, workers_come_back
        self._store, self._counter = session.store, session.counter
        self._order = Order(
            run=str(session.store.path.resolve()),
            lock_sha256=lock_digest(session.store),
            device=session.options.device,
            deterministic=session.options.deterministic,
            retry_failed=session.options.retry_failed,
            stimkit_version=__version__,
            topic=f"stimkit-{uuid.uuid4().hex}",
        )
        self._waiting: tuple[deque[Job], ...] = (deque(), deque(), deque())
        self._given: dict[Future[Result], Job] = {}
        self._progress: dict[str, Running] = {}
        self._last_seen, self._look_again = time.monotonic(), 0.0
        self._workers: set[str] = set()
        self._alone = False
        self.committed: set[str] = set()
        self.most_workers = 0
        client.subscribe_topic(self._order.topic, self._heard)

    def run(self) -> None:
        """Make cells in batches, as large as a worker's device takes, but such that all workers have some."""
        try:
            self._waiting[TOGETHER].extend(self._jobs())
            while self._given or any(self._waiting):
                workers = self._count_workers()
                self._give(workers)
                for future in self._finished():
                    self._settle(future, self._given.pop(future))
                self._counter.emit(running=tuple(self._progress.values()))
        except (CommClosedError, FuturesCancelledError, asyncio.CancelledError) as error:
            raise self._gone() from error

    def _jobs(self) -> Iterator[Job]:
        batch_size = self._session.options.batch_size
        kinds = group_cells(task.cell for task in self._session.tasks)
        sizes = [batch_size] * len(kinds) if batch_size else self._sizes([(kind[0], kind[1]) for kind in kinds])
        workers = max(1, self._count_workers())
        for group, most in zip(kinds.values(), sizes, strict=True):
            assert most is not None
            size = most if batch_size else min(most, -(-len(group) // (WINDOW * workers)))
            for start in range(0, len(group), size):
                yield Job(tuple(cell.id for cell in group[start : start + size]))

    def _sizes(self, kinds: Sequence[tuple[Settings, str]]) -> list[int]:
        """How many cells of each kind a worker's device takes at once, by the word of a worker."""
        if self._order.device == "cpu":
            return [choose_batch_size(settings, last, torch.device("cpu")) for settings, last in kinds]
        asked = self._client.submit(batch_sizes, self._order, kinds, pure=False)
        while not asked.done():
            self._count_workers()
            self._counter.emit()
            self._wait([asked])
        if asked.status != "finished":
            raise StimkitError(f"no worker says how many cells its device takes: {asked.exception()}")
        sizes: list[int] = asked.result()
        return sizes

    def _wait(self, futures: list[Future[Any]]) -> None:
        with suppress(TimeoutError, asyncio.TimeoutError), self._client.as_current():
            wait(futures, timeout=POLL, return_when="FIRST_COMPLETED")

    def stop(self) -> None:
        """Take back what has not begun, and listen no more."""
        with suppress(Exception):  # of a cluster that may be gone
            self._client.cancel(list(self._given))
            self._client.unsubscribe_topic(self._order.topic)

    def _count_workers(self) -> int:
        if self._client.status != "running":
            raise self._gone()
        if time.monotonic() > self._look_again:
            self._workers = set(self._client.scheduler_info(n_workers=-1)["workers"])
            self._look_again = time.monotonic() + COUNT_EVERY
            self._progress = {one: running for one, running in [*self._progress.items()] if one in self._workers}
            if self._workers_come_back and not self._workers and not self._alone:
                self._counter.emit(note="no workers are connected; waiting for some")
            self._alone = not self._workers
        workers = len(self._workers)
        self.most_workers = max(self.most_workers, workers)
        if workers or self._workers_come_back:
            self._last_seen = time.monotonic()
        elif time.monotonic() - self._last_seen > WORKERS_WITHIN:
            raise StimkitError("all workers are gone; complete cells are kept, run again to go on")
        return workers

    def _gone(self) -> StimkitError:
        return StimkitError("the scheduler is gone; complete cells are kept, run again to go on")

    def _give(self, workers: int) -> None:
        """Give jobs of one kind of company at a time, so that no cell is blamed for the death of another's process."""
        company = next((kind for kind in (TOGETHER, SINGLE, BY_ITSELF) if self._waiting[kind]), None)
        if company is None or any(job.company < company for job in self._given.values()):
            return
        most = {TOGETHER: WINDOW * workers, SINGLE: workers, BY_ITSELF: 1}[company]
        while self._waiting[company] and len(self._given) < max(1, most):
            job = self._waiting[company].popleft()
            key = f"stimkit-{job.cells[0]}-{uuid.uuid4().hex}"
            others = sorted(self._workers - set(job.avoid)) if job.avoid else None
            future = self._client.submit(
                make_cells, self._order, job.cells, key=key, pure=False, workers=others or None
            )
            self._given[future] = job

    def _finished(self) -> list[Future[Result]]:
        self._wait(list(self._given))
        return [future for future in self._given if future.done()]

    def _settle(self, future: Future[Result], job: Job) -> None:
        if future.status in ("cancelled", "lost"):
            raise self._gone()
        error = future.exception()
        if isinstance(error, KilledWorker):
            self._after_death(job)
        elif isinstance(error, ImportError):
            raise StimkitError(f"a worker lacks what it needs: {error}") from error
        elif error is not None:
            raise error
        else:
            self._after_result(future.result(), job)
        future.release()

    def _after_result(self, result: Result, job: Job) -> None:
        self._progress.pop(result.worker, None)
        for outcome in result.committed:
            self._count(outcome)
        if result.error is None:
            return
        kind, message = result.error
        if kind == "DeviceError" and len(job.avoid) + 1 < DEVICE_TRIES:
            self._counter.emit(note=f"given to another worker: {message}")
            self._waiting[job.company].append(replace(job, avoid=(*job.avoid, result.worker)))
            with suppress(
                Exception
            ):  # where workers have no nanny; after some failures a process cannot use its device
                self._client.restart_workers([result.worker], timeout=RESTART_WITHIN, raise_for_error=False)
        elif kind == "StorageError":
            raise StorageError(message)
        else:
            known = getattr(errors, kind, StimkitError)
            raise known(message) if known is not errors.ProtocolError else StimkitError(message)

    def _after_death(self, job: Job) -> None:
        """Find the cell that ends its process: each cell of the batch apart from the others, then by itself."""
        left = self._left(job.cells)
        for stimulus_id in set(job.cells) - left.keys():
            self._count(Outcome.of(self._store.record(stimulus_id)))
        if job.company == BY_ITSELF:
            for task in left.values():
                self._record_loss(task)
        elif len(job.cells) > 1:
            self._counter.emit(note=f"a process died with {len(job.cells)} cells; they are made one by one")
            self._waiting[SINGLE].extend(Job((stimulus_id,), SINGLE) for stimulus_id in left)
        else:
            self._waiting[BY_ITSELF].append(replace(job, company=BY_ITSELF))

    def _left(self, ids: Sequence[str]) -> dict[str, Task]:
        """Those of some cells that nobody has made yet."""
        plan = self._session.plan
        cells = [plan.by_id[stimulus_id] for stimulus_id in ids]
        tasks = find_pending(self._store, plan, cells, retry_failed=self._order.retry_failed).tasks
        return {task.cell.id: task for task in tasks}

    def _record_loss(self, task: Task) -> None:
        cell = task.cell
        batch_id = "b" + hashlib.sha256(cell.id.encode()).hexdigest()[:8]
        # The environment of its process is lost; that of its neighbours stands in.
        env_id = next(iter(self._store.environments()), "") or self._store.add_environment(
            describe_environment(torch.device("cpu"), deterministic=self._order.deterministic)
        )
        execution = Execution(self._order.device, batch_id, 1, 0, __version__, torch.__version__, env_id)
        trace = np.empty((0, 3), np.float32)
        reason = "its process died each time, also when it was the only cell"
        record = lost_record(cell, self._session.plan, execution, trace, reason, task.earlier)
        with self._store.committing():
            if self._left([cell.id]):  # a worker that seemed to be dead may have committed it meanwhile
                self._store.commit(record, b"", trace)
        self._count(Outcome.of(self._store.record(cell.id)))

    def _count(self, outcome: Outcome) -> None:
        if outcome.stimulus_id not in self.committed:
            self.committed.add(outcome.stimulus_id)
            self._counter(Committed(outcome))

    def _heard(self, event: tuple[float, dict[str, Any]]) -> None:
        _, said = event
        self._progress[said["worker"]] = Running(Progress(**said["progress"]), said["batch_size"])

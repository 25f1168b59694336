"""What a worker of a cluster does: make some cells of a run folder and commit them there.

Only names and small records travel; plan, images and results are read from and written to the shared folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from distributed import get_worker

from stimkit.errors import RunFolderError, StimkitError, UsageError
from stimkit.protocol.settings import Settings
from stimkit.runfolder.run import read_run
from stimkit.runfolder.store import RunStore
from stimkit.running.batching import choose_batch_size
from stimkit.running.events import Committed, News, Outcome, Running
from stimkit.running.maker import Maker
from stimkit.running.pending import find_pending
from stimkit.running.runner import checked_device
from stimkit.synthesis.devices import choose_device, determinism
from stimkit.synthesis.environment import describe_environment
from stimkit.version import __version__

FOLDER_WITHIN = 60.0  # seconds until a slow file system shows what was written elsewhere
REPORT_EVERY = 1.0  # seconds between reports of a batch's progress
MAPPED_FROM, TRIMMED_FROM = 32 << 20, 1 << 30  # bytes
_one_at_a_time = threading.Lock()  # whatever number of threads a worker has: a device serves one batch


@dataclass(frozen=True)
class Order:
    """What all jobs of a run have in common."""

    run: str
    lock_sha256: str
    """Of the resolved protocol: a worker that sees another one is not to write."""
    device: str
    deterministic: bool
    retry_failed: bool
    stimkit_version: str
    topic: str
    """Where progress is reported."""


@dataclass(frozen=True)
class Result:
    """What became of the cells of a job."""

    committed: tuple[Outcome, ...]
    error: tuple[str, str] | None = None
    """Kind and message of what ended the job early."""
    worker: str = ""
    """Its address."""


def make_cells(order: Order, cells: Sequence[str]) -> Result:
    """Make those of some cells that are not complete, as one batch, and commit them."""
    committed: list[Outcome] = []
    with _one_at_a_time:
        try:
            site = _site(order)
            wanted = [site.plan.by_id[stimulus_id] for stimulus_id in cells]
            tasks = find_pending(site.store, site.plan, wanted, retry_failed=order.retry_failed).tasks
            done = {cell.id for cell in wanted} - {task.cell.id for task in tasks}
            committed += [Outcome.of(site.store.record(stimulus_id)) for stimulus_id in cells if stimulus_id in done]
            with determinism(order.deterministic):
                site.maker.make(tasks, _reporter(order.topic, committed), batch_size=len(cells))
        except StimkitError as error:
            problem = (type(error).__name__, f"{error} (on {socket.gethostname()})")
            return Result(tuple(committed), problem, get_worker().address)
    return Result(tuple(committed), worker=get_worker().address)


def batch_sizes(order: Order, kinds: Sequence[tuple[Settings, str]]) -> list[int]:
    """Of each kind of cells, settings and deepest layer, how many a worker's device takes at once."""
    return [choose_batch_size(settings, last, choose_device(order.device)) for settings, last in kinds]


def lock_digest(store: RunStore) -> str:
    return hashlib.sha256(store.lock_file.read_bytes()).hexdigest()


def keep_memory() -> None:
    """Have the C library keep memory that torch frees and asks for again at every evaluation.

    Dask's processes are started such that it is given back to the system at once, which costs two thirds of the speed
    on a CPU. Does nothing where the C library is not glibc (see mallopt(3) for the numbers).
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(-3, MAPPED_FROM)  # M_MMAP_THRESHOLD
        library.mallopt(-1, TRIMMED_FROM)  # M_TRIM_THRESHOLD


class _Site:
    """A run folder as a worker sees it; networks and targets are kept from job to job."""

    def __init__(self, order: Order) -> None:
        keep_memory()
        if order.stimkit_version != __version__:
            raise UsageError(f"the worker has stimkit {__version__}, the driver {order.stimkit_version}")
        self.store = _await_folder(order)
        run = read_run(self.store.path)
        self.plan = run.plan
        device = checked_device(self.plan, order.device)
        env_id = self.store.add_environment(describe_environment(device, deterministic=order.deterministic))
        self.maker = Maker(self.plan, self.store, run.inputs(), device, env_id)


@lru_cache(maxsize=1)
def _site(order: Order) -> _Site:
    return _Site(order)


def _await_folder(order: Order) -> RunStore:
    """The run folder, as soon as it is what the driver wrote."""
    until = time.monotonic() + FOLDER_WITHIN
    while True:
        try:
            store = RunStore.open(order.run)
            if lock_digest(store) == order.lock_sha256:
                return store
        except (RunFolderError, OSError):
            pass
        if time.monotonic() > until:
            raise RunFolderError(
                f"{Path(order.run)} is not the run folder of the driver; workers need it at the same place, shared"
            )
        time.sleep(0.2)


def _reporter(topic: str, committed: list[Outcome]) -> Callable[[News], None]:
    worker, last = get_worker(), 0.0

    def report(news: News) -> None:
        nonlocal last
        if isinstance(news, Committed):
            committed.append(news.outcome)
        elif isinstance(news, Running) and time.monotonic() - last > REPORT_EVERY:
            last = time.monotonic()
            progress = asdict(news.progress)
            worker.log_event(topic, {"worker": worker.address, "batch_size": news.batch_size, "progress": progress})

    return report

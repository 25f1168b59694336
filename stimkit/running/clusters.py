"""Clusters to run on: processes of this machine, a Dask cluster that is there, or jobs of SLURM."""

from __future__ import annotations

import inspect
import logging
import os
import shutil
import threading
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, Security, SpecCluster, Status

from stimkit.errors import DeviceError, StimkitError, UsageError, did_you_mean
from stimkit.files import read_file
from stimkit.synthesis.devices import choose_device

CONNECT_WITHIN = 30.0  # seconds
REVIVE_EVERY = 5.0
CONFIG = {
    # The first death of a process is bad luck; after the second one its cells are looked at one by one.
    "distributed.scheduler.allowed-failures": 1,
    # The default of 15 s is too short for a busy machine to load torch in.
    "distributed.deploy.lost-worker-timeout": "120 s",
    # Nobody looks at the pages of scheduler and workers, which have no certificates.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
# As the default client it would also serve xarray, which then takes a lock of the scheduler to write a NetCDF file.
NOT_FOR_OTHERS: dict[str, Any] = {"set_as_default": False}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextmanager
def local_workers(devices: Sequence[str], *, threads: int | None = None) -> Iterator[tuple[Client, str]]:
    """One worker process on this machine for each device, `cuda:N` or `cpu`; yields a client, and the device's kind.

    A process sees its own device only; workers on the CPU share its cores, or have `threads` threads each. Raises
    `DeviceError` for other devices, devices of several kinds, and devices that are not there or that the environment
    hides.
    """
    kind = _kind(devices)
    for device in dict.fromkeys(devices):
        choose_device(device)  # which raises where it is not there, before any worker is started
    seen = [{"CUDA_VISIBLE_DEVICES": visible_device(device)} if kind == "cuda" else {} for device in devices]
    threads = threads or max(1, _cores() // len(devices))
    # In place of Dask's own, which say one thread.
    environment = {"distributed.nanny.pre-spawn-environ": dict.fromkeys(THREADS, str(threads))}
    # Who can connect can run code: certificates of its own keep out others who use this machine.
    security = Security.temporary()
    options = {
        "nthreads": 1,
        "memory_limit": 0,  # of what torch takes Dask knows little; it would end workers for it
        "host": "127.0.0.1",
        "preload": ["stimkit.running.worker"],  # so that tasks need not wait for imports
        "silence_logs": logging.CRITICAL,
        "protocol": "tls",
        "security": security,
    }
    workers = {
        number: {"cls": Nanny, "options": {**options, "env": visible_devices}}
        for number, visible_devices in enumerate(seen)
    }
    own = {"dashboard": False, "dashboard_address": "127.0.0.1:0", "protocol": "tls", "security": security}
    scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, **own}}
    with dask.config.set({**CONFIG, **environment}):
        try:
            cluster = SpecCluster(workers=workers, scheduler=scheduler, security=security, silence_logs="CRITICAL")
        except RuntimeError as error:
            raise StimkitError(f"worker processes cannot be started: {error.__cause__ or error}") from error
        with cluster, Client(cluster, **NOT_FOR_OTHERS) as client, _looked_after(cluster, len(devices)):
            yield client, kind


def _cores() -> int:
    """Cores that this process may use, which a job of a queue has fewer of than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _looked_after(cluster: SpecCluster, count: int) -> Iterator[None]:
    """Have the cluster start workers again that it has given up: that died while they started, or whose job ended."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(REVIVE_EVERY):
            cluster.scale(count)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _kind(devices: Sequence[str]) -> str:
    kinds = {device.partition(":")[0] for device in devices}
    if kinds == {"cpu"}:
        return "cpu"
    if kinds != {"cuda"} or not all(device.partition(":")[2].isdecimal() for device in devices):
        raise DeviceError(
            f"give devices as cuda:0,cuda:1, or the number of workers on the CPU, not {','.join(devices)}"
        )
    if len(set(devices)) < len(devices):
        raise DeviceError(f"a device is named twice in {','.join(devices)}")
    return "cuda"


def visible_device(device: str) -> str:
    """What CUDA_VISIBLE_DEVICES is to be for `cuda:N`: the N-th device that this process sees itself."""
    number = int(device.partition(":")[2])
    inherited = os.environ.get("CUDA_VISIBLE_DEVICES")
    if inherited is None:
        return str(number)
    seen = [part.strip() for part in inherited.split(",") if part.strip()]
    if number >= len(seen):
        raise DeviceError(f"{device} is not there: CUDA_VISIBLE_DEVICES shows {len(seen)} devices")
    return seen[number]


@contextmanager
def scheduler_at(
    address: str, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> Iterator[Client]:
    """A client of a Dask scheduler, over TLS where its files are given. Raises `UsageError` where none answers."""
    files = {"tls_ca_file": ca, "tls_client_cert": cert, "tls_client_key": key}
    given = {name: str(path) for name, path in files.items() if path is not None}
    security = Security(require_encryption=True, **given) if given else None
    try:
        client = Client(address, security=security, timeout=CONNECT_WITHIN, **NOT_FOR_OTHERS)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"no scheduler answers at {address}: {error}") from error
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):  # of a scheduler that is gone
            client.close(CONNECT_WITHIN)


@contextmanager
def slurm_jobs(path: Path) -> Iterator[Client]:
    """Workers as jobs of SLURM, by dask-jobqueue: `jobs` of them, with what `[cluster]` gives to `SLURMCluster`.

    Raises `UsageError` where dask-jobqueue is not there, the file does not fit, or jobs cannot be submitted.
    """
    try:
        from dask_jobqueue.core import Job, JobQueueCluster
        from dask_jobqueue.slurm import SLURMCluster, SLURMJob
    except ImportError:
        raise UsageError("dask-jobqueue is not there; install stimkit[slurm]") from None
    jobs, options = _slurm_file(path)
    known = {name for part in (JobQueueCluster, SLURMJob, Job) for name in inspect.signature(part.__init__).parameters}
    for name in options:
        if name not in known:
            raise UsageError(f'{path}: SLURMCluster has no option "{name}"{did_you_mean(name, known)}')
    if shutil.which(SLURMJob.submit_command) is None:
        raise UsageError(f"{SLURMJob.submit_command} is not there; run this where jobs can be submitted")
    try:
        cluster = SLURMCluster(**{"cores": 1, "processes": 1, **options})
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: SLURMCluster does not take [cluster]: {error}") from error
    try:
        cluster.scale(jobs=jobs)
        cluster.sync(cluster._correct_state)  # which submits them
        if any(job.status is not Status.running for job in cluster.workers.values()):
            raise UsageError(f"jobs cannot be submitted: {SLURMJob.submit_command} failed for\n{cluster.job_script()}")
        with Client(cluster, timeout=CONNECT_WITHIN, **NOT_FOR_OTHERS) as client, _looked_after(cluster, jobs):
            yield client
    finally:
        with suppress(AssertionError):  # of jobs that were not submitted
            cluster.close()


def _slurm_file(path: Path) -> tuple[int, dict[str, Any]]:
    try:
        document = tomllib.loads(read_file(path).decode())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    jobs, options = document.get("jobs"), document.get("cluster", {})
    if set(document) - {"jobs", "cluster"} or type(jobs) is not int or jobs < 1 or not isinstance(options, dict):
        raise UsageError(f"{path} needs jobs = N and a table [cluster] with options of SLURMCluster, and nothing else")
    return jobs, options

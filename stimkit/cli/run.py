"""Commands that make stimuli: here, on several devices, on a cluster, or a shard of them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from stimkit.cli.runs import RunPath
from stimkit.cli.terminal import err
from stimkit.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from distributed import Client

    from stimkit.planning.cells import Plan
    from stimkit.running.events import Event, OnEvent, RunSummary
    from stimkit.running.session import RunOptions

ProtocolPath = Annotated[Path, typer.Argument(metavar="PROTOCOL", help="Protocol file (TOML).", show_default=False)]

Variant = Annotated[
    str | None, typer.Option(metavar="NAME", help="With the values of one of the protocol's [variants].")
]


def run(
    protocol: ProtocolPath,
    variant: Variant = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/NAME.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Cells optimized together; default by memory.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed cells again.")] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same batches give the same bits on the same machine.")
    ] = False,
    keep_inputs: Annotated[
        bool, typer.Option("--keep-inputs", help="Keep copies of images and weights in the run folder.")
    ] = False,
    devices: Annotated[
        str | None, typer.Option(metavar="cuda:0,cuda:1", help="One worker process for each of these devices.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of worker processes on the CPU.")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="tcp://HOST:PORT", help="Workers of a Dask cluster.")] = None,
    slurm: Annotated[Path | None, typer.Option(metavar="FILE", help="Workers as jobs of SLURM.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="One of N parts of the cells, beside those who make the others.")
    ] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="TLS with --scheduler: certificate authority.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="TLS with --scheduler: certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="TLS with --scheduler: key.")] = None,
) -> None:
    """Make the stimuli of a protocol. Run it again to go on after an interruption.

    Example: stimkit run protocols/quickstart.toml
    """
    from stimkit.planning.crossing import plan as make_plan
    from stimkit.protocol.protocol import Protocol
    from stimkit.running.session import RunOptions

    places = {"--devices": devices, "--workers": workers, "--scheduler": scheduler, "--slurm": slurm, "--shard": shard}
    if len(named := [name for name, value in places.items() if value is not None]) > 1:
        raise UsageError(f"give one of {' and '.join(named)}")
    computed_on = set(devices.split(",")) if devices else {"cpu"} if workers else {device}
    if device != "auto" and any(one.partition(":")[0] != device.partition(":")[0] for one in computed_on):
        what = f"--devices {devices}" if devices else "--workers, which compute on the CPU"
        raise UsageError(f"--device {device} contradicts {what}")
    if (tls_ca or tls_cert or tls_key) and not scheduler:
        raise UsageError("--tls-ca, --tls-cert and --tls-key are for --scheduler")
    plan = make_plan(Protocol.load(protocol, variant))
    plan.check_complete()
    folder = out or Path("runs") / plan.protocol.name
    options = RunOptions(device, batch_size, retry_failed, deterministic, keep_inputs)
    if shard is not None:
        if keep_inputs:
            raise UsageError(
                "--keep-inputs is for runs that are not in shards; collect the run, then `stimkit archive` it"
            )
        summary = _shard(plan, folder, shard, options)
    elif not named:
        summary = _here(plan, folder, options)
    else:
        with _cluster(devices, workers, scheduler, slurm, (tls_ca, tls_cert, tls_key), device) as (client, where, ours):
            summary = _on_cluster(plan, folder, client, replace(options, device=where), ours)
    _end(summary)


def preview(
    protocol: ProtocolPath,
    variant: Variant = None,
    out: Annotated[Path | None, typer.Option(help="PNG to write; default NAME-preview.png.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Show in a minute which ratios lie between all style and all content, as a picture and in words.

    Example: stimkit preview protocols/quickstart.toml
    """
    from stimkit.cli import display, progress
    from stimkit.files import check_writable, storage_errors, write_atomically
    from stimkit.images.png import encode_png
    from stimkit.planning.crossing import plan as make_plan
    from stimkit.protocol.protocol import Protocol
    from stimkit.running.preview import preview as look

    plan = make_plan(Protocol.load(protocol, variant))
    if out is not None and out.exists():
        raise UsageError(f"{out} exists already; give another name")
    path = out or Path(f"{plan.protocol.name}-preview.png")
    check_writable(path.parent)
    with progress.phases() as show:
        found = look(plan, device=device, on_progress=lambda one: show("preview", one.evaluation, one.max_evaluations))
    with storage_errors(path):
        write_atomically(path, encode_png(found.picture))
    display.show_preview(found, path)


def collect(run: RunPath) -> None:
    """Make the tables and contact sheets of a run folder, such as one that was made in shards; exit 3 if cells pend.

    Example: stimkit collect runs/quickstart
    """
    from stimkit.running import runner

    _end(runner.collect(run))


def _end(summary: RunSummary) -> None:
    """Say what was done; exit 3 if cells are pending, 4 if any failed or were rejected."""
    from stimkit.cli import display

    display.show_run_summary(summary)
    if summary.pending:
        raise typer.Exit(3)
    if summary.failed or summary.rejected:
        raise typer.Exit(4)


def _here(plan: Plan, folder: Path, options: RunOptions) -> RunSummary:
    from stimkit.cli import progress
    from stimkit.running.runner import run_here
    from stimkit.synthesis.devices import choose_device

    with _signals() as check, progress.run_display(str(choose_device(options.device)), len(plan.cells)) as show:
        return run_here(plan, folder, options, _checking(check, show))


def _shard(plan: Plan, folder: Path, shard: str, options: RunOptions) -> RunSummary:
    from stimkit.cli import progress
    from stimkit.running.runner import run_here

    if not (given := re.fullmatch(r"(\d+)/(\d+)", shard)):
        raise UsageError(f'--shard is I/N, such as 1/8, not "{shard}"')
    number, count = int(given[1]), int(given[2])
    with _signals() as check, progress.run_display(f"shard {number}/{count}", len(plan.cells)) as show:
        return run_here(plan, folder, options, _checking(check, show), shard=(number, count))


def _on_cluster(plan: Plan, folder: Path, client: Client, options: RunOptions, ours: bool) -> RunSummary:
    from stimkit.cli import progress
    from stimkit.running.driver import run_on_cluster

    if not ours and client.run_on_scheduler(find_spec, "bokeh"):  # without which there is no dashboard
        err.print(f"dashboard: {client.dashboard_link}")
    with _signals() as check, progress.run_display("cluster", len(plan.cells)) as show:
        checking = _checking(check, show)
        return run_on_cluster(plan, folder, client, options, workers_come_back=not ours, on_event=checking)


@contextmanager
def _cluster(
    devices: str | None,
    workers: int | None,
    scheduler: str | None,
    slurm: Path | None,
    tls: tuple[Path | None, Path | None, Path | None],
    device: str,
) -> Iterator[tuple[Client, str, bool]]:
    """A client of the cluster that is asked for, what its workers compute on, and whether it is on this machine."""
    try:
        from stimkit.running import clusters as places
    except ImportError as error:
        raise UsageError(f"{error.name} is not there; install stimkit[dask]") from None
    if scheduler is not None:
        with places.scheduler_at(scheduler, ca=tls[0], cert=tls[1], key=tls[2]) as client:
            yield client, device, False
    elif slurm is not None:
        with places.slurm_jobs(slurm) as client:
            yield client, device, False
    else:
        chosen = devices.split(",") if devices else ["cpu"] * (workers or 1)
        with places.local_workers(chosen) as (client, kind):
            yield client, kind, True


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM; a second one ends the process at once."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        os.write(2, b"\nstopping; complete stimuli are kept (again to stop at once)\n")

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checking(received: list[int], show: OnEvent) -> OnEvent:
    def on_event(event: Event) -> None:
        show(event)
        if received:
            raise Interrupted(received[0])

    return on_event

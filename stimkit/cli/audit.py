"""Commands about what a stimulus set is: audits, confounds, reports."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from stimkit.cli.runs import AsJson, RunPath
from stimkit.cli.terminal import say
from stimkit.documents.messages import EVERY
from stimkit.errors import UsageError
from stimkit.files import check_writable, json_text


def audit(
    run: RunPath,
    inputs: Annotated[list[Path] | None, typer.Option(help="Folder with images and weights, found by digest.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    losses: Annotated[bool, typer.Option("--losses/--no-losses", help="Compute all losses again.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check that a set is what it claims to be; exit 5 where it is not, or exceeds a limit of its protocol.

    Writes findings.csv, stimuli.csv and effects.csv into RUN/audit. Example: stimkit audit runs/quickstart
    """
    from stimkit.auditing.audit import audit as examine
    from stimkit.auditing.saving import AUDIT_FOLDER, save_audit
    from stimkit.auditing.saving import audit_values as in_json
    from stimkit.cli import display, progress
    from stimkit.runfolder.store import RunStore

    check_writable(RunStore.open(run).path)
    with progress.phases() as show:
        found = examine(run, inputs=inputs or (), device=device, losses=losses, on_phase=show)
    folder = save_audit(found, Path(run) / AUDIT_FOLDER)
    if as_json:
        say(json_text(in_json(found), ascii_only=True))
    else:
        display.show_audit(run, found, folder)
    if found.failed:
        raise typer.Exit(5)


def report(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(help="File to write; default RUN/report.html.")] = None,
    inputs: Annotated[list[Path] | None, typer.Option(help="Folder with images and weights, found by digest.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    losses: Annotated[bool, typer.Option("--losses/--no-losses", help="Compute all losses again.")] = True,
) -> None:
    """Audit a run and write one HTML file about it: contact sheet, findings, losses, confounds, methods.

    Example: stimkit report runs/quickstart
    """
    from stimkit.cli import display, progress
    from stimkit.reporting.report import report as write
    from stimkit.runfolder.store import RunStore

    place = RunStore.open(run).path
    check_writable(out.parent if out else place)
    with progress.phases() as show:
        path = write(run, out, inputs=inputs or (), device=device, losses=losses, on_phase=show)
    say(f"{path}: {display.size(path.stat().st_size)}")


def audit_images(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of images.", show_default=False)],
    factors: Annotated[
        Path | None, typer.Option(metavar="TABLE.csv", help="Factors: a CSV table with a column filename.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Factors from file names, as '{shape}{i}-{texture}{j}.png'.")
    ] = None,
    combine: Annotated[
        list[str] | None, typer.Option(metavar="NAME=A+B", help="A further factor, made of others.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIABLE[:FACTOR]=SHARE", help="Largest part of a variance that a factor may explain."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for findings.csv, stimuli.csv, effects.csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which image statistics follow a factor in images of any origin; exit 5 where a limit is exceeded.

    Example: stimkit audit-images stimuli --pattern '{shape}{i}-{texture}{j}.png' --combine style=texture+j
    """
    from functools import partial

    from stimkit.auditing.image_set import audit_images as examine
    from stimkit.auditing.saving import audit_values as in_json
    from stimkit.auditing.saving import save_audit
    from stimkit.cli import display, progress

    combined = {name: parts.split("+") for name, parts in map(_assignment, combine or ())}
    with progress.phases() as show:
        found = examine(
            folder,
            table=factors,
            pattern=pattern,
            combine=combined,
            limits=_limits(limit or ()),
            on_count=partial(show, "image statistics"),
        )
    if out is not None:
        save_audit(found, out)
    if as_json:
        say(json_text(in_json(found), ascii_only=True))
    else:
        display.show_audit(folder, found, out)
    if found.failed:
        raise typer.Exit(5)


def _assignment(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise UsageError(f'"{text}" must have the form NAME=VALUE')
    return name, value


def _limits(texts: Iterable[str]) -> dict[str, dict[str, float]]:
    limits: dict[str, dict[str, float]] = {}
    for name, value in map(_assignment, texts):
        variable, _, factor = name.partition(":")
        try:
            limits.setdefault(variable, {})[factor or EVERY] = float(value)
        except ValueError:
            raise UsageError(f'--limit: "{value}" is not a number') from None
    return limits

"""Commands about run folders: their state, and whether they are what they say."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def status(run: RunPath, as_json: AsJson = False) -> None:
    """Show what a run folder has done, what is pending or failed, and who is writing it."""
    from stimkit import display
    from stimkit.store import RunStore

    state = RunStore.open(run).state()
    if as_json:
        typer.echo(json.dumps(asdict(state), indent=1))
    else:
        display.show_state(run, state)


def verify(run: RunPath, as_json: AsJson = False) -> None:
    """Check every file of a run folder against its digests, records and resolved protocol; exit 5 if any differs."""
    from stimkit import display
    from stimkit.verify import verify as check

    with display.counting("verifying") as count:
        result = check(run, count)
    if as_json:
        typer.echo(json.dumps(asdict(result), indent=1))
    else:
        display.show_verification(run, result)
    if result.findings:
        raise typer.Exit(5)

"""The commands: parse, call one library function, translate its result. Nothing else happens here."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stimkit.cli import audit as cli_audit
from stimkit.cli import experiments as cli_experiments
from stimkit.cli import measures as cli_measures
from stimkit.cli import run as cli_run
from stimkit.cli import runs as cli_runs
from stimkit.cli import scaling as cli_scaling
from stimkit.cli.run import ProtocolPath, Variant
from stimkit.cli.runs import AsJson
from stimkit.cli.terminal import say
from stimkit.cli.weights import weights_app
from stimkit.errors import ProtocolError, RunFolderError, StimkitError, StorageError, UsageError
from stimkit.files import json_text
from stimkit.version import __version__

app = typer.Typer(
    name="stimkit",
    help="Make controlled stimulus sets for perception experiments from a protocol file.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(weights_app, name="weights")


def _version(value: bool) -> None:
    if value:
        say(f"stimkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make controlled stimulus sets for perception experiments from a protocol file."""


@app.command()
def plan(
    protocol: ProtocolPath,
    variant: Variant = None,
    cells: Annotated[bool, typer.Option("--cells", help="List every cell.")] = False,
    check: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Say what a run folder has done; exit 3 if cells are pending.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Estimate for cpu, cuda or mps.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a protocol would make and what it costs, without making anything."""
    from stimkit.cli import display
    from stimkit.planning import cost
    from stimkit.planning.crossing import plan as make_plan
    from stimkit.planning.summary import summarize
    from stimkit.protocol.protocol import Protocol

    if device is not None and device not in cost.TYPICAL_RATE:
        raise UsageError(f'no estimate for device "{device}"; give one of {", ".join(cost.TYPICAL_RATE)}')
    made = make_plan(Protocol.load(protocol, variant))
    state = _progress_of(check, made.by_id.keys()) if check else None
    found = state or _progress_in(Path("runs") / made.protocol.name, made.by_id.keys())
    done = {cell for name in ("done", "rejected", "failed") for cell in found[name]} if found else set()
    listing = (
        [{"stimulus_id": cell.id, **cell.levels, "filename": cell.filename} for cell in made.cells] if cells else None
    )
    if as_json:
        extra: dict[str, Any] = {"cells_list": listing} if cells else {}
        extra |= {"run": state} if state else {}
        say(json_text({**summarize(made, device, done), **extra}, ascii_only=True))
    elif cells:
        for cell in made.cells:
            say("  ".join([cell.id, *(f"{factor}={label}" for factor, label in cell.levels.items())]))
    else:
        display.show_plan(summarize(made, device, done))
        if made.protocol.levels("weights") != ("pca",) and not made.missing:
            say(f"which ratios lie between style and content with these weights: stimkit preview {protocol}")
    if state and not as_json:
        say(f"{check}: {', '.join(f'{len(ids)} {name}' for name, ids in state.items())}")
    if made.missing:
        say(ProtocolError(made.missing, made.protocol.file), err=True)
        say("`stimkit run` will refuse until these are there; cell ids are provisional", err=True)
    if state and state["pending"]:
        raise typer.Exit(3)


@app.command()
def schema() -> None:
    """Print the JSON Schema of protocol files, for editors."""
    from stimkit.protocol.protocol import json_schema

    say(json_text(json_schema(), indent=2, ascii_only=True))


@app.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the stimulus set.", show_default=False)],
    like: Annotated[
        str | None,
        typer.Option(metavar="SET", help="A published set: geirhos2019, wallis2017, jagadeesh2022, vacher2020, …"),
    ] = None,
) -> None:
    """Write NAME.toml, a commented protocol to start from, or that of a published set with its trial design."""
    from stimkit.documents.template import protocol_template, published_protocol
    from stimkit.experiment.trials.design import TrialDesign
    from stimkit.protocol.protocol import Protocol

    path = Path(name if name.endswith(".toml") else f"{name}.toml")
    texts = {path.name: protocol_template(path.stem)} if like is None else published_protocol(path.stem, like)
    Protocol.from_toml(texts[path.name], base=path.parent, name=f"the name {path.stem}")
    for file, text in texts.items():
        if file != path.name:
            TrialDesign.from_toml(text, name=file)
        _write_new(path.with_name(file), text)
    say(f"wrote {', '.join(str(path.with_name(file)) for file in texts)}; next: stimkit plan {path}")


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already; give another name") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what device, precision, weights and versions this machine has."""
    from stimkit.cli.doctor import examine

    findings = examine()
    if as_json:
        say(json_text(findings, ascii_only=True))
        return
    for topic, lines in findings.items():
        say(f"{topic:<10} {lines[0]}")
        for line in lines[1:]:
            say(f"{'':<10} {line}")


app.command()(cli_run.preview)
app.command()(cli_run.run)
app.command()(cli_run.collect)
app.command()(cli_runs.status)
app.command()(cli_runs.watch)
app.command()(cli_runs.cite)
app.command()(cli_runs.diff)
app.command()(cli_runs.agree)
app.command()(cli_runs.verify)
app.command()(cli_runs.regenerate)
app.command()(cli_runs.archive)
app.command()(cli_audit.audit)
app.command()(cli_audit.report)
app.command("audit-images")(cli_audit.audit_images)
app.command()(cli_experiments.trials)
app.command()(cli_experiments.export)
app.command()(cli_experiments.join)
app.command()(cli_measures.measure)
app.command()(cli_measures.features)
app.command()(cli_measures.distances)
app.command()(cli_scaling.simulate)
app.command()(cli_scaling.scale)
app.command()(cli_scaling.norm)


def _progress_of(run: Path, planned: Any) -> dict[str, list[str]]:
    from stimkit.runfolder.run import read_run, summarize_state

    found = read_run(run)
    if not set(planned) & set(found.planned):
        raise RunFolderError(f"{run} holds another protocol: none of its cells are in this one")
    state = summarize_state(found, planned)
    return {name: list(getattr(state, name)) for name in ("done", "rejected", "failed", "pending")}


def _progress_in(run: Path, planned: Any) -> dict[str, list[str]] | None:
    """How far the run folder is that `stimkit run` would go on with, if it is there and of this protocol."""
    try:
        return _progress_of(run, planned)
    except RunFolderError:
        return None


def main() -> None:
    """Run the command line; every expected error is one message on stderr and a documented exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where output has few letters, ω becomes a question mark
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except StimkitError as error:
        say(f"stimkit: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("stimkit: stopped on request", err=True)
        sys.exit(130)
    except BrokenPipeError:
        _leave_stdout()
        sys.exit(1)
    except OSError as error:  # of what is printed, or of the system's own folders: what is stored says so itself
        _leave_stdout()
        say(f"stimkit: {error.filename or 'the output'} cannot be written: {error.strerror or error}", err=True)
        sys.exit(StorageError.exit_code)
    except Exception as error:
        if os.environ.get("STIMKIT_DEBUG"):
            raise
        kind = type(error).__name__
        say(f"stimkit: internal error ({kind}: {error}); STIMKIT_DEBUG=1 shows where, please report it", err=True)
        sys.exit(1)


def _leave_stdout() -> None:
    """Send what is still to be printed nowhere, so that the end of the process does not try it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

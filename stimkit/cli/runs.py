"""Commands about run folders: their state, and whether they are what they say."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stimkit.cli.terminal import say
from stimkit.errors import UsageError
from stimkit.files import json_text

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def status(
    run: RunPath,
    watch: Annotated[bool, typer.Option("--watch", help="Again and again, until nothing is pending.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run folder has done, what is pending or failed, and who is writing it."""
    from stimkit.cli import display
    from stimkit.runfolder.run import read_run, summarize_state

    if watch:
        if as_json:
            raise UsageError("--json is for one look; leave out --watch")
        from stimkit.cli.progress import watch_run

        watch_run(run)
    state = summarize_state(read_run(run))
    if as_json:
        say(json_text(asdict(state), ascii_only=True))
    else:
        display.show_state(run, state)


def watch(
    run: RunPath,
    port: Annotated[int, typer.Option(help="Port of the page; 0: one that is free.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Address; others than this machine's show the run to whoever reaches it.")
    ] = "127.0.0.1",
) -> None:
    """Serve a page with the stimuli of a run as they are made, losses and the time that is left, until Ctrl-C.

    Example: stimkit watch runs/quickstart
    """
    from stimkit.reporting.watching import open_server

    with open_server(run, host, port) as server:
        say(f"http://{host}:{server.server_address[1]}/ shows {run}; Ctrl-C ends it")
        server.serve_forever()


def cite(run: RunPath) -> None:
    """Print what a paper that uses the set cites, as BibTeX: the set, stimkit, method, network, and what was measured.

    Example: stimkit cite runs/quickstart >> references.bib
    """
    from stimkit.records.bibliography import bibliography
    from stimkit.runfolder.run import read_run

    found = read_run(run)
    say(bibliography(found.plan, found.measurements).rstrip())


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="Protocol or run folder.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B", help="Protocol or run folder.", show_default=False)],
    out: Annotated[Path | None, typer.Option(metavar="FILE.html", help="A page with pictures side by side.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say how two protocols or runs differ, cell by cell; exit 1 where they do, as diff does.

    Example: stimkit diff protocols/quickstart.toml runs/quickstart
    """
    from stimkit.differences.changes import diff as compare
    from stimkit.differences.words import describe_difference

    found = compare(a, b)
    if out is not None:
        from stimkit.differences.page import write_difference

        write_difference(found, out)
    if as_json:
        say(json_text(found.values(), ascii_only=True))
    else:
        for line in describe_difference(found):
            say(line)
    if found.differ:
        raise typer.Exit(1)


def agree(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="What a report saved.", show_default=False)],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="Another curator's.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Say how far two curators agree about the stimuli of a set, and about which they do not.

    Example: stimkit agree curation-ada.json curation-bob.json
    """
    from stimkit.cli import display
    from stimkit.documents.curation import compare_curations, read_curation

    found = compare_curations(read_curation(a), read_curation(b))
    if as_json:
        counts = {f"{one} {other}": count for (one, other), count in found.counts.items() if count}
        differing = [[one.model_dump(), other.model_dump()] for one, other in found.differing]
        say(json_text({**asdict(found), "counts": counts, "differing": differing}, ascii_only=True))
    else:
        display.show_agreement(found)


def verify(run: RunPath, as_json: AsJson = False) -> None:
    """Check every file of a run folder against its digests, records and resolved protocol; exit 5 if any differs."""
    from stimkit.auditing.verification import verify as check
    from stimkit.cli import display, progress

    with progress.phases() as show:
        result = check(run, lambda done, total: show("verifying files", done, total))
    if as_json:
        say(json_text(asdict(result), ascii_only=True))
    else:
        display.show_verification(run, result)
    if result.errors:
        raise typer.Exit(5)


def regenerate(
    run: RunPath,
    cells: Annotated[list[str] | None, typer.Argument(metavar="[CELL]...", help="Stimulus ids; default all.")] = None,
    out: Annotated[Path, typer.Option(help="New folder for the stimuli and comparison.csv.")] = Path("regenerated"),
    where: Annotated[
        str | None, typer.Option(help="Condition on columns of the manifest, as 'style == \"swirl\"'.")
    ] = None,
    inputs: Annotated[list[Path] | None, typer.Option(help="Folder with images and weights, found by digest.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    alone: Annotated[bool, typer.Option("--alone", help="Each cell by itself, not in its recorded batch.")] = False,
    require: Annotated[
        str, typer.Option(help="Exit 5 below: identical_file, identical_pixels, pixels_within or losses_within.")
    ] = "losses_within",
    as_json: AsJson = False,
) -> None:
    """Make stimuli of a run again from what it saved, and say how equal they are.

    Example: stimkit regenerate runs/quickstart --where 'style == "swirl"' --out again
    """
    from stimkit.auditing.regeneration import TIERS
    from stimkit.auditing.regeneration import regenerate as make_again
    from stimkit.cli import display

    if require not in TIERS[:-1]:
        raise UsageError(f'--require: "{require}" is not a tier; give one of {", ".join(TIERS[:-1])}')
    comparisons = make_again(
        run, out, cells=cells or (), where=where, inputs=inputs or (), device=device, alone=alone,
        on_compared=None if as_json else display.show_comparison,
    )  # fmt: skip
    if as_json:
        say(json_text([asdict(comparison) for comparison in comparisons], ascii_only=True))
    else:
        display.show_tiers(out, [comparison.tier for comparison in comparisons])
    if any(TIERS.index(comparison.tier) > TIERS.index(require) for comparison in comparisons):
        raise typer.Exit(5)


def archive(
    run: RunPath,
    out: Annotated[Path, typer.Argument(metavar="OUT.zip", help="Archive to write.", show_default=False)],
    inputs: Annotated[list[Path] | None, typer.Option(help="Folder with images and weights, found by digest.")] = None,
    trials: Annotated[list[Path] | None, typer.Option(help="Folder of trial lists.")] = None,
    answers: Annotated[list[Path] | None, typer.Option(help="Folder of joined answers.")] = None,
    audit: Annotated[bool, typer.Option(help="Put a report and an audit into it.")] = True,
    device: Annotated[str, typer.Option(help="Of the audit: auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Write a complete run with its inputs, an audit, trial lists, answers, a README and checksums as one archive."""
    from stimkit.archiving.archive import archive as write

    made = write(run, out, inputs=inputs or (), trials=trials or (), answers=answers or (), audit=audit, device=device)
    say(f"{made.path}: {made.files} files, {len(made.inputs)} of them inputs")
    for path in made.shortened:
        say(f"shortened: {path}")
    for image in made.left_out:
        say(f"left out: {image}")

"""Commands from stimuli to the experiment, and back with its data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stimkit.cli.runs import RunPath
from stimkit.cli.terminal import say

Design = Annotated[Path | None, typer.Option(metavar="DESIGN.toml", help="Trial design; default every stimulus once.")]


def trials(
    run: RunPath,
    design: Annotated[Path, typer.Option(metavar="DESIGN.toml", help="Trial design.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="New folder; default trials/NAME.")] = None,
) -> None:
    """Make trial lists of the stimuli of a run: who sees which of them, in which blocks and order.

    Example: stimkit trials runs/quickstart --design protocols/trials/rating.toml
    """
    from stimkit.cli import display
    from stimkit.experiment.trials.design import TrialDesign
    from stimkit.experiment.trials.lists import make_trials
    from stimkit.experiment.trials.saving import save_lists
    from stimkit.runfolder.run import open_run, summarize_state

    wanted = TrialDesign.load(design)
    found = open_run(run)
    lists = make_trials(found, wanted)
    display.show_unfinished(run, summarize_state(found))
    folder = out or Path("trials") / wanted.name
    save_lists(lists, folder)
    display.show_trials(lists, folder)


def export(
    run: RunPath,
    form: Annotated[
        str, typer.Argument(metavar="FORMAT", help="psychopy, jspsych, bids, brainio or csv.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(help="New folder; default exports/NAME-FORMAT.")] = None,
    design: Design = None,
    where: Annotated[
        str | None, typer.Option(help="Condition on columns of the manifest, as 'style == \"swirl\"'.")
    ] = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Rejected stimuli, too.")] = False,
    columns: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Columns of the manifest beside ids and factors; default all."),
    ] = None,
    jspsych: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Tarballs of jsPsych by `npm pack`; default from the registry."),
    ] = None,
) -> None:
    """Write stimuli, tables and trial lists for the program that runs the experiment.

    Example: stimkit export runs/quickstart psychopy --design protocols/trials/rating.toml
    """
    from stimkit.cli import display
    from stimkit.experiment.export.formats import export as write
    from stimkit.experiment.trials.design import TrialDesign
    from stimkit.runfolder.run import read_run, summarize_state

    folder = out or Path("exports") / f"{run.resolve().name}-{form}"
    found = read_run(run)
    count = write(
        found,
        form,
        folder,
        design=TrialDesign.load(design) if design else None,
        where=where,
        status=("accepted", "rejected") if rejected else ("accepted",),
        columns=columns.split(",") if columns else None,
        jspsych_tarballs=jspsych,
    )
    display.show_unfinished(run, summarize_state(found))
    say(f"{folder}: {count} stimuli for {form}, see README.md there")


def join(
    run: RunPath,
    responses: Annotated[
        list[Path], typer.Argument(metavar="RESPONSES...", help="CSV, TSV or JSON.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option(help="New folder; default joined/NAME.")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Columns of the manifest beside factors and attributes.")
    ] = None,
    times: Annotated[
        str | None, typer.Option(metavar="s|ms", help="Unit of times of programs other than jsPsych and PsychoPy.")
    ] = None,
) -> None:
    """Put answers and manifest together; exit 5 where answers are to stimuli that the run does not have.

    Example: stimkit join runs/quickstart data/*.csv
    """
    from stimkit.experiment.responses import count_responses, join_responses, save_joined

    joined = join_responses(run, responses, columns=columns.split(",") if columns is not None else None, times=times)
    folder = out or Path("joined") / run.resolve().name
    save_joined(joined, folder)
    for line in count_responses(joined):
        say(line)
    say(f"{folder}: responses.csv, responses.nc")
    if len(joined.unknown):
        raise typer.Exit(5)

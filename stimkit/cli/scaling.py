"""Commands on answers: scales, thresholds, and answers of simulated observers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stimkit.cli.runs import RunPath
from stimkit.cli.terminal import say


def simulate(
    run: RunPath,
    design: Annotated[Path, typer.Option(metavar="DESIGN.toml", help="Trial design.", show_default=False)],
    observer: Annotated[str, typer.Option(help="difference, logistic or random.")] = "difference",
    along: Annotated[str | None, typer.Option(metavar="NAME", help="Series; default the design's.")] = None,
    exponent: Annotated[float, typer.Option(help="What is seen is the level to this power.")] = 1.0,
    noise: Annotated[float, typer.Option(help="Standard deviation, in parts of the series.")] = 0.1,
    threshold: Annotated[float, typer.Option(help="Level of the second answer.")] = 0.5,
    width: Annotated[float, typer.Option(help="Of the logistic observer.")] = 0.1,
    lapse: Annotated[float, typer.Option(help="Part of the answers that are given at random.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    out: Annotated[Path | None, typer.Option(help="New folder; default simulated/NAME.")] = None,
) -> None:
    """Answer the trials of a design as an observer would, into files as the experiments save them.

    Example: stimkit simulate runs/quickstart --design protocols/trials/rating.toml --observer random
    """
    from stimkit.experiment.trials.design import TrialDesign
    from stimkit.scaling.observers import Observer, save_answers
    from stimkit.scaling.observers import simulate as answer

    wanted = TrialDesign.load(design)
    seen = Observer(observer, exponent, noise, threshold, width, lapse)  # type: ignore[arg-type]
    answers = answer(run, wanted, seen, along=along, seed=seed)
    folder = out or Path("simulated") / wanted.name
    count = save_answers(answers, folder)
    say(
        f"{folder}: {len(answers):,} simulated answers of {count} participants; next: stimkit join {run} {folder}/*.csv"
    )


def scale(
    joined: Annotated[
        Path, typer.Argument(metavar="JOINED", help="Folder that `stimkit join` wrote.", show_default=False)
    ],
    method: Annotated[str, typer.Option(help="mlds, bradley-terry, psychometric or mds.", show_default=False)],
    along: Annotated[
        str, typer.Option(metavar="NAME", help="Series, or factor whose levels are scaled.", show_default=False)
    ],
    where: Annotated[str | None, typer.Option(help="Condition on columns of the answers.")] = None,
    samples: Annotated[int, typer.Option(min=0, max=100_000, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    similar: Annotated[bool, typer.Option("--similar", help="mlds: the smaller difference was asked for.")] = False,
    shape: Annotated[str | None, typer.Option(help="psychometric: logistic (the default) or normal.")] = None,
    right: Annotated[bool, typer.Option("--right", help="psychometric: of right answers.")] = False,
    guess: Annotated[float | None, typer.Option(min=0, max=0.99, help="psychometric: guess rate.")] = None,
    lapse: Annotated[float | None, typer.Option(min=0, max=0.5, help="psychometric; default fitted.")] = None,
    out: Annotated[Path | None, typer.Option(help="New folder; default scales/NAME-METHOD.")] = None,
) -> None:
    """Fit a scale, preferences or thresholds to joined answers, for each participant and for all together.

    Example: stimkit scale joined/quickstart --method mlds --along sm
    """
    from stimkit.cli import display
    from stimkit.scaling.scales import save_scales
    from stimkit.scaling.scales import scale as fit

    options = {"similar": similar, "shape": shape, "right": right, "guess": guess, "lapse": lapse}
    given: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, False)}
    found = fit(joined, method, along=along, where=where, samples=samples, seed=seed, **given)
    folder = out or Path("scales") / f"{joined.resolve().name}-{method}"
    save_scales(found, folder)
    display.show_scales(found)
    say(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def norm(
    run: RunPath,
    joined: Annotated[
        Path, typer.Argument(metavar="JOINED", help="Folder that `stimkit join` wrote.", show_default=False)
    ],
    name: Annotated[str, typer.Option(help="What the new columns begin with.")] = "norm",
    where: Annotated[str | None, typer.Option(help="Condition on columns of the answers.")] = None,
) -> None:
    """Enter naming accuracy, ratings and times of joined answers into the manifest, for each stimulus.

    Example: stimkit norm runs/quickstart joined/quickstart --name quality
    """
    from stimkit.runfolder.run import read_run, summarize_state
    from stimkit.scaling.norms import norm as enter

    found = enter(run, joined, name=name, where=where)
    say(f"{run}: {', '.join(str(column) for column in found if column != 'stimulus_id')} of {len(found)} stimuli")
    state = summarize_state(read_run(run))
    say(f"{len(state.done)} accepted, {len(state.rejected)} rejected")

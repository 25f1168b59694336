"""Commands that measure finished stimuli."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stimkit.cli.runs import RunPath
from stimkit.cli.terminal import say


def measure(
    run: RunPath,
    groups: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GROUP]...",
            help="statistics, orientation, phog, variances, similarity, observers.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[str, typer.Option(help="similarity: imagenet, oxford, random:SEED or a file.")] = "imagenet",
    preprocessing: Annotated[str, typer.Option(help="What these take: auto, torchvision or caffe.")] = "auto",
    inputs: Annotated[list[Path] | None, typer.Option(help="Folder with images and weights, found by digest.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    remove: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take a table of measurements out, such as one of norms.")
    ] = None,
) -> None:
    """Measure what studies use as predictors, of finished stimuli, into columns of the manifest.

    Example: stimkit measure runs/quickstart statistics orientation phog
    """
    from stimkit.cli import progress
    from stimkit.measures.measuring import measure_stimuli, model_of
    from stimkit.runfolder.measuring import remove_measurements
    from stimkit.runfolder.run import read_run, summarize_state

    if remove:
        remove_measurements(read_run(run), remove)
        say(f"{run}: without {', '.join(remove)}")
        if not groups:
            return
    with progress.phases() as show:
        found = measure_stimuli(
            run,
            groups or (),
            model=model_of(weights, preprocessing),
            inputs=inputs or (),
            device=device,
            on_progress=show,
        )
    for name in dict.fromkeys(groups or ()):
        table = found.measurements[name]
        say(f"{name}: {', '.join(column.name for column in table.columns)} of {len(table.values)} stimuli")
    state = summarize_state(found)
    say(f"{run}/manifest.csv has them; {len(state.done)} accepted, {len(state.rejected)} rejected")


def distances(
    run: RunPath,
    layers: Annotated[
        str | None, typer.Option(metavar="LAYER,LAYER", help="As conv1_1,conv4_2; default those of the stimuli.")
    ] = None,
    form: Annotated[str, typer.Option("--as", help="gram, mean or flat.")] = "gram",
    where: Annotated[str | None, typer.Option(help="Condition on columns of the manifest.")] = None,
    observer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another network, of [observers]; default that of the set.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="New folder; default distances/NAME.")] = None,
) -> None:
    """Compare the stimuli with each other: nearest neighbours, a map of the set, what the factors explain.

    Example: stimkit distances runs/quickstart
    """
    from stimkit.cli import progress
    from stimkit.features.comparing import compare_stimuli, describe_distances, save_distances
    from stimkit.files import check_new

    folder = out or Path("distances") / run.resolve().name
    check_new(folder)
    with progress.phases() as show:
        found = compare_stimuli(
            run,
            layers.split(",") if layers else None,
            form=form,
            where=where,
            observer=observer,
            device=device,
            on_progress=partial(show, "features"),
        )
    save_distances(found, folder)
    for line in describe_distances(found):
        say(line)
    say(f"{folder}: neighbours.csv, explained.csv, map.csv; the map is in the manifest and in the report")


def features(
    run: RunPath,
    layers: Annotated[str, typer.Option(metavar="LAYER,LAYER", help="As conv1_1,conv4_2.", show_default=False)],
    form: Annotated[str, typer.Option("--as", help="gram, mean or flat.")] = "mean",
    pca: Annotated[int, typer.Option(min=0, help="So many principal components of these; 0: themselves.")] = 0,
    rdm: Annotated[
        str | None, typer.Option(metavar="MEASURE", help="Dissimilarities: euclidean, correlation or crossnobis.")
    ] = None,
    where: Annotated[str | None, typer.Option(help="Condition on columns of the manifest.")] = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="Content and style images, too.")] = False,
    observer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another network, of [observers]; default that of the set.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="New .nc or .mat file; default features/NAME.nc.")] = None,
) -> None:
    """Write what the network makes of the stimuli for NetCDF or MATLAB: responses, Gram matrices, means or more.

    Example: stimkit features runs/quickstart --layers conv1_1,conv4_2 --as gram
    """
    from stimkit.cli import progress
    from stimkit.features.writing import measure_features

    target = out or Path("features") / f"{run.resolve().name}.nc"
    target.parent.mkdir(parents=True, exist_ok=True)
    with progress.phases() as show:
        measure_features(
            run,
            target,
            layers.split(","),
            form=form,
            components=pca,
            measure=rdm,
            where=where,
            inputs=inputs,
            observer=observer,
            device=device,
            on_progress=partial(show, "features"),
        )
    derived = f", {pca} components" if pca else f", {rdm} dissimilarities" if rdm else ""
    say(f"{target}: {layers} as {form}{derived}")

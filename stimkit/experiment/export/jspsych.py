"""jsPsych: a page that runs the experiment in a browser, from any static server."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from stimkit.experiment.export.presentation import write_presentation
from stimkit.experiment.export.stimulus_set import StimulusSet
from stimkit.files import json_text

README = """# {name}: an experiment for the browser

    python -m http.server

in this folder, then open http://localhost:8000/?participant=p001 (without a participant the page asks). Any static
server will do: the folder is complete.

- `lists/`: the trials of each participant, in their order
- `stimuli/`, and `masks/` where the design has them: the images
- `settings.json`: prompt, answers, places, timing in seconds, the screen, grey of the background
- `experiment.js`, `adaptive.js`, `style.css`: the experiment
- `jspsych/`: jsPsych and its plugins, see ORIGIN.md there

Answers are kept in the browser after every trial: who closes the page and opens it again goes on where it was. At the
end they are downloaded as CSV, or JSON with `&save=json`, with all columns of the list; rest pages offer what there is
so far. With `[save]` in the design they are also sent to DataPipe or JATOS.

Stimuli are shown pixel by pixel on the display's own pixels, also where the browser's are larger. Where the design has
a `[screen]` (or the address `&ppd=44.1`) whose pixels per degree are others than those of the stimuli, these are
resampled to their size in degrees; `image_scale` in the data says so. `onset_ms`, `stimulus_ms` and `fixation_ms` are
measured at frames, `frame_ms` is what a frame takes; `device_pixel_ratio` and the size of the window are there for
every trial, and `fits_window` says whether the stimuli were in it as a whole.

With `calibrate = true` in `[screen]` the page first measures how large its pixels are, with a bank card that is held to
the screen, and the viewing distance, with the blind spot (Li, Joo, Yeatman & Reinecke 2020): `pixels_per_degree` and
`viewing_distance_cm` are in the data.

    stimkit join RUN answers.csv

puts the answers and the manifest together.
"""
PAGES = ("index.html", "experiment.js", "adaptive.js", "style.css")


def write(stimuli: StimulusSet, folder: Path, library: Mapping[str, bytes]) -> None:
    """Write the page, lists, settings and stimuli, and the files of the library that it loads."""
    stimuli.copy_stimuli(folder / "stimuli")
    (folder / "lists").mkdir()
    for participant, rows in stimuli.lists.table.groupby("participant"):
        listed = json_text(rows.astype(object).where(rows.notna(), None).to_dict("records"), indent=None)
        (folder / "lists" / f"{participant}.json").write_text(listed, encoding="utf-8")
    write_presentation(stimuli, folder)
    for name in PAGES:
        page = files("stimkit.experiment.export").joinpath("templates", name).read_text(encoding="utf-8")
        (folder / name).write_text(page, encoding="utf-8")
    (folder / "jspsych").mkdir()
    for name, data in library.items():
        (folder / "jspsych" / name).write_bytes(data)
    (folder / "README.md").write_text(README.format(name=stimuli.name), encoding="utf-8")

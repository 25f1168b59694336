"""Show the trials of a participant with PsychoPy and save the answers.

python experiment.py              asks for the participant
python experiment.py p001         shows the list conditions/p001.csv

settings.json has the prompt, the answers with their keys, and the timing. Answers are saved in data/ as a CSV file with
all columns of the list; `stimkit join` adds the manifest. Escape ends the experiment, and saves what there is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from psychopy import core, data, event, gui, visual

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
CHOICE_OF = dict(zip(SETTINGS["keys"], SETTINGS["choices"], strict=True))
GAP = 40  # pixels between the stimuli of a trial


def ask_for_participant() -> str:
    """Participant of the command line, or of a dialog."""
    if len(sys.argv) > 1:
        return sys.argv[1]
    lists = sorted(path.stem for path in (HERE / "conditions").glob("*.csv"))
    dialog = gui.DlgFromDict({"participant": lists}, title=SETTINGS["name"])
    if not dialog.OK:
        core.quit()
    return str(dialog.dictionary["participant"])


def stimuli_of(window: visual.Window, trial: dict[str, Any]) -> list[visual.ImageStim]:
    """The images of a trial side by side, each pixel of a file on a pixel of the display."""
    files = [str(HERE / trial[name]) for name in trial if name.startswith("stim_file") and trial[name]]
    images = [visual.ImageStim(window, image=file, units="pix", interpolate=False) for file in files]
    step = max(image.size[0] for image in images) + GAP
    for place, image in enumerate(images):
        image.pos = ((place - (len(images) - 1) / 2) * step, 0)
    return images


def say(window: visual.Window, text: str) -> None:
    """Show a text until a key is pressed."""
    visual.TextStim(window, text=text, height=24, wrapWidth=900).draw()
    window.flip()
    if "escape" in event.waitKeys():
        raise KeyboardInterrupt


def show(
    window: visual.Window, trial: dict[str, Any], hint: visual.TextStim, fixation: visual.TextStim
) -> tuple[str, float]:
    """Show one trial; return the answer and its time in seconds from the onset of the stimuli."""
    fixation.draw()
    window.flip()
    core.wait(SETTINGS["fixation_s"])
    images = stimuli_of(window, trial)
    for image in (*images, hint):
        image.draw()
    event.clearEvents()
    window.flip()
    clock, duration = core.Clock(), SETTINGS["stimulus_s"]
    keys = [*CHOICE_OF, "escape"]
    pressed = event.waitKeys(maxWait=duration or float("inf"), keyList=keys, timeStamped=clock)
    if not pressed:
        hint.draw()
        window.flip()
        pressed = event.waitKeys(keyList=keys, timeStamped=clock)
    key, seconds = pressed[0]
    if key == "escape":
        raise KeyboardInterrupt
    return CHOICE_OF[key], seconds


def main() -> None:
    """Run the experiment."""
    participant = ask_for_participant()
    trials = data.importConditions(str(HERE / "conditions" / f"{participant}.csv"))
    (HERE / "data").mkdir(exist_ok=True)
    experiment = data.ExperimentHandler(
        name=SETTINGS["name"],
        extraInfo={"participant": participant},
        dataFileName=str(HERE / "data" / f"{participant}_{data.getDateStr()}"),
        savePickle=False,
    )
    loop = data.TrialHandler(trials, nReps=1, method="sequential", name="trials")
    experiment.addLoop(loop)
    grey = 2 * SETTINGS["background"] - 1
    window = visual.Window(fullscr=True, units="pix", color=[grey] * 3)
    window.mouseVisible = False
    answers = "     ".join(f"{key}: {choice}" for key, choice in CHOICE_OF.items())
    hint = visual.TextStim(window, text=answers, pos=(0, -window.size[1] / 2 + 60), height=22)
    fixation = visual.TextStim(window, text="+", height=30)
    block = None
    try:
        say(window, f"{SETTINGS['prompt']}\n\n{answers}\n\nPress a key to begin.")
        for trial in loop:
            if block not in (None, trial["block"]):
                say(window, "You can rest now. Press a key to go on.")
            block = trial["block"]
            choice, seconds = show(window, trial, hint, fixation)
            loop.addData("choice", choice)
            loop.addData("rt", seconds)
            if trial["answer_index"] is not None:
                loop.addData("correct", int(SETTINGS["choices"].index(choice) + 1 == trial["answer_index"]))
            experiment.nextEntry()
        say(window, "Thank you. Press a key to end.")
    except KeyboardInterrupt:
        experiment.addData("stopped", 1)
    finally:
        experiment.saveAsWideText(experiment.dataFileName + ".csv")
        experiment.abort()  # it is saved
        window.close()
    core.quit()


if __name__ == "__main__":
    main()

"""Show the trials of a participant with PsychoPy and save the answers.

python experiment.py              asks for the participant
python experiment.py p001         shows the list conditions/p001.csv
python experiment.py --any-rate   also where the display does not have the refresh rate of settings.json

settings.json has the prompt, the answers with their keys, places, timing and the screen. Times are counted in frames;
how long stimuli were there, and frames that were dropped, are in the data. Every answer is at once a line of
data/….jsonl; at the end, and after Escape, all are in data/….csv with all columns of the list, to which `stimkit join`
adds the manifest.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from psychopy import core, data, event, gui, monitors, visual
from psychopy.tools.monitorunittools import deg2pix

HERE = Path(__file__).resolve().parent
SETTINGS = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
WORDS = SETTINGS["words"]
CHOICE_OF = dict(zip(SETTINGS["keys"], SETTINGS["choices"], strict=True))
SAME_RATE = 0.05  # relative difference from the refresh rate that is asked for; times would be off by as much
ANY_RATE = "--any-rate"
GAP = 40  # pixels between the stimuli of a trial without places in degrees
FEEDBACK = 0.8  # seconds


def ask_for_participant() -> str:
    """Participant of the command line, or of a dialog."""
    named = [one for one in sys.argv[1:] if one != ANY_RATE]
    if named:
        return named[0]
    lists = sorted(path.stem for path in (HERE / "conditions").glob("*.csv"))
    dialog = gui.DlgFromDict({"participant": lists}, title=SETTINGS["name"])
    if not dialog.OK:
        core.quit()
    return str(dialog.dictionary["participant"])


def make_monitor() -> monitors.Monitor | None:
    """The screen of settings.json; without one, degrees are those of the images."""
    screen = SETTINGS["screen"]
    if screen is None:
        return None
    monitor = monitors.Monitor(SETTINGS["name"], width=screen["width"], distance=screen["viewing_distance"])
    monitor.setSizePix(screen["pixels"])
    return monitor


class Stage:
    """The window and what is drawn in it: the fixation mark, and the images of trials at their places."""

    def __init__(self) -> None:
        self.monitor = make_monitor()
        grey = 2 * SETTINGS["background"] - 1
        extra = {} if self.monitor is None else {"monitor": self.monitor, "size": SETTINGS["screen"]["pixels"]}
        self.window = visual.Window(fullscr=True, units="pix", color=[grey] * 3, **extra)
        self.window.mouseVisible = False
        wanted = (SETTINGS["screen"] or {}).get("refresh")
        self.measured = self.window.getActualFrameRate()
        self.rate = wanted or self.measured or 60.0
        if ANY_RATE not in sys.argv and (self.measured is None or abs(self.measured / self.rate - 1) > SAME_RATE):
            self.window.close()
            shown = "no steady number of" if self.measured is None else f"{self.measured:.1f}"
            raise SystemExit(
                f"The display shows {shown} frames a second, not {self.rate:g}: switch vertical synchronization on and"
                f" close other programs, or correct refresh in [screen]; {ANY_RATE} goes on all the same."
            )
        self.window.refreshThreshold = 1.2 / self.rate
        self.window.recordFrameIntervals = True
        ppd = SETTINGS["image_ppd"]
        scale = self.pixels(1.0) / ppd if ppd and self.monitor is not None else 1.0
        self.scale = 1.0 if abs(scale - 1) < SETTINGS["same_scale"] else scale
        answers = "     ".join(f"{key}: {choice}" for key, choice in CHOICE_OF.items())
        self.hint = visual.TextStim(self.window, text=answers, pos=(0, -self.window.size[1] / 2 + 60), height=22)
        at = [self.pixels(value) for value in SETTINGS["fixation_deg"]]
        self.mark = visual.TextStim(self.window, text="+", height=30, pos=at)

    def pixels(self, degrees: float) -> float:
        """Pixels of the screen, or of the images where the screen is not known."""
        if self.monitor is not None:
            return float(deg2pix(degrees, self.monitor))
        return degrees * (SETTINGS["image_ppd"] or 0)

    def frames(self, seconds: float) -> int:
        """Frames that a time is; one at least."""
        return max(1, round(seconds * self.rate))

    def images(self, trial: dict[str, Any], folder: str = "stimuli") -> list[visual.ImageStim]:
        """The images of a trial, each pixel of a file on a pixel of the display where the scales agree."""
        ends = [name.removeprefix("stim_file") for name in trial if name.startswith("stim_file") and trial[name]]
        files = [HERE / str(trial[f"stim_file{end}"]).replace("stimuli/", f"{folder}/", 1) for end in ends]
        images = [self.image(file) for file in files]
        for stage in SETTINGS["stages"]:  # those that are there together are side by side
            self.put_in_lines([[images[one] for one in line if one in stage] for line in SETTINGS["lines"]])
        for end, image in zip(ends, images, strict=True):
            if f"x_deg{end}" in trial:
                asked = (trial[f"x_deg{end}"], trial[f"y_deg{end}"])
                image.pos = [self.pixels(a + b) for a, b in zip(asked, SETTINGS["fixation_deg"], strict=True)]
        return images

    def image(self, file: Path) -> visual.ImageStim:
        """An image, each pixel of its file on a pixel of the display where the scales agree."""
        exact = self.scale == 1.0
        image = visual.ImageStim(self.window, image=str(file), units="pix", interpolate=not exact)
        if not exact:
            image.size = [side * self.scale for side in image.size]
        return image

    def put_in_lines(self, lines: list[list[visual.ImageStim]]) -> None:
        """Put images side by side, in lines from the top, about the middle of the window."""
        lines = [line for line in lines if line]
        heights = [max(image.size[1] for image in line) for line in lines]
        top = (sum(heights) + GAP * (len(lines) - 1)) / 2
        for line, height in zip(lines, heights, strict=True):
            left = -(sum(image.size[0] for image in line) + GAP * (len(line) - 1)) / 2
            for image in line:
                image.pos = (left + image.size[0] / 2, top - height / 2)
                left += image.size[0] + GAP
            top -= height + GAP

    def flip(self, *drawn: Any, stays: bool = True) -> float:
        """Draw and show one frame; the fixation mark stays where there are places around it."""
        marks = [self.mark] if stays and SETTINGS["fixation_stays"] else []
        for one in (*drawn, *marks):
            one.draw()
        return float(self.window.flip())

    def say(self, text: str) -> None:
        """Show a text until a key is pressed."""
        self.flip(visual.TextStim(self.window, text=text, height=24, wrapWidth=900), stays=False)
        if "escape" in event.waitKeys():
            raise KeyboardInterrupt


def pressed(clock: Any) -> tuple[str, float] | None:
    """The first answer, and its time in seconds on a clock."""
    for key, seconds in event.getKeys(keyList=[*CHOICE_OF, "escape"], timeStamped=clock):
        if key == "escape":
            raise KeyboardInterrupt
        return key, seconds
    return None


class Adapted:
    """The level that comes next in each series, by PsychoPy's own handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def handler(self, trial: dict[str, Any]) -> Any:
        """The handler of a series, made when it is first needed."""
        key, wanted = trial["series"], SETTINGS["adaptive"]
        if key not in self.handlers:
            levels = [step["level"] for step in SETTINGS["series"][key]]
            if wanted["method"] == "staircase":
                start = levels[-1] if wanted["start"] is None else wanted["start"]
                self.handlers[key] = data.StairHandler(
                    startVal=min(range(len(levels)), key=lambda at: abs(levels[at] - start)),
                    stepType="lin", stepSizes=wanted["steps"], nUp=wanted["up"], nDown=wanted["down"],
                    nTrials=wanted["count"], minVal=0, maxVal=len(levels) - 1,
                )  # fmt: skip
            else:
                x = [math.log10(level) for level in levels] if wanted["scale"] == "log10" else levels
                self.handlers[key] = data.QuestPlusHandler(
                    nTrials=wanted["count"], intensityVals=x,
                    thresholdVals=x if wanted["scale"] == "log10" else [level for level in x if level > 0],
                    slopeVals=wanted["slopes"], lowerAsymptoteVals=[wanted["guess"]], lapseRateVals=wanted["lapses"],
                    responseVals=("Yes", "No"), psychometricFunc="weibull", stimScale=wanted["scale"],
                    stimSelectionMethod="minEntropy", paramEstimationMethod="mean",
                )  # fmt: skip
        return self.handlers[key]

    def put(self, trial: dict[str, Any]) -> dict[str, Any]:
        """The columns of a trial that say which step comes next."""
        steps, wanted = SETTINGS["series"][trial["series"]], SETTINGS["adaptive"]
        value = next(self.handler(trial))
        if wanted["method"] == "staircase":
            step = steps[round(value)]
        else:
            level = 10**value if wanted["scale"] == "log10" else value
            step = min(steps, key=lambda one: abs(one["level"] - level))
        end = f"_{int(trial['answer_index'])}" if SETTINGS["form"] == "2afc" else ""
        values = {**step["columns"], "stimulus_id": step["stimulus_id"], "stim_file": step["stim_file"]}
        return {f"{name}{end}": one for name, one in values.items()}

    def learn(self, trial: dict[str, Any], found: dict[str, Any]) -> float | None:
        """Take an answer into account; what the answers say so far. No answer raises the level, as a wrong one does."""
        handler, wanted = self.handler(trial), SETTINGS["adaptive"]
        lowers = bool(found.get("correct")) if SETTINGS["form"] == "2afc" else found["response"] == 2
        if wanted["method"] == "questplus":
            handler.addResponse("Yes" if lowers else "No")
            threshold = float(handler.paramEstimate["threshold"])
            return 10**threshold if wanted["scale"] == "log10" else threshold
        handler.addResponse(int(lowers))
        used = [SETTINGS["series"][trial["series"]][round(at)]["level"] for at in handler.reversalIntensities[2:]]
        return sum(used) / len(used) if used else None


def show_earlier(stage: Stage, images: list[visual.ImageStim]) -> list[float]:
    """Show what comes before the last stimuli, one after the other; when the first came, and when it went, if then."""
    times: list[float] = []
    for some in SETTINGS["stages"][:-1]:
        drawn = [images[one] for one in some]
        times.append(stage.flip(*drawn))
        for _ in range(stage.frames(SETTINGS["sample_s"]) - 1):
            stage.flip(*drawn)
        times += [stage.flip() for _ in range(stage.frames(SETTINGS["delay_s"]) if SETTINGS["delay_s"] else 0)]
    return times[:2]


def adjust(stage: Stage, trial: dict[str, Any]) -> dict[str, Any]:
    """Let the participant move along a series until it matches the sample; return where it was left."""
    series = SETTINGS["series"][trial["series"]]
    (sample,) = stage.images(trial)
    pictures = [stage.image(HERE / step["stim_file"]) for step in series]
    for picture in pictures:
        stage.put_in_lines([[sample, picture]])
    start = stage.flip(stage.mark, stays=False)
    for _ in range(stage.frames(SETTINGS["fixation_s"]) - 1):
        stage.flip(stage.mark, stays=False)
    event.clearEvents()
    mouse = event.Mouse(visible=False, win=stage.window)
    onset = stage.flip(sample, pictures[int(trial["start"]) - 1])
    clock = core.Clock()
    at, moves, done = int(trial["start"]) - 1, 0, None
    keys = {"left": -1, "down": -1, "right": 1, "up": 1}
    while done is None:
        by = round(mouse.getWheelRel()[1])
        for key, seconds in event.getKeys(keyList=[*keys, "return", "escape"], timeStamped=clock):
            if key == "escape":
                raise KeyboardInterrupt
            by += keys.get(key, 0)
            done = seconds if key == "return" else done
        wanted = at + by
        after = wanted % len(series) if SETTINGS["closed"] else min(len(series) - 1, max(0, wanted))
        moves += abs(by) if after != at else 0
        at = after
        stage.flip(sample, pictures[at])
    stage.flip()
    return {
        "rt": done,
        "response": at + 1,
        "chosen": series[at]["level"],
        "chosen_id": series[at]["stimulus_id"],
        "moves": moves,
        "fixation_s": onset - start,
        "frame_rate": stage.measured,
        "image_scale": stage.scale,
    }


def show(stage: Stage, trial: dict[str, Any]) -> dict[str, Any]:
    """Show one trial; return what was answered when, and how long things were there."""
    images, masks = stage.images(trial), stage.images(trial, "masks") if SETTINGS["mask_s"] else []
    dropped = stage.window.nDroppedFrames
    start = stage.flip(stage.mark, stays=False)
    for _ in range(stage.frames(SETTINGS["fixation_s"]) - 1):
        stage.flip(stage.mark, stays=False)
    times = show_earlier(stage, images)
    images, masks = ([some[one] for one in SETTINGS["stages"][-1]] if some else [] for some in (images, masks))
    event.clearEvents()
    clock = core.Clock()
    onset = stage.flip(*images, stage.hint)
    clock.reset()
    times.append(onset)
    shown, masked = SETTINGS["stimulus_s"], SETTINGS["mask_s"]
    offset, answer = None, None
    last = stage.frames(SETTINGS["response_s"]) if SETTINGS["response_s"] else None
    frame = 1
    while answer is None and (last is None or frame < last):
        over = bool(shown) and frame >= stage.frames(shown)
        covered = over and bool(masked) and frame < stage.frames(shown) + stage.frames(masked)
        time = stage.flip(*(masks if covered else [] if over else images), stage.hint)
        offset = time if over and offset is None else offset
        frame += 1
        answer = pressed(clock)
    end = stage.flip()
    for _ in range(stage.frames(SETTINGS["interval_s"]) - 1 if SETTINGS["interval_s"] else 0):
        stage.flip()
    key, seconds = answer or (None, None)
    choice = CHOICE_OF.get(key)
    found: dict[str, Any] = {
        "choice": choice,
        "rt": seconds,
        "response": SETTINGS["choices"].index(choice) + 1 if choice is not None else None,
        "fixation_s": times[0] - start,
        **({"sample_s": times[1] - times[0]} if len(times) > 1 else {}),
        "stimulus_s": (end if offset is None else offset) - onset,
        "dropped_frames": stage.window.nDroppedFrames - dropped,
        "frame_rate": stage.measured,
        "image_scale": stage.scale,
    }
    if trial["answer_index"] is not None and choice is not None:
        found["correct"] = int(found["response"] == trial["answer_index"])
    return found


def ask_pages(when: str) -> dict[str, Any]:
    """Show the pages that have questions or ask for consent as dialogs; the answers by the names of the questions."""
    found: dict[str, Any] = {}
    for page in SETTINGS["pages"]:
        if page["when"] != when or not (page["questions"] or page["consent"]):
            continue
        buttons = {"labelButtonOK": WORDS["agree"], "labelButtonCancel": WORDS["decline"]} if page["consent"] else {}
        dialog = gui.Dlg(title=SETTINGS["name"], **buttons)
        dialog.addText(page["text"])
        for question in page["questions"]:
            dialog.addField(question["name"], label=question["text"], choices=question["choices"] or None)
        answers = dialog.show()
        if not dialog.OK and page["consent"]:
            core.quit()
        found |= {question["name"]: (answers or {}).get(question["name"]) for question in page["questions"]}
    return found


def show_texts(stage: Stage, when: str) -> None:
    """Show the pages that are only read."""
    for page in SETTINGS["pages"]:
        if page["when"] == when and not (page["questions"] or page["consent"]):
            stage.say(f"{page['text']}\n\n{WORDS['rest_key']}")


def keep(path: Path, values: dict[str, Any]) -> None:
    """Write a line that stays there whatever happens to this program."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values, default=str) + "\n")
        file.flush()
        os.fsync(file.fileno())


def main() -> None:
    """Run the experiment."""
    participant = ask_for_participant()
    replies = ask_pages("before")
    trials = data.importConditions(str(HERE / "conditions" / f"{participant}.csv"))
    (HERE / "data").mkdir(exist_ok=True)
    experiment = data.ExperimentHandler(
        name=SETTINGS["name"],
        extraInfo={"participant": participant, **replies},
        dataFileName=str(HERE / "data" / f"{participant}_{data.getDateStr()}"),
        savePickle=False,
    )
    loop = data.TrialHandler(trials, nReps=1, method="sequential", name="trials")
    experiment.addLoop(loop)
    stage, adapted = Stage(), Adapted()
    block, stopped = None, True
    try:
        show_texts(stage, "before")
        look = WORDS["adjust" if SETTINGS["form"] == "adjust" else "look"]
        stage.say(f"{SETTINGS['prompt'] or look}\n\n{stage.hint.text}\n\n{WORDS['begin_key']}")
        for trial in loop:
            if block not in (None, trial["block"]):
                stage.say(f"{WORDS['rest']} {WORDS['rest_key']}")
            block = trial["block"]
            if SETTINGS["adaptive"]:  # in the loop's own trial, whose values PsychoPy saves
                trial.update(adapted.put(trial))
            found = adjust(stage, trial) if SETTINGS["form"] == "adjust" else show(stage, trial)
            if SETTINGS["adaptive"]:
                found["estimate"] = adapted.learn(trial, found)
            for name, value in found.items():
                loop.addData(name, value)
            keep(Path(f"{experiment.dataFileName}.jsonl"), {"participant": participant, **dict(trial), **found})
            experiment.nextEntry()
            if SETTINGS["feedback"] and trial["kind"] == "practice" and "correct" in found:
                text = visual.TextStim(stage.window, text=WORDS["right" if found["correct"] else "wrong"], height=30)
                for _ in range(stage.frames(FEEDBACK)):
                    stage.flip(text, stays=False)
        show_texts(stage, "after")
        stage.say(WORDS["end_key"])
        stopped = False
    except KeyboardInterrupt:
        experiment.addData("stopped", 1)
    finally:
        stage.window.close()
        if not stopped:
            further = ask_pages("after")
            for entry in experiment.entries:
                entry.update(further)
        experiment.saveAsWideText(experiment.dataFileName + ".csv")
        experiment.abort()  # it is saved
    core.quit()


if __name__ == "__main__":
    main()

"""What participants read: pages before and after the trials, their questions, and the words of the experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from stimkit.documents.messages import BrokenRule, as_list, as_table
from stimkit.documents.toml import read_text
from stimkit.errors import Problem, ProtocolError
from stimkit.protocol.settings import Frozen

Word = Literal[
    "participant", "start", "continue", "look", "rest", "thanks", "saved", "not_sent", "save_so_far", "save_answers",
    "go_on", "start_anew", "answered", "all_answered", "agree", "decline", "declined", "right", "wrong", "begin_key",
    "rest_key", "end_key", "adjust", "adjust_done",
    "card", "card_done", "blind_spot", "measurements", "distance", "distance_wrong", "distance_right",
]  # fmt: skip
WORDS: dict[str, dict[Word, str]] = {
    "en": {
        "participant": "Participant",
        "start": "Start",
        "continue": "Continue",
        "look": "Look at the images.",
        "rest": "You can rest now.",
        "thanks": "Thank you. Your answers are saved when you continue.",
        "saved": "The answers are in your folder for downloads.",
        "not_sent": "They could not be sent to the server.",
        "save_so_far": "Save the answers so far",
        "save_answers": "Save the answers",
        "go_on": "Go on",
        "start_anew": "Start anew",
        "answered": "Trials that have been answered:",
        "all_answered": "All trials have been answered.",
        "agree": "I agree",
        "decline": "I do not agree",
        "declined": "Thank you. The experiment ends here.",
        "right": "Right",
        "wrong": "Wrong",
        "begin_key": "Press a key to begin.",
        "rest_key": "Press a key to go on.",
        "end_key": "Press a key to end.",
        "adjust": (
            "Change the right image until it matches the left one: with the arrow keys, the mouse wheel, or by dragging"
            " to the left and right. Return ends the trial."
        ),
        "adjust_done": "It matches",
        "card": "Hold a bank card to the screen, and drag the lower right corner until the rectangle has its size.",
        "card_done": "It has the size of the card",
        "blind_spot": (
            "Now the distance from your eyes to the screen is measured. Cover your right eye, look at the black square"
            " with the left one, and press the space bar when the red ball disappears. The space bar starts it."
        ),
        "measurements": "Still to do:",
        "distance": "You seem to be at a distance of",
        "distance_wrong": "That is wrong: measure again",
        "distance_right": "That is about right",
    },
    "de": {
        "participant": "Versuchsperson",
        "start": "Start",
        "continue": "Weiter",
        "look": "Betrachten Sie die Bilder.",
        "rest": "Sie können jetzt eine Pause machen.",
        "thanks": "Vielen Dank. Ihre Antworten werden gespeichert, wenn Sie weitergehen.",
        "saved": "Die Antworten sind in Ihrem Ordner für Downloads.",
        "not_sent": "Sie konnten nicht an den Server geschickt werden.",
        "save_so_far": "Bisherige Antworten speichern",
        "save_answers": "Antworten speichern",
        "go_on": "Fortsetzen",
        "start_anew": "Neu beginnen",
        "answered": "Beantwortete Durchgänge:",
        "all_answered": "Alle Durchgänge sind beantwortet.",
        "agree": "Ich stimme zu",
        "decline": "Ich stimme nicht zu",
        "declined": "Vielen Dank. Das Experiment endet hier.",
        "right": "Richtig",
        "wrong": "Falsch",
        "begin_key": "Beginnen Sie mit einer beliebigen Taste.",
        "rest_key": "Weiter mit einer beliebigen Taste.",
        "end_key": "Beenden Sie mit einer beliebigen Taste.",
        "adjust": (
            "Verändern Sie das rechte Bild, bis es zum linken passt: mit den Pfeiltasten, dem Mausrad oder durch Ziehen"
            " nach links und rechts. Die Eingabetaste beendet den Durchgang."
        ),
        "adjust_done": "Es passt",
        "card": (
            "Halten Sie eine Bankkarte an den Bildschirm, und ziehen Sie die Ecke rechts unten, bis das Rechteck so"
            " groß wie die Karte ist."
        ),
        "card_done": "Es ist so groß wie die Karte",
        "blind_spot": (
            "Nun wird der Abstand Ihrer Augen vom Bildschirm gemessen. Bedecken Sie das rechte Auge, sehen Sie mit dem"
            " linken auf das schwarze Quadrat, und drücken Sie die Leertaste, wenn der rote Ball verschwindet. Die"
            " Leertaste beginnt damit."
        ),
        "measurements": "Noch zu tun:",
        "distance": "Ihr Abstand scheint zu sein:",
        "distance_wrong": "Das stimmt nicht: noch einmal messen",
        "distance_right": "Das stimmt ungefähr",
    },
}
"""What the experiments say, by language."""


class Words(Frozen):
    """`[words]`: the language of what the experiment itself says, and words of one's own."""

    language: Literal["en", "de"] = "en"
    own: Annotated[dict[Word, str], Field(description="instead of those of the language")] = Field(default_factory=dict)

    @property
    def table(self) -> dict[Word, str]:
        """All words."""
        return {**WORDS[self.language], **self.own}


class Question(Frozen):
    """A question of a page; its answer is a column of the data."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60, description="of the column")]
    text: Annotated[str, Field(min_length=1)]
    kind: Literal["text", "number", "choice"] = "text"
    choices: Annotated[tuple[str, ...], Field(description="of a choice")] = ()
    required: bool = True


class Page(Frozen):
    """`[[pages]]`: a page before or after the trials."""

    when: Literal["before", "after"] = "before"
    text: Annotated[str, Field(description="paragraphs are parted by empty lines")] = ""
    file: Annotated[str, Field(description="a text file beside the design, instead of text")] = ""
    consent: Annotated[bool, Field(description="who does not agree does not go on")] = False
    questions: tuple[Question, ...] = ()


def check_pages(document: dict[str, Any], taken: tuple[str, ...]) -> list[BrokenRule]:
    """What is wrong between the keys of pages; `taken` are names that columns of data have already."""
    found: list[BrokenRule] = []
    names: list[str] = []
    for index, page in enumerate(map(_table, as_list(document.get("pages")))):
        if page.get("text") and page.get("file"):
            found.append((("pages", index, "file"), "give either text or file"))
        if page.get("consent") and page.get("when") == "after":
            found.append((("pages", index, "consent"), "comes before the trials"))
        for number, question in enumerate(map(_table, as_list(page.get("questions")))):
            path = ("pages", index, "questions", number)
            name = str(question.get("name"))
            if name in (*names, *taken):
                found.append(((*path, "name"), f"{name} is the name of another column"))
            names.append(name)
            if (question.get("kind") == "choice") != bool(question.get("choices")):
                found.append(((*path, "choices"), 'belong to kind = "choice"'))
    return found


def _table(value: Any) -> dict[str, Any]:
    return as_table({"it": value}, "it")


def with_texts(pages: tuple[Page, ...], folder: Path, name: str) -> tuple[Page, ...]:
    """Pages with the texts of their files, which are in a folder or below; `name` is that of the design.

    Raises `ProtocolError` where a file cannot be read, or is elsewhere.
    """
    found = []
    for index, page in enumerate(pages):
        if page.file:
            path = Path(page.file)
            if path.is_absolute() or ".." in path.parts:
                words = f"{page.file} is not beside the design"
                raise ProtocolError([Problem(f"pages[{index}].file", words, None)], name)
            page = page.model_copy(update={"text": read_text(folder / path, "a page of the design names it")})
        found.append(page)
    return tuple(found)

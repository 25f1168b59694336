"""Trial designs: TOML text to a validated, frozen `TrialDesign`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PrivateAttr

from stimkit.documents.lines import line_map, nearest_line
from stimkit.documents.schemas import Document
from stimkit.documents.spelling import check_as_meant
from stimkit.documents.toml import Lines, parse_toml, read_text, validate
from stimkit.errors import Problem, ProtocolError
from stimkit.experiment.pages import Page, Words, with_texts
from stimkit.experiment.trial_rules import SHOWN, check_trial_design
from stimkit.experiment.trials.placement import Place, Screen
from stimkit.protocol.settings import Frozen

FormName = Literal[
    "single", "pair", "triplet", "2afc", "abx", "match", "similarity", "mlds-triad", "mlds-quad", "adjust"
]
FactorNames = tuple[str, ...]
Times = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
KEYS = ("left", "right", "up", "down", "space", "return")
Key = Annotated[str, Field(pattern=rf"^([a-z0-9]|{'|'.join(KEYS)})$", description="as PsychoPy names it")]
ManifestCondition = Annotated[str, Field(min_length=1, description="condition on columns of the manifest")]


class Stimuli(Frozen):
    """`[stimuli]`: which stimuli of the run the trials are made of."""

    where: Annotated[str, Field(min_length=1, description="condition on columns of the manifest")] = 'role == "main"'
    status: Annotated[tuple[Literal["accepted", "rejected"], ...], Field(min_length=1)] = ("accepted",)


class Trial(Frozen):
    """`[trial]`: what is shown in a trial."""

    form: Annotated[FormName, Field(description="what is shown and asked")] = "single"
    differ: Annotated[FactorNames, Field(description="factors in which the pair, or the odd one, differs")] = ()
    free: Annotated[FactorNames, Field(description="factors that may be equal or not; all others are equal")] = ()
    along: Annotated[
        str | None, Field(description="the series, or the factor of numbers, that 2afc, mlds and adjust go along")
    ] = None
    closed: Annotated[bool, Field(description="adjust goes on from the last step to the first")] = False
    match: Annotated[FactorNames, Field(description="factors that the right candidate shares with the sample")] = ()
    distract: Annotated[FactorNames, Field(description="factors that the wrong candidate shares with it")] = ()
    positions: Annotated[
        Literal["balanced", "random", "fixed"], Field(description="how the places of a trial's stimuli are chosen")
    ] = "balanced"
    count: Annotated[Times | None, Field(description="trials of a participant; default all that are possible")] = None
    repetitions: Annotated[Times, Field(description="how often a participant gets each trial")] = 1

    @property
    def shown(self) -> int:
        """Stimuli of a trial."""
        return SHOWN[self.form]


class Adaptive(Frozen):
    """`[adaptive]`: levels of a series follow from the answers; one run for each series, by turns."""

    method: Literal["staircase", "questplus"]
    count: Annotated[Times, Field(description="trials of each series")] = 40
    scale: Annotated[Literal["linear", "log10"], Field(description="of the levels, of questplus")] = "linear"
    up: Annotated[Times, Field(description="answers in a row that raise the level")] = 1
    down: Annotated[Times, Field(description="right or second answers in a row that lower it")] = 2
    steps: Annotated[
        tuple[Times, ...], Field(min_length=1, description="levels to go at a time, until the next reversal")
    ] = (4, 2, 1)
    start: Annotated[float | None, Field(description="level of the first trial; default the highest")] = None
    slopes: Annotated[
        tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1, description="of questplus")
    ] = (1.0, 2.0, 4.0, 8.0)
    lapses: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=0.5)], ...], Field(min_length=1, description="of questplus")
    ] = (0.02,)


class LatinItems(Frozen):
    """`[assign] latin`: each participant sees each item in one condition only."""

    items: str
    conditions: str


class Assign(Frozen):
    """`[assign]`: what differs between participants; all other factors vary within them."""

    between: Annotated[FactorNames, Field(description="a participant gets one level of each")] = ()
    latin: Annotated[
        LatinItems | None, Field(description="a participant gets each item in one condition, by a Latin square")
    ] = None


class Blocks(Frozen):
    """`[blocks]`: parts of the experiment."""

    by: Annotated[FactorNames, Field(description="one block for each combination of levels")] = ()
    count: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | None,
        Field(description="number of blocks, each with about equally many of each level"),
    ] = None
    order: Literal["williams", "latin", "random", "fixed"] = "random"


class Sequence(Frozen):
    """`[sequence]`: rules about trials that follow each other."""

    no_repeat: Annotated[
        FactorNames, Field(description="factors whose level is not the same in two trials in a row")
    ] = ()
    max_run: Annotated[dict[str, Times], Field(description="longest run of trials that share a level, by factor")] = (
        Field(default_factory=dict)
    )

    @property
    def runs(self) -> dict[str, int]:
        """Longest run that is allowed, by factor."""
        return {**self.max_run, **dict.fromkeys(self.no_repeat, 1)}


class Practice(Frozen):
    """`[practice]`: trials before the first block, the same for all participants but for their order."""

    count: Times
    where: ManifestCondition | None = None
    differ: Annotated[FactorNames, Field(description="in what their stimuli differ; default as in other trials")] = ()
    free: Annotated[FactorNames, Field(description="what may be equal or not, where differ or free are given")] = ()
    held_out: Annotated[bool, Field(description="their stimuli are in no other trial")] = False
    feedback: Annotated[bool, Field(description="whether an answer was right is said after it")] = False


class Catch(Frozen):
    """`[catch]`: trials with a known answer, spread over the experiment."""

    count: Times
    where: ManifestCondition
    differ: Annotated[FactorNames, Field(description="in what their stimuli differ; default as in other trials")] = ()
    free: Annotated[FactorNames, Field(description="what may be equal or not, where differ or free are given")] = ()
    answer: Annotated[str, Field(description="the right answer; default as in other trials")] = ""


class Response(Frozen):
    """`[response]`: what participants are asked, and can answer."""

    prompt: str = ""
    choices: Annotated[tuple[str, ...] | str, Field(description="answers, or the factor whose levels they are")] = ()
    keys: Annotated[tuple[Key, ...], Field(description="keys of the answers; default 1, 2, 3, ...")] = ()
    correct: Annotated[str | None, Field(description="factor whose level is the right answer")] = None


class Timing(Frozen):
    """`[timing]`: seconds."""

    fixation: Seconds = 0.5
    sample: Annotated[
        Seconds, Field(description="of each stimulus before the last, or of the sample; 0: all at the same time")
    ] = 0.0
    delay: Annotated[Seconds, Field(description="between stimuli that are shown one after the other")] = 0.0
    stimulus: Annotated[Seconds, Field(description="0: until the answer")] = 0.0
    mask: Annotated[Seconds, Field(description="of the same stimuli with random phases, after them; 0: none")] = 0.0
    response: Annotated[
        Seconds, Field(description="from the onset of the (last) stimuli, for an answer; 0: no limit")
    ] = 0.0
    interval: Annotated[Seconds, Field(description="after the answer")] = 0.0


class Save(Frozen):
    """`[save]`: where answers given in a browser are sent, beside the download."""

    datapipe: Annotated[str, Field(description="id of an experiment at pipe.jspsych.org")] = ""
    jatos: Annotated[bool, Field(description="to the JATOS server that shows the page")] = False


class TrialDesign(Frozen):
    """A request for trial lists.

    >>> stimkit.TrialDesign.load("protocols/trials/rating.toml").participants
    12

    `load` and `from_toml` raise `ProtocolError`, which names every key that is wrong.
    """

    model_config = ConfigDict(title="stimkit trial design")

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    description: str = ""
    participants: Annotated[int, Field(ge=1, le=100_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    stimuli: Stimuli = Stimuli()
    trial: Trial = Trial()
    adaptive: Adaptive | None = None
    assign: Assign = Assign()
    blocks: Blocks = Blocks()
    sequence: Sequence = Sequence()
    practice: Practice | None = None
    catch: Catch | None = None
    response: Response = Response()
    timing: Timing = Timing()
    place: Place | None = None
    screen: Screen | None = None
    save: Save = Save()
    pages: tuple[Page, ...] = ()
    words: Words = Words()

    _text: str = PrivateAttr("")
    _file: str = PrivateAttr("")

    @classmethod
    def load(cls, path: str | Path) -> TrialDesign:
        """Read a trial design. Raises `ProtocolError` with every broken rule, each with its line, key and value."""
        path = Path(path)
        design = cls.from_toml(read_text(path, "docs/how-to/experiments.md shows one"), name=path.name)
        return design.model_copy(update={"pages": with_texts(design.pages, path.parent, path.name)})

    @classmethod
    def from_toml(cls, text: str, *, name: str = "trial design") -> TrialDesign:
        """Validate TOML text."""
        document = parse_toml(text, name)

        def check(document: Document, lines: Lines) -> TrialDesign:
            return validate(cls, document, lines, name, check_trial_design(document))

        design = check_as_meant(check, cls, document, line_map(text), name)
        design._text, design._file = text, name
        return design

    @property
    def text(self) -> str:
        """The TOML text that the design was read from."""
        return self._text

    def error(self, message: str, *path: str | int) -> ProtocolError:
        """The error that the design cannot be carried out, at one of its keys."""
        key = ".".join(map(str, path))
        return ProtocolError([Problem(key, message, nearest_line(line_map(self._text), path))], self._file)

"""What people decided about finished stimuli, as the report saves it: curation.json, and how far two of them agree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from stimkit.documents.cells import cell_objection
from stimkit.errors import UsageError
from stimkit.files import parse_json, read_file

VerdictWord = Literal["keep", "reject", "unsure"]
MAX_CURATION = 100_000_000  # bytes


def _plain(text: str) -> str:
    if objection := cell_objection(f"by {text}"):  # no cell begins with it
        raise PydanticCustomError("plain", "{objection}", {"objection": objection})
    return text


_Words = Annotated[str, AfterValidator(_plain)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Verdict(BaseModel):
    """What somebody decided about a stimulus: about the file that they saw, and no other that replaces it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    stimulus_id: Annotated[str, Field(pattern=r"^s[0-9a-f]+$")]
    file_sha256: _Digest
    verdict: VerdictWord
    note: _Words = ""
    at: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?Z$")]


class Curation(BaseModel):
    """What one curator decided about the stimuli of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Literal[1] = Field(alias="schema")
    set: _Words
    """Name of the protocol."""
    curator: Annotated[_Words, Field(min_length=1)]
    verdicts: tuple[Verdict, ...]

    @cached_property
    def by_file(self) -> dict[tuple[str, str], Verdict]:
        """Verdicts by stimulus id and digest of the file."""
        return {(one.stimulus_id, one.file_sha256): one for one in self.verdicts}


def read_curation(path: Path) -> Curation:
    """Read a curation.json. Raises `UsageError` where it is not one."""
    try:
        parse_json(data := read_file(path, MAX_CURATION))  # which refuses a key that is there twice
        found = Curation.model_validate_json(data)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path} is not a curation.json of a report: {place}: {first['msg']}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    if len(found.by_file) < len(found.verdicts):
        raise UsageError(f"{path} has two verdicts about the same file")
    return found


@dataclass(frozen=True)
class Agreement:
    """How far two curators agree about the files that both of them decided about."""

    curators: tuple[str, str]
    counts: dict[tuple[VerdictWord, VerdictWord], int]
    """Files by what the first and the second said."""
    agreed: float
    """Share of the files about which both said the same."""
    kappa: float | None
    """Cohen's kappa, (agreed - by chance) / (1 - by chance); None where both gave the same one verdict to all files."""
    differing: tuple[tuple[Verdict, Verdict], ...]
    only_one: int
    """Files that only one of them decided about."""


def compare_curations(first: Curation, second: Curation) -> Agreement:
    """Compare what two curators decided (Cohen 1960). Raises `UsageError` where no file was seen by both."""
    both = [(one, second.by_file[key]) for key, one in first.by_file.items() if key in second.by_file]
    if not both:
        raise UsageError("the two have not decided about the same files")
    names: tuple[VerdictWord, ...] = get_args(VerdictWord)
    counts = {(a, b): sum((one.verdict, other.verdict) == (a, b) for one, other in both) for a in names for b in names}
    agreed = sum(counts[name, name] for name in names) / len(both)
    chance = (
        sum(sum(counts[name, other] for other in names) * sum(counts[other, name] for other in names) for name in names)
        / len(both) ** 2
    )
    return Agreement(
        curators=(first.curator, second.curator),
        counts=counts,
        agreed=agreed,
        kappa=None if chance == 1 else (agreed - chance) / (1 - chance),
        differing=tuple((one, other) for one, other in both if one.verdict != other.verdict),
        only_one=len(first.by_file) + len(second.by_file) - 2 * len(both),
    )

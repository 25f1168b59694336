"""README, LICENCE and CITATION.cff of an archive."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stimkit.network.sources import REMOTE_NAMES
from stimkit.planning.cells import Plan
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.sections import Author
from stimkit.version import __version__

CFF_VERSION = "1.2.0"  # of the Citation File Format
_METHOD = {
    "type": "article",
    "title": "A Neural Algorithm of Artistic Style",
    "authors": [
        {"family-names": "Gatys", "given-names": "Leon A."},
        {"family-names": "Ecker", "given-names": "Alexander S."},
        {"family-names": "Bethge", "given-names": "Matthias"},
    ],
    "year": 2015,
    "url": "https://arxiv.org/abs/1508.06576",
}


@dataclass(frozen=True)
class Held:
    """What an archive holds beside the run folder itself."""

    inputs: Sequence[str]
    left_out: Sequence[str]
    trials: Sequence[str]
    answers: Sequence[str]
    is_audited: bool
    shortened: bool
    """Whether paths were taken out, so that its journal began anew."""


def readme(plan: Plan, methods: str, held: Held, example: str) -> str:
    """README.md: what the archive holds, how the stimuli were made, how to check and make them again.

    `example` is the id of a stimulus.
    """
    protocol = plan.protocol
    published = {
        cell.settings.weights: plan.weights[cell.settings.source].digest
        for cell in plan.cells
        if cell.settings.weights in REMOTE_NAMES
    }
    lines = [
        f"# {html.escape(protocol.publication.title or protocol.name, quote=False)}",
        "",
        html.escape(protocol.description, quote=False) or "A stimulus set made with stimkit.",
        "",
        *_contents(plan, held),
        "",
        "## Check it",
        "",
        f"    pip install stimkit=={__version__}",
        *(f"    stimkit weights fetch {name}" for name in published),
        "    stimkit verify .",
        f"    stimkit audit .{_inputs(held)}",
        f"    stimkit regenerate . {example} --out again{_inputs(held)}",
        "",
        "`verify` finds files that were changed, `audit` measures losses and statistics of all files again, and",
        "`regenerate` makes one stimulus again and says how equal it is; without an id it makes all of them.",
        "",
        *(["FOLDER has the images and weights that are not in this archive.", ""] if held.left_out else []),
        "## Methods",
        "",
        methods,
        "",
        "## Inputs",
        "",
        *(f"- `{name}`" for name in held.inputs),
        *(f"- not in this archive: {html.escape(reason, quote=False)}" for reason in held.left_out),
        *(
            f"- weights `{name}` (sha256 {digest}) are published; `stimkit weights fetch {name}` downloads them"
            for name, digest in published.items()
        ),
        *([] if held.inputs or held.left_out or published else ["None: they come with packages that stimkit needs."]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _contents(plan: Plan, held: Held) -> Iterator[str]:
    yield f"- `stimuli/`: the stimuli, {_files(plan)}; the end of each name is the stimulus id"
    yield "- `manifest.csv`, `losses.csv`, `manifest.nc`: parameters, losses and statistics of every stimulus"
    yield "- `data_dictionary.csv`: what every column of every table is"
    if held.is_audited:
        yield "- `report.html`, `audit/`: the audit of the set, to look at and as tables"
    for name in held.trials:
        yield f"- `trials/{name}/`: a trial design and its lists"
    if held.answers:
        yield "- `answers/`: answers of participants, as a Psych-DS dataset"
    yield "- `protocol.toml`: the request; `protocol.lock.json`: with every default, seed and digest resolved"
    yield "- `records/`, `traces/`, `environment.json`: what the tables are made from, and where it was computed"
    if held.shortened:
        yield "- `journal.csv`: digests of what was committed; it began anew when paths were taken out of this copy"
    if held.inputs:
        yield "- `inputs/`: content and style images and weights, found by their digests"
    yield "- `LICENCE`, `CITATION.cff`: who made it, and what may be done with it"
    yield "- `SHA256SUMS`: check with `sha256sum -c SHA256SUMS`"


def _inputs(held: Held) -> str:
    return " --inputs FOLDER" if held.left_out else ""


def _files(plan: Plan) -> str:
    words = {"srgb": "sRGB", "linear": "linear light"}
    kinds = dict.fromkeys(cell.settings for cell in plan.cells)
    return ", ".join(
        dict.fromkeys(f"{one.bits}-bit PNG ({words.get(one.transfer, f'gamma {one.gamma:g}')})" for one in kinds)
    )


def licence_text(protocol: Protocol, inputs: Mapping[str, str]) -> str:
    """LICENCE: that of the stimuli, and those of the inputs by the names of their files."""
    publication = protocol.publication
    who = ", ".join(f"{one.given} {one.family}" for one in publication.authors) or "their authors"
    if publication.licence:
        lines = [
            f"The stimuli, tables and texts of this set by {who} are licensed under {publication.licence}.",
            f"SPDX-License-Identifier: {publication.licence}",
            f"The text of the licence: https://spdx.org/licenses/{publication.licence}.html",
        ]
    else:
        lines = [f"The protocol of this set names no licence: ask {who} before you use it."]
    if inputs:
        lines += ["", "Inputs have licences of their own:", "", *(f"{name}: {one}" for name, one in inputs.items())]
    return "\n".join(lines) + "\n"


def citation(protocol: Protocol) -> str:
    """CITATION.cff, in the subset of YAML that JSON is."""
    publication = protocol.publication
    values: dict[str, Any] = {
        "cff-version": CFF_VERSION,
        "message": "If you use these stimuli, please cite them as below.",
        "type": "dataset",
        "title": publication.title or protocol.name,
        "authors": [_author(one) for one in publication.authors] or [{"name": f"The authors of {protocol.name}"}],
    }
    given = {
        "abstract": protocol.description, "license": publication.licence, "doi": publication.doi,
        "url": publication.url, "keywords": list(publication.keywords),
    }  # fmt: skip
    values |= {key: value for key, value in given.items() if value}
    values["references"] = [
        _METHOD,
        {"type": "software", "title": "stimkit", "version": __version__, "authors": [{"name": "The stimkit authors"}]},
    ]
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _author(author: Author) -> dict[str, str]:
    values = {"family-names": author.family, "given-names": author.given, "affiliation": author.affiliation}
    if author.orcid:
        values["orcid"] = f"https://orcid.org/{author.orcid}"
    return {key: value for key, value in values.items() if value}

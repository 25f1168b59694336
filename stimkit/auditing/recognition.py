"""What the classifier of a run takes its stimuli and their images for, against the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from stimkit.auditing.findings import Finding
from stimkit.errors import ImageError, WeightsError
from stimkit.images.pixels import FloatImage, resize, to_float
from stimkit.planning.cells import Plan
from stimkit.planning.inputs import InputSource
from stimkit.planning.recognition import cue_digest
from stimkit.protocol.rules import IMAGE_FACTORS
from stimkit.records.schema import Record
from stimkit.stimuli.recognition import Recognizer

TOLERANCE = 1e-3  # of a probability that is computed again, on another device or by another version of torch
RECOGNITION_COLUMNS = ("kind", "name", "category", "recognized_as", "rank", "probability")


@dataclass(frozen=True)
class Cues:
    """How often stimuli of two cues are taken for one of them."""

    content: int
    """Stimuli that are taken for what their content is."""
    style: int
    others: int

    @property
    def shape_bias(self) -> float | None:
        """Decisions for the content / decisions for content or style (Geirhos et al. 2019); None without any."""
        decided = self.content + self.style
        return self.content / decided if decided else None


class RecognitionCheck:
    """Recognizes the stimuli of a run and its images again; `problems` says why it cannot."""

    def __init__(self, plan: Plan, inputs: InputSource, device: torch.device, *, again: bool = True) -> None:
        self._plan, self._inputs = plan, inputs
        self._recognizer: Recognizer | None = None
        self.problems: list[Finding] = []
        if again and plan.recognition is not None:
            try:
                self._recognizer = Recognizer(plan, device)
            except WeightsError as error:
                self.problems.append(Finding("recognition_not_checked", "warning", "", str(error)))

    def check(self, record: Record, image: FloatImage) -> Iterator[Finding]:
        """Compare what a record says with what the classifier takes its file for, (3, height, width)."""
        cell = self._plan.by_id[record.stimulus_id]
        if self._recognizer is None or record.recognition_sha256 != cue_digest(self._plan, cell):
            return
        again = self._recognizer.recognize(cell, image)
        known = {kind: getattr(record, f"{kind}_probability") for kind in IMAGE_FACTORS}
        for kind, recorded in known.items():
            found = again.probabilities.get(kind)
            if (recorded is None) != (found is None) or abs((recorded or 0.0) - (found or 0.0)) > TOLERANCE:
                detail = f"the probability of its {kind} is {_brief(found)}, recorded is {_brief(recorded)}"
                yield Finding("recognition_mismatch", "error", record.stimulus_id, detail)
        if record.recognized_as != again.recognized_as and record.recognized_as not in self._near(image):
            detail = f"it is recognized as {again.recognized_as}, recorded is {record.recognized_as}"
            yield Finding("recognition_mismatch", "error", record.stimulus_id, detail)

    def _near(self, image: FloatImage) -> set[str]:
        """Categories that are as good as the one that is recognized."""
        assert self._recognizer is not None
        decision = self._recognizer.decide(image)
        best = decision.probability(decision.recognized)
        return {one for one in decision.categories if decision.probability(one) > best - TOLERANCE}

    def look_at_inputs(self) -> pd.DataFrame:
        """What the images of the protocol are taken for, in the size of the stimuli, where their category is known."""
        rows: list[dict[str, Any]] = []
        asked = self._plan.protocol.recognition
        for one in self._plan.inputs if self._recognizer and asked else ():
            name = getattr(asked, one.kind, "")
            category = self._plan.protocol.images.attribute(one.kind, one.name, name) if name else ""
            if not (category and self._recognizer):
                continue
            settings = self._plan.cells[0].settings
            try:
                pixels = self._inputs.image(one.kind, one.name)
            except ImageError:  # which the check of losses says
                continue
            decision = self._recognizer.decide(to_float(resize(pixels, settings.size, settings.fit)))
            values = (one.kind, one.name, category, decision.recognized, decision.rank(category))
            rows.append(dict(zip(RECOGNITION_COLUMNS, (*values, decision.probability(category)), strict=True)))
        return pd.DataFrame(rows, columns=list(RECOGNITION_COLUMNS))


def find_unrecognized(inputs: pd.DataFrame, plan: Plan) -> Iterator[Finding]:
    """Images that the classifier does not recognize themselves, so that no stimulus of theirs can be judged by it."""
    categories = len(plan.recognition.categories.classes) if plan.recognition else 0
    limit = max(1, categories // 200)  # the usual top 5 of ImageNet's 1,000; the first of a few
    for row in inputs.to_dict("records"):
        if row["rank"] > limit:
            words = "{kind} {name} is taken for {recognized_as}; {category} is on rank {rank}".format_map(row)
            yield Finding("not_recognized", "notice", "", words, float(row["rank"]), float(limit))


def count_cues(records: Sequence[Record], plan: Plan) -> Cues | None:
    """Decisions about accepted stimuli whose content and style are of different categories; None without any."""
    asked = plan.protocol.recognition
    if asked is None or not (asked.content and asked.style):
        return None
    pairs = [
        (record.attributes.get(asked.content), record.attributes.get(asked.style), record.recognized_as)
        for record in records
        if record.status == "accepted" and record.role == "main" and record.recognized_as
    ]
    pairs = [(content, style, seen) for content, style, seen in pairs if content and style and content != style]
    taken = [sum(pair[index] == pair[2] for pair in pairs) for index in (0, 1)]
    return Cues(taken[0], taken[1], len(pairs) - sum(taken)) if pairs else None


def _brief(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"

"""The resolved design: cells, the inputs and weights they need, and the plan that holds them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from stimkit.documents.notebooks import html_of, html_rows
from stimkit.errors import Problem, ProtocolError
from stimkit.network.layers import LAYERS, NetworkName
from stimkit.protocol.labels import label
from stimkit.protocol.mixes import AnyMixture
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.rules import DEFAULT_SET
from stimkit.protocol.settings import Settings, Source
from stimkit.protocol.style_maps import StyleRegion
from stimkit.recognition.categories import Categories

LayerWeights = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Input:
    """A content or style image of the plan, and what identifies it."""

    kind: Literal["content", "style", "mask"]
    name: str
    spec: str
    pixel_sha256: str
    file_sha256: str | None
    height: int
    width: int
    problem: str | None = None  # why it cannot be used; its digests are placeholders then


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """The weights of a plan, and what identifies them."""

    spec: str
    digest: str
    preprocessing: str
    description: str
    unit_mean_pooling: str | None = None
    """The pooling for which its responses have unit means already, "none" for none; None where that is not known."""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class RecognitionSource:
    """The classifier that stimuli of a plan are recognized with, and the categories that they are recognized as."""

    spec: str
    digest: str
    """Of classifier and categories."""
    network: NetworkName
    categories: Categories
    problem: str | None = None


_OWN = "(content)"


def own_style(content: str) -> str:
    """Name of a content image that is used as a style image."""
    return content + _OWN


@dataclass(frozen=True, slots=True)
class Cell:
    """One stimulus to make: a combination of levels, with everything that determines its pixels."""

    id: str
    levels: Mapping[str, str]
    """Label of the level of every factor, in the order of the protocol."""
    attributes: Mapping[str, str]
    """What follows from the levels: attributes of the images, such as their category, and marks."""
    content: str | None
    """Name of its content: an image, or a level of a mix."""
    style: str | None
    mask: str | None
    content_layers: LayerWeights
    style_layers: LayerWeights
    alpha: float
    beta: float
    replicate: int
    seed: int
    """Of the initial noise of this attempt."""
    settings: Settings
    role: str = "main"
    """main, or one of the controls of `stimkit.planning.controls`."""
    control_of: tuple[str, ...] = ()
    """Ids of the cells that this one is a control of."""
    content_mix: AnyMixture | None = None
    """Of which images its content is made, where it is not an image itself."""
    style_mix: AnyMixture | None = None
    style_map: tuple[StyleRegion, ...] = ()
    """Styles by mask, where its style is a map of several."""
    compared: tuple[tuple[str, str], ...] = ()
    """Images, by kind and name, that the stimulus is compared with beside its own: those of the series it is in."""
    attempt: int = 1
    """How often the cell was tried: a cell that is not accepted may be tried again from other noise."""

    def at_attempt(self, attempt: int) -> Cell:
        """Return this cell at a later attempt, with the seed that follows from those before."""
        seed = self.seed
        for number in range(self.attempt + 1, attempt + 1):
            seed = int(hashlib.sha256(f"{seed};{number}".encode()).hexdigest()[:12], 16)
        return replace(self, attempt=attempt, seed=seed)

    def attempts(self, count: int) -> list[Cell]:
        """Return this cell at its next attempts, from this one on, each with the seed that follows from the last."""
        found = [self]
        while len(found) < count:
            found.append(found[-1].at_attempt(found[-1].attempt + 1))
        return found

    def as_recorded(self, attempt: int, alpha: float) -> Cell:
        """Return this cell as its record says that it was made: at which attempt and, if titrated, which ratio."""
        cell = self.at_attempt(attempt)
        return cell if self.settings.titrate == "none" else replace(cell, alpha=alpha)

    def mixture(self, kind: str) -> AnyMixture | None:
        """What its content or style is a mixture of; None for an image."""
        return self.content_mix if kind == "content" else self.style_mix

    def images(self, kind: str) -> tuple[str, ...]:
        """Names of the content, style or mask images that it is made from."""
        if self.style_map and kind != "content":
            return tuple(dict.fromkeys(name for region in self.in_regions() for name in region.images(kind)))
        mixture = None if kind == "mask" else self.mixture(kind)
        name = getattr(self, kind)
        return mixture.parts if mixture else () if name is None else (name,)

    def in_regions(self) -> tuple[Cell, ...]:
        """This cell with the mask and the style of each region of its style map; itself where it has none."""
        regions = (
            replace(self, style=style, style_mix=mixture, mask=mask, style_map=())
            for mask, style, mixture in self.style_map
        )
        return tuple(regions) or (self,)

    def with_image(self, kind: str, name: str) -> Cell:
        """This cell with another image as its content or style."""
        if kind == "content":
            return replace(self, content=name, content_mix=None)
        return replace(self, style=name, style_mix=None, style_map=())

    @property
    def ratio(self) -> float:
        """alpha / beta; infinite for a content-only cell."""
        return math.inf if self.beta == 0 else self.alpha / self.beta

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers whose feature maps the cell needs, in the order of the network."""
        names = {name for name, _ in (*self.content_layers, *self.style_layers)}
        return tuple(sorted(names, key=lambda name: LAYERS[name].position))

    @property
    def filename(self) -> str:
        """Name of the stimulus: readable labels, then the id that makes it unique."""
        labels = [
            label for factor, label in self.levels.items() if factor != "replicate" and label not in ("", DEFAULT_SET)
        ]
        role = [] if self.role == "main" else [self.role.replace("_", "-")]
        return "_".join([*role, *labels, f"r{self.replicate}", self.id]) + ".png"


@dataclass(frozen=True)
class Plan:
    """All cells of a protocol, in the order of its factors."""

    protocol: Protocol
    inputs: tuple[Input, ...]
    weights: Mapping[Source, WeightsSource]
    """By what the settings say: weights, preprocessing and network."""
    cells: tuple[Cell, ...] = field(repr=False)
    excluded: int = 0
    """Combinations of levels that the conditions of the design leave out."""
    not_sampled: int = 0
    """Combinations that are left, but not in the sample."""
    recognition: RecognitionSource | None = None

    def __repr__(self) -> str:
        crossed = " × ".join(f"{name} ({len(levels)})" for name, levels in self.factors.items())
        missing = f"; {len(self.missing)} missing" if self.missing else ""
        return f"<Plan {self.protocol.name}: {len(self.cells):,} cells, {crossed}{missing}>"

    def _repr_html_(self) -> str:
        rows = [(name, len(levels), ", ".join(levels[:8])) for name, levels in self.factors.items()]
        problems = [(problem.key, problem.message) for problem in self.missing]
        further = html_rows(("missing", ""), problems) if problems else ""
        return html_of(repr(self)[1:-1], html_rows(("factor", "number", "levels"), rows), further)

    @cached_property
    def by_id(self) -> Mapping[str, Cell]:
        return {cell.id: cell for cell in self.cells}

    def input(self, kind: str, name: str) -> Input:
        """Return the content or style image of that name."""
        if kind == "style" and name.endswith(_OWN):
            kind, name = "content", name.removesuffix(_OWN)
        return self._by_name[kind, name]

    @cached_property
    def _by_name(self) -> Mapping[tuple[str, str], Input]:
        return {(image.kind, image.name): image for image in self.inputs}

    @cached_property
    def main_cells(self) -> tuple[Cell, ...]:
        """The cells of the design itself, without controls."""
        return tuple(cell for cell in self.cells if cell.role == "main")

    @cached_property
    def factors(self) -> Mapping[str, tuple[str, ...]]:
        """The labels of those levels of every factor that the design uses, in the order of the protocol."""
        used = _values(cell.levels for cell in self.main_cells)
        levels = {factor: map(label, self.protocol.levels(factor)) for factor in used}
        return {
            factor: tuple(level for level in dict.fromkeys(labels) if level in used[factor])
            for factor, labels in levels.items()
        }

    @cached_property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """The values of what follows from the factors: attributes of images, and marks."""
        return {name: tuple(values) for name, values in _values(cell.attributes for cell in self.main_cells).items()}

    @property
    def missing(self) -> tuple[Problem, ...]:
        """Inputs and weights that cannot be used; cell ids are provisional while there are any."""
        protocol = self.protocol
        images = [
            Problem(f"images.{one.kind}.{one.name}", one.problem, protocol.line("images", one.kind, one.name))
            for one in self.inputs
            if one.problem
        ]
        used = {cell.settings.source for cell in self.cells}
        networks = [
            Problem(
                "model.weights",
                source.problem,
                protocol.line("model", "weights") or protocol.line("factors", "weights"),
            )
            for key, source in self.weights.items()
            if source.problem and (key in used or not self.cells)
        ]
        classifier = self.recognition
        lacking = (
            [Problem("recognition.weights", classifier.problem, protocol.line("recognition", "weights"))]
            if classifier and classifier.problem
            else []
        )
        return (*images, *networks, *lacking)

    def check_complete(self) -> None:
        """Raise `ProtocolError` with everything that is missing, if anything is."""
        if self.missing:
            raise ProtocolError(self.missing, self.protocol.file)


def _values(rows: Iterable[Mapping[str, str]]) -> dict[str, dict[str, None]]:
    """Distinct values of every key, in the order in which they appear."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, {})[value] = None
    return found

"""Mixes: levels that lie between images, in a series from one to the next, or at the mean of several."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, WithJsonSchema

from stimkit.documents.messages import BrokenRule, KeyPath, as_list, as_table
from stimkit.documents.schemas import Document
from stimkit.errors import did_you_mean
from stimkit.images.reading import is_hidden
from stimkit.protocol.labels import label
from stimkit.protocol.settings import Frozen

KEY_OF = {"style": "mixes", "content": "content_mixes"}
"""Where the mixes of content and of style images stand in `[images]`."""
MAX_MEAN = 1000  # images of which the mean is taken
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_PATTERN = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
MixPath = Literal["linear", "geodesic"]


class Mix(Frozen):
    """A series of levels that go from image to image, or one level that is the mean of images."""

    of: Annotated[tuple[str, ...], Field(description="images that the series goes through, in their order")] = ()
    steps: Annotated[int | None, Field(ge=2, le=1000, description="levels of the series, its ends included")] = None
    closed: Annotated[bool, Field(description="whether the series returns from the last image to the first")] = False
    path: Annotated[
        MixPath,
        Field(description="linear: weighted means of Gram matrices; geodesic: of mean and covariance of the features"),
    ] = "linear"
    spacing: Annotated[
        Literal["position", "distance"],
        Field(description="what is equal between neighbours: position, or the distance of their Gram matrices"),
    ] = "position"
    mean_of: Annotated[
        tuple[str, ...],
        WithJsonSchema({**_PATTERN, "description": "images, or a pattern of files such as monet/*.jpg"}),
    ] = ()


@dataclass(frozen=True, slots=True)
class Mixture:
    """Images, in the order of their names, and their weights, of sum 1."""

    parts: tuple[str, ...]
    weights: tuple[float, ...]
    path: MixPath = "linear"


@dataclass(frozen=True, slots=True)
class Spaced:
    """A step of a series whose neighbours are equally distant: what its weights are follows from the images."""

    parts: tuple[str, ...]
    number: int
    """From 0."""
    steps: int
    closed: bool
    path: MixPath


AnyMixture = Mixture | Spaced


def mixture_of(weights: Mapping[str, float], path: MixPath) -> Mixture:
    """The mixture of images with these weights, whatever the order in which they are given."""
    names = tuple(sorted(weights))
    return Mixture(names, tuple(weights[name] for name in names), path)


def write_mixture(mixture: AnyMixture | None) -> str:
    """A mixture as it stands in tables: `swirl=0.75;mosaic=0.25`; empty for an image."""
    if not isinstance(mixture, Mixture):
        return ""
    return ";".join(f"{name}={weight:.9g}" for name, weight in zip(mixture.parts, mixture.weights, strict=True))


class Step(NamedTuple):
    """A level of a series."""

    level: str
    """The name of its image, or of the series with the number of the step."""
    position: str
    """From 0 to 1 along the series; a closed one ends before 1."""
    mixture: AnyMixture | None
    """None for an image."""


def steps_of(mixes: Mapping[str, Mix]) -> dict[str, list[Step]]:
    """The levels of each mix in their order.

    Where a series passes through an image, the level is that image; what an earlier mix has as well is called as there.
    """
    known: dict[AnyMixture, str] = {}
    found: dict[str, list[Step]] = {}
    for name, mix in mixes.items():
        own = _steps(name, mix)
        for step in own:
            if step.mixture is not None:
                known.setdefault(step.mixture, step.level)
        found[name] = [step._replace(level=known[step.mixture]) if step.mixture else step for step in own]
    return found


def _steps(name: str, mix: Mix) -> list[Step]:
    if mix.mean_of:
        return [Step(name, "", mixture_of(dict.fromkeys(mix.mean_of, 1 / len(mix.mean_of)), mix.path))]
    assert mix.steps is not None
    segments = len(mix.of) if mix.closed else len(mix.of) - 1
    found = []
    for number in range(mix.steps):
        share = Fraction(number, mix.steps if mix.closed else mix.steps - 1)
        mixture = _at(mix, number, share * segments)
        level = f"{name}-{number + 1}" if isinstance(mixture, AnyMixture) else mixture
        found.append(Step(level, label(float(share)), mixture if isinstance(mixture, AnyMixture) else None))
    return found


def _at(mix: Mix, number: int, place: Fraction) -> AnyMixture | str:
    """What is at a step of a series, which is a place among its images: an image by its name, or a mixture."""
    assert mix.steps is not None
    straight = mix.path == "linear" and len(mix.of) == 2  # where equal positions are equally distant
    first, between = divmod(place, 1)
    if mix.spacing == "distance" and not straight:
        is_end = number == 0 or (number == mix.steps - 1 and not mix.closed)
        return mix.of[first] if is_end else Spaced(mix.of, number, mix.steps, mix.closed, mix.path)
    if not between:
        return mix.of[first % len(mix.of)]
    second = mix.of[(first + 1) % len(mix.of)]
    return mixture_of({mix.of[first]: float(1 - between), second: float(between)}, mix.path)


# --- mixes of a document ---------------------------------------------------------------------------------------


def write_mixes(document: Document, base: Path) -> Document:
    """Write out what a document says of mixes in short.

    Patterns of files become images, a mix among the levels of a factor becomes the levels of its series, its first and
    last step in a condition or table become their images, and each level gets an attribute that is named after the mix
    and says its position. A factor without levels has those of all mixes, then the images that they do not go through.
    """
    images = as_table(document, "images")
    written = dict(document)
    for kind, key in KEY_OF.items():
        if not as_table(images, key):
            continue
        shown = list(as_table(images, kind))
        images = _with_means(images, kind, key, base / str(images.get("root", ".")))
        written["images"] = images
        series = steps_of(sound_mixes(written, kind))
        attributes = {one: dict(values) for one, values in as_table(images, "attributes", kind).items()}
        for name, step in ((name, step) for name, steps in series.items() for step in steps if step.position):
            attributes.setdefault(step.level, {})[name] = step.position
        images = {**images, "attributes": {**as_table(images, "attributes"), kind: attributes}}
        written = _with_levels({**written, "images": images}, kind, series, shown)
    return written


def _with_means(images: Document, kind: str, key: str, root: Path) -> Document:
    """Images with the files of patterns among them; a pattern without files stays, which `check_mixes` tells."""
    mixes, known = dict(images[key]), as_table(images, kind)
    for name, mix in mixes.items():
        pattern = mix.get("mean_of") if isinstance(mix, dict) else None
        if isinstance(pattern, str) and not _objection_to_pattern(pattern):
            found = [path for path in sorted(root.glob(pattern)) if path.is_file() and not is_hidden(path, root)]
            stems = [re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-") for path in found]
            files = {f"{name}-{one}": path.relative_to(root).as_posix() for one, path in zip(stems, found, strict=True)}
            if files and len(files) == len(found) <= MAX_MEAN:
                known = {**known, **files}
                mixes[name] = {**mix, "mean_of": list(files)}
    return {**images, kind: known, key: mixes} if known else {**images, key: mixes}


def _objection_to_pattern(pattern: str) -> str:
    wrong = pattern.startswith("/") or ".." in pattern.split("/") or "**" in pattern or not pattern
    return "a pattern is relative to images.root, does not leave it, and has no **" if wrong else ""


def _with_levels(document: Document, kind: str, series: Mapping[str, list[Step]], shown: list[str]) -> Document:
    """A document whose factor, conditions and table name the levels of mixes by what they are."""
    levels = {name: [step.level for step in steps] for name, steps in series.items()}
    names = {f"{name}-{number}": level for name, every in levels.items() for number, level in enumerate(every, 1)}
    every = dict.fromkeys(level for one in levels.values() for level in one)
    factors = as_table(document, "factors")
    given = factors.get(kind)
    written = dict(document)
    if given in (None, "*", ["*"]):
        written["factors"] = {kind: [], **factors} | {kind: list(dict.fromkeys((*every, *shown)))}
    elif isinstance(given, list):
        each = [levels.get(one, [names.get(one, one)]) if isinstance(one, str) else [one] for one in given]
        written["factors"] = {**factors, kind: [level for one in each for level in one]}

    def called(value: Any) -> Any:
        return [called(one) for one in value] if isinstance(value, list) else names.get(str(value), value)

    def renamed(row: Any) -> Any:
        return {**row, kind: called(row[kind])} if isinstance(row, dict) and kind in row else row

    for section in ("include", "exclude"):
        if isinstance(document.get(section), list):
            written[section] = [renamed(row) for row in document[section]]
    design = as_table(document, "design")
    if isinstance(design.get("table"), list):
        written["design"] = {**design, "table": [renamed(row) for row in design["table"]]}
        if any(kind in as_table(row) for row in design["table"]):  # whose rows say what the levels are
            written["factors"] = factors
    return written


def sound_mixes(document: Mapping[str, Any], kind: str) -> dict[str, Mix]:
    """The mixes of a kind of images that have the form of one and break no rule."""
    mixes = as_table(document, "images", KEY_OF[kind])
    return {name: _mix(value) for name, value in mixes.items() if not any(_objections(name, value, document, kind))}


def image_levels(document: Mapping[str, Any], kind: str) -> list[str]:
    """What levels of content, style or mask can be: images, and levels of mixes."""
    images = as_table(document, "images", kind)
    series = steps_of(sound_mixes(document, kind)) if kind in KEY_OF else {}
    return list(dict.fromkeys((*images, *(step.level for steps in series.values() for step in steps))))


def check_mixes(document: Mapping[str, Any]) -> Iterator[BrokenRule]:
    """Find what is wrong with the mixes of an expanded document."""
    for kind, key in KEY_OF.items():
        for name, value in as_table(document, "images", key).items():
            for path, message in _objections(name, value, document, kind):
                if path != ("form",):  # which the form of the protocol says
                    yield ("images", key, name, *path), message


def _mix(value: Any) -> Mix:
    lists = {key: tuple(one) if isinstance(one, list) else one for key, one in as_table(value).items()}
    return Mix.model_validate(lists)


def _objections(name: str, value: Any, document: Mapping[str, Any], kind: str) -> Iterator[tuple[KeyPath, str]]:
    images = as_table(document, "images", kind)
    if isinstance(pattern := as_table(value).get("mean_of"), str):
        why = f"no file matches {pattern}, or more than {MAX_MEAN}, or two would have the same name"
        yield ("mean_of",), _objection_to_pattern(pattern) or why
        return
    try:
        mix = _mix(value)
    except ValidationError:
        yield ("form",), ""
        return
    if not _NAME.fullmatch(name):
        yield (), "a mix has a name of letters and digits, since its levels have hyphens and a column its name"
        return
    key = "mean_of" if mix.mean_of else "of"
    yield from _objections_to_images(key, as_list(as_table(value).get(key)), document, kind)
    if mix.mean_of:
        further = mix.model_dump(exclude_defaults=True, exclude={"mean_of"})
        yield from (((one,), "is of a series; a mean of images has none") for one in further)
    else:
        yield from _objections_to_series(mix, kind)
    levels = [name, *(f"{name}-{number}" for number in range(1, (mix.steps or 0) + 1))]
    if clash := next((level for level in levels if level in images), None):
        yield (), f'"{clash}" is an image and would be a level of this mix; give another name'


def _objections_to_images(
    key: str, names: list[Any], document: Mapping[str, Any], kind: str
) -> Iterator[tuple[KeyPath, str]]:
    images = as_table(document, "images", kind)
    mixes = {*as_table(document, "images", KEY_OF[kind])}
    if len(names) < 2:
        yield (key,), "a mix is of two images at least"
    for index, name in enumerate(names):
        if name in mixes or (name not in images and str(name).rpartition("-")[0] in mixes):
            yield (key, index), f'"{name}" is a mix; mixes are of images'
        elif name not in images:
            yield (key, index), f'"{name}" is not in images.{kind}{did_you_mean(str(name), images)}'
        elif name in names[:index]:
            hint = "; a series that returns is closed = true" if key == "of" else ""
            yield (key, index), f'"{name}" is named twice{hint}'


def _objections_to_series(mix: Mix, kind: str) -> Iterator[tuple[KeyPath, str]]:
    least = len(mix.of) + (1 if mix.closed else 0)
    if mix.steps is None:
        yield ("steps",), "is needed: how many levels the series has, its images included"
    elif mix.steps < max(least, 3):
        yield ("steps",), f"must be {max(least, 3)} at least, so that a level lies between images"
    if mix.closed and len(mix.of) == 2:
        yield ("closed",), "a closed series goes through three images at least; of two, it would be the same way back"
    if kind == "content" and mix.path == "geodesic":
        yield ("path",), "of content images is linear: feature maps have a place for every value"
    if kind == "content" and mix.spacing == "distance":
        yield ("spacing",), 'of content images is "position"'

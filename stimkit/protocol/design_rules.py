"""What can be wrong with a design: rules that relate factors, attributes, conditions and samples of a document."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from stimkit.columns import BASIC, CONFOUNDS, RecordColumns
from stimkit.documents.cells import cell_objection
from stimkit.documents.messages import BrokenRule, as_list, as_table
from stimkit.errors import did_you_mean
from stimkit.protocol.labels import label, label_attribute, label_level
from stimkit.protocol.mixes import image_levels
from stimkit.protocol.rules import IMAGE_FACTORS, image_attributes, layer_sets
from stimkit.protocol.settings import SECTION_OF
from stimkit.protocol.style_maps import free_masks, style_levels

RESERVED = (
    "stimulus", "stage", "channel", "trace_step", "content_layer", "style_layer", "channel_mean", "content_weight",
    "style_weight", "content_image", "style_image",
    "content_loss_by_layer", "style_loss_by_layer", "clipped", "still_falling", "problem",
)  # fmt: skip
BEGINNINGS = ("loss_", "trace_", "content_distance", "style_distance")
"""Names of the manifest's dimensions and of an audit's columns, beside those of records."""


def check_design(document: Mapping[str, Any]) -> Iterator[BrokenRule]:
    """Find what is wrong with the design of an expanded document."""
    known = _levels(document)
    attributes = image_attributes(document)
    marks = as_table(document, "design", "marks")
    yield from _check_names({**attributes, **marks}, known)
    yield from _check_attributes(document)
    names = {**known, **attributes, **{mark: [True, False] for mark in marks}}
    for mark, pair in marks.items():
        yield from _check_known(("design", "marks", mark), as_list(pair), {**known, **attributes})
    yield from _check_zip(document, known)
    yield from _check_table(document)
    for section in ("include", "exclude"):
        for index, condition in enumerate(as_list(document.get(section))):
            yield from _check_condition((section, index), as_table(condition), names, known)
    sample = as_table(document, "sample")
    yield from _check_known(("sample", "per"), as_list(sample.get("per")), names)
    kinds = {
        name: kind
        for kind in IMAGE_FACTORS
        for values in as_table(document, "images", "attributes", kind).values()
        for name in as_table(values)
    }
    yield from _check_sample(sample, known, kinds, marks)


def _levels(document: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The levels of all factors of a document, implied ones included."""
    factors = as_table(document, "factors")
    known: dict[str, list[Any]] = {}
    known["mask"] = as_list(factors.get("mask")) or free_masks(document)
    for kind in IMAGE_FACTORS:
        images = style_levels(document) if kind == "style" else image_levels(document, kind)
        sets = layer_sets(document, kind)
        known[kind] = as_list(factors.get(kind)) or images
        known[f"{kind}_layers"] = as_list(factors.get(f"{kind}_layers")) or sets
    known |= {name: as_list(levels) for name, levels in factors.items() if name not in known}
    count = factors.get("replicate", 1)
    known["replicate"] = list(range(1, count + 1)) if isinstance(count, int) and 0 < count <= 100_000 else []
    return known


def _check_names(named: Iterable[str], factors: Iterable[str]) -> Iterator[BrokenRule]:
    reserved = {*factors, *RecordColumns.model_fields, *SECTION_OF, *BASIC, *CONFOUNDS, *RESERVED}
    for name in named:
        if name in reserved or not name.isidentifier() or name.startswith(BEGINNINGS):
            yield ("images",), f'an attribute or mark cannot be called "{name}": the manifest has such a column'


def _check_attributes(document: Mapping[str, Any]) -> Iterator[BrokenRule]:
    """Attributes must belong to declared images, and each name to one kind."""
    names: dict[str, set[str]] = {}
    for kind in IMAGE_FACTORS:
        images = image_levels(document, kind)
        for image, values in as_table(document, "images", "attributes", kind).items():
            names.setdefault(kind, set()).update(as_table(values))
            if image not in images:
                hint = did_you_mean(image, images)
                yield ("images", "attributes", kind, image), f'"{image}" is not in images.{kind}{hint}'
            for name, value in as_table(values).items():
                if isinstance(value, str) and (objection := cell_objection(value)):
                    yield ("images", "attributes", kind, image), f"{name} {objection}"
    for name in sorted(names.get("content", set()) & names.get("style", set())):
        yield ("images",), f'content and style images both have "{name}"; give them two names'


def _check_known(path: tuple[str | int, ...], names: Iterable[Any], known: Mapping[str, Any]) -> Iterator[BrokenRule]:
    for index, name in enumerate(names):
        if isinstance(name, str) and name not in known:
            yield (*path, index), f'"{name}" is not a factor or attribute{did_you_mean(name, known)}'


def _check_zip(document: Mapping[str, Any], known: Mapping[str, list[Any]]) -> Iterator[BrokenRule]:
    tables = [as_table(row) for row in as_list(as_table(document, "design").get("table"))]
    taken = {name for row in tables for name in row}
    for index, names in enumerate(as_list(as_table(document, "design").get("zip"))):
        path = ("design", "zip", index)
        yield from _check_known(path, as_list(names), known)
        factors = [name for name in as_list(names) if isinstance(name, str) and name in known]
        counts = {name: len(known[name]) for name in factors}
        if len(set(counts.values())) > 1:
            words = ", ".join(f"{name} has {count}" for name, count in counts.items())
            yield path, f"linked factors need equally many levels: {words}"
        for name in factors:
            if name in taken or factors.count(name) > 1:
                yield path, f'"{name}" is linked twice, or is a column of design.table'
        taken |= set(factors)


def _check_table(document: Mapping[str, Any]) -> Iterator[BrokenRule]:
    rows = [as_table(row) for row in as_list(as_table(document, "design").get("table"))]
    for index, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            yield ("design", "table"), f"row {index + 1} has other columns than the first"
            return
    seen: dict[tuple[str, ...], int] = {}
    for index, row in enumerate(rows):
        before = seen.setdefault(tuple(label(level) for level in row.values()), index)
        if before != index:
            yield ("design", "table"), f"row {index + 1} is the same as row {before + 1}"
            return
    if rows and "replicate" in rows[0]:
        yield ("design", "table"), "replicate cannot be a column: give its number in [factors]"


def _check_condition(
    path: tuple[str | int, ...],
    condition: Mapping[str, Any],
    known: Mapping[str, list[Any]],
    factors: Collection[str],
) -> Iterator[BrokenRule]:
    def text(name: str, value: Any) -> str:
        return label_level(name, value) if name in factors else label_attribute(value)

    if not condition:
        yield path, "does not name a factor"
    for name, wanted in condition.items():
        if name not in known:
            yield (*path, name), f'"{name}" is not a factor or attribute{did_you_mean(name, known)}'
            continue
        texts = dict.fromkeys(text(name, level) for level in known[name])
        for value in wanted if isinstance(wanted, list) else [wanted]:
            if (given := text(name, value)) not in texts:
                yield (*path, name), f'"{given}" is not a level of {name}{did_you_mean(given, texts)}'


def _check_sample(
    sample: Mapping[str, Any], known: Mapping[str, Any], kinds: Mapping[str, str], marks: Mapping[str, Any]
) -> Iterator[BrokenRule]:
    balance = as_list(sample.get("balance")) or list(IMAGE_FACTORS)
    if not sample:
        return
    yield from _check_known(("sample", "balance"), balance, known)

    def is_sampled(name: Any) -> bool:
        if name in marks:
            return all(is_sampled(part) for part in as_list(marks[name]))
        return kinds.get(name, name) in balance

    for index, name in enumerate(as_list(sample.get("per"))):
        if (name in known or name in kinds or name in marks) and not is_sampled(name):
            yield ("sample", "per", index), f'"{name}" does not follow from what is sampled: {", ".join(balance)}'

"""The classifier of a plan: identified by its digest, with the categories that images are recognized as."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from stimkit.errors import Problem, ProtocolError, UsageError, WeightsError
from stimkit.network.classifiers import Classifier
from stimkit.network.sources import has_a_name, load_classifier
from stimkit.planning.cells import Cell, Plan, RecognitionSource
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.rules import IMAGE_FACTORS
from stimkit.recognition.categories import GEIRHOS, IMAGENET, Categories, load_categories

_NAMED = (IMAGENET, GEIRHOS)


def identify_recognition(protocol: Protocol) -> RecognitionSource | None:
    """The classifier that a protocol asks for, and its categories; None for a protocol without `[recognition]`.

    Raises `ProtocolError` for categories that cannot be read, and images of a category that is not one of them. A
    classifier that is not there is a problem of the plan.
    """
    if protocol.recognition is None:
        return None
    try:
        categories = load_categories(protocol.recognition.categories, protocol.base)
    except UsageError as error:
        raise _wrong(protocol, "recognition.categories", str(error)) from None
    _check_attributes(protocol, categories)
    spec = _model(protocol)["spec"]
    try:
        classifier = load_planned_classifier(protocol)
    except WeightsError as error:
        return RecognitionSource(spec, f"missing:{spec}", "vgg19", categories, str(error))
    try:
        categories.check_classifier(classifier.classes, spec)
    except UsageError as error:
        raise _wrong(protocol, "recognition.categories", str(error)) from None
    digest = recognition_digest(classifier, categories)
    return RecognitionSource(spec, digest, classifier.weights.network, categories)


def load_planned_classifier(protocol: Protocol) -> Classifier:
    """The classifier that a protocol asks for. Raises `WeightsError` where it is not there."""
    return load_classifier(base=protocol.base, **_model(protocol))


def recognition_digest(classifier: Classifier, categories: Categories) -> str:
    """sha256 of what decides what an image is recognized as."""
    classes = {name: list(members) for name, members in categories.classes.items()}
    return hashlib.sha256(f"{classifier.digest};{json.dumps(classes, sort_keys=True)}".encode()).hexdigest()


def categories_of(cell: Cell, protocol: Protocol) -> dict[str, str]:
    """What the content and the style of a cell should be recognized as, by kind, where that is known."""
    asked = protocol.recognition
    named = {kind: getattr(asked, kind) if asked else "" for kind in IMAGE_FACTORS}
    found = {kind: cell.attributes.get(name, "") for kind, name in named.items() if name}
    return {kind: category for kind, category in found.items() if category and getattr(cell, kind) is not None}


def check_cues(plan: Plan) -> None:
    """Raise `ProtocolError` where cells are to be titrated to a balance of cues, and lack one."""
    for cell in plan.main_cells:
        if cell.settings.titrate == "cue_balance" and len(categories_of(cell, plan.protocol)) < len(IMAGE_FACTORS):
            lacking = next(kind for kind in IMAGE_FACTORS if kind not in categories_of(cell, plan.protocol))
            words = (
                f'"cue_balance" needs a category of every image, and the {lacking} {getattr(cell, lacking)} has none'
            )
            raise _wrong(plan.protocol, "synthesis.titrate", words)


def cue_digest(plan: Plan, cell: Cell) -> str:
    """sha256 of what decides what a record says of the recognition of a cell; empty without a classifier."""
    if plan.recognition is None:
        return ""
    named = json.dumps(categories_of(cell, plan.protocol), sort_keys=True)
    return hashlib.sha256(f"{plan.recognition.digest};{named}".encode()).hexdigest()


def write_recognition(source: RecognitionSource | None) -> dict[str, Any] | None:
    """A classifier as the lock of a run has it."""
    if source is None:
        return None
    name, classes = source.categories.name, source.categories.classes
    table = None if name in _NAMED else {category: list(members) for category, members in classes.items()}
    identity = {"spec": source.spec, "sha256": source.digest, "network": source.network}
    return {**identity, "categories": name, "classes": table}


def read_recognition(written: Mapping[str, Any] | None) -> RecognitionSource | None:
    """The classifier that a lock has."""
    if written is None:
        return None
    name, table = written["categories"], written["classes"]
    if table is None:
        if name not in _NAMED:  # a file of this machine says nothing about a run
            raise ValueError(f"the categories {name!r} have no classes")
        categories = load_categories(name)
    else:
        categories = Categories(name, {str(key): tuple(map(int, members)) for key, members in table.items()})
    return RecognitionSource(written["spec"], written["sha256"], written["network"], categories)


def _model(protocol: Protocol) -> dict[str, Any]:
    """What a protocol says of the classifier: its own, or the network that stimuli are made with."""
    asked, model = protocol.recognition, protocol.model
    assert asked is not None
    if not asked.weights:
        return {"spec": model.weights, "preprocessing": model.preprocessing, "network": asked.network or model.network}
    network = asked.network or (model.network if has_a_name(asked.weights) else None)  # which files say themselves
    return {"spec": asked.weights, "preprocessing": asked.preprocessing, "network": network}


def _check_attributes(protocol: Protocol, categories: Categories) -> None:
    """Raise `ProtocolError` for images whose category is not one of those that can be recognized."""
    problems = []
    for kind in IMAGE_FACTORS:
        name = getattr(protocol.recognition, kind)
        named = next((images for known, images in protocol.images.attributes.items() if known == kind), {})
        for image in named if name else ():
            category = protocol.images.attribute(kind, image, name)
            if category and (objection := categories.check_name(category)):
                path = ("images", "attributes", kind, image, name)
                words = f"{objection}: [recognition] categories are {categories.name}"
                problems.append(Problem(".".join(path), words, protocol.line(*path)))
    if problems:
        raise ProtocolError(problems, protocol.file)


def _wrong(protocol: Protocol, key: str, words: str) -> ProtocolError:
    return ProtocolError([Problem(key, words, protocol.line(*key.split(".")))], protocol.file)

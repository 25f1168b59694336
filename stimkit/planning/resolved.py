"""The lock of a run: its protocol with every default and every digest, from which the plan can be made again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stimkit.documents.schemas import Document, Schema
from stimkit.errors import ProtocolError, RunFolderError
from stimkit.files import parse_json, read_file
from stimkit.planning.cells import Input, Plan, WeightsSource
from stimkit.planning.crossing import cross
from stimkit.planning.recognition import read_recognition, write_recognition
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.rules import IMAGE_KINDS
from stimkit.version import __version__

Resolved = dict[str, Any]
WITHOUT_JOURNAL = (1, 2)  # schemas of locks of run folders that may have none


class _Protocol(BaseModel):
    name: str


class _Form(BaseModel):
    """What every reader of a lock may rely on; `plan_of` looks at the rest."""

    model_config = ConfigDict(strict=True, extra="forbid")
    schema_: int = Field(alias="schema")
    stimkit_version: str
    protocol_sha256: str
    protocol: _Protocol
    factors: dict[str, list[str]]
    inputs: list[dict[str, Any]]
    weights: list[dict[str, Any]]
    cells: list[str]
    recognition: dict[str, Any] | None
    """The classifier that looks at stimuli, and its categories."""
    journal: bool
    """Whether the run folder has a journal of what was committed."""
    origin: str | None = None


def resolve(plan: Plan) -> Resolved:
    """Resolve a plan: protocol, settings, digests of inputs and weights, ids of the cells."""
    protocol = plan.protocol
    return {
        "schema": RESOLVED.current,
        "stimkit_version": __version__,
        "protocol_sha256": hashlib.sha256(protocol.text.encode()).hexdigest(),
        "protocol": json.loads(protocol.model_dump_json(by_alias=True)),  # which writes a ratio of inf as "Infinity"
        "factors": {factor: list(levels) for factor, levels in plan.factors.items()},
        "inputs": [
            {"kind": image.kind, "name": image.name, "spec": image.spec, "pixel_sha256": image.pixel_sha256,
             "file_sha256": image.file_sha256, "height": image.height, "width": image.width}
            for image in plan.inputs
        ],
        "weights": [
            {"spec": source.spec, "sha256": source.digest, "preprocessing": source.preprocessing,
             "requested_preprocessing": requested, "network": network, "description": source.description,
             "unit_mean_pooling": source.unit_mean_pooling}
            for (_, requested, network), source in plan.weights.items()
        ],
        "recognition": write_recognition(plan.recognition),
        "cells": [cell.id for cell in plan.cells],
        "journal": True,
    }  # fmt: skip


def read_resolved(path: Path) -> Resolved:
    """Read a lock file. Raises `RunFolderError` where it is damaged or of a schema that is not known."""
    try:
        lock = parse_json(read_file(path))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    has_journal = isinstance(lock, dict) and lock.get("schema") not in WITHOUT_JOURNAL
    lock = RESOLVED.read(lock, str(path))
    if has_journal:  # whatever it says: without its journal, a folder could be changed unseen
        lock["journal"] = True
    try:
        _Form.model_validate(lock)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RunFolderError(f"{path} is damaged: {where}: {first['msg']}") from None
    return lock


def plan_from_resolved(lock: Resolved, *, base: Path = Path()) -> Plan:
    """Make the plan of a lock again, without its inputs and weights at hand: their digests are in it.

    `base` is the folder that image and weight files are relative to. Raises `RunFolderError` where the lock
    does not describe its own cells.
    """
    try:
        protocol = Protocol.from_expanded(_document(lock), base=base)
        inputs = tuple(Input(**image) for image in lock["inputs"])
        for image in inputs:  # kinds and names become those of files
            if image.kind not in IMAGE_KINDS or image.name not in getattr(protocol.images, image.kind):
                raise ValueError(f"it has an input {image.kind} {image.name}, which its protocol does not name")
        weights = {
            (source["spec"], source["requested_preprocessing"], source.get("network", "vgg19")): WeightsSource(
                source["spec"],
                source["sha256"],
                source["preprocessing"],
                source.get("description", ""),
                source.get("unit_mean_pooling"),
            )
            for source in lock["weights"]
        }
        plan = cross(protocol, inputs, weights, read_recognition(lock["recognition"]))
    except (ProtocolError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RunFolderError(f"the lock does not hold a protocol: {error}") from error
    if [cell.id for cell in plan.cells] != lock["cells"]:
        raise RunFolderError("the lock does not describe its own cells: it was altered, or made by another stimkit")
    return plan


def changed_since(lock: Resolved, plan: Plan) -> list[str]:
    """Why cells of a lock may not be those of a plan of the same names, in words."""
    before = {(image.get("kind"), image.get("name")): image.get("pixel_sha256") for image in lock["inputs"]}
    changed = [
        f"the {image.kind} image {image.name} is another image now"
        for image in plan.inputs
        if before.get((image.kind, image.name), image.pixel_sha256) != image.pixel_sha256
    ]
    normalize = lock["protocol"].get("model", {}).get("normalize")
    if normalize != plan.protocol.model.normalize:
        changed.append(f'normalize was "{normalize}" in [model], and is "{plan.protocol.model.normalize}"')
    return changed


def rescaled_otherwise(lock: Resolved, plan: Plan) -> str:
    """Which weights of a plan have the digest of those of a lock, but are not rescaled as they were; empty for none.

    Digests, and ids of cells, are of tensors alone; that these have unit means is said in the file beside them.
    """
    before = {one.get("sha256"): one.get("unit_mean_pooling") for one in lock["weights"]}
    for source in plan.weights.values():
        was, now = before.get(source.digest), source.unit_mean_pooling
        if was is not None and now is not None and was != now:
            return f'the responses of {source.spec} had unit means for the pooling "{was}", and now for "{now}"'
    return ""


def _document(lock: Resolved) -> dict[str, Any]:
    """The protocol of a lock as a file would say it."""
    document: dict[str, Any] = _without_none(lock["protocol"])
    document["layers"] = {
        term: {name: _layer_set(layers) for name, layers in sets.items()}
        for term, sets in lock["protocol"]["layers"].items()
    }
    # The order of the factors is the order of the cells; what a lock crosses without a list has no entry.
    given = {name: "*" if levels == ["*"] else levels for name, levels in document["factors"].items()}
    columns = {name for row in document.get("design", {}).get("table", []) for name in row}
    order = (name for name in (*lock["factors"], *given) if name in given and name not in columns)
    document["factors"] = {name: given[name] for name in order}
    conditions = (*document.get("include", []), *document.get("exclude", []))
    for row in (document["factors"], *document.get("design", {}).get("table", []), *conditions):
        if "ratio" in row:
            row["ratio"] = _with_infinity(row["ratio"])
    for part in ("model", "synthesis", "output"):  # a setting is a factor or has one value, not both
        document[part] = {name: value for name, value in document.get(part, {}).items() if name not in given}
    return document


def _layer_set(layers: Mapping[str, float | None]) -> list[str] | dict[str, float]:
    weights = {name: weight for name, weight in layers.items() if weight is not None}
    return weights or list(layers)


def _without_none(value: Any) -> Any:
    """Drop keys without a value."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _with_infinity(value: Any) -> Any:
    """Read back the infinity that JSON writes as text: of a level, or among levels."""
    if isinstance(value, list):
        return [_with_infinity(item) for item in value]
    return math.inf if value == "Infinity" else value


def _without_rules(lock: Document) -> Document:
    """Locks of schema 1 were made without `[accept]` and `[audit]`."""
    return {**lock, "protocol": {**lock["protocol"], "accept": {}, "audit": {}}}


def _without_journal(lock: Document) -> Document:
    """Run folders with locks of schema 2 kept no journal, and said whether filters were rescaled."""
    return {**lock, "protocol": _in_words(lock["protocol"]), "journal": False}


def _in_words(value: Any, key: str = "") -> Any:
    """A part of a protocol with words for what `normalize` was, wherever it stands: true or false."""
    if isinstance(value, dict):
        return {name: _in_words(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_in_words(item, key) for item in value]
    return ("filter" if value else "none") if key == "normalize" and isinstance(value, bool) else value


def _with_free_range(lock: Document) -> Document:
    """Protocols of locks of schema 3 knew no other range of values than the free one."""
    return _with_synthesis(lock, {"image_range": "free"})


def _with_one_scale(lock: Document) -> Document:
    """Protocols of locks of schema 4 knew one size of a stimulus, and kept 10 pairs by default."""
    return _with_synthesis(lock, {"scales": 1, "history": 10, **lock["protocol"].get("synthesis", {})})


def _with_synthesis(lock: Document, settings: Document) -> Document:
    protocol = lock["protocol"]
    return {**lock, "protocol": {**protocol, "synthesis": {**protocol.get("synthesis", {}), **settings}}}


def _without_recognition(lock: Document) -> Document:
    """Stimuli of runs with locks of schema 5 were not recognized."""
    return {**lock, "recognition": None}


RESOLVED = Schema(
    "resolved protocol",
    6,
    {
        1: _without_rules,
        2: _without_journal,
        3: _with_free_range,
        4: _with_one_scale,
        5: _without_recognition,
    },
)

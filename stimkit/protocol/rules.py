"""What can be wrong with a protocol, and how to say it: rules that relate keys, and messages for users."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stimkit.columns import CONFOUNDS
from stimkit.documents.messages import EVERY, BrokenRule, as_list, as_table, in_words
from stimkit.errors import did_you_mean
from stimkit.network.layers import NETWORKS, NetworkName, explain_unknown
from stimkit.protocol.mixes import image_levels
from stimkit.protocol.style_maps import style_levels

LEVEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
IMAGE_FACTORS = ("content", "style")
IMAGE_KINDS = (*IMAGE_FACTORS, "mask")
DEFAULT_SET = "default"  # the name of a layer set that was given as a plain list


# --- rules that relate keys to each other; they look at the raw document, so that all errors appear at once ----


def layer_sets(document: Any, kind: str) -> list[str]:
    """Names of the layer sets of a document."""
    sets = as_table(document, "layers").get(kind)
    return list(sets) if isinstance(sets, dict) else [DEFAULT_SET]


def image_attributes(document: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values of the attributes of all images."""
    found: dict[str, dict[Any, None]] = {}
    for kind in IMAGE_FACTORS:
        for values in as_table(document, "images", "attributes", kind).values():
            for name, value in as_table(values).items():
                found.setdefault(name, {})[value] = None
    return {name: list(values) for name, values in found.items()}


def check_keys(document: dict[str, Any]) -> Iterator[BrokenRule]:
    """Find what is wrong between the keys of a document, whatever else is wrong with it."""
    for kind in IMAGE_KINDS:
        yield from _check_names(("images", kind), as_table(document, "images", kind))
        yield from _check_references(document, kind)
    yield from _check_names(("images", "style_maps"), as_table(document, "images", "style_maps"))
    for kind in IMAGE_FACTORS:
        yield from _check_layer_sets(kind, document)
    named = [name for kind in IMAGE_KINDS for name in as_table(document, "images", kind)]
    for name in as_table(document, "images", "licence"):
        if name not in named:
            yield ("images", "licence", name), f'"{name}" is not an image{did_you_mean(name, named)}'
    linked = {name for names in as_list(as_table(document, "design").get("zip")) for name in as_list(names)}
    yield from _check_levels(as_table(document, "factors"), linked)
    yield from _check_controls(document)
    yield from _check_weights_of_terms(document)
    yield from _check_acceptance(document)
    yield from _check_recognition(document)
    yield from _check_confounds(document)


def _check_names(path: tuple[str, ...], table: dict[str, Any]) -> Iterator[BrokenRule]:
    for name in table:
        if not LEVEL_NAME.fullmatch(name):
            yield (
                (*path, name),
                "a name consists of letters, digits and hyphens, and does not begin with a hyphen",
            )


def _objection_to_layer(layer: Any, document: dict[str, Any]) -> str | None:
    """Why a name is not a layer of the networks that a protocol names; None for layers, and for what is not a name."""
    given = [as_table(document, "model").get("network"), *as_list(as_table(document, "factors").get("network"))]
    networks: list[NetworkName] = [one for one in NETWORKS if one in given] or ["vgg19"]
    lacking = [one for one in networks if isinstance(layer, str) and layer not in NETWORKS[one]]
    return explain_unknown(layer, lacking[0]) if lacking else None


def _check_layer_sets(kind: str, document: dict[str, Any]) -> Iterator[BrokenRule]:
    value = as_table(document, "layers").get(kind)
    path: tuple[str, ...] = ("layers", kind)
    if value == {}:
        yield path, "must name at least one layer set"
    named = as_table(value)
    sets = {(): value} if isinstance(value, list) else {(name,): layers for name, layers in named.items()}
    yield from _check_names(path, named)
    for name, layers in sets.items():
        if layers in ([], {}):
            yield (*path, *name), "must name at least one layer"
        seen: set[str] = set()
        for index, layer in enumerate(layers if isinstance(layers, list | dict) else []):
            where = (*path, *name, layer if isinstance(layers, dict) else index)
            if objection := _objection_to_layer(layer, document):
                yield where, objection
            elif layer in seen:
                yield where, f'layer "{layer}" is named twice'
            elif isinstance(layer, str):
                seen.add(layer)


def _check_references(document: dict[str, Any], kind: str) -> Iterator[BrokenRule]:
    factors = as_table(document, "factors")
    levels = style_levels(document) if kind == "style" else image_levels(document, kind)
    known = {kind: levels, f"{kind}_layers": layer_sets(document, kind)}
    where = {kind: f"images.{kind}", f"{kind}_layers": f"layers.{kind}"}
    for factor, names in known.items():
        for index, level in enumerate(as_list(factors.get(factor))):
            if isinstance(level, str) and level not in names:
                yield ("factors", factor, index), f'"{level}" is not in {where[factor]}{did_you_mean(level, names)}'


def _check_levels(factors: dict[str, Any], linked: set[Any]) -> Iterator[BrokenRule]:
    for factor, levels in factors.items():
        if factor in linked:  # where a level may go with several of another factor
            continue
        seen = set()
        for index, level in enumerate(as_list(levels)):
            same = f"{level!r}" if isinstance(level, bool) or not isinstance(level, int | float) else f"{level:.17g}"
            if same in seen:
                yield ("factors", factor, index), f"level {in_words(level)} is given twice"
            seen.add(same)
    if "ratio" in factors and ("alpha" in factors or "beta" in factors):
        yield ("factors", "ratio"), "give either ratio (= alpha / beta) or alpha and beta, not both"
    if "alpha" in factors and "beta" in factors and 0 in as_list(factors["alpha"]) and 0 in as_list(factors["beta"]):
        yield ("factors", "beta"), "alpha = 0 and beta = 0 together leave nothing to optimize"


def _check_weights_of_terms(document: dict[str, Any]) -> Iterator[BrokenRule]:
    factors = as_table(document, "factors")
    given = {
        name: [x for x in as_list(factors.get(name)) if isinstance(x, int | float)]
        for name in ("ratio", "alpha", "beta")
    }
    has = {kind: bool(as_table(document, "images", kind)) for kind in ("content", "style")}
    if not any(has.values()):
        yield ("images",), "name at least one content or style image"
    titrated = "titrate" in factors or as_table(document, "synthesis").get("titrate", "none") != "none"
    if titrated and (named := [name for name in given if name in factors]):
        yield ("factors", named[0]), "is found by titration; leave it out"
    if "none" in as_list(factors.get("titrate")):
        yield ("factors", "titrate"), '"none" needs a ratio, which titration finds: make a protocol of its own of it'
    if not titrated and not any(name in factors for name in given) and all(has.values()):
        yield ("factors",), "give ratio (= alpha / beta), or alpha and beta"
    if as_table(document, "images", "mask") and not has["style"]:
        yield ("images", "mask"), "there is no style image that a mask could limit"
    if not has["content"] and (any(x > 0 for x in given["ratio"]) or any(x > 0 for x in given["alpha"])):
        yield ("images", "content"), "there is no content image, so ratio (or alpha) can only be 0"
    if not has["style"] and (any(x < math.inf for x in given["ratio"]) or any(x > 0 for x in given["beta"])):
        yield ("images", "style"), "there is no style image, so ratio can only be inf (or beta 0)"
    inits = [*as_list(factors.get("init")), as_table(document, "synthesis").get("init")]
    for init, kind in (("content", "content"), ("scrambled", "content"), ("style", "style")):
        if init in inits and not has[kind]:
            yield ("synthesis", "init"), f'init = "{init}" needs a {kind} image'


def _check_controls(document: dict[str, Any]) -> Iterator[BrokenRule]:
    controls = as_table(document, "controls")
    sets = layer_sets(document, "style")
    for index, name in enumerate(as_list(controls.get("subset"))):
        if name not in sets:
            yield ("controls", "subset", index), f'"{name}" is not in layers.style{did_you_mean(str(name), sets)}'
    for index, layer in enumerate(as_list(controls.get("reconstruction"))):
        if objection := _objection_to_layer(layer, document):
            yield ("controls", "reconstruction", index), objection
    needs = {"texture": "style", "subset": "style", "own_texture": "style"}
    needs |= {"own_texture": "content", "reconstruction": "content", "scrambled": "content", "untouched": "content"}
    for role, kind in needs.items():
        if controls.get(role) and not as_table(document, "images", kind):
            yield ("controls", role), f"needs {kind} images"


def _check_acceptance(document: dict[str, Any]) -> Iterator[BrokenRule]:
    inits = [*as_list(as_table(document, "factors").get("init")), as_table(document, "synthesis").get("init", "noise")]
    other = next((init for init in inits if init in ("content", "style")), None)
    rules = as_table(document, "accept")
    if rules.get("retries") and other:
        yield ("accept", "retries"), f'another try differs in its noise, and init = "{other}" has none'
    titrated = "titrate" in as_table(document, "factors") or as_table(document, "synthesis").get("titrate")
    if rules.get("retries") and titrated not in (None, "none", False):
        yield ("accept", "retries"), "is not possible with titration"
    if rules.get("retries") and document.get("seeds") == "shared":
        yield ("accept", "retries"), 'another try has noise of its own, and seeds = "shared" asks for the same'
    for one in as_list(rules.get("curation")):
        about = as_table(one).get("set")
        if about is not None and about != document.get("name"):
            yield ("accept", "curation"), f'is about the set "{about}", not "{document.get("name")}"'
    for term in ("content", "style"):
        if rules.get(f"relative_{term}_loss") and term in inits:
            message = f'the {term} loss of the initial image is zero with init = "{term}", so nothing is relative to it'
            yield ("accept", f"relative_{term}_loss"), message


def _check_recognition(document: dict[str, Any]) -> Iterator[BrokenRule]:
    section = as_table(document, "recognition")
    for kind in IMAGE_FACTORS:
        name = section.get(kind)
        known = {
            key for values in as_table(document, "images", "attributes", kind).values() for key in as_table(values)
        }
        if name and name not in known:
            hint = did_you_mean(str(name), known)
            yield ("recognition", kind), f'"{name}" is not an attribute of the {kind} images{hint}'
        if as_table(document, "accept").get(f"{kind}_rank") and not name:
            yield (
                ("accept", f"{kind}_rank"),
                f"needs [recognition] {kind}, the attribute that names what is in the images",
            )
    if section and not (section.get("content") or section.get("style")):
        words = 'name the attribute that holds the category of the content or style images, as content = "category"'
        yield ("recognition",), words
    titrated = [*as_list(as_table(document, "factors").get("titrate")), as_table(document, "synthesis").get("titrate")]
    if "cue_balance" in titrated and not (section.get("content") and section.get("style")):
        yield ("synthesis", "titrate"), '"cue_balance" needs [recognition] with the categories of content and style'
    if section and "weights" in as_table(document, "factors") and not section.get("weights"):
        yield ("recognition", "weights"), "say which weights recognize the stimuli, where weights are a factor"


def _check_confounds(document: dict[str, Any]) -> Iterator[BrokenRule]:
    factors = {"content", "style", "content_layers", "style_layers", *as_table(document, "factors")} - {"replicate"}
    factors |= image_attributes(document).keys() | as_table(document, "design", "marks").keys()
    for variable in as_table(document, "audit", "confounds"):
        if variable not in CONFOUNDS:
            hint = did_you_mean(variable, CONFOUNDS)
            words = (
                f'"{variable}" is not a variable of every audit{hint}; what is measured on request has its limits in'
            )
            yield ("audit", "confounds", variable), f"{words} [audit] measured"
    for kind in ("confounds", "measured"):
        for variable, limit in as_table(document, "audit", kind).items():
            for factor in as_table(limit):
                if factor not in (EVERY, *factors):
                    hint = did_you_mean(factor, factors)
                    words = f'"{factor}" is not a factor or attribute of this protocol{hint}'
                    yield ("audit", kind, variable, factor), words

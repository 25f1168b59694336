"""Protocol files: TOML text to a validated, frozen `Protocol`. No torch, no reading of images."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, create_model

from stimkit.errors import Problem, ProtocolError, did_you_mean
from stimkit.layers import LAYERS, explain_unknown
from stimkit.settings import MODEL_KEYS, SYNTHESIS_KEYS, Frozen, ModelSettings, Settings, SynthesisSettings
from stimkit.toml_lines import line_map, nearest_line

SCHEMA = 1
LEVEL_NAME = re.compile(r"[A-Za-z0-9-]+")
DEFAULT_SET = "default"  # the name of a layer set that was given as a plain list


def _one_or_many(value: Any) -> Any:
    """Let a plain list of layers stand for a single layer set."""
    return {DEFAULT_SET: value} if isinstance(value, list) else value


def _layer_weights(value: Any) -> Any:
    """Let a list of layers stand for a table without weights."""
    is_names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return dict.fromkeys(value) if is_names else value


def _names(value: Any) -> Any:
    """Let "*" stand for all names; a validator's input is Python, so lists become tuples here."""
    return tuple(value) if isinstance(value, list) else ("*",) if value == "*" else value


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LayerSet = Annotated[dict[str, Weight | None], BeforeValidator(_layer_weights)]
LayerSets = Annotated[dict[str, LayerSet], BeforeValidator(_one_or_many)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)]
NonNegative = Annotated[float, Field(ge=0)]
FiniteNonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Images(Frozen):
    """`[images]`: named image files or scikit-image samples."""

    root: Annotated[str, Field(description="folder of the files, relative to the protocol")] = "."
    content: dict[str, str] = Field(default_factory=dict)
    style: dict[str, str] = Field(default_factory=dict)


def _default_content() -> dict[str, dict[str, float | None]]:
    return {DEFAULT_SET: {"conv4_2": None}}


def _default_style() -> dict[str, dict[str, float | None]]:
    return {DEFAULT_SET: {f"conv{block}_1": None for block in range(1, 6)}}


class Layers(Frozen):
    """`[layers]`: named sets of layers, each a list or a table of layer weights w_l."""

    content: LayerSets = Field(default_factory=_default_content)
    style: LayerSets = Field(default_factory=_default_style)


class _FactorsBase(Frozen):
    """`[factors]`: every list is one factor of the design; the cells are their product."""

    model_config = ConfigDict(title="Factors")
    content: Names | None = None
    style: Names | None = None
    content_layers: Names | None = None
    style_layers: Names | None = None
    ratio: Annotated[tuple[NonNegative, ...], Field(min_length=1, description="alpha / beta")] | None = None
    alpha: Annotated[tuple[FiniteNonNegative, ...], Field(min_length=1)] | None = None
    beta: Annotated[tuple[FiniteNonNegative, ...], Field(min_length=1)] | None = None
    replicate: Annotated[int, Field(ge=1, le=100_000, description="how many of each")] = 1


def _setting_factors() -> dict[str, Any]:
    """Every setting as an optional list of levels, with the rules of the setting itself."""
    fields: dict[str, Any] = {}
    for key, field in Settings.model_fields.items():
        one = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        fields[key] = (Annotated[tuple[one, ...], Field(min_length=1)] | None, None)  # type: ignore[valid-type]
    return fields


Factors = create_model("Factors", __base__=_FactorsBase, **_setting_factors())
FACTOR_KEYS = tuple(Factors.model_fields)


class Protocol(Frozen):
    """A request for a stimulus set: images, layer sets, settings and the factors that are crossed."""

    model_config = ConfigDict(title="stimkit protocol")

    schema_version: Literal[1] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63, description="changes the noise of every cell")] = 0
    seeds: Annotated[
        Literal["unique", "shared"],
        Field(description="shared: cells of the same replicate start from the same noise"),
    ] = "unique"
    images: Images = Images()
    layers: Layers = Layers()
    model: ModelSettings = ModelSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    factors: Factors

    _text: str = PrivateAttr("")
    _base: Path = PrivateAttr(Path())
    _order: tuple[str, ...] = PrivateAttr(())
    _lines: dict[tuple[str | int, ...], int] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Protocol:
        """Read and validate a protocol file.

        Raises `ProtocolError` with every broken rule, each with its line, key, rule and value.
        """
        path = Path(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise ProtocolError(
                [Problem("", "no such file; `stimkit init NAME` writes one to start from")], str(path)
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ProtocolError([Problem("", f"cannot be read as UTF-8 text: {error}")], str(path)) from error
        return cls.from_toml(text, base=path.parent, name=path.name)

    @classmethod
    def from_toml(cls, text: str, *, base: str | Path = ".", name: str = "protocol") -> Protocol:
        """Validate TOML text; files are looked for relative to the folder `base`."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ProtocolError([_syntax_problem(error)], name) from None
        return cls._validated(document, text, Path(base), name)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, base: str | Path = ".") -> Protocol:
        """Validate a protocol given as nested dictionaries with the keys of the TOML file."""
        try:
            text = tomli_w.dumps(document)
        except TypeError as error:
            raise ProtocolError([Problem("", f"has a value that TOML cannot express: {error}")]) from None
        return cls.from_toml(text, base=base)

    @classmethod
    def _validated(cls, document: dict[str, Any], text: str, base: Path, name: str) -> Protocol:
        lines = line_map(text)
        problems = [Problem(_dotted(path), message, nearest_line(lines, path)) for path, message in _check(document)]
        protocol = None
        try:
            # Strict validation as JSON: TOML arrays become tuples, yet "3" stays no number.
            protocol = cls.model_validate_json(json.dumps(document, default=str))
        except ValidationError as error:
            # A list whose levels are all wrong is also reported as too short; once is enough.
            found = [one for one in error.errors(include_url=False) if one["type"] != "too_short" or not one["input"]]
            problems += [_problem(one, lines) for one in found]
        if problems or protocol is None:
            raise ProtocolError(set(problems), name)
        protocol._text, protocol._base, protocol._lines = text, base, lines
        protocol._order = tuple(document["factors"])
        return protocol

    @property
    def text(self) -> str:
        """The TOML text that the protocol was read from."""
        return self._text

    @property
    def root(self) -> Path:
        """Folder that image files are relative to."""
        return self._base / self.images.root

    @property
    def base(self) -> Path:
        """Folder of the protocol file."""
        return self._base

    def line(self, *path: str | int) -> int | None:
        """Line of a key path in the file, or of the closest parent that has one."""
        return nearest_line(self._lines, path)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The factors of the design, slowest first, `replicate` last if it is not named.

        They are those that `[factors]` names, in its order; before them, what is a factor without being named:
        the images, and layer sets where there are several.
        """
        images = [kind for kind in ("content", "style") if self.levels(kind) != (None,)]
        sets = [name for name in ("content_layers", "style_layers") if len(self.levels(name)) > 1]
        implied = [name for name in (*images, *sets) if name not in self._order]
        return tuple(dict.fromkeys((*implied, *self._order, "replicate")))

    def levels(self, factor: str) -> tuple[Any, ...]:
        """Return the levels of a factor; one that the file does not name has its one default level."""
        value = getattr(self.factors, factor)
        if factor == "replicate":
            return tuple(range(1, value + 1))
        if factor in ("content", "style"):
            known = tuple(getattr(self.images, factor))
            return known or (None,) if value in (None, ("*",)) else value
        if factor in ("content_layers", "style_layers"):
            known = tuple(getattr(self.layers, factor.removesuffix("_layers")))
            return known if value in (None, ("*",)) else value
        if value is not None:
            return tuple(value)
        if factor in MODEL_KEYS:
            return (getattr(self.model, factor),)
        if factor in SYNTHESIS_KEYS:
            return (getattr(self.synthesis, factor),)
        return (None,)  # ratio, alpha, beta: not given


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a protocol file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Protocol.model_json_schema(by_alias=True)}


# --- from what pydantic says to what a user needs -----------------------------------------------------------


def _dotted(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _syntax_problem(error: tomllib.TOMLDecodeError) -> Problem:
    where = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
    message = re.sub(r" \(at .*\)$", "", str(error))
    return Problem("", f"not valid TOML: {message[:1].lower()}{message[1:]}", int(where[1]) if where else None)


_RULES = {
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:g}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list of levels",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters",
    "too_short": "must have at least one level",
    "string_pattern_mismatch": "must consist of letters, digits, dots, hyphens and underscores",
}


def _problem(error: Any, lines: dict[tuple[str | int, ...], int]) -> Problem:
    path, kind, context = tuple(error["loc"]), error["type"], error.get("ctx", {})
    line = nearest_line(lines, path)
    if kind == "missing":
        return Problem(_dotted(path), "is required", nearest_line(lines, path[:-1]))
    if kind == "extra_forbidden":
        return Problem(_dotted(path), f"unknown key{did_you_mean(str(path[-1]), _known_keys(path[:-1]))}", line)
    if path == ("schema",):
        message = f"must be {SCHEMA}: this stimkit reads protocols of schema {SCHEMA}"
    elif kind == "literal_error":
        hint = did_you_mean(str(error["input"]), re.findall(r"'([^']*)'", context["expected"]))
        message = "must be " + context["expected"].replace("'", '"') + hint
    elif kind in _RULES:
        message = _RULES[kind].format(**context)
    else:
        message = error["msg"]
    return Problem(_dotted(path), f"{message} (got {_show(error['input'])})", line)


def _known_keys(table: tuple[str | int, ...]) -> list[str]:
    model: Any = Protocol
    for part in table:
        model = model.model_fields[part].annotation
    return [field.alias or name for name, field in model.model_fields.items()]


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# --- rules that relate keys to each other; they look at the raw document, so that all errors appear at once ----


def _table(document: Any, *path: str) -> dict[str, Any]:
    for part in path:
        document = document.get(part, {}) if isinstance(document, dict) else {}
    return document if isinstance(document, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


_Finding = tuple[tuple[str | int, ...], str]


def _check(document: dict[str, Any]) -> Iterator[_Finding]:
    for kind in ("content", "style"):
        yield from _check_names(("images", kind), _table(document, "images", kind))
        yield from _check_layer_sets(kind, _table(document, "layers").get(kind))
        yield from _check_references(document, kind)
    yield from _check_levels(_table(document, "factors"))
    yield from _check_weights_of_terms(document)


def _check_names(path: tuple[str, ...], table: dict[str, Any]) -> Iterator[_Finding]:
    for name in table:
        if not LEVEL_NAME.fullmatch(name):
            yield (*path, name), "a name consists of letters, digits and hyphens (it becomes part of file names)"


def _check_layer_sets(kind: str, value: Any) -> Iterator[_Finding]:
    path: tuple[str, ...] = ("layers", kind)
    if value == {}:
        yield path, "must name at least one layer set"
    sets = {(): value} if isinstance(value, list) else {(name,): one for name, one in _table({"x": value}, "x").items()}
    yield from _check_names(path, _table({"x": value}, "x"))
    for name, layers in sets.items():
        if layers in ([], {}):
            yield (*path, *name), "must name at least one layer"
        seen: set[str] = set()
        for index, layer in enumerate(layers if isinstance(layers, list | dict) else []):
            where = (*path, *name, layer if isinstance(layers, dict) else index)
            if isinstance(layer, str) and layer not in LAYERS:
                yield where, explain_unknown(layer)
            elif layer in seen:
                yield where, f'layer "{layer}" is named twice'
            elif isinstance(layer, str):
                seen.add(layer)


def _check_references(document: dict[str, Any], kind: str) -> Iterator[_Finding]:
    factors = _table(document, "factors")
    sets = _table(document, "layers").get(kind)
    layer_sets = list(sets) if isinstance(sets, dict) else [DEFAULT_SET]
    known = {kind: list(_table(document, "images", kind)), f"{kind}_layers": layer_sets}
    where = {kind: f"images.{kind}", f"{kind}_layers": f"layers.{kind}"}
    for factor, names in known.items():
        for index, level in enumerate(_list(factors.get(factor))):
            if isinstance(level, str) and level not in names:
                yield ("factors", factor, index), f'"{level}" is not in {where[factor]}{did_you_mean(level, names)}'


def _check_levels(factors: dict[str, Any]) -> Iterator[_Finding]:
    for factor, levels in factors.items():
        seen = []
        for index, level in enumerate(_list(levels)):
            same = (float(level) if isinstance(level, int | float) else level, isinstance(level, bool))
            if same in seen:
                yield ("factors", factor, index), f"level {_show(level)} is given twice"
            seen.append(same)
    if "ratio" in factors and ("alpha" in factors or "beta" in factors):
        yield ("factors", "ratio"), "give either ratio (= alpha / beta) or alpha and beta, not both"
    if "alpha" in factors and "beta" in factors and 0 in _list(factors["alpha"]) and 0 in _list(factors["beta"]):
        yield ("factors", "beta"), "alpha = 0 and beta = 0 together leave nothing to optimize"


def _check_weights_of_terms(document: dict[str, Any]) -> Iterator[_Finding]:
    factors = _table(document, "factors")
    given = {
        name: [x for x in _list(factors.get(name)) if isinstance(x, int | float)] for name in ("ratio", "alpha", "beta")
    }
    has = {kind: bool(_table(document, "images", kind)) for kind in ("content", "style")}
    if not any(has.values()):
        yield ("images",), "name at least one content or style image"
    elif not any(name in factors for name in given) and all(has.values()):
        yield ("factors",), "give ratio (= alpha / beta), or alpha and beta"
    if not has["content"] and (any(x > 0 for x in given["ratio"]) or any(x > 0 for x in given["alpha"])):
        yield ("images", "content"), "there is no content image, so ratio (or alpha) can only be 0"
    if not has["style"] and (any(x < math.inf for x in given["ratio"]) or any(x > 0 for x in given["beta"])):
        yield ("images", "style"), "there is no style image, so ratio can only be inf (or beta 0)"
    inits = [*_list(factors.get("init")), _table(document, "synthesis").get("init")]
    for kind in ("content", "style"):
        if kind in inits and not has[kind]:
            yield ("synthesis", "init"), f'init = "{kind}" needs a {kind} image'

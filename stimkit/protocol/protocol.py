"""Protocol files: TOML text to a validated, frozen `Protocol`. No torch, no reading of images."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import ConfigDict, Field, PrivateAttr

from stimkit.documents.lines import line_map, nearest_line
from stimkit.documents.notebooks import html_of
from stimkit.documents.schemas import Document
from stimkit.documents.spelling import check_as_meant
from stimkit.documents.toml import Lines, parse_toml, read_text, validate
from stimkit.errors import Problem, ProtocolError
from stimkit.protocol.design_rules import check_design
from stimkit.protocol.labels import label, label_level
from stimkit.protocol.limits import Accept, AuditLimits
from stimkit.protocol.mixes import KEY_OF, AnyMixture, Mix, check_mixes, steps_of
from stimkit.protocol.rules import check_keys
from stimkit.protocol.sections import (
    Controls,
    Design,
    Display,
    Factors,
    Images,
    Layers,
    LevelCondition,
    Publication,
    RecognitionRequest,
    Sample,
)
from stimkit.protocol.settings import SECTION_OF, Frozen, ModelSettings, OutputSettings, SynthesisSettings
from stimkit.protocol.shorthand import choose_variant, expand
from stimkit.protocol.style_maps import StyleRegion, check_maps, map_regions


class _Checked(type(Frozen)):  # type: ignore[misc]
    """Lets `Protocol(...)` check what is given as a file is checked, where pydantic would check the types alone."""

    def __call__(cls, **document: Any) -> Any:
        return cls.from_dict(document)


class Protocol(Frozen, metaclass=_Checked):
    """A request for a stimulus set: images, layer sets, settings and the factors that are crossed.

    >>> protocol = stimkit.Protocol.load("protocols/quickstart.toml")
    >>> protocol.name, protocol.synthesis.style_scale
    ('quickstart', 2.0)

    `load`, `from_toml`, `from_dict` and `Protocol(schema=1, name=…)`, which has the keys of the file as arguments,
    raise `ProtocolError`, which names every key that is wrong.
    """

    model_config = ConfigDict(title="stimkit protocol")

    schema_version: Literal[1] = Field(alias="schema", description="form of the protocol")
    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="name of the stimulus set")
    ]
    description: Annotated[str, Field(description="what it is for, in words")] = ""
    seed: Annotated[int, Field(ge=0, lt=2**63, description="changes the noise of every cell")] = 0
    seeds: Annotated[
        Literal["unique", "shared"],
        Field(description="shared: cells of the same replicate start from the same noise"),
    ] = "unique"
    images: Images = Images()
    layers: Layers = Layers()
    model: ModelSettings = ModelSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    display: Display = Display()
    output: OutputSettings = OutputSettings()
    accept: Accept = Accept()
    audit: AuditLimits = AuditLimits()
    factors: Factors
    design: Design = Design()
    include: Annotated[
        tuple[LevelCondition, ...], Field(description="only combinations that meet one of these become cells")
    ] = ()
    exclude: Annotated[tuple[LevelCondition, ...], Field(description="combinations that meet one of these do not")] = ()
    sample: Sample | None = None
    controls: Controls = Controls()
    recognition: RecognitionRequest | None = None
    observers: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]{0,30}$")], ModelSettings],
        Field(description="other networks that `stimkit measure` looks at finished stimuli with, by name"),
    ] = Field(default_factory=dict)
    publication: Publication = Publication()
    variants: Annotated[
        dict[str, dict[str, Any]],
        Field(exclude=True, description="other values of some keys by name, chosen with --variant"),
    ] = Field(default_factory=dict)

    _text: str = PrivateAttr("")
    _file: str = PrivateAttr("")
    _base: Path = PrivateAttr(Path())
    _order: tuple[str, ...] = PrivateAttr(())
    _lines: dict[tuple[str | int, ...], int] = PrivateAttr(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Protocol {self.name}{f' of {self._file}' if self._file else ''}>"

    def _repr_html_(self) -> str:
        return html_of(repr(self)[1:-1], f"<p>{escape(self.description)}</p><pre>{escape(self.text)}</pre>")

    @classmethod
    def load(cls, path: str | Path, variant: str | None = None) -> Protocol:
        """Read and validate a protocol file; with the values of a `variant`, if one of its `[variants]` is named.

        Raises `ProtocolError` with every broken rule, each with its line, key, rule and value.
        """
        path = Path(path)
        text = read_text(path, "`stimkit init NAME` writes one to start from")
        return cls.from_toml(text, base=path.parent, name=path.name, variant=variant)

    @classmethod
    def from_toml(
        cls, text: str, *, base: str | Path = ".", name: str = "protocol", variant: str | None = None
    ) -> Protocol:
        """Validate TOML text; files are looked for relative to the folder `base`."""
        return cls._validated(text, Path(base), name, variant=variant)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, base: str | Path = ".") -> Protocol:
        """Validate a protocol given as nested dictionaries with the keys of the TOML file."""
        return cls.from_toml(_as_toml(document), base=base)

    @classmethod
    def from_expanded(cls, document: Mapping[str, Any], *, base: str | Path = ".") -> Protocol:
        """Validate a protocol that is written out already, as a lock holds it: no other file is looked at."""
        return cls._validated(_as_toml(document), Path(base), "protocol", written_out=True)

    @classmethod
    def _validated(
        cls, text: str, base: Path, name: str, *, variant: str | None = None, written_out: bool = False
    ) -> Protocol:
        chosen, wrong = choose_variant(parse_toml(text, name), variant)

        def check(given: Document, lines: Lines) -> Protocol:
            document, found = expand(given, base, files=not written_out)
            rules = (check_keys, check_mixes, check_maps, check_design)
            found += [*wrong, *(broken for rule in rules for broken in rule(document))]
            protocol = validate(cls, document, lines, name, found)
            protocol._text, protocol._file, protocol._base, protocol._lines = text, name, base, lines
            protocol._order = tuple(document["factors"])
            return protocol

        return check_as_meant(check, cls, chosen, line_map(text, ("variants", variant) if variant else ()), name)

    @property
    def text(self) -> str:
        """The TOML text that the protocol was read from."""
        return self._text

    @property
    def file(self) -> str:
        """Name of the file that the protocol was read from, for messages."""
        return self._file

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

    def mixes(self, kind: str) -> dict[str, Mix]:
        """The mixes of content or style images, by name; there are none of masks."""
        return dict(getattr(self.images, KEY_OF[kind])) if kind in KEY_OF else {}

    def mixtures(self, kind: str) -> dict[str, AnyMixture]:
        """What the levels of a factor are mixtures of; images are not among them."""
        steps = (step for steps in steps_of(self.mixes(kind)).values() for step in steps)
        return {step.level: step.mixture for step in steps if step.mixture is not None}

    @property
    def style_maps(self) -> dict[str, tuple[StyleRegion, ...]]:
        """The regions of the style maps, by level of the factor style."""
        return map_regions(self.images.style_maps, self.mixtures("style"))

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The factors of the design, slowest first, `replicate` last if it is not named.

        They are those that `[factors]` names, in its order; before them, what is a factor without being named:
        the images, and layer sets where there are several.
        """
        images = [kind for kind in ("content", "style", "mask") if self.levels(kind) != (None,)]
        sets = [name for name in ("content_layers", "style_layers") if len(self.levels(name)) > 1]
        implied = [name for name in (*images, *sets) if name not in self._order]
        return tuple(dict.fromkeys((*implied, *self._order, "replicate")))

    @property
    def table(self) -> tuple[dict[str, Any], ...]:
        """The rows of the design's table, with levels as those of the factors."""
        rows = self.design.table
        known = {name: {label(level): level for level in self.levels(name)} for name in (rows[0] if rows else ())}
        return tuple({name: known[name][label_level(name, level)] for name, level in row.items()} for row in rows)

    def levels(self, factor: str) -> tuple[Any, ...]:
        """Return the levels of a factor; one that the file does not name has its one default level."""
        value = getattr(self.factors, factor)
        if factor == "replicate":
            return tuple(range(1, value + 1))
        if factor in ("content", "style", "mask"):
            of_maps = factor == "mask" and value is None and self.images.style_maps  # which have the masks
            known = () if of_maps else tuple(getattr(self.images, factor))
            return known or (None,) if value in (None, ("*",)) else value
        if factor in ("content_layers", "style_layers"):
            known = tuple(getattr(self.layers, factor.removesuffix("_layers")))
            return known if value in (None, ("*",)) else value
        if value is not None:
            return tuple(value)
        if factor in SECTION_OF:
            return (getattr(getattr(self, SECTION_OF[factor]), factor),)
        return (None,)  # ratio, alpha, beta: not given


def _as_toml(document: Mapping[str, Any]) -> str:
    try:
        return tomli_w.dumps(document)
    except TypeError as error:
        raise ProtocolError([Problem("", f"has a value that TOML cannot express: {error}")]) from None


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a protocol file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Protocol.model_json_schema(by_alias=True)}

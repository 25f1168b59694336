"""The tables of a protocol, but for those of settings, limits and rules of acceptance."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model
from pydantic_core import PydanticCustomError

from stimkit.network.layers import NetworkName
from stimkit.protocol.mixes import Mix
from stimkit.protocol.rules import DEFAULT_SET
from stimkit.protocol.settings import Frozen, Settings
from stimkit.protocol.values import written_as


def _one_or_many(value: Any) -> Any:
    """Let a plain list of layers stand for a single layer set."""
    return {DEFAULT_SET: value} if isinstance(value, list) else _table_of_layers(value)


def _layer_weights(value: Any) -> Any:
    """Let a list of layers stand for a table without weights."""
    is_names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return dict.fromkeys(value) if is_names else _table_of_layers(value)


def _table_of_layers(value: Any) -> Any:
    if not isinstance(value, dict):
        raise PydanticCustomError("layers", "must be a list of layers, or a table of layers with their weights")
    return value


def _names(value: Any) -> Any:
    """Let "*" stand for all names; a validator's input is Python, so lists become tuples here."""
    return tuple(value) if isinstance(value, list) else ("*",) if value == "*" else value


def _one_or_more(value: Any) -> Any:
    """Let a single level stand for a list of them."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LayerSet = Annotated[dict[str, Weight | None], BeforeValidator(_layer_weights)]
LayerSets = Annotated[dict[str, LayerSet], BeforeValidator(_one_or_many)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names), Field(min_length=1)]
Extent = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0)]
FiniteNonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Level = str | bool | int | float | tuple[int, int]
LevelCondition = dict[str, Annotated[tuple[Level, ...], BeforeValidator(_one_or_more), Field(min_length=1)]]
PATTERN = {"anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, {"type": "string"}]}
ImageFiles = Annotated[dict[str, str], WithJsonSchema({**PATTERN, "description": "files by name, or a pattern"})]
TABLE = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}


class Images(Frozen):
    """`[images]`: named image files or scikit-image samples."""

    root: Annotated[str, Field(description="folder of the files, relative to the protocol")] = "."
    follow_links: Annotated[
        bool, Field(description="whether links may lead out of root, as those of git-annex and DataLad do")
    ] = False
    content: Annotated[ImageFiles, Field(description="content images: files by name, or a pattern")] = Field(
        default_factory=dict
    )
    style: Annotated[ImageFiles, Field(description="style images: files by name, or a pattern")] = Field(
        default_factory=dict
    )
    mask: Annotated[ImageFiles, Field(description="where the style goes: white, and nowhere where black")] = Field(
        default_factory=dict
    )
    mixes: Annotated[dict[str, Mix], Field(description="levels of the factor style between its images")] = Field(
        default_factory=dict
    )
    content_mixes: Annotated[dict[str, Mix], Field(description="levels of the factor content between its images")] = (
        Field(default_factory=dict)
    )
    style_maps: Annotated[
        dict[str, dict[str, str]], Field(description="levels of the factor style with another style for each mask")
    ] = Field(default_factory=dict)
    groups: Annotated[
        dict[str, Any], Field(description="what the placeholders of a pattern stand for: a list, or how many")
    ] = Field(default_factory=dict)
    attributes: Annotated[
        dict[Literal["content", "style"], dict[str, dict[str, str]]],
        Field(description="further columns of an image's stimuli, such as its category; a pattern makes them"),
    ] = Field(default_factory=dict)
    licence: Annotated[
        dict[str, str], Field(description="licence of image files by name; archives hold those that have one")
    ] = Field(default_factory=dict)

    def attribute(self, kind: str, image: str | None, name: str) -> str:
        """The value of an attribute of a content or style image; empty where it has none."""
        of_kind = next((images for known, images in self.attributes.items() if known == kind), {})
        return of_kind.get(image or "", {}).get(name, "")


def _default_content() -> dict[str, dict[str, float | None]]:
    return {DEFAULT_SET: {"conv4_2": None}}


def _default_style() -> dict[str, dict[str, float | None]]:
    return {DEFAULT_SET: {f"conv{block}_1": None for block in range(1, 6)}}


class Layers(Frozen):
    """`[layers]`: named sets of layers, each a list or a table of layer weights w_l."""

    content: Annotated[LayerSets, Field(description="layers of the content loss; default conv4_2")] = Field(
        default_factory=_default_content
    )
    style: Annotated[LayerSets, Field(description="layers of the style loss; default conv1_1 to conv5_1")] = Field(
        default_factory=_default_style
    )


class _FactorsBase(Frozen):
    """`[factors]`: every list is one factor of the design; the cells are their product."""

    model_config = ConfigDict(title="Factors")
    content: Annotated[Names | None, Field(description='names of content images; "*": all')] = None
    style: Annotated[Names | None, Field(description='names of style images; "*": all')] = None
    mask: Annotated[Names | None, Field(description='names of masks; "*": all')] = None
    content_layers: Annotated[Names | None, Field(description="names of sets in [layers.content]")] = None
    style_layers: Annotated[Names | None, Field(description="names of sets in [layers.style]")] = None
    ratio: Annotated[tuple[NonNegative, ...], Field(min_length=1, description="alpha / beta")] | None = None
    alpha: (
        Annotated[tuple[FiniteNonNegative, ...], Field(min_length=1, description="weight of the content loss")] | None
    ) = None
    beta: (
        Annotated[tuple[FiniteNonNegative, ...], Field(min_length=1, description="weight of the style loss")] | None
    ) = None
    replicate: Annotated[int, Field(ge=1, le=100_000, description="how many of each")] = 1


def _setting_factors() -> dict[str, Any]:
    """Every setting as an optional list of levels, with the rules of the setting itself."""
    fields: dict[str, Any] = {}
    for key, field in Settings.model_fields.items():
        one = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        fields[key] = (Annotated[tuple[one, ...], Field(min_length=1)] | None, None)  # type: ignore[valid-type]
    return fields


Factors = create_model("Factors", __base__=_FactorsBase, **_setting_factors())


class Display(Frozen):
    """`[display]`: the display of the experiment; of visual size, pixels per degree and size, two give the third."""

    visual_size: Annotated[
        Extent | tuple[Extent, Extent] | None, Field(description="degrees of visual angle: a side, or [height, width]")
    ] = None
    ppd: Annotated[Extent | None, Field(description="pixels per degree of visual angle")] = None


class Design(Frozen):
    """`[design]`: factors that are not simply crossed, and marks."""

    zip: Annotated[
        tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...],
        Field(description="factors that vary together, the first level of one with the first of the others"),
    ] = ()
    table: Annotated[
        tuple[dict[str, Level], ...],
        WithJsonSchema({**TABLE, "description": "combinations of levels: a CSV file with a column for each factor"}),
    ] = ()
    marks: Annotated[
        dict[str, tuple[str, str]],
        Field(description="columns that say whether two factors or attributes have the same value"),
    ] = Field(default_factory=dict)


class Controls(Frozen):
    """`[controls]`: further stimuli that are matched to each of the design's, linked to them by their ids."""

    texture: Annotated[bool, Field(description="style only")] = False
    subset: Annotated[tuple[str, ...], Field(description="style only, of these layer sets")] = ()
    own_texture: Annotated[bool, Field(description="style only, of the content image")] = False
    reconstruction: Annotated[tuple[str, ...], Field(description="content only, from each of these layers")] = ()
    scrambled: Annotated[bool, Field(description="the content image with random phases")] = False
    untouched: Annotated[bool, Field(description="the content image")] = False


class Sample(Frozen):
    """`[sample]`: a part of the combinations, in which every image is used about equally often."""

    count: Annotated[int, Field(ge=1, description="combinations of each stratum")]
    per: Annotated[tuple[str, ...], Field(description="factors or attributes that make the strata")] = ()
    balance: Annotated[
        tuple[str, ...], Field(min_length=1, description="the factors that are sampled; others are crossed with them")
    ] = ("content", "style")
    seed: Annotated[int, Field(ge=0, description="which of the equally good samples")] = 0


class RecognitionRequest(Frozen):
    """`[recognition]`: a classifier that looks at each stimulus, and what it should take content and style for."""

    weights: Annotated[
        str, Field(description='with a classifier: "imagenet", "oxford" or a file; default those of [model]')
    ] = ""
    network: Annotated[NetworkName | None, Field(description="vgg19 or vgg16; default that of [model]")] = None
    preprocessing: Annotated[
        Literal["auto", "torchvision", "caffe"], Field(description="what these weights expect of their input")
    ] = "auto"
    categories: Annotated[
        str,
        Field(min_length=1, description='"imagenet", "geirhos16", or a CSV file with columns class and category'),
    ] = "imagenet"
    content: Annotated[str, Field(description="attribute of the content images that names their category")] = ""
    style: Annotated[str, Field(description="attribute of the style images that names their category")] = ""


class Author(Frozen):
    """One of the authors of a stimulus set."""

    given: Annotated[str, Field(min_length=1, description="given names")]
    family: Annotated[str, Field(min_length=1, description="family names")]
    orcid: Annotated[str, written_as(r"(\d{4}-){3}\d{3}[\dX]", "an ORCID iD, as 0000-0002-1825-0097")] = ""
    affiliation: str = ""


class Publication(Frozen):
    """`[publication]`: what archives say of a stimulus set, in LICENCE and CITATION.cff."""

    title: Annotated[str, Field(description="default: the name of the protocol")] = ""
    authors: Annotated[
        tuple[Author, ...], Field(description="tables with `given`, `family`, and if you like `orcid`, `affiliation`")
    ] = ()
    licence: Annotated[
        str, written_as(r"[A-Za-z0-9][A-Za-z0-9.+-]*", "an SPDX id, as CC-BY-4.0"), Field(description="of the stimuli")
    ] = ""
    weights_licence: Annotated[str, Field(description="of files of weights; archives hold them where it is given")] = ""
    doi: Annotated[
        str, written_as(r"10\.\d{4,9}/\S+", "a DOI, as 10.5281/zenodo.1234"), Field(description="of the set")
    ] = ""
    url: Annotated[
        str, written_as(r"https?://\S+", "an address that begins with https://"), Field(description="where the set is")
    ] = ""
    keywords: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], Field(description="words that it is found by")
    ] = ()

"""Style maps: levels of the factor style whose styles are different in different places, each where a mask is white."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stimkit.documents.messages import BrokenRule, as_list, as_table
from stimkit.documents.schemas import Document
from stimkit.errors import did_you_mean
from stimkit.protocol.mixes import AnyMixture, image_levels


class StyleRegion(NamedTuple):
    """What a style map has where a mask is white."""

    mask: str
    style: str
    """An image, or a level of a mix."""
    mixture: AnyMixture | None


def map_regions(
    maps: Mapping[str, Mapping[str, str]], mixtures: Mapping[str, AnyMixture]
) -> dict[str, tuple[StyleRegion, ...]]:
    """The regions of each style map, by its name."""
    return {
        name: tuple(StyleRegion(mask, style, mixtures.get(style)) for mask, style in regions.items())
        for name, regions in maps.items()
    }


def write_maps(document: Document) -> Document:
    """Write out the levels of the factor style: without a list, they are the style maps, then all other styles."""
    maps = as_table(document, "images", "style_maps")
    factors = as_table(document, "factors")
    if not maps or factors.get("style") not in (None, "*", ["*"]):
        return document
    others = [level for level in image_levels(document, "style") if level not in maps]
    return {**document, "factors": {"style": [], **factors} | {"style": [*maps, *others]}}


def style_levels(document: Mapping[str, Any]) -> list[str]:
    """What levels of the factor style can be: images, levels of mixes, and style maps."""
    return list(dict.fromkeys((*image_levels(document, "style"), *as_table(document, "images", "style_maps"))))


def free_masks(document: Mapping[str, Any]) -> list[str]:
    """The masks that are levels of the factor mask: all of them, or none where there are style maps to have them."""
    images = as_table(document, "images")
    return [] if images.get("style_maps") else list(as_table(images, "mask"))


def check_maps(document: Mapping[str, Any]) -> Iterator[BrokenRule]:
    """Find what is wrong with the style maps of an expanded document."""
    maps, masks = as_table(document, "images", "style_maps"), as_table(document, "images", "mask")
    styles = image_levels(document, "style")
    for name, regions in maps.items():
        path = ("images", "style_maps", name)
        if name in styles:
            yield path, f'"{name}" is a style already; give another name'
        if not as_table(regions):
            yield path, 'names a style for each mask, as { left = "swirl", right = "mosaic" }'
        for mask, style in as_table(regions).items():
            if mask not in masks:
                yield (*path, mask), f'"{mask}" is not in images.mask{did_you_mean(mask, masks)}'
            if style in maps:
                yield (*path, mask), f'"{style}" is a style map; maps are of styles'
            elif style not in styles:
                yield (*path, mask), f'"{style}" is not a style{did_you_mean(str(style), styles)}'
    used = [level for level in as_list(as_table(document, "factors").get("style")) if level in maps]
    if used and as_table(document, "factors").get("mask"):
        yield ("factors", "style"), f'"{used[0]}" has masks of its own, and cannot be crossed with masks'

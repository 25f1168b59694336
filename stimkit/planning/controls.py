"""Matched controls: what an observer sees of the content or of the style of a stimulus alone.

    texture          style only: the style image's layers, without content
    subset           style only, of fewer layers: what a lower bound of the texture model explains
    own_texture      the texture of the stimulus's own content image
    reconstruction   content only, from one layer
    scrambled        the content image with random phases
    untouched        the content image

All of them have the settings of their stimulus, equalization and aperture included. A control that several stimuli
would share is made once and names all of them; what is a cell of the design already is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stimkit.planning.cells import Cell, LayerWeights, own_style
from stimkit.planning.identity import Identities
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.settings import BY_CONTENT, SECTION_OF, Settings

STYLE_ONLY = ("content", "content_layers", "ratio", "alpha", "beta")  # factors that have no level then
CONTENT_ONLY = ("style", "style_layers", "mask", "ratio", "alpha", "beta")


# A control is not made from an image that would show through, and its ratio is known.
PLAIN = {"init": "noise"} | {
    name: Settings.model_fields[name].default for name in Settings.model_fields if "titrate" in name
}


def make_controls(
    cells: Sequence[Cell], protocol: Protocol, identities: Identities, layers: Mapping[tuple[str, str], LayerWeights]
) -> list[Cell]:
    """The controls of cells, each once, in the order of the first cell that they belong to.

    `layers` are the weighted layers of the sets in `[controls] subset`, by name and convention of the losses.
    """
    if not protocol.controls.model_dump(exclude_defaults=True):
        return []
    found: dict[str, Cell] = {}
    design = {cell.id for cell in cells}
    for cell in cells:
        for control in _of_cell(cell, protocol, identities, layers):
            if control.id in design:  # the design has it already
                continue
            known = found.setdefault(control.id, control)
            found[control.id] = replace(known, control_of=tuple(dict.fromkeys((*known.control_of, cell.id))))
    return list(found.values())


def _of_cell(
    cell: Cell, protocol: Protocol, identities: Identities, layers: Mapping[tuple[str, str], LayerWeights]
) -> Iterator[Cell]:
    wanted = protocol.controls

    def make(role: str, dropped: Sequence[str], named: Mapping[str, str] = {}, **changes: Any) -> Cell:
        return _changed(cell, protocol, identities, role, dropped, named, changes)

    if cell.style is not None:
        texture = _style_only(cell)
        if wanted.texture and cell.alpha > 0:
            yield make("texture", STYLE_ONLY, **texture)
        for name in wanted.subset:
            yield make(
                "subset", STYLE_ONLY, {"style_layers": name}, **texture, style_layers=layers[name, cell.settings.loss]
            )
    if cell.content is None:
        return
    if wanted.own_texture and cell.style is not None:
        yield make("own_texture", ("style", *STYLE_ONLY), **_style_only(cell), **_own_style(cell))
    alone = _content_only(cell)
    for layer in wanted.reconstruction:
        yield make("reconstruction", CONTENT_ONLY, {"content_layers": ""}, **alone, content_layers=((layer, 1.0),))
    for role, init in (("scrambled", "scrambled"), ("untouched", "content")):
        if getattr(wanted, role):
            settings = alone["settings"].model_copy(update={"init": init, "max_evaluations": 0})
            replicate = cell.replicate if role == "scrambled" else 1
            yield make(role, CONTENT_ONLY, **{**alone, "settings": settings, "replicate": replicate})


def _style_only(cell: Cell) -> dict[str, Any]:
    """What a cell without content has; where colours or light follow the content image, it stays, with weight 0."""
    settings = cell.settings.model_copy(update=PLAIN)
    changes: dict[str, Any] = {"alpha": 0.0, "beta": 1.0, "settings": settings}
    needed = settings.colour in BY_CONTENT or "content" in settings.equalize_targets
    return changes if needed else {**changes, "content": None, "content_mix": None, "content_layers": ()}


def _own_style(cell: Cell) -> dict[str, Any]:
    """A cell's content as its style."""
    assert cell.content is not None
    mixture = cell.content_mix
    own = None if mixture is None else replace(mixture, parts=tuple(map(own_style, mixture.parts)))
    return {"style": own_style(cell.content), "style_mix": own, "style_map": ()}


def _content_only(cell: Cell) -> dict[str, Any]:
    settings = cell.settings.model_copy(update=PLAIN)
    changes: dict[str, Any] = {"alpha": 1.0, "beta": 0.0, "settings": settings}
    no_style = {"style": None, "style_mix": None, "style_map": (), "style_layers": (), "mask": None}
    return changes if "style" in settings.equalize_targets else {**changes, **no_style}


def _changed(
    cell: Cell,
    protocol: Protocol,
    identities: Identities,
    role: str,
    dropped: Sequence[str],
    named: Mapping[str, str],
    changes: Mapping[str, Any],
) -> Cell:
    """A cell with changes, the levels that they leave, and an id of its own."""
    made = replace(cell, **changes)
    kept = [kind for kind in ("content", "style") if getattr(made, kind) == getattr(cell, kind)]
    attributes = protocol.images.attributes.items()
    left = {name for kind, images in attributes if kind in kept for values in images.values() for name in values}
    lost = set(dropped) - ({"content", "content_layers"} if "content" in kept and made.content else set())
    lost |= {name for name in SECTION_OF if getattr(made.settings, name) != getattr(cell.settings, name)}
    levels = {name: "" if name in lost else value for name, value in cell.levels.items()}
    levels["replicate"] = str(made.replicate)
    identity, seed = identities.of(
        made.settings,
        content=made.content,
        style=made.style,
        mask=made.mask,
        content_mix=made.content_mix,
        style_mix=made.style_mix,
        style_map=made.style_map,
        content_layers=made.content_layers,
        style_layers=made.style_layers,
        alpha=made.alpha,
        beta=made.beta,
        replicate=made.replicate,
    )
    return replace(
        made,
        id=identity,
        seed=seed,
        role=role,
        levels=levels | {name: value for name, value in named.items() if name in levels},
        attributes={name: value if name in left else "" for name, value in cell.attributes.items()},
        compared=tuple((kind, name) for kind, name in cell.compared if kind in kept and getattr(made, kind)),
    )

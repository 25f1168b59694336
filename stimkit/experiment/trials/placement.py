"""Where stimuli are on the screen, in degrees of visual angle, and for how many frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from stimkit.protocol.settings import Frozen
from stimkit.records.schema import Record

Degrees = Annotated[float, Field(ge=-360, le=360, allow_inf_nan=False)]
DegreesXY = tuple[Degrees, Degrees]
Centimetres = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
SAME_SCALE = 0.02  # relative difference of pixels per degree below which images are shown pixel by pixel
_CENTRE = (0.0, 0.0)


class Place(Frozen):
    """`[place]`: where the stimuli of a trial are, in degrees right of and above fixation."""

    positions: Annotated[dict[str, DegreesXY], Field(description="right and up, by name")] = Field(default_factory=dict)
    eccentricity: Annotated[float | None, Field(gt=0, le=90, description="distance from fixation")] = None
    angle: Annotated[
        tuple[Degrees, ...], Field(description="directions at that distance, counter-clockwise from the right")
    ] = ()
    as_made: Annotated[
        bool,
        Field(description="where each stimulus's polar windows assume it to be: fixation_x and fixation_y from it"),
    ] = False
    fixation: Annotated[DegreesXY, Field(description="of the fixation mark, from the middle of the screen")] = _CENTRE

    @property
    def named(self) -> dict[str, DegreesXY]:
        """All positions by their names; those of an eccentricity are called by their angles (`90deg`)."""
        if self.eccentricity is None:
            return self.positions
        at = self.eccentricity
        turned = {f"{one:g}deg": (math.cos(math.radians(one)), math.sin(math.radians(one))) for one in self.angle}
        return {name: (round(at * x, 9), round(at * y, 9)) for name, (x, y) in turned.items()}


class Screen(Frozen):
    """`[screen]`: the display of the experiment."""

    viewing_distance: Annotated[Centimetres | None, Field(description="from eye to screen, cm")] = None
    width: Annotated[Centimetres | None, Field(description="of the picture, cm")] = None
    pixels: Annotated[
        Annotated[tuple[Annotated[int, Field(ge=100, le=100_000)], ...], Field(min_length=2, max_length=2)] | None,
        Field(description="width and height"),
    ] = None
    calibrate: Annotated[
        bool, Field(description="in a browser: measured with a card held to the screen, and the blind spot")
    ] = False
    refresh: Annotated[float | None, Field(gt=10, le=1000, description="frames a second")] = None

    @property
    def ppd(self) -> float | None:
        """Pixels per degree of visual angle in the middle of the screen; None where it is measured later."""
        if self.viewing_distance is None or self.width is None or self.pixels is None:
            return None
        return self.pixels[0] / self.width * self.viewing_distance * math.tan(math.radians(1))

    @property
    def degrees(self) -> tuple[float, float] | None:
        """Width and height in degrees of visual angle; None where they are measured later."""
        return (self.pixels[0] / self.ppd, self.pixels[1] / self.ppd) if self.pixels and self.ppd else None

    def frames(self, seconds: float) -> float:
        """How many frames a time is."""
        return seconds * (self.refresh or 0)


@dataclass(frozen=True)
class Layout:
    """What the programs that show trials need to know of places."""

    place: Place | None
    screen: Screen | None
    image_ppd: float | None
    """Pixels per degree that the stimuli were made for; None where it is not known, or not the same for all."""

    def describe(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "image_ppd": self.image_ppd,
            "same_scale": SAME_SCALE,
            "fixation_deg": list(self.place.fixation) if self.place else [0, 0],
            "fixation_stays": self.place is not None,
            "screen": self.screen and {**self.screen.model_dump(mode="json"), "ppd": self.screen.ppd},
        }


def image_ppd(records: Sequence[Record]) -> float | None:
    """Pixels per degree that all stimuli were made for; None where there is no one such number."""
    found = {record.settings.ppd for record in records}
    return found.pop() if len(found) == 1 and all(found) else None


def misplaced(
    layout: Layout, records: Sequence[Record], shown: int, times: dict[str, float]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """What cannot be shown as asked: keys of the design, and what to do.

    `records` are those of stimuli that can be shown, `shown` is the number of stimuli of a trial, `times` are seconds
    by the keys of `[timing]`.
    """
    place, screen = layout.place, layout.screen
    yield from _elsewhere(place, records)
    if screen is not None and screen.refresh:
        for key, seconds in times.items():
            frames = screen.frames(seconds)
            if abs(frames - round(frames)) > 0.01:
                near = round(frames) / screen.refresh
                yield ("timing", key), f"{seconds:g} s are {frames:.4g} frames at {screen.refresh:g} Hz: try {near:.6g}"
    if screen is not None and len(made_for := {record.settings.ppd for record in records}) > 1:
        words = " and ".join(f"{one:g}" for one in sorted(one or 0 for one in made_for))
        yield ("screen",), f"shows images at one scale, and these are for {words} pixels per degree: choose with where"
    if place is None:
        return
    positions = place.named
    if place.as_made:
        if shown > 1:
            yield ("place", "as_made"), "is for trials of one stimulus"
        positions = {one.stimulus_id: assumed_place(one) for one in records}
    elif shown > 1 and len(positions) != shown:
        yield ("place",), f"has {len(positions)} positions for the {shown} stimuli of a trial"
        return
    if layout.image_ppd is None:
        yield ("place",), "is in degrees, which needs one ppd (or visual_size) in [display] of the stimuli's protocol"
        return
    height, width = (
        max(getattr(one, side) for one in records) / layout.image_ppd for side in ("height_px", "width_px")
    )
    for name, (x, y) in positions.items():
        key = "as_made" if place.as_made else "eccentricity"
        path = ("place", "positions", name) if place.positions else ("place", key)
        if not place.as_made and (x, y) != _CENTRE and abs(x) < width / 2 and abs(y) < height / 2:
            yield path, f"a stimulus of {width:.3g} × {height:.3g} degrees there would cover fixation"
        if screen is not None and screen.degrees is not None:
            far = (abs(a + b) + side / 2 for a, b, side in zip((x, y), place.fixation, (width, height), strict=True))
            if any(one > side / 2 for one, side in zip(far, screen.degrees, strict=True)):
                size = " × ".join(f"{side:.4g}" for side in screen.degrees)
                yield path, f"does not fit the screen of {size} degrees"
    for (one, (x, y)), (other, (u, v)) in itertools.combinations(positions.items() if shown > 1 else (), 2):
        if abs(x - u) < width and abs(y - v) < height:
            yield ("place",), f"stimuli of {width:.3g} × {height:.3g} degrees at {one} and {other} would overlap"


def assumed_place(record: Record) -> DegreesXY:
    """Where the middle of a stimulus is from fixation, in degrees, as its polar windows assume."""
    return 0.0 - record.settings.fixation_x, 0.0 - record.settings.fixation_y


def _elsewhere(place: Place | None, records: Sequence[Record]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Stimuli whose windows are about another point than the fixation mark."""
    if place is not None and place.as_made:
        return
    positions = set(place.named.values()) if place else {_CENTRE}
    for one in records:
        x, y = assumed_place(one)
        if (x, y) != _CENTRE and positions != {(x, y)}:
            words = (
                f"windows of {one.stimulus_id} assume its middle at [{x:g}, {y:g}] from fixation: give as_made = true"
            )
            yield ("place",), words
            return

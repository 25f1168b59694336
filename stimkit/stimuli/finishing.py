"""What happens to an optimized image before it is a stimulus, in a fixed order.

    colours of the content image   (colour = "luminance")
    equalization                   of luminance, in linear light
    aperture                       on a uniform background
    transfer function, rounding    to 8 or 16 bits

Everything is computed in float64 on the CPU, so that it does not depend on the device.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from stimkit.images.aperture import aperture_weights, lay_on_background
from stimkit.images.equalization import (
    EqualizationTarget,
    Light,
    equalize,
    mean_histogram,
    mean_spectrum,
    measure_light,
)
from stimkit.images.light import Array, luminance, set_luminance, to_linear, to_srgb
from stimkit.images.noise import scramble_phases
from stimkit.images.pixels import FloatImage, resize, to_float
from stimkit.images.png import Values, to_file_values, to_network_image
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.protocol.mixes import Mixture
from stimkit.protocol.settings import POOLS, Settings
from stimkit.protocol.style_maps import StyleRegion
from stimkit.stimuli.preparation import picture


@dataclass(frozen=True)
class Finishing:
    """The way of one cell from an optimized image to pixels."""

    settings: Settings
    seed: int
    """Of the dither."""
    recoloured: Array | None
    """Linear RGB of the content image, where the stimulus takes its colours."""
    target: EqualizationTarget
    aperture: Array | None
    text: Mapping[str, str]
    """What the file says of itself."""

    @property
    def equalizes(self) -> bool:
        """Whether the image is changed before aperture and rounding."""
        return self.recoloured is not None or not self.target.empty

    def equalize(self, image: FloatImage) -> FloatImage:
        """The image with its final colours, luminance and contrast, sRGB encoded, (3, height, width)."""
        linear = to_linear(image)
        if self.recoloured is not None:
            wanted, known = luminance(linear), luminance(self.recoloured)
            gain = np.where(known > 0, wanted / np.where(known > 0, known, 1), 1.0)
            linear = set_luminance(self.recoloured, wanted, gain=gain)
        if not self.target.empty:
            linear = equalize(linear, self.target, self.settings.gamut, self.aperture)
        return to_srgb(linear).astype(np.float32)

    def show(self, image: FloatImage) -> Values:
        """The values of the stimulus's file, from the image as `equalize` returns it."""
        if self.aperture is not None:
            image = lay_on_background(image, self.aperture, self.settings.background).astype(np.float32)
        return to_file_values(image, self.settings.encoding, self.seed)

    def light(self, image: FloatImage) -> Light:
        """Mean and contrast of luminance inside the aperture."""
        return measure_light(luminance(to_linear(image)), self.aperture)

    def inside(self, image: FloatImage) -> Light | None:
        """Mean and contrast inside the aperture, of the image as `equalize` returns it, once it is rounded.

        They are those of the image alone, which flanks of the aperture mix with the background. None without an
        aperture, where they are those of the file.
        """
        return None if self.aperture is None else measure_light(self._rounded(image), self.aperture)

    def _rounded(self, image: FloatImage) -> Array:
        """Luminance of an image, rounded as its file is."""
        return luminance(
            to_linear(
                to_network_image(to_file_values(image, self.settings.encoding, self.seed), self.settings.encoding)
            )
        )

    def error(self, image: FloatImage) -> float | None:
        """How far the image as `equalize` returns it is from its target, once it is rounded.

        It is the largest difference of luminance or contrast, relative to the target; for a histogram or a spectrum the
        mean difference of its values, relative to their mean. None without a target.
        """
        if self.target.empty:
            return None
        values = self._rounded(image)
        inside = measure_light(values, self.aperture)
        pairs: list[tuple[Array | float, Array | float]] = []
        if self.target.luminance is not None:
            pairs.append((inside.mean, self.target.luminance))
        if self.target.contrast is not None:
            pairs.append((inside.contrast, self.target.contrast))
        if self.target.histogram is not None:
            pairs.append((mean_histogram([values], self.aperture), self.target.histogram))
        elif self.target.spectrum is not None:
            pairs.append(self._spectra(values, self.target.spectrum))
        differences = [
            float(np.mean(np.abs(found - wanted)) / max(float(np.mean(wanted)), 1e-9)) for found, wanted in pairs
        ]
        return max(differences, default=None)

    def _spectra(self, values: Array, wanted: Array) -> tuple[Array, Array]:
        """Amplitudes of the image before its aperture, and those wanted.

        Where mean or contrast are set as well, which scales all amplitudes, only their proportions are compared.
        """
        found = mean_spectrum([values])
        if self.target.luminance is None and self.target.contrast is None:
            return found, wanted
        found, wanted = found.ravel()[1:], wanted.ravel()[1:]
        return found * (wanted.sum() / max(found.sum(), 1e-12)), wanted


def describe(cell: Cell) -> dict[str, str]:
    """Text chunks of a stimulus's file: its id, and the parameters that are not at their default."""
    parameters = {
        **cell.settings.model_dump(mode="json", exclude_defaults=True, exclude={"weights"}),  # which may be a path
        **{name: getattr(cell, name) for name in ("content", "style", "mask", "alpha", "beta", "seed")},
        **{f"{kind}_mix": asdict(mixture) for kind in ("content", "style") if (mixture := cell.mixture(kind))},
        **({"style_map": [_region(one) for one in cell.style_map]} if cell.style_map else {}),
        "content_layers": dict(cell.content_layers),
        "style_layers": dict(cell.style_layers),
    }
    return {"stimulus_id": cell.id, "stimkit": json.dumps(parameters, sort_keys=True)}


def _region(one: StyleRegion) -> dict[str, Any]:
    mix = {} if one.mixture is None else {"style_mix": asdict(one.mixture)}
    return {"mask": one.mask, "style": one.style, **mix}


class Finishings:
    """The finishing of cells; what comes from input images is measured once."""

    def __init__(self, inputs: InputSource) -> None:
        self._inputs = inputs
        self._light = lru_cache(maxsize=None)(self._measured_light)
        self._shape = lru_cache(maxsize=None)(self._measured_shape)

    def of(self, cell: Cell) -> Finishing:
        settings = cell.settings
        recoloured = None
        if settings.colour == "luminance" and cell.content is not None:
            image = to_float(picture(cell, "content", self._inputs))
            recoloured = to_linear(scramble_phases(image, cell.seed) if settings.init == "scrambled" else image)
        return Finishing(
            settings,
            cell.seed,
            recoloured,
            self._target(cell),
            aperture_weights(settings.aperture_shape),
            describe(cell),
        )

    def _target(self, cell: Cell) -> EqualizationTarget:
        settings = cell.settings
        return EqualizationTarget(
            luminance=self._number(settings.equalize_luminance, "mean", cell),
            contrast=self._number(settings.equalize_contrast, "contrast", cell),
            histogram=self._shape_of(settings.equalize_histogram, "histogram", cell),
            spectrum=self._shape_of(settings.equalize_spectrum, "spectrum", cell),
        )

    def _shape_of(self, wanted: str, what: str, cell: Cell) -> Array | None:
        if wanted == "none":
            return None
        parts = [weight * self._shape(what, one, cell.settings) for one, weight in self._sources(wanted, cell)]
        return np.asarray(np.sum(parts, axis=0))

    def _number(self, wanted: float | str, what: str, cell: Cell) -> float | None:
        if wanted == "none":
            return None
        if not isinstance(wanted, str):
            return float(wanted)
        found = [
            weight * np.mean([getattr(self._light(image, cell.settings), what) for image in images])
            for images, weight in self._sources(wanted, cell)
        ]
        return float(np.sum(found))

    def _sources(self, wanted: str, cell: Cell) -> list[tuple[tuple[tuple[str, str], ...], float]]:
        """The input images that a target is taken from, those of equal weight together."""
        if wanted in POOLS:
            return [(tuple((POOLS[wanted], name) for name in self._inputs.names(POOLS[wanted])), 1.0)]
        mixture = cell.mixture(wanted)
        weights = mixture.weights if isinstance(mixture, Mixture) else (1.0,)
        return [(((wanted, name),), weight) for name, weight in zip(cell.images(wanted), weights, strict=True)]

    def _values(self, source: tuple[str, str], settings: Settings) -> Array:
        pixels = resize(self._inputs.image(*source), settings.size, settings.fit)
        return luminance(to_linear(to_float(pixels)))

    def _measured_light(self, source: tuple[str, str], settings: Settings) -> Light:
        return measure_light(self._values(source, settings), aperture_weights(settings.aperture_shape))

    def _measured_shape(self, what: str, sources: Iterable[tuple[str, str]], settings: Settings) -> Array:
        images = [self._values(source, settings) for source in sources]
        return (
            mean_spectrum(images)
            if what == "spectrum"
            else mean_histogram(images, aperture_weights(settings.aperture_shape))
        )

"""Make one image without a protocol or a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stimkit.errors import ImageError, UsageError
from stimkit.images.pixels import Pixels
from stimkit.images.reading import from_pillow, read_source
from stimkit.network.sources import load_weights
from stimkit.network.weights import Weights
from stimkit.planning.cells import Cell
from stimkit.planning.crossing import plan
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.settings import MODEL_KEYS, Settings
from stimkit.stimuli.assembly import Assembly
from stimkit.synthesis.devices import check_precision, choose_device
from stimkit.synthesis.minimization import OnProgress
from stimkit.synthesis.synthesis import Synthesis, synthesize_batch

AnyImage = str | Path | Image.Image | Pixels


def synthesize(
    content: AnyImage | None,
    style: AnyImage | None,
    *,
    ratio: float,
    content_layers: Sequence[str] = ("conv4_2",),
    style_layers: Sequence[str] = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"),
    seed: int = 0,
    device: str = "auto",
    on_progress: OnProgress | None = None,
    **settings: Any,
) -> Synthesis:
    """Recombine the content of one image with the style of another (Gatys, Ecker & Bethge 2015).

    >>> result = stimkit.synthesize("skimage:chelsea", "skimage:coffee", ratio=1e-4, size=48, max_evaluations=10)
    >>> result.pixels.shape, result.evaluations
    ((48, 48, 3), 10)

    Images are paths, `"skimage:chelsea"`, Pillow images (which are converted as their files would be) or uint8 arrays
    (height, width, 3); `content` may be None with `ratio=0`, `style` with `ratio=inf`. `ratio` is alpha / beta.
    Further keywords are the settings of `[model]` and `[synthesis]`, such as `size`, `max_evaluations`, `init`,
    `loss`, `weights`.
    The result's `image` is float32 (3, height, width); `Synthesis.pixels` is what a file would hold.

    Raises `ProtocolError` for settings that break a rule and `ImageError` for images that cannot be read.
    """
    given = {kind: _pixels(image) for kind, image in (("content", content), ("style", style)) if image is not None}
    cell = _cell(given, ratio, list(content_layers), list(style_layers), seed, settings)
    where = choose_device(device)
    check_precision(cell.settings.precision, where)
    if cell.settings.colour == "luminance" or cell.settings.titrate != "none":
        raise UsageError("colours that are put back, and titration, need a protocol and `stimkit.run`")
    return synthesize_batch(Assembly(_Given(given), where).batch([cell]), on_progress)[0]


class _Given:
    """Images in memory, weights by name or path."""

    def __init__(self, images: dict[str, Pixels]) -> None:
        self._images = images

    def image(self, kind: str, name: str) -> Pixels:
        return self._images[kind]

    def names(self, kind: str) -> tuple[str, ...]:
        return ("image",) if kind in self._images else ()

    def weights(self, settings: Settings) -> Weights:
        return load_weights(settings.weights, preprocessing=settings.preprocessing, network=settings.network)


def _pixels(image: AnyImage) -> Pixels:
    if isinstance(image, str | Path):
        text = str(image)
        path = Path(text)
        return read_source(text if text.startswith("skimage:") else path.name, path.parent).pixels
    if isinstance(image, Image.Image):
        try:
            return from_pillow(image, "given")
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ImageError(f"the image given is damaged: {error}") from error
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise UsageError(f"an image array must be uint8 of shape (height, width, 3), not {array.dtype} {array.shape}")
    return array


def _cell(
    given: dict[str, Pixels],
    ratio: float,
    content_layers: list[str],
    style_layers: list[str],
    seed: int,
    settings: dict[str, Any],
) -> Cell:
    """The cell of a protocol of one cell, which checks the settings; its images need not be files."""
    model = {key: settings.pop(key) for key in MODEL_KEYS if key in settings}
    protocol = Protocol.from_dict(
        {
            "schema": 1,
            "name": "single",
            "seed": seed,
            "seeds": "shared",
            "images": {kind: {"image": "in-memory"} for kind in given},
            "layers": {"content": content_layers, "style": style_layers},
            "model": model,
            "synthesis": settings,
            "factors": {"ratio": [float(ratio)]},
        }
    )
    return plan(protocol).cells[0]

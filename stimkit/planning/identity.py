"""Ids and seeds of cells: digests of everything that determines a stimulus's pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from stimkit.planning.cells import Input, LayerWeights, RecognitionSource, WeightsSource, own_style
from stimkit.planning.scales import scale_sizes
from stimkit.protocol.mixes import AnyMixture, Mixture
from stimkit.protocol.protocol import Protocol
from stimkit.protocol.rules import IMAGE_FACTORS, IMAGE_KINDS
from stimkit.protocol.settings import Settings, Source
from stimkit.protocol.style_maps import StyleRegion

_SEED = "*seed*"  # stands for a seed in a text
ALGORITHM = 1  # raised whenever the same parameters would give other pixels, rounding aside
CLIPPED_ALGORITHM = 2  # of set luminance with gamut = "clip": it was clipped before its colours were


class Identities:
    """Ids and seeds of the cells of a protocol with these inputs and weights."""

    def __init__(
        self,
        protocol: Protocol,
        inputs: Sequence[Input],
        sources: Mapping[Source, WeightsSource],
        recognition: RecognitionSource | None,
    ) -> None:
        self._protocol, self._inputs, self._sources, self._recognition = protocol, inputs, sources, recognition
        self._digests: dict[tuple[str, str], str] = {(image.kind, image.name): image.pixel_sha256 for image in inputs}
        self._digests |= {
            ("style", own_style(image.name)): image.pixel_sha256 for image in inputs if image.kind == "content"
        }
        self._canonical = lru_cache(maxsize=None)(self._of_settings)
        self._texts = lru_cache(maxsize=10_000)(self._text_of)  # the same for all replicates

    def of(self, settings: Settings, *, replicate: int, **parts: Any) -> tuple[str, int]:
        """Id and seed of a cell; `parts` are its images, mixtures, layers, weights by their names."""
        images = tuple((kind, parts.pop(kind), parts.pop(f"{kind}_mix", None)) for kind in IMAGE_KINDS)
        text, with_seed = self._texts(settings, images, parts.pop("style_map", ()), **parts)
        cell = "null" if self._protocol.seeds == "shared" else text
        # 48 bits, which spreadsheets, R and MATLAB read without loss as a double.
        seed = int(_sha256(f'{{"cell":{cell},"replicate":{replicate},"seed":{self._protocol.seed}}}')[:12], 16)
        return "s" + _sha256(with_seed.replace(_json(_SEED), str(seed)))[:10], seed

    def _text_of(
        self,
        settings: Settings,
        images: tuple[tuple[str, str | None, AnyMixture | None], ...],
        style_map: tuple[StyleRegion, ...],
        *,
        content_layers: LayerWeights,
        style_layers: LayerWeights,
        alpha: float,
        beta: float,
    ) -> tuple[str, str]:
        """What an id is a digest of as JSON with sorted keys: without its seed, and with a place for it."""
        sizes = len(scale_sizes(settings, style_layers, beta))
        identity = {
            **self._canonical(settings),
            **({"scales": sizes} if sizes > 1 else {}),
            **{kind: self._of_images(kind, name, mixture) for kind, name, mixture in images if name or kind != "mask"},
            "content_layers": content_layers,
            "style_layers": style_layers,
            "alpha": alpha,
            "beta": beta,
        }
        if settings.titrate == "cue_balance" and self._recognition:
            names = {kind: name for kind, name, _ in images}
            asked, attribute = self._protocol.recognition, self._protocol.images.attribute
            named = [attribute(kind, names[kind], getattr(asked, kind)) for kind in IMAGE_FACTORS]
            identity["recognition"] = [self._recognition.digest, *named]
        if style_map:
            regions = ((self._digests["mask", one.mask], one.style, one.mixture) for one in style_map)
            identity["style"] = sorted(
                [mask, self._of_images("style", style, mixture)] for mask, style, mixture in regions
            )
        return _json(identity), _json({**identity, "seed": _SEED})

    def _of_images(self, kind: str, name: str | None, mixture: AnyMixture | None) -> Any:
        """The digest of an image, or those of a mixture with all else that makes it, whatever its images are called."""
        if mixture is None:
            return self._digests.get((kind, name or ""))
        digests = [self._digests[kind, part] for part in mixture.parts]
        if isinstance(mixture, Mixture):
            return {"parts": sorted(zip(digests, mixture.weights, strict=True)), "path": mixture.path}
        return {**asdict(mixture), "parts": digests}

    def _of_settings(self, settings: Settings) -> dict[str, Any]:
        """Settings at their default are left out, so that a setting added in a later version changes no id."""
        source = self._sources[settings.source]
        unimportant = {"weights", "preprocessing", "network"} | (set() if settings.uses_degrees else {"ppd"})
        canonical = settings.model_dump(mode="json", exclude_defaults=True, exclude=unimportant | {"scales"})
        # What ids leave out is what was the default when the setting came, or before it did.
        rescaled = False if settings.normalize == "none" else settings.normalize
        for name, value, unsaid in (
            ("normalize", rescaled, "filter"),
            ("image_range", settings.image_range, "free"),
            ("history", settings.history, 10),
        ):
            canonical.pop(name, None)
            if value != unsaid:
                canonical[name] = value
        for kind in settings.pools:
            canonical[f"{kind}_pool"] = sorted(image.pixel_sha256 for image in self._inputs if image.kind == kind)
        network: dict[str, Any] = {"weights": source.digest, "preprocessing": source.preprocessing}
        is_clipped = settings.gamut == "clip" and {settings.equalize_luminance, settings.equalize_contrast} != {"none"}
        network["algorithm"] = CLIPPED_ALGORITHM if is_clipped else ALGORITHM
        return {**canonical, **network}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

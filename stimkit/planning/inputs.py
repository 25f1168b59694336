"""Where a plan's images and weights come from: the original places, or anywhere that has them by digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from stimkit.errors import ImageError, StimkitError, WeightsError
from stimkit.images.pixels import Pixels
from stimkit.images.png import encode_png
from stimkit.images.reading import SourceImage, image_files, read_source
from stimkit.network.formats import READERS
from stimkit.network.sources import has_a_name, load_weights
from stimkit.network.weights import Weights, weights_bytes
from stimkit.planning.cells import Input, Plan, WeightsSource
from stimkit.protocol.settings import Settings


class InputSource(Protocol):
    """What the cells of a plan are made from."""

    def image(self, kind: str, name: str) -> Pixels:
        """A content or style image in its own size, (height, width, 3)."""

    def names(self, kind: str) -> tuple[str, ...]:
        """Names of all content or style images."""

    def weights(self, settings: Settings) -> Weights:
        """The weights of cells of these settings."""


class PlanInputs:
    """The inputs of a plan at their original places, as long as they are what was planned with."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def image(self, kind: str, name: str) -> Pixels:
        """Raises `ImageError` where the image cannot be read or has changed since the plan was made."""
        known = self._plan.input(kind, name)
        protocol = self._plan.protocol
        source = read_source(known.spec, protocol.root, follow_links=protocol.images.follow_links)
        if source.pixel_sha256 != known.pixel_sha256:
            raise ImageError(f'image "{known.spec}" has changed since the plan was made; run again')
        return source.pixels

    def names(self, kind: str) -> tuple[str, ...]:
        return tuple(image.name for image in self._plan.inputs if image.kind == kind)

    def weights(self, settings: Settings) -> Weights:
        """Raises `WeightsError` where the weights cannot be read or have changed since the plan was made."""
        return _original_weights(self._plan, settings, settings.preprocessing)  # as the plan read them: not read again


def _original_weights(plan: Plan, settings: Settings, preprocessing: str) -> Weights:
    found = load_weights(
        settings.weights, base=plan.protocol.base, preprocessing=preprocessing, network=settings.network
    )
    if not _are_those(found, plan.weights[settings.source]):
        raise WeightsError(f'weights "{settings.weights}" have changed since the plan was made; run again')
    return found


def _are_those(found: Weights, known: WeightsSource) -> bool:
    """Whether weights are those of a plan: the same tensors, which are rescaled, or left as they are, as they were."""
    pooling = known.unit_mean_pooling
    return found.digest == known.digest and pooling in (None, found.unit_mean_pooling or "none")


class FoundInputs:
    """The inputs of a plan wherever they are now: at their original places, or in folders, by their digests."""

    def __init__(self, plan: Plan, folders: Sequence[Path]) -> None:
        self._plan, self._folders = plan, folders
        self._original = PlanInputs(plan)

    def image(self, kind: str, name: str) -> Pixels:
        """Raises `ImageError` where no file has the pixels that the plan was made with."""
        try:
            return self._original.image(kind, name)
        except ImageError as error:
            known = self._plan.input(kind, name)
            if found := self._images.get(known.pixel_sha256):
                return self._read(found).pixels
            raise ImageError(
                f'{kind} image "{name}" ({known.spec}, pixels sha256 {known.pixel_sha256[:12]}…) was not found:'
                f" {error}; give a folder that has it with --inputs"
            ) from None

    def names(self, kind: str) -> tuple[str, ...]:
        return self._original.names(kind)

    def weights(self, settings: Settings) -> Weights:
        """Raises `WeightsError` where no file has the weights that the plan was made with."""
        known = self._plan.weights[settings.source]
        try:  # as it was then: a file of today's plan may have to say more
            return _original_weights(self._plan, settings, known.preprocessing)
        except WeightsError as error:
            files = (path for folder in self._folders for path in sorted(folder.rglob("*")))
            for path in (path for path in files if path.suffix.lower() in READERS and path.is_file()):
                try:
                    found = load_weights(str(path.resolve()), preprocessing=known.preprocessing)
                except StimkitError:
                    continue
                if _are_those(found, known):
                    return found
            raise WeightsError(
                f'weights "{known.spec}" (sha256 {known.digest[:12]}…) were not found: {error};'
                " give a folder that has them with --inputs"
            ) from None

    def _read(self, path: Path) -> SourceImage:
        return read_source(path.name, path.parent, follow_links=self._plan.protocol.images.follow_links)

    @cached_property
    def _images(self) -> dict[str, Path]:
        """Every readable image of the folders by the digest of its pixels."""
        images: dict[str, Path] = {}
        for path in (path for folder in self._folders for path in image_files(folder)):
            try:
                images.setdefault(self._read(path).pixel_sha256, path)
            except ImageError:
                continue
        return images


@dataclass(frozen=True)
class InputFile:
    """An input of a plan as a file with a name of its own."""

    name: str
    label: str
    """What it is, with its digest, in words."""
    image: Input | None
    """None for weights."""
    read: Callable[[], bytes]
    """Its bytes. Raises `ImageError` or `WeightsError` where it is not found."""


def input_files(plan: Plan, inputs: InputSource) -> Iterator[InputFile]:
    """The images and weights of a plan as files.

    Images are written as PNG, which keeps their pixels and so their digests. Samples of scikit-image and weights
    with a name need no file.
    """
    for one in plan.inputs:
        if not one.spec.startswith("skimage:"):
            label = f"{one.kind} image {one.name} (pixels sha256 {one.pixel_sha256})"
            yield InputFile(f"{one.kind}-{one.name}.png", label, one, partial(_image_bytes, inputs, one))
    for settings in {cell.settings.weights: cell.settings for cell in plan.cells}.values():
        if not has_a_name(settings.weights):
            digest = plan.weights[settings.source].digest
            name, label = f"weights-{digest[:12]}.safetensors", f"weights (sha256 {digest})"
            yield InputFile(name, label, None, partial(_weights_bytes, inputs, settings))


def _image_bytes(inputs: InputSource, image: Input) -> bytes:
    return encode_png(inputs.image(image.kind, image.name))


def _weights_bytes(inputs: InputSource, settings: Settings) -> bytes:
    return weights_bytes(inputs.weights(settings))

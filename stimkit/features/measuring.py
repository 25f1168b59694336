"""Features of stimuli, and of the images that they were made from, by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from stimkit.auditing.remeasurement import BATCH_PIXELS
from stimkit.errors import UsageError, check_choice, did_you_mean
from stimkit.images.pixels import FloatImage, to_float
from stimkit.images.png import to_network_image
from stimkit.measures.observers import ObserverInputs, as_seen_by
from stimkit.network.layers import LAYERS, NETWORKS, explain_unknown
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.protocol.settings import Settings
from stimkit.records.schema import Record
from stimkit.runfolder.run import Run
from stimkit.stimuli.networks import Networks
from stimkit.stimuli.preparation import pixels_key, prepare_image
from stimkit.synthesis.devices import exact, network_arithmetic

FeatureForm = Literal["gram", "mean", "flat"]
FEATURE_FORMS: tuple[str, ...] = get_args(FeatureForm)


@dataclass(frozen=True)
class FeatureRow:
    """An image whose features are taken: a stimulus, or an image that stimuli were made from."""

    role: str
    """That of its record; content_image or style_image."""
    name: str
    """Id of a stimulus, name of an image."""
    cell: Cell
    """The stimulus, or one that was made from the image."""
    record: Record | None


def list_rows(run: Run, records: Sequence[Record], *, inputs: bool) -> list[FeatureRow]:
    """The images of a run, in the order of the table: stimuli, then, with `inputs`, what they were made from.

    Raises `UsageError` where stimuli have other networks or sizes, or were made from an image in several forms.
    """
    cells = [run.plan.by_id[record.stimulus_id].as_recorded(record.attempt, record.alpha) for record in records]
    for what, values in (
        ("networks", {_network(cell.settings) for cell in cells}),
        ("sizes", {cell.settings.size for cell in cells}),
    ):
        if len(values) > 1:
            raise UsageError(f"the stimuli have {len(values)} {what}; choose those of one with --where")
    rows = [
        FeatureRow(record.role, record.stimulus_id, cell, record) for record, cell in zip(records, cells, strict=True)
    ]
    forms: dict[tuple[str, str], dict[object, Cell]] = {}  # cells of an image alone, by what its pixels depend on
    for cell in cells if inputs else ():
        for kind in ("content", "style"):
            for name in cell.images(kind):
                alone = cell.with_image(kind, name)
                forms.setdefault((kind, name), {})[pixels_key(alone, kind)] = alone
    for (kind, name), found in forms.items():
        if len(found) > 1:
            words = f"the {kind} image {name} was used in {len(found)} forms, of size or colour"
            raise UsageError(f"{words}: choose stimuli of one with --where, or leave images out")
        rows += [FeatureRow(f"{kind}_image", name, alone, None) for alone in found.values()]
    return rows


def seen_by(
    run: Run, rows: Sequence[FeatureRow], inputs: InputSource, name: str
) -> tuple[list[FeatureRow], InputSource]:
    """Rows and inputs for another network of the protocol. Raises `UsageError` where it names none of that name."""
    observers = run.plan.protocol.observers
    if name not in observers:
        raise UsageError(f'{run.path}: the protocol has no observer "{name}"{did_you_mean(name, observers)}')
    seen = [replace(row, cell=as_seen_by(row.cell, observers[name])) for row in rows]
    return seen, ObserverInputs(run, inputs)


def _network(settings: Settings) -> tuple[object, ...]:
    return (*settings.source, settings.pooling, settings.normalize)


def check_layers(layers: Sequence[str], settings: Settings) -> list[str]:
    """Layers in the order of the network. Raises `UsageError` for one that it does not have, or none."""
    if not layers:
        raise UsageError("name the layers, as conv1_1,conv4_2")
    for layer in layers:
        if layer not in NETWORKS[settings.network]:
            raise UsageError(explain_unknown(layer, settings.network))
    return sorted(set(layers), key=lambda layer: LAYERS[layer].position)


def check_form(form: str) -> FeatureForm:
    """A form of features. Raises `UsageError` for another one."""
    check_choice(form, FEATURE_FORMS, "a form of features")
    return form  # type: ignore[return-value]


def shape_of(layer: str, form: FeatureForm, size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the features of a stimulus in a layer."""
    channels, stride = LAYERS[layer].channels, LAYERS[layer].stride
    shapes: dict[FeatureForm, tuple[int, ...]] = {
        "gram": (channels, channels),
        "mean": (channels,),
        "flat": (channels, size[0] // stride, size[1] // stride),
    }
    return shapes[form]


class Measuring:
    """Measures features of one run on one device."""

    def __init__(self, run: Run, inputs: InputSource, device: torch.device) -> None:
        self._run, self._inputs, self._device = run, inputs, device
        self._networks = Networks(inputs, device)

    def measure(
        self, rows: Sequence[FeatureRow], layers: Sequence[str], form: FeatureForm
    ) -> Iterator[tuple[int, dict[str, NDArray[np.float32]]]]:
        """The features of each row, by its index and by layer: (N, N), (N,) or (N, height, width).

        Gram matrices are divided by the number of positions. Images of one size share a batch.
        """
        start = 0
        while start < len(rows):
            images = [self._image(rows[start])]
            step = max(1, BATCH_PIXELS[self._device.type] // (images[0].shape[1] * images[0].shape[2]))
            for row in rows[start + 1 : start + step]:
                image = self._image(row)
                if image.shape != images[0].shape:
                    break
                images.append(image)
            for index, maps in enumerate(self._features(rows[start].cell.settings, np.stack(images), layers)):
                yield start + index, {layer: _in_form(one, form) for layer, one in maps.items()}
            start += len(images)

    def _image(self, row: FeatureRow) -> FloatImage:
        if row.record is not None:
            return to_network_image(self._run.image(row.name), row.record.settings.encoding)
        return to_float(prepare_image(row.cell, row.role.removesuffix("_image"), self._inputs))

    @torch.no_grad()
    def _features(
        self, settings: Settings, images: NDArray[np.float32], layers: Sequence[str]
    ) -> list[dict[str, torch.Tensor]]:
        network = self._networks.reference(settings)
        with network_arithmetic("float32"):
            maps = network.features(torch.from_numpy(images).to(self._device, torch.float32), list(layers))
        return [{layer: one[row] for layer, one in maps.items()} for row in range(len(images))]


def _in_form(maps: torch.Tensor, form: FeatureForm) -> NDArray[np.float32]:
    if form == "flat":
        return np.asarray(maps.cpu().float().numpy())
    flat = exact(maps.flatten(1))
    found = flat.mean(1) if form == "mean" else flat @ flat.T / flat.shape[1]
    return np.asarray(found.float().cpu().numpy())

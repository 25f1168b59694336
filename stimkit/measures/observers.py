"""Losses of finished stimuli by other networks than the one that made them: does an effect hang on one network?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from stimkit.auditing.remeasurement import Remeasurement
from stimkit.columns import Column
from stimkit.errors import UsageError
from stimkit.images.pixels import FloatImage, Pixels
from stimkit.network.layers import NETWORKS, explain_unknown
from stimkit.network.sources import load_weights
from stimkit.network.weights import Weights
from stimkit.planning.cells import Cell
from stimkit.planning.inputs import InputSource
from stimkit.protocol.settings import ModelSettings, Settings
from stimkit.runfolder.run import Run
from stimkit.stimuli.preparation import prepare_initial

TERMS_SEEN = ("content", "style")


class ObserverInputs:
    """The images of a run, with the weights of the network that looks at them."""

    def __init__(self, run: Run, inputs: InputSource) -> None:
        self._inputs, self._base = inputs, run.plan.protocol.base

    def image(self, kind: str, name: str) -> Pixels:
        return self._inputs.image(kind, name)

    def names(self, kind: str) -> tuple[str, ...]:
        return self._inputs.names(kind)

    def weights(self, settings: Settings) -> Weights:
        """Raises `WeightsError` where they cannot be read."""
        return observer_weights(settings, self._base)


def observer_weights(model: ModelSettings, base: Path) -> Weights:
    """The weights of a network. Raises `WeightsError` where they cannot be read."""
    return load_weights(model.weights, base=base, preprocessing=model.preprocessing, network=model.network)


def as_seen_by(cell: Cell, observer: ModelSettings) -> Cell:
    """A cell as it would be with another network."""
    changes = {name: getattr(observer, name) for name in ModelSettings.model_fields}
    return replace(cell, settings=cell.settings.model_copy(update=changes))


class Observers:
    """Measures the losses of stimuli by several networks on one device."""

    def __init__(self, run: Run, inputs: InputSource, device: torch.device) -> None:
        """Raises `UsageError` where the protocol names none, or one lacks a layer that stimuli were made with;
        `WeightsError` where weights cannot be read."""
        plan = run.plan
        self._models: Mapping[str, ModelSettings] = plan.protocol.observers
        if not self._models:
            raise UsageError(
                "the protocol names no other network: write [observers] and, as a line below it, random = { weights ="
                ' "random:1" }, and run it again, which makes no stimulus anew'
            )
        for name, model in self._models.items():
            for layer in dict.fromkeys(layer for cell in plan.cells for layer in cell.layers):
                if layer not in NETWORKS[model.network]:
                    raise UsageError(f"observer {name}: {explain_unknown(layer, model.network)}")
        self.digests = {
            name: observer_weights(model, plan.protocol.base).digest for name, model in self._models.items()
        }
        self._own = Remeasurement(plan, inputs, device)
        self._by_others = Remeasurement(plan, ObserverInputs(run, inputs), device)

    @property
    def columns(self) -> tuple[Column, ...]:
        """A loss, and that loss relative to the one of the initial image, for each network and term."""
        return tuple(
            column
            for name in self._models
            for term in TERMS_SEEN
            for column in (
                Column(f"observer_{name}_{term}", "1", f"{term} loss of the file by the network {name}"),
                Column(
                    f"observer_{name}_{term}_relative", "1", f"that loss / {term} loss of the initial image by {name}"
                ),
            )
        )

    def measure(self, cell: Cell, image: FloatImage) -> dict[str, float]:
        """All of `columns` for the file of a cell, (3, height, width); NaN for a term that it does not have."""
        found = dict.fromkeys((column.name for column in self.columns), float("nan"))
        cell = replace(self._own.resolve(cell), compared=())
        initial = prepare_initial(cell, self._own.inputs)
        for name, model in self._models.items():
            seen = as_seen_by(cell, model)
            (file,), (start,) = self._by_others.losses([seen, seen], [image, initial])
            for term in (term for term in TERMS_SEEN if getattr(cell, term) is not None):
                loss, before = getattr(file, term), getattr(start, term)
                found[f"observer_{name}_{term}"] = loss
                found[f"observer_{name}_{term}_relative"] = loss / before if before else float("nan")
        return found

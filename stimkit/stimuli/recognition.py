"""What the classifier of a plan takes stimuli for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stimkit.errors import WeightsError
from stimkit.images.pixels import FloatImage
from stimkit.planning.cells import Cell, Plan
from stimkit.planning.recognition import categories_of, load_planned_classifier, recognition_digest
from stimkit.recognition.classifier import ClassifyingNetwork
from stimkit.recognition.decisions import Decision, Recognition, decide
from stimkit.synthesis.devices import network_arithmetic

Recognize = Callable[[Cell, FloatImage], Recognition]


class Recognizer:
    """Recognizes images with the classifier of a plan on one device."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        """Raises `WeightsError` where the classifier is not there, or not the one that the plan was made with."""
        assert plan.recognition is not None, "the plan has a classifier"
        self._protocol, self._categories = plan.protocol, plan.recognition.categories
        self.digest = plan.recognition.digest
        classifier = load_planned_classifier(plan.protocol)
        if recognition_digest(classifier, self._categories) != self.digest:
            raise WeightsError(f'the classifier "{plan.recognition.spec}" has changed since the plan was made')
        self._network = ClassifyingNetwork(classifier, device)

    def decide(self, image: FloatImage) -> Decision:
        """Decide what an image (3, height, width), sRGB encoded, 0 to 1, is taken for."""
        with network_arithmetic("float32"):
            return decide(self._network.logits(image), self._categories)

    def recognize(self, cell: Cell, image: FloatImage) -> Recognition:
        """What the stimulus of a cell is taken for, and the ranks of its content's and style's categories."""
        return Recognition.of(self.decide(image), categories_of(cell, self._protocol))


def recognizer_of(plan: Plan, device: torch.device) -> Recognizer | None:
    """The recognizer of a plan; None where its protocol asks for none."""
    return None if plan.recognition is None else Recognizer(plan, device)

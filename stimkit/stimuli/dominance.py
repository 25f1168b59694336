"""Whether a style loss is one of its layers, or of a single filter: then a stimulus shows little of the style."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from stimkit.planning.cells import LayerWeights

# Of noise against 14 pictures of very different kinds (photographs, paintings, a retina, text), layers conv1_1 to
# conv5_1 rescaled as wholes, a filter carries at most 0.52 of E_l with trained filters and 0.11 with the embedded ones,
# a layer at most 0.78 and 0.91 of the style loss (docs/losses.md). Rescaled one by one, a trained filter carries 0.99.
FILTER_LIMIT, LAYER_LIMIT = 0.6, 0.99


@dataclass(frozen=True)
class Dominance:
    """A layer, or a filter of one, that carries more than its limit of the style loss of the initial image."""

    layer: str
    filter: int | None
    """Its number, from 0; None for the layer itself."""
    share: float
    limit: float

    def __str__(self) -> str:
        if self.filter is None:
            return (
                f"{self.layer} carries {self.share:.0%} of the style loss: give the layers other weights, or rescale"
                ' them (normalize = "layer")'
            )
        return (
            f"filter {self.filter} of {self.layer} carries {self.share:.0%} of this layer's style loss: rescale layers"
            ' rather than filters (normalize = "layer"), or leave the layer out'
        )


def find_dominance(
    grams: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: LayerWeights
) -> Iterator[Dominance]:
    """Find what dominates the style loss of an image by its Gram matrices and their targets, (regions, N, N).

    Of an entry of a squared difference of Gram matrices, each of its two filters carries half.
    """
    of_layers: dict[str, float] = {}
    for layer, weight in weights:
        squares = (grams[layer] - targets[layer]).double().square().mean(0)
        of_layers[layer] = weight * float(squares.mean())
        if of_layers[layer] > 0:
            shares = squares.sum(1) / squares.sum()
            strongest = int(shares.argmax())
            if (share := float(shares[strongest])) > FILTER_LIMIT:
                yield Dominance(layer, strongest, share, FILTER_LIMIT)
    whole = sum(of_layers.values())
    for layer, part in of_layers.items():
        if len(of_layers) > 1 and part > LAYER_LIMIT * whole:
            yield Dominance(layer, None, part / whole, LAYER_LIMIT)

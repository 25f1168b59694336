"""Whether a loss is one of its layers, or of a single filter: then a stimulus shows little else of its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from stimkit.network.layers import Convention
from stimkit.planning.cells import LayerWeights

# Of noise against 14 pictures of very different kinds (photographs, paintings, a retina, text), layers conv1_1 to
# conv5_1 rescaled as wholes, a filter carries at most 0.52 of E_l with trained filters and 0.11 with the embedded ones,
# a layer at most 0.78 and 0.91 of the style loss (docs/explanation/losses.md). Rescaled one by one, a trained filter
# carries 0.99.
FILTER_LIMIT, LAYER_LIMIT = 0.6, 0.99


@dataclass(frozen=True)
class Dominance:
    """A layer, or a filter of one, that carries more than its limit of a loss of the initial image."""

    term: str
    """content or style."""
    layer: str
    filter: int | None
    """Its number, from 0; None for the layer itself."""
    share: float
    limit: float

    def __str__(self) -> str:
        if self.filter is None:
            return (
                f"{self.layer} carries {self.share:.0%} of the {self.term} loss: give the layers other weights, or"
                ' rescale them (normalize = "layer")'
            )
        return (
            f"filter {self.filter} of {self.layer} carries {self.share:.0%} of this layer's {self.term} loss: rescale"
            ' layers rather than filters (normalize = "layer"), or leave the layer out'
        )


def split_style_loss(squares: Tensor) -> Tensor:
    """Parts of E_l that each filter carries, (N,), of squared differences of Gram matrices (N, N).

    Of an entry, each of its two filters carries half.
    """
    return squares.sum(1) / squares.numel()


def split_content_loss(maps: Tensor, target: Tensor, convention: Convention) -> Tensor:
    """Parts of a content loss that each filter carries, (N,), of feature maps (N, height, width)."""
    squares = (maps - target).double().square()
    return squares.sum((1, 2)) / (2 if convention == "paper" else squares.numel())


def find_dominance(term: str, parts: Mapping[str, Tensor], weights: LayerWeights) -> Iterator[Dominance]:
    """Find what dominates a loss by the parts of its layers that filters carry, (N,)."""
    of_layers = {layer: weight * float(parts[layer].sum()) for layer, weight in weights}
    for layer, loss in of_layers.items():
        if loss > 0:
            strongest = int(parts[layer].argmax())
            share = float(parts[layer][strongest] / parts[layer].sum())
            if share > FILTER_LIMIT:
                yield Dominance(term, layer, strongest, share, FILTER_LIMIT)
    whole = sum(of_layers.values())
    for layer, loss in of_layers.items():
        if len(of_layers) > 1 and loss > LAYER_LIMIT * whole:
            yield Dominance(term, layer, None, loss / whole, LAYER_LIMIT)

"""Content and style losses of Gatys, Ecker & Bethge (2015), for a batch of independent cells.

F, P are feature maps of the stimulus and the content image, N filters × M positions; G, A are Gram
matrices of the stimulus and the style image. Two conventions are in use:

    paper   content  ½ Σ (F − P)²                    (equation 1)
            style    Σ (G − A)² / (4 N² M²)          (equations 3 and 4)
    mean    content  mean (F − P)²                   Gatys' PyTorch code and most code since
            style    mean (G/M − A/M)²

Gram matrices are kept divided by M, each by its own, so that a style image may have another size than
the stimulus; with equal sizes this is the paper's formula. A batch never mixes its cells: every
function maps a batch to one value per cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from stimkit.network.layers import Convention
from stimkit.network.region_losses import Regions


class _Gram(torch.autograd.Function):
    """F Fᵀ / M. The gradient of a Gram matrix is symmetric here, which saves autograd's second product."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return _inner_products(features) / features.shape[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        symmetric = ((grads[0] + grads[0].transpose(1, 2)) / features.shape[2]).to(features.dtype)
        # The gradient gets the layout of the features, channels last or not.
        last = not features.is_contiguous()
        result: Tensor = (features.transpose(1, 2) @ symmetric).transpose(1, 2) if last else symmetric @ features
        return result


def _inner_products(features: Tensor) -> Tensor:
    """F Fᵀ, summed in float32 at least: (batch, N, M) to (batch, N, N)."""
    if features.dtype != torch.bfloat16:
        return features @ features.transpose(1, 2)
    if features.is_cuda:  # matrix units take bfloat16 and sum in float32
        return torch.bmm(features, features.transpose(1, 2), out_dtype=torch.float32)
    wide = features.float()
    return wide @ wide.transpose(1, 2)


def gram_matrix(feature_maps: Tensor) -> Tensor:
    """Gram matrix divided by the number of positions: (batch, N, height, width) to (batch, N, N).

    In float32 at least, whatever the precision of the network.
    """
    result: Tensor = _Gram.apply(feature_maps.flatten(2))
    return result


def content_loss(feature_maps: Tensor, target: Tensor, convention: Convention) -> Tensor:
    """Content loss of one layer for each cell: (batch, N, height, width) twice to (batch,)."""
    squares = (feature_maps.to(target.dtype) - target).square()
    return squares.sum((1, 2, 3)) / 2 if convention == "paper" else squares.mean((1, 2, 3))


def style_loss(gram: Tensor, target: Tensor, convention: Convention) -> Tensor:
    """Style loss E_l of one layer for each cell: Gram matrices (batch, N, N) divided by M to (batch,)."""
    if gram.shape != target.shape:  # which would be broadcast over other cells
        raise ValueError(f"Gram matrices {tuple(gram.shape)} and targets {tuple(target.shape)} differ in shape")
    return _in_convention((gram - target).square().mean((1, 2)), convention)


def _in_convention(mean_square: Tensor, convention: Convention) -> Tensor:
    return mean_square / 4 if convention == "paper" else mean_square


@dataclass(frozen=True)
class Losses:
    """Unweighted losses of a batch, by layer; columns are in the order of the objective's layers."""

    content: Tensor  # (batch, content layers)
    style: Tensor  # (batch, style layers)


@dataclass(frozen=True)
class Objective:
    """Targets and weights of a batch of cells; weight 0 masks a layer that a cell does not use.

    `content_weights` (batch, content layers) and `style_weights` (batch, style layers) are w_l.
    """

    convention: Convention
    alpha: Tensor  # (batch,)
    beta: Tensor  # (batch,)
    content_weights: Tensor
    style_weights: Tensor
    content_targets: Mapping[str, Tensor]  # layer: feature maps (batch, N, height, width)
    style_targets: Mapping[str, Tensor]  # layer: Gram matrices / M (batch, N, N), or those of its regions
    regions: Mapping[str, Regions] = field(default_factory=dict)  # style layer: where Gram matrices are taken

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers whose feature maps are needed."""
        return tuple(dict.fromkeys((*self.content_targets, *self.style_targets)))

    def losses(self, maps: Mapping[str, Tensor]) -> Losses:
        """Unweighted losses of the feature maps of a batch."""
        content = [content_loss(maps[name], target, self.convention) for name, target in self.content_targets.items()]
        style = [self._style_of(name, maps[name], target) for name, target in self.style_targets.items()]
        return Losses(_columns(content, self.alpha), _columns(style, self.alpha))

    def _style_of(self, layer: str, feature_maps: Tensor, target: Tensor) -> Tensor:
        """E_l of a layer; of regions it is the mean over them."""
        regions = self.regions.get(layer)
        if regions is None:
            return style_loss(gram_matrix(feature_maps), target, self.convention)
        return _in_convention(regions.loss(feature_maps, target), self.convention)

    def squared_differences(self, layer: str, feature_maps: Tensor) -> Tensor:
        """The squares of which E_l of a single cell is the mean: (1, N, height, width) to (N, N) in float64."""
        target, regions = self.style_targets[layer], self.regions.get(layer)
        if regions is not None:
            return regions.squared_differences(feature_maps, target)
        return (gram_matrix(feature_maps) - target)[0].double().square()

    def content(self, losses: Losses) -> Tensor:
        """Content loss of each cell: Σ v_l C_l, (batch,)."""
        return (self.content_weights * losses.content).sum(1)

    def style(self, losses: Losses) -> Tensor:
        """Style loss of each cell: Σ w_l E_l (equation 5), (batch,)."""
        return (self.style_weights * losses.style).sum(1)

    def total(self, losses: Losses) -> Tensor:
        """Total loss of each cell: alpha · content + beta · style (equation 7), (batch,)."""
        return self.alpha * self.content(losses) + self.beta * self.style(losses)

    def select(self, index: Tensor) -> Objective:
        """Return the objective of some cells of the batch."""
        return replace(
            self,
            alpha=self.alpha[index],
            beta=self.beta[index],
            content_weights=self.content_weights[index],
            style_weights=self.style_weights[index],
            content_targets={name: target[index] for name, target in self.content_targets.items()},
            style_targets={name: target[index] for name, target in self.style_targets.items()},
            regions={name: regions.select(index) for name, regions in self.regions.items()},
        )


def _columns(values: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(values, dim=1) if values else like.new_zeros(len(like), 0)

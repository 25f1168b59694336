"""Style losses over regions: Gram matrices of each, compared with those of the same region of the style image.

A region of m positions has a Gram matrix AᵀA of its weighted rows A (m × N). With B the rows of the style image,

    ‖AᵀA − BᵀB‖² = ‖AAᵀ‖² − 2 ‖ABᵀ‖² + ‖BBᵀ‖²

where the right side has matrices of m × m: for small regions it needs neither the arithmetic nor the memory of N × N.
It is a difference of large numbers, and therefore taken in float64 where the device has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stimkit.images.regions import Window

GROUP_VALUES = 16_000_000  # of rows and matrices that are made at a time: 64 MB in float32


@dataclass(frozen=True)
class Group:
    """Regions with about as many positions, so that they are computed together."""

    positions: Tensor
    """Of each region in the flattened feature map: (regions, m)."""
    roots: Tensor
    """Square roots of their weights, of sum 1 in a region, and 0 where it is filled up: (batch or 1, regions, m)."""
    by_rows: bool
    """Whether m × m matrices are compared, and targets are rows; otherwise N × N ones."""

    def rows(self, flat: Tensor) -> Tensor:
        """Weighted rows A: (batch, positions, N) to (batch, regions, m, N), in the type of the weights."""
        found = flat.index_select(1, self.positions.flatten()).to(self.roots.dtype)
        return found.view(len(flat), *self.positions.shape, -1) * self.roots[..., None]

    def target(self, flat: Tensor) -> Tensor:
        """What a style image's feature maps are compared by: (batch, positions, N) to (batch, values)."""
        rows = self.rows(flat)
        return (rows if self.by_rows else rows.transpose(2, 3) @ rows).flatten(1)

    def values(self, channels: int) -> int:
        """How many values the target of a cell has."""
        regions, m = self.positions.shape
        return regions * channels * (m if self.by_rows else channels)

    def grams(self, target: Tensor, channels: int) -> Tensor:
        """Gram matrices (batch, regions, N, N) of a target."""
        if not self.by_rows:
            return target.view(len(target), -1, channels, channels)
        rows = self._rows_of(target, channels)
        return rows.transpose(2, 3) @ rows

    def compare(self, rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Squared differences of Gram matrices, summed over entries, (batch, regions), and their gradient by rows."""
        channels = rows.shape[3]
        if not self.by_rows:
            difference = rows.transpose(2, 3) @ rows - self.grams(target, channels)
            return difference.square().sum((2, 3)), 4 * rows @ difference
        one, other = (_wide(each) for each in (rows, self._rows_of(target, channels)))
        own, mixed, others = one @ one.transpose(2, 3), one @ other.transpose(2, 3), other @ other.transpose(2, 3)
        squares = (own.square() - 2 * mixed.square() + others.square()).sum((2, 3))
        return squares.clamp_min(0).to(rows.dtype), 4 * (own @ one - mixed @ other).to(rows.dtype)

    def _rows_of(self, target: Tensor, channels: int) -> Tensor:
        return target.view(len(target), *self.positions.shape, channels)


def _wide(values: Tensor) -> Tensor:
    return values if values.device.type == "mps" else values.double()


@dataclass(frozen=True)
class Regions:
    """Regions of the feature maps of a layer."""

    groups: tuple[Group, ...]
    count: int

    def target(self, feature_maps: Tensor) -> Tensor:
        """What the feature maps of a style image are compared by: (batch, N, height, width) to (batch, values)."""
        flat = _flat(feature_maps)
        return torch.cat([group.target(flat) for group in self.groups], dim=1)

    def loss(self, feature_maps: Tensor, target: Tensor) -> Tensor:
        """Mean over regions of mean (G/M − A/M)²: (batch, N, height, width) and (batch, values) to (batch,)."""
        expected = (len(feature_maps), sum(group.values(feature_maps.shape[1]) for group in self.groups))
        if target.shape != expected:  # which would be broadcast over other cells
            raise ValueError(f"targets of regions have the shape {tuple(target.shape)}, not {expected}")
        result: Tensor = _RegionLoss.apply(feature_maps, target, self)
        return result

    def squared_differences(self, feature_maps: Tensor, target: Tensor) -> Tensor:
        """The mean over regions of (G/M − A/M)² of one cell: (1, N, height, width) and (1, values) to (N, N)."""
        channels = feature_maps.shape[1]
        total = feature_maps.new_zeros(channels, channels, dtype=torch.float64)
        for group, part in self.split(target, channels):
            for region, wanted in zip(group.rows(_flat(feature_maps))[0], group.grams(part, channels)[0], strict=True):
                total += (region.T @ region - wanted).double().square()
        return total / self.count

    def split(self, target: Tensor, channels: int) -> list[tuple[Group, Tensor]]:
        """Groups and their parts of a target."""
        sizes = [group.values(channels) for group in self.groups]
        return list(zip(self.groups, target.split(sizes, dim=1), strict=True))

    def select(self, index: Tensor) -> Regions:
        """The regions of some cells of the batch."""
        groups = (group if len(group.roots) == 1 else replace(group, roots=group.roots[index]) for group in self.groups)
        return replace(self, groups=tuple(groups))


def _flat(feature_maps: Tensor) -> Tensor:
    """(batch, N, height, width) to (batch, positions, N)."""
    return feature_maps.permute(0, 2, 3, 1).flatten(1, 2)


class _RegionLoss(torch.autograd.Function):
    """The loss and at once its gradient, so that the rows of all regions need not be kept or made twice."""

    @staticmethod
    def forward(ctx: Any, feature_maps: Tensor, target: Tensor, regions: Regions) -> Tensor:
        batch, channels, height, width = feature_maps.shape
        flat = _flat(feature_maps)
        gradient = torch.zeros_like(flat) if ctx.needs_input_grad[0] else None
        loss = target.new_zeros(batch)
        entries = regions.count * channels**2
        for group, part in regions.split(target, channels):
            rows = group.rows(flat)
            squares, slope = group.compare(rows, part)
            loss = loss + squares.sum(1) / entries
            if gradient is not None:
                slope = (slope * (group.roots[..., None] / entries)).flatten(1, 2)
                gradient.index_add_(1, group.positions.flatten(), slope.to(gradient.dtype))
        if gradient is not None:
            ctx.save_for_backward(gradient.view(batch, height, width, channels).permute(0, 3, 1, 2))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0].to(gradient.dtype)[:, None, None, None], None, None


def group_regions(
    regions: Sequence[Sequence[Window]], width: int, channels: int, like: Tensor, *, with_own_targets: bool
) -> Regions:
    """Regions of a layer whose maps have a width and a number of channels.

    For each region there is a window, or one for each cell of the batch, in boxes that are the same. Weights are on the
    device and in the dtype of `like`. `with_own_targets`: targets are given as Gram matrices whatever the size.
    """
    sizes = [_filled_up(int(np.count_nonzero(_there(region)))) for region in regions]
    if with_own_targets:  # which come in the order of the regions
        sizes = [max(sizes)] * len(sizes)
    groups = []
    for m in sorted(set(sizes)):
        by_rows = 2 * m < channels and not with_own_targets
        together = [region for region, size in zip(regions, sizes, strict=True) if size == m]
        step = max(1, GROUP_VALUES // (channels * (m if by_rows else max(m, channels))))
        for start in range(0, len(together), step):
            groups.append(_group(together[start : start + step], m, width, like, by_rows))
    return Regions(tuple(groups), len(regions))


def _filled_up(count: int) -> int:
    """Number of positions that regions of so many are filled up to: at most a quarter more, in few different sizes."""
    step = 1 << max(0, count.bit_length() - 3)
    return max(1, -(-count // step) * step)


def _there(region: Sequence[Window]) -> NDArray[np.bool_]:
    """Positions of the box that have a weight in any of the windows."""
    return np.asarray(np.any([window.weights > 0 for window in region], axis=0))


def _group(regions: Sequence[Sequence[Window]], m: int, width: int, like: Tensor, by_rows: bool) -> Group:
    positions = np.zeros((len(regions), m), np.int64)
    roots = np.zeros((len(regions[0]), len(regions), m))
    for at, region in enumerate(regions):
        rows, columns = np.nonzero(_there(region))
        top, _, left, _ = region[0].box
        positions[at, : len(rows)] = (top + rows) * width + left + columns
        for cell, window in enumerate(region):
            roots[cell, at, : len(rows)] = np.sqrt(window.weights[rows, columns])
    dtype = torch.float32 if like.dtype == torch.bfloat16 else like.dtype
    return Group(
        torch.from_numpy(positions).to(like.device), torch.from_numpy(roots).to(dtype).to(like.device), by_rows
    )

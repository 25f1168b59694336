"""Gram matrices between those of images.

On a **linear** path, a target is the weighted mean of Gram matrices. Since

    Σ w ‖G − A‖² = ‖G − Σ w A‖² + what does not depend on G

it has the minimum of the weighted sum of style losses, as other implementations mix styles.

On a **geodesic** one (Vacher, Davila, Kohn & Coen-Cagli 2020), features are taken for Gaussians of mean m and
covariance Σ, and go the shortest way in the Bures-Wasserstein metric between them:

    m_t = (1 − t) m₁ + t m₂    X_t = (1 − t) S₁ + t S₂ Q    G_t / M = m_t m_tᵀ + X_t X_tᵀ

with S = Σ^½ and Q the polar factor of S₂ S₁, transposed so that S₂ Q is closest to S₁ (Procrustes). No inverse is
needed, which there is none of where a layer has fewer positions than filters. Multiplied out,

    G_t = (1 − t)² G₁ + t² G₂ + t (1 − t) C    C = m₁ m₂ᵀ + m₂ m₁ᵀ + S₁ Qᵀ S₂ + S₂ Q S₁

so that every target of a path is a sum of the same few matrices. Everything is float64, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from stimkit.images.light import Array
from stimkit.protocol.mixes import Mixture, Spaced, mixture_of

RANK = 1e-7
"""Singular values of S₁ S₂ below this share of the largest are 0, which rounding makes about 1e-8: the optimal coupling
leaves these directions open, and they are taken for independent."""
EQUAL = 1e-6  # relative difference of distances that are equal
MAX_ROUNDS = 1000


@dataclass(frozen=True)
class Moments:
    """Mean (N,) and Gram matrix / M (N, N) of the features of an image in a layer."""

    mean: Array
    gram: Array

    @classmethod
    def of(cls, feature_maps: Tensor) -> Moments:
        """Of feature maps (N, height, width)."""
        features = feature_maps.flatten(1).cpu().double().numpy()
        return cls(features.mean(1), features @ features.T / features.shape[1])

    @property
    def root(self) -> Array:
        """S, the root of the covariance."""
        values, vectors = np.linalg.eigh(self.gram - np.outer(self.mean, self.mean))
        return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


def cross_term(first: Moments, second: Moments) -> Array:
    """C of the geodesic between two images, (N, N)."""
    one, other = first.root, second.root
    left, values, right = np.linalg.svd(one @ other)
    there = values > RANK * values[0]
    coupled = one @ left[:, there] @ right[there] @ other
    means = np.outer(first.mean, second.mean)
    return np.asarray(means + means.T + coupled + coupled.T)


def shares_of(mixture: Mixture) -> tuple[list[float], float]:
    """How much of the Gram matrix of each image, and of the cross term of two, a mixture has."""
    if mixture.path == "linear":
        return list(mixture.weights), 0.0
    first, second = mixture.weights
    return [first**2, second**2], first * second


@dataclass(frozen=True)
class Series:
    """The path through images, by the matrices that its targets are sums of."""

    images: int
    closed: bool
    geodesic: bool
    products: Array
    """Inner products of Gram matrices of the images, then of the cross terms of neighbours, weighted over layers."""

    @classmethod
    def through(
        cls, nodes: Sequence[Mapping[str, Array]], crosses: Sequence[Mapping[str, Array]],
        weights: Mapping[str, float], *, closed: bool,
    ) -> Series:  # fmt: skip
        """Of Gram matrices / M of the images, and cross terms (none: a linear path), by layer."""
        basis = [*nodes, *crosses]
        products = np.zeros((len(basis), len(basis)))
        for layer, weight in weights.items():
            flat = np.stack([matrices[layer].ravel() for matrices in basis])
            products += weight / flat.shape[1] * flat @ flat.T
        return cls(len(nodes), closed, bool(crosses), products)

    @property
    def segments(self) -> int:
        return self.images if self.closed else self.images - 1

    def coefficients(self, place: float) -> Array:
        """What the target at a place, 0 to the number of segments, is the sum of."""
        first = min(int(place), self.segments - 1)
        t = place - first
        found = np.zeros(len(self.products))
        found[first] = (1 - t) ** 2 if self.geodesic else 1 - t
        found[(first + 1) % self.images] = t**2 if self.geodesic else t
        if self.geodesic:
            found[self.images + first] = t * (1 - t)
        return found

    def distance(self, one: float, other: float) -> float:
        """√ Σ w_l E_l of one target to the other."""
        difference = self.coefficients(one) - self.coefficients(other)
        square = float(difference @ self.products @ difference)
        return math.sqrt(max(0.0, square))

    def places(self, steps: int) -> list[float]:
        """Places with equal distances between neighbours, from the first image to the last, or around.

        They are moved along the polygon that they make until its sides are equal.
        """
        places = np.linspace(0, self.segments, steps + 1 if self.closed else steps)
        for _ in range(MAX_ROUNDS):
            sides = np.array([self.distance(*pair) for pair in pairwise(places.tolist())])
            if np.ptp(sides) <= EQUAL * sides.mean():
                break
            along = np.concatenate([[0.0], np.cumsum(sides)])
            places = np.interp(np.linspace(0, along[-1], len(along)), along, places)
        found: list[float] = places.tolist()
        return found[:-1] if self.closed else found


def mixture_at(spaced: Spaced, place: float) -> Mixture:
    """The mixture at a place of a series, 0 to the number of its segments."""
    segments = len(spaced.parts) if spaced.closed else len(spaced.parts) - 1
    first = min(int(place), segments - 1)
    weight = place - first
    second = spaced.parts[(first + 1) % len(spaced.parts)]
    return mixture_of({spaced.parts[first]: 1 - weight, second: weight}, spaced.path)


def to_target(matrix: Array, like: Tensor) -> Tensor:
    """A matrix as a target in the form of another."""
    return torch.from_numpy(matrix).to(like.device, like.dtype).view(like.shape)

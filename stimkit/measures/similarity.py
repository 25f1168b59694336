"""How similar a stimulus is to its content image, by measures that were made to agree with human judgements.

    MS-SSIM  Wang, Simoncelli & Bovik (2003), by torchmetrics
    LPIPS    Zhang, Isola, Efros, Shechtman & Wang (2018), version 0.1 with VGG16, equations 1
    DISTS    Ding, Ma, Wang & Simoncelli (2022), equations 5 to 8

The weights of LPIPS and DISTS that were fitted to judgements come from torchmetrics. They were fitted on the responses
of torchvision's VGG16; with other filters the formulas are the same, and how well they agree with people is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from stimkit.columns import Column
from stimkit.errors import UsageError
from stimkit.images.pixels import FloatImage
from stimkit.network.vgg import VGG
from stimkit.network.weights import Weights
from stimkit.synthesis.devices import exact

COMPARED_LAYERS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
LARGER_THAN = 160  # pixels a side, for five scales of MS-SSIM
_STABLE = 1e-6  # constants of DISTS, and of the division by a length in LPIPS (1e-10 there, in the unsquared length)
SIMILARITY_COLUMNS = (
    Column("ms_ssim_content", "1", "multi-scale structural similarity to the content image (Wang et al. 2003)"),
    Column("lpips_content", "1", "perceptual distance to the content image (LPIPS 0.1 with VGG16, Zhang et al. 2018)"),
    Column("dists_content", "1", "distance of structure and texture to the content image (DISTS, Ding et al. 2022)"),
)


class Similarity:
    """Compares images by the responses of a VGG16 on one device."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        """Raises `UsageError` where the network is not a VGG16, or torchmetrics is not installed."""
        if weights.network != "vgg16":
            raise UsageError(
                f"LPIPS and DISTS are defined for VGG16, and the weights {weights.name} are of a"
                f" {weights.network.upper()}: give those of a VGG16, such as imagenet"
            )
        learned = _learned_weights()
        self._device = device
        self._lpips = [one.to(device) for one in learned["lpips"]]
        self._alpha, self._beta = learned["dists"]
        self._max, self._l2 = (
            VGG(weights, pooling=pooling, normalize="none", device=device) for pooling in ("max", "l2")
        )

    @torch.no_grad()
    def compare(self, image: FloatImage, reference: FloatImage) -> dict[str, float]:
        """All of `SIMILARITY_COLUMNS` of two images (3, height, width), sRGB encoded, 0 to 1, of one size.

        MS-SSIM is NaN for images that are too small for its five scales.
        """
        pair = torch.stack([torch.from_numpy(one) for one in (image, reference)]).to(self._device)
        return {
            "ms_ssim_content": _ms_ssim(pair),
            "lpips_content": self.lpips(pair),
            "dists_content": self.dists(pair),
        }

    def lpips(self, pair: Tensor) -> float:
        """Σ_l of the mean over positions of w_l · (y − y₀)², with responses of unit length at each position."""
        maps = self._max.features(pair, COMPARED_LAYERS)
        total = 0.0
        for layer, weights in zip(COMPARED_LAYERS, self._lpips, strict=True):
            features = maps[layer]
            unit = features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
            total += float(((unit[0] - unit[1]).square() * weights[:, None, None]).sum(0).mean())
        return total

    def dists(self, pair: Tensor) -> float:
        """1 − Σ_ij α_ij l(x_ij, y_ij) + β_ij s(x_ij, y_ij), over the image itself and five layers."""
        maps = self._l2.features(pair, COMPARED_LAYERS)
        similar = 0.0
        start = 0
        for features in (pair, *(maps[layer] for layer in COMPARED_LAYERS)):
            x, y = exact(features.flatten(2))
            alpha, beta = (one[start : start + len(x)].to(x) for one in (self._alpha, self._beta))
            start += len(x)
            mean_x, mean_y = x.mean(1), y.mean(1)
            luminance = (2 * mean_x * mean_y + _STABLE) / (mean_x**2 + mean_y**2 + _STABLE)
            covariance = (x * y).mean(1) - mean_x * mean_y
            spread = x.var(1, correction=0) + y.var(1, correction=0)
            structure = (2 * covariance + _STABLE) / (spread + _STABLE)
            similar += float((alpha * luminance + beta * structure).sum())
        return 1 - similar


def _ms_ssim(pair: Tensor) -> float:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

    if min(pair.shape[2:]) <= LARGER_THAN:
        return float("nan")
    return float(ms_ssim(pair[:1], pair[1:], data_range=1.0))


def _learned_weights() -> Mapping[str, list[Tensor]]:
    """The weights of LPIPS by layer, and α and β of DISTS, of sum 1 together."""
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        raise UsageError('LPIPS, DISTS and MS-SSIM need torchmetrics: pip install "stimkit[perceptual]"')
    folder = Path(spec.origin).parent / "functional" / "image"
    try:
        lpips, dists = (
            torch.load(folder / name, map_location="cpu", weights_only=True)
            for name in ("lpips_models/vgg.pth", "dists_models/weights.pt")
        )
        linear = [lpips[f"lin{index}.model.1.weight"].flatten() for index in range(len(COMPARED_LAYERS))]
        alpha, beta = (dists[name].flatten().double() for name in ("alpha", "beta"))
    except (OSError, KeyError) as error:
        raise UsageError(f"torchmetrics does not hold the weights of LPIPS and DISTS where it did: {error}") from error
    whole = alpha.sum() + beta.sum()
    return {"lpips": linear, "dists": [alpha / whole, beta / whole]}

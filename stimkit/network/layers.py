"""The layers of VGG19 and VGG16, by name (Simonyan & Zisserman 2015, configurations E and D).

`convX_Y` names the feature map *after* the ReLU. In the network of Gatys, Ecker & Bethge (2015) the
ReLU overwrites the convolution's output, so their `conv4_2` is a rectified response, and so it is in
every later implementation whatever it calls the layer. `poolX` is the output of the pooling after
block X. Fully connected layers are not part of the network here.

VGG16 lacks the last convolution of blocks 3 to 5. Its other layers have the names, channels and strides that VGG19's
have, so that `LAYERS` says of any layer what it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stimkit.errors import did_you_mean

NetworkName = Literal["vgg19", "vgg16"]
FILTERS = (64, 128, 256, 512, 512)  # of a convolution, by block
CONVOLUTIONS_OF_BLOCKS: dict[NetworkName, tuple[int, ...]] = {"vgg19": (2, 2, 4, 4, 4), "vgg16": (2, 2, 3, 3, 3)}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its filters, its input channels and its pixel stride in the image."""

    name: str
    position: int  # 0 for conv1_1, counting convolutions and poolings
    channels: int
    in_channels: int
    stride: int
    torchvision_index: int  # of the convolution or pooling in torchvision's `features`

    @property
    def is_pool(self) -> bool:
        return self.name.startswith("pool")

    def positions(self, height: int, width: int) -> int:
        """Number of positions M of the feature map of an image of height × width pixels."""
        return (height // self.stride) * (width // self.stride)


def _table(network: NetworkName) -> dict[str, Layer]:
    table: dict[str, Layer] = {}
    channels, index = 3, 0
    for block, (convolutions, filters) in enumerate(
        zip(CONVOLUTIONS_OF_BLOCKS[network], FILTERS, strict=True), start=1
    ):
        for number in range(1, convolutions + 1):
            name = f"conv{block}_{number}"
            table[name] = Layer(name, len(table), filters, channels, 2 ** (block - 1), index)
            channels, index = filters, index + 2  # the convolution and its ReLU
        table[f"pool{block}"] = Layer(f"pool{block}", len(table), channels, channels, 2**block, index)
        index += 1
    return table


NETWORKS: dict[NetworkName, dict[str, Layer]] = {name: _table(name) for name in CONVOLUTIONS_OF_BLOCKS}
"""The layers of each network, in order."""
LAYERS = NETWORKS["vgg19"]
"""All layers that there are: VGG16's are among VGG19's, but for `position` and `torchvision_index`."""


def convolutions(network: NetworkName) -> tuple[Layer, ...]:
    """The convolutions of a network, in order."""
    return tuple(layer for layer in NETWORKS[network].values() if not layer.is_pool)


def explain_unknown(name: str, network: NetworkName = "vgg19") -> str:
    """Say why `name` is not a layer of a network and which one was probably meant."""
    layers = NETWORKS[network]
    if name.replace("relu", "conv") in layers:
        return f'unknown layer "{name}": write "{name.replace("relu", "conv")}", which here means after the ReLU'
    last = convolutions(network)[-1].name
    if name in LAYERS:
        return f'"{name}" is not a layer of {network.upper()}{did_you_mean(name, layers)}; its last one is {last}'
    return f'unknown layer "{name}"{did_you_mean(name, layers)}; layers are conv1_1 … {last} and pool1 … pool5'


def deepest(names: Iterable[str]) -> Layer:
    """Return the deepest of the named layers."""
    return max((LAYERS[name] for name in names), key=lambda layer: layer.position)


def up_to(name: str, network: NetworkName = "vgg19") -> tuple[Layer, ...]:
    """Return the layers of a network from conv1_1 to the named one, in order."""
    return tuple(layer for layer in NETWORKS[network].values() if LAYERS[layer.name].position <= LAYERS[name].position)


Convention = Literal["paper", "mean"]
Precision = Literal["float32", "tf32", "bfloat16", "float64"]
Pooling = Literal["average", "max"]
Preprocessing = Literal["torchvision", "caffe"]
TRANSFORMED_CHANNELS = 128
"""From which a CPU keeps kernels in Winograd's form, 36 values for both directions: `stimkit.network.winograd`."""

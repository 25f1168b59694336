"""The layers of VGG19, by name (Simonyan & Zisserman 2015, configuration E).

`convX_Y` names the feature map *after* the ReLU. In the network of Gatys, Ecker & Bethge (2015) the
ReLU overwrites the convolution's output, so their `conv4_2` is a rectified response, and so it is in
every later implementation whatever it calls the layer. `poolX` is the output of the pooling after
block X. Fully connected layers are not part of the network here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from stimkit.errors import did_you_mean

BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))  # convolutions, filters


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


def _table() -> dict[str, Layer]:
    table: dict[str, Layer] = {}
    channels, index = 3, 0
    for block, (convolutions, filters) in enumerate(BLOCKS, start=1):
        for number in range(1, convolutions + 1):
            name = f"conv{block}_{number}"
            table[name] = Layer(name, len(table), filters, channels, 2 ** (block - 1), index)
            channels, index = filters, index + 2  # the convolution and its ReLU
        table[f"pool{block}"] = Layer(f"pool{block}", len(table), channels, channels, 2**block, index)
        index += 1
    return table


LAYERS = _table()
CONVOLUTIONS = tuple(layer for layer in LAYERS.values() if not layer.is_pool)


def explain_unknown(name: str) -> str:
    """Say why `name` is not a layer and which one was probably meant."""
    if name.replace("relu", "conv") in LAYERS:
        return f'unknown layer "{name}": write "{name.replace("relu", "conv")}", which here means after the ReLU'
    return f'unknown layer "{name}"{did_you_mean(name, LAYERS)}; layers are conv1_1 … conv5_4 and pool1 … pool5'


def deepest(names: Iterable[str]) -> Layer:
    """Return the deepest of the named layers."""
    return max((LAYERS[name] for name in names), key=lambda layer: layer.position)


def up_to(name: str) -> tuple[Layer, ...]:
    """Return the layers from conv1_1 to the named one, in order."""
    return tuple(layer for layer in LAYERS.values() if layer.position <= LAYERS[name].position)


Convention = Literal["paper", "mean"]
Precision = Literal["float32", "tf32", "bfloat16", "float64"]
Pooling = Literal["average", "max"]
Preprocessing = Literal["torchvision", "caffe"]
TRANSFORMED_CHANNELS = 128
"""From which a CPU keeps kernels in Winograd's form, 36 values for both directions: `stimkit.network.winograd`."""

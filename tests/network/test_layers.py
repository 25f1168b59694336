"""The layer table against torchvision's own VGG19."""

from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from stimkit.network.layers import LAYERS, convolutions, deepest, explain_unknown, up_to


def test_table_agrees_with_torchvision() -> None:
    modules = make_layers(cfgs["E"], batch_norm=False)
    for layer in LAYERS.values():
        module = modules[layer.torchvision_index]
        if layer.is_pool:
            assert isinstance(module, nn.MaxPool2d)
        else:
            assert isinstance(module, nn.Conv2d)
            assert (module.in_channels, module.out_channels) == (layer.in_channels, layer.channels)
    assert len(convolutions("vgg19")) == sum(isinstance(module, nn.Conv2d) for module in modules)


def test_positions_follow_pooling() -> None:
    assert LAYERS["conv1_1"].positions(224, 160) == 224 * 160
    assert LAYERS["conv4_2"].positions(224, 160) == 28 * 20
    assert LAYERS["pool5"].positions(224, 160) == 7 * 5
    assert LAYERS["conv3_1"].positions(33, 35) == 8 * 8


def test_order() -> None:
    assert deepest(["conv2_1", "pool2", "conv1_1"]).name == "pool2"
    assert [layer.name for layer in up_to("conv2_1")] == ["conv1_1", "conv1_2", "pool1", "conv2_1"]


def test_unknown_names_are_explained() -> None:
    assert '"conv4_2", which here means after the ReLU' in explain_unknown("relu4_2")
    assert 'did you mean "conv4_2"' in explain_unknown("conv4-2")

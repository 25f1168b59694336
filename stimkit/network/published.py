"""Published files of VGG networks: what they are, what they take, by which digests they are known.

Digests are those that their publishers, or those who check them, give: of whole files, as sha256 or md5, some as their
first digits only, which PyTorch puts into file names. An md5 identifies a file; it does not protect from forgery.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from stimkit.network.layers import NetworkName, Preprocessing


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights that is known by its digest."""

    name: str
    """What protocols call these weights; empty for copies that have no name of their own."""
    network: NetworkName
    filename: str
    digest: str
    """`sha256:…` or `md5:…` of the file, or the first digits of it."""
    size: int
    """Bytes; 0 where it is not known."""
    preprocessing: Preprocessing
    origin: str
    """Who trained it on what, in words."""
    licence: str
    url: str = ""
    """Where it can be downloaded; empty where it cannot."""
    whole: bool = True
    """Whether it holds the classifier."""

    @property
    def algorithm(self) -> str:
        return self.digest.partition(":")[0]

    @property
    def hexadecimal(self) -> str:
        return self.digest.partition(":")[2]

    @property
    def description(self) -> str:
        """Origin and licence, in words."""
        return f"{self.origin} ({self.licence})"


_TORCHVISION = "trained by torchvision on ImageNet-1k (IMAGENET1K_V1)"
_OXFORD = "trained by Simonyan & Zisserman (2015) on ImageNet-1k, the network of Gatys et al. (2015)"
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"

PUBLISHED = (
    PublishedFile(
        "imagenet", "vgg19", "vgg19-dcbb9e9d.pth",
        "sha256:dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44", 574_673_361,
        "torchvision", _TORCHVISION, "BSD-3-Clause", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    ),
    PublishedFile(
        "imagenet", "vgg16", "vgg16-397923af.pth",
        "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", 553_433_881,
        "torchvision", _TORCHVISION, "BSD-3-Clause", "https://download.pytorch.org/models/vgg16-397923af.pth",
    ),
    PublishedFile(
        "oxford", "vgg19", "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:253f8cb515780f3b799900260a226db6", 80_134_624,
        "caffe", f"{_OXFORD}, as Keras distributes it", "CC-BY-4.0",
        f"{_KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5", whole=False,
    ),
    PublishedFile(
        "oxford", "vgg19", "vgg19_weights_tf_dim_ordering_tf_kernels.h5",
        "md5:cbe5617147190e668d6c5d5026f83318", 574_710_816,
        "caffe", f"{_OXFORD}, as Keras distributes it", "CC-BY-4.0",
        f"{_KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels.h5",
    ),
    PublishedFile(
        "oxford", "vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:6d6bbae143d832006294945121d1f1fc", 58_889_256,
        "caffe", "trained by Simonyan & Zisserman (2015) on ImageNet-1k, as Keras distributes it", "CC-BY-4.0",
        f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", whole=False,
    ),
    PublishedFile(
        "oxford", "vgg16", "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        "md5:64373286793e3c8b2b4e3219cbf3544b", 553_467_096,
        "caffe", "trained by Simonyan & Zisserman (2015) on ImageNet-1k, as Keras distributes it", "CC-BY-4.0",
        f"{_KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
    ),
    PublishedFile(
        "imagenet", "vgg19", "model.safetensors",
        "sha256:11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669", 0,
        "torchvision", f"{_TORCHVISION}, as timm distributes it (vgg19.tv_in1k)", "BSD-3-Clause",
    ),
    PublishedFile(
        "", "vgg19", "imagenet-vgg-verydeep-19.mat",
        "md5:8ee3263992981a1d26e73b3ca028a123", 0,
        "caffe", f"{_OXFORD}, as MatConvNet distributes it", "CC-BY-4.0",
    ),
    PublishedFile(
        "", "vgg19", "vgg19-d01eb7cb.pth", "sha256:d01eb7cb", 0,
        "caffe", f"{_OXFORD}, converted from Caffe by Johnson", "CC-BY-4.0",
    ),
    PublishedFile(
        "", "vgg19", "vgg19-74e45263.pth", "sha256:74e45263", 0,
        "caffe", f"{_OXFORD}, converted from Caffe for pystiche", "CC-BY-4.0",
    ),
)  # fmt: skip


def files_called(name: str, network: NetworkName) -> tuple[PublishedFile, ...]:
    """The files of a network that protocols call `name`; the first one can be downloaded."""
    return tuple(one for one in PUBLISHED if one.name == name and one.network == network)


def identify_file(path: Path) -> PublishedFile | None:
    """The published file that a file is, by its digests; None for all others."""
    alike = [one for one in PUBLISHED if Path(one.filename).suffix == path.suffix.lower()]
    digests = {algorithm: digest_of_file(path, algorithm) for algorithm in {one.algorithm for one in alike}}
    return next((one for one in alike if digests[one.algorithm].startswith(one.hexadecimal)), None)


def digest_of_file(path: Path, algorithm: str) -> str:
    """Digest of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()

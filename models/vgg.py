"""VGG: Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition".

Nothing but 3x3 convolutions, in five blocks; a pooling after each halves the height and width, and the channels double.
Two 3x3 convolutions see 5x5 pixels and three see 7x7, with fewer weights and more relus than one of that size (section 2.3).

num_classes and in_channels below 1, a seed below 0 and a dropout outside [0, 1) raise ValueError, and what are no numbers
TypeError. A call raises ValueError for images (N,C,H,W) of other channels, or too small.
"""

from __future__ import annotations

import numpy as np

from minidl import Tensor, nn, ops
from minidl.arguments import number
from models.net import Net, sizes

CHANNELS = (64, 128, 256, 512, 512)  # of the five blocks
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # table 1: A, B, D, E


def block(c_in: int, c_out: int, n: int, norm: bool, rng: np.random.Generator) -> list[nn.Module]:
    """n convolutions, each with a relu, and a pooling: (N,c_in,H,W) -> (N,c_out,H/2,W/2)"""
    modules: list[nn.Module] = []
    for i in range(n):
        modules.append(nn.Conv2d(c_in if i == 0 else c_out, c_out, 3, padding=1, rng=rng))
        if norm:
            modules.append(nn.BatchNorm2d(c_out))
        modules.append(nn.ReLU())
    return [*modules, nn.MaxPool2d(2)]


class VGG(Net):
    """Five blocks of convolutions and three linear layers: (N,in_channels,H,W) -> (N,num_classes), H and W at least 32

    Means over 7x7 cells come before the linear layers, which then fit any size; images of 224x224 have 7x7 pixels there.
    """

    smallest = 32

    def __init__(self, depth: int, norm: bool, num_classes: int, in_channels: int, seed: int, dropout: float) -> None:
        num_classes, in_channels, seed = sizes(num_classes, in_channels, seed)
        dropout, rng = number(dropout, "dropout", "[0, 1)"), np.random.default_rng(seed)
        steps = zip((in_channels, *CHANNELS[:-1]), CHANNELS, CONVOLUTIONS[depth], strict=True)
        blocks = [block(c_in, c_out, n, norm, rng) for c_in, c_out, n in steps]
        self.features = nn.Sequential(*(module for modules in blocks for module in modules))
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096, rng=rng),
            nn.ReLU(),
            nn.Dropout(dropout, rng),
            nn.Linear(4096, 4096, rng=rng),
            nn.ReLU(),
            nn.Dropout(dropout, rng),
            nn.Linear(4096, num_classes, rng=rng, init=nn.init.fan_in_uniform),
        )
        self.name_parameters()

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (N,512,H/32,W/32)
        x = self.avgpool(x)  # (N,512,7,7)
        return self.classifier(ops.flatten(x))


# ---- the columns of table 1, with the top-5 errors of table 3 on the ImageNet validation set (one scale)


def vgg11(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.5) -> VGG:
    """Configuration A: 132.9 million parameters; 10.4%."""
    return VGG(11, False, num_classes, in_channels, seed, dropout)


def vgg13(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.5) -> VGG:
    """Configuration B: 133.0 million parameters; 9.9%."""
    return VGG(13, False, num_classes, in_channels, seed, dropout)


def vgg16(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.5) -> VGG:
    """Configuration D: 138.4 million parameters; 8.1%."""
    return VGG(16, False, num_classes, in_channels, seed, dropout)


def vgg19(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.5) -> VGG:
    """Configuration E: 143.7 million parameters; 8.0%."""
    return VGG(19, False, num_classes, in_channels, seed, dropout)


def vgg11_bn(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.5) -> VGG:
    """`vgg11` with batch norm, which is younger than the paper."""
    return VGG(11, True, num_classes, in_channels, seed, dropout)


def vgg13_bn(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.5) -> VGG:
    """`vgg13` with batch norm."""
    return VGG(13, True, num_classes, in_channels, seed, dropout)


def vgg16_bn(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.5) -> VGG:
    """`vgg16` with batch norm."""
    return VGG(16, True, num_classes, in_channels, seed, dropout)


def vgg19_bn(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.5) -> VGG:
    """`vgg19` with batch norm."""
    return VGG(19, True, num_classes, in_channels, seed, dropout)

"""Huang, Liu, van der Maaten and Weinberger 2017, "Densely connected convolutional networks".

Each layer of a block is given what all layers before it in the block have made, and adds k channels to it, k the growth:

    x_l = H_l([x_0, x_1, ..., x_{l-1}])

The transitions between blocks halve the height and width. The ImageNet family is that of table 1, the CIFAR family that of
section 4.1: three blocks on images of 32x32.

Concatenation copies a channel into the input of every later layer; batch norm and relu make two more arrays of that size, and
training keeps all three for the way back: memory grows with the square of the depth. The memory-saving variant (Pleiss et al.
2017, "Memory-efficient implementation of DenseNets") keeps each channel once and computes the rest again on the way back. It
is what a block does here (`nn.dense_block`, `minidl/ops/dense.py`), with the same numbers within rounding; it keeps everything
where dropout is on, or inside `with ops.unfused():`. `examples/dense_or_residual.py` measures both.

num_classes and in_channels below 1, a seed below 0 and a dropout outside [0, 1) raise ValueError, and what are no numbers
TypeError. A call raises ValueError for images (N,C,H,W) of other channels, or too small.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl import Tensor, nn, ops
from minidl.arguments import count, number
from models.net import Net, sizes


class DenseLayer(nn.Module):
    """H(x) = conv3x3(relu(bn(x))): (N,C,H,W) -> (N,growth,H,W)"""

    def __init__(self, c_in: int, growth: int, dropout: float, rng: np.random.Generator) -> None:
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, growth, 3, padding=1, bias=False, rng=rng)
        self.dropout = maybe_dropout(dropout, rng)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.norm1.relu(x))
        return self.dropout(y)

    def pairs(self) -> list[tuple[nn.BatchNorm2d, nn.Conv2d]]:
        """Each normalisation with the convolution behind it."""
        return [(self.norm1, self.conv1)]


class BottleneckLayer(nn.Module):
    """H(x) = conv3x3(relu(bn(z))), z = conv1x1(relu(bn(x))) of 4 growth channels: (N,C,H,W) -> (N,growth,H,W)"""

    def __init__(self, c_in: int, growth: int, dropout: float, rng: np.random.Generator) -> None:
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, 4 * growth, 1, bias=False, rng=rng)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False, rng=rng)
        self.dropout = maybe_dropout(dropout, rng)

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv1(self.norm1.relu(x))
        y = self.conv2(self.norm2.relu(z))
        return self.dropout(y)

    def pairs(self) -> list[tuple[nn.BatchNorm2d, nn.Conv2d]]:
        """Each normalisation with the convolution behind it."""
        return [(self.norm1, self.conv1), (self.norm2, self.conv2)]


def maybe_dropout(p: float, rng: np.random.Generator) -> nn.Module:
    return nn.Identity() if p == 0 else nn.Dropout(p, rng)


class DenseBlock(nn.Module):
    """Layers that each see all before them: (N,C,H,W) -> (N, C + layers growth, H, W)"""

    def __init__(
        self,
        layer: type[DenseLayer | BottleneckLayer],
        layers: int,
        c_in: int,
        growth: int,
        dropout: float,
        rng: np.random.Generator,
    ) -> None:
        for i in range(layers):
            setattr(self, f"denselayer{i + 1}", layer(c_in + i * growth, growth, dropout, rng))

    def forward(self, x: Tensor) -> Tensor:
        layers = [layer for _, layer in self.named_children() if isinstance(layer, DenseLayer | BottleneckLayer)]
        if ops.fusing() and not any(isinstance(layer.dropout, nn.Dropout) for layer in layers):
            return nn.dense_block(x, [layer.pairs() for layer in layers])  # the same, without copies
        for layer in layers:
            x = ops.concat([x, layer(x)])
        return x


class Transition(nn.Module):
    """A 1x1 convolution to c_out channels, and means over 2x2 pixels: (N,C,H,W) -> (N,c_out,H/2,W/2)"""

    def __init__(self, c_in: int, c_out: int, rng: np.random.Generator) -> None:
        self.norm = nn.BatchNorm2d(c_in)
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        y = ops.avg_pool2d(self.norm.relu(x), 2)  # both are linear: means of a convolution are a convolution of means,
        return self.conv(y)  # and before it they leave it a quarter of the pixels


class DenseNet(Net):
    """A stem, dense blocks with transitions between them, the mean over the image, one linear layer:
    (N,in_channels,H,W) -> (N,num_classes)

    stem: named modules in their order, the last with c channels; blocks: the number of layers of each; smallest: as in `Net`.
    The variant BC has bottlenecks in its layers and transitions that compress to half the channels.
    """

    def __init__(
        self,
        stem: dict[str, nn.Module],
        c: int,
        blocks: Sequence[int],
        growth: int,
        bc: bool,
        smallest: int,
        num_classes: int,
        dropout: float,
        rng: np.random.Generator,
    ) -> None:
        self.smallest = smallest
        features = dict(stem)
        for i, layers in enumerate(blocks, start=1):
            features[f"denseblock{i}"] = DenseBlock(BottleneckLayer if bc else DenseLayer, layers, c, growth, dropout, rng)
            c += layers * growth
            if i < len(blocks):
                features[f"transition{i}"] = Transition(c, c // 2 if bc else c, rng)
                c = c // 2 if bc else c
        features[f"norm{len(blocks) + 1}"] = nn.BatchNorm2d(c)

        self.features = nn.Sequential()
        for name, module in features.items():
            setattr(self.features, name, module)
        self.classifier = nn.Linear(c, num_classes, rng=rng, init=nn.init.fan_in_uniform)
        self.name_parameters()

    def forward(self, x: Tensor) -> Tensor:
        x = ops.relu(self.features(x))
        return self.classifier(ops.global_avg_pool2d(x))


def imagenet(blocks: Sequence[int], growth: int, num_classes: int, in_channels: int, seed: int, dropout: float) -> DenseNet:
    """Table 1: the stem makes 224x224 pixels 56x56; any size of at least 29x29 works."""
    num_classes, in_channels, seed = sizes(num_classes, in_channels, seed)
    dropout, rng, c = number(dropout, "dropout", "[0, 1)"), np.random.default_rng(seed), 2 * growth
    stem = {
        "conv0": nn.Conv2d(in_channels, c, 7, 2, padding=3, bias=False, rng=rng),
        "norm0": nn.BatchNorm2d(c),
        "relu0": nn.ReLU(),
        "pool0": nn.MaxPool2d(3, 2, padding=1),
    }
    return DenseNet(stem, c, blocks, growth, True, 29, num_classes, dropout, rng)


def cifar(layers: int, growth: int, bc: bool, num_classes: int, in_channels: int, seed: int, dropout: float) -> DenseNet:
    """Section 3, implementation details: one convolution, then three blocks; any size of at least 4x4 works."""
    num_classes, in_channels, seed = sizes(num_classes, in_channels, seed)
    dropout, rng, c = number(dropout, "dropout", "[0, 1)"), np.random.default_rng(seed), 2 * growth if bc else 16
    stem: dict[str, nn.Module] = {"conv0": nn.Conv2d(in_channels, c, 3, padding=1, bias=False, rng=rng)}
    return DenseNet(stem, c, (layers,) * 3, growth, bc, 4, num_classes, dropout, rng)


# ---- the nets of table 1, with the top-5 errors of table 3 on the ImageNet validation set (10 crops)
# dropout: the probability behind the last convolution of each layer, 0 in torchvision


def densenet121(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.0) -> DenseNet:
    """8.0 million parameters; 6.66%."""
    return imagenet((6, 12, 24, 16), 32, num_classes, in_channels, seed, dropout)


def densenet161(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.0) -> DenseNet:
    """28.7 million parameters: a growth of 48, in torchvision but not in the paper's table."""
    return imagenet((6, 12, 36, 24), 48, num_classes, in_channels, seed, dropout)


def densenet169(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.0) -> DenseNet:
    """14.1 million parameters; 5.92%."""
    return imagenet((6, 12, 32, 32), 32, num_classes, in_channels, seed, dropout)


def densenet201(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.0) -> DenseNet:
    """20.0 million parameters; 5.54%."""
    return imagenet((6, 12, 48, 32), 32, num_classes, in_channels, seed, dropout)


def densenet264(num_classes: int = 1000, in_channels: int = 3, seed: int = 0, dropout: float = 0.0) -> DenseNet:
    """33,337,704 parameters; 5.29%. Table 1 lists 265 layers with weights under this name.

    By hand: a layer that reads c channels has 2c + 128c parameters in its first norm and 1x1, and 256 + 36,864 in its second
    norm and 3x3. The blocks begin with 64, 128, 256 and 1,152 channels, so that all c add up to 864 + 3,648 + 80,896 + 91,392.

        stem         147 x 64 + 2 x 64                                     9,536
        130 layers   130 x 176,800 + 130 x 37,120                     27,809,600
        transitions  2c + c c/2 for c = 256, 512 and 2,304             2,824,192
        the end      2 x 2,688 + 2,688 x 1,000 + 1,000                 2,694,376
    """
    return imagenet((6, 12, 64, 48), 32, num_classes, in_channels, seed, dropout)


# ---- the nets of table 2, with the errors there on CIFAR-10 (shifted and mirrored images)


def densenet_bc(
    depth: int, growth: int, num_classes: int = 10, in_channels: int = 3, seed: int = 0, dropout: float = 0.0
) -> DenseNet:
    """DenseNet-BC of L = depth layers with weights on the longest way, 6n + 4, and k = growth.

    Raises ValueError for another depth.
    """
    depth, growth = count(depth, "depth", None), count(growth, "growth")
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth: expected 6n + 4 (10, 16, 22, ..., two layers in each of 3n bottlenecks), got {depth}")
    return cifar((depth - 4) // 6, growth, True, num_classes, in_channels, seed, dropout)


def densenet_bc100_12(num_classes: int = 10, in_channels: int = 3, seed: int = 0, dropout: float = 0.0) -> DenseNet:
    """0.77 million parameters; 4.51%."""
    return densenet_bc(100, 12, num_classes, in_channels, seed, dropout)


def densenet40_12(num_classes: int = 10, in_channels: int = 3, seed: int = 0, dropout: float = 0.0) -> DenseNet:
    """Without bottlenecks and compression: 1.0 million parameters; 5.24%."""
    return cifar(12, 12, False, num_classes, in_channels, seed, dropout)

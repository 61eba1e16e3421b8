"""Residual networks: He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition".

The CIFAR family of section 4.2: 6n + 2 layers with weights, in three stages of n blocks with 16, 32 and 64 channels, on
images of 32x32 (any size works). The ImageNet family of section 4.1 and table 1: four stages behind a stem that makes
224x224 pixels 56x56 (any size works). The plain nets are the same without shortcuts; the paper shows what those cost.

norm="group" of `resnet8` and `resnet20` takes group norm of 8 groups (Wu and He 2018, "Group normalization") in place of batch
norm, for batches of few images; another word raises ValueError. num_classes and in_channels below 1 and a seed below 0 raise
ValueError, and what are no integers TypeError. A call raises ValueError for images (N,C,H,W) of other channels, or too small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl import Tensor, nn, ops
from minidl.arguments import one_of
from models.net import Net, sizes

Norm = Callable[[int], nn.BatchNorm2d | nn.GroupNorm]  # of so many channels
NORMS: dict[str, Norm] = {"batch": nn.BatchNorm2d, "group": lambda channels: nn.GroupNorm(8, channels)}


class PlainBlock(nn.Module):
    """y = relu(F(x)), F two 3x3 convolutions with batch norm: (N,C,H,W) -> (N,F,ceil(H/stride),ceil(W/stride))

    norm: another norm in its place.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, rng: np.random.Generator, norm: Norm = nn.BatchNorm2d) -> None:
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False, rng=rng)
        self.bn1 = norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False, rng=rng)
        self.bn2 = norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.conv_relu(x, self.conv1, self.bn1)
        return nn.conv_relu(y, self.conv2, self.bn2)


class ResidualBlock(PlainBlock):
    """y = relu(F(x) + x), F as in `PlainBlock`; `downsample` makes x fit where F changes its shape"""

    downsample: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        y = nn.conv_relu(x, self.conv1, self.bn1)
        if ops.fusing():
            return nn.conv_relu(y, self.conv2, self.bn2, self.downsample(x))  # the same
        y = self.bn2(self.conv2(y)) + self.downsample(x)  # F(x) + x
        return ops.relu(y)


class BasicBlock(ResidualBlock):
    """With the shortcut of option A, which has no parameters"""

    def __init__(self, c_in: int, c_out: int, stride: int, rng: np.random.Generator, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__(c_in, c_out, stride, rng, norm)
        same_shape = stride == 1 and c_in == c_out
        self.downsample = nn.Identity() if same_shape else SubsampleAndPad(c_in, c_out, stride)


class SubsampleAndPad(nn.Module):
    """The shortcut of option A: every stride-th pixel, and channels of zeros around the given ones; no parameters."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        before = (c_out - c_in) // 2
        self.channels, self.stride = (before, c_out - c_in - before), stride

    def forward(self, x: Tensor) -> Tensor:
        return ops.pad(x[:, :, :: self.stride, :: self.stride], [(0, 0), self.channels, (0, 0), (0, 0)])


class CifarResNet(Net):
    """Three stages of `n` blocks, the mean over the image, one linear layer: (N,in_channels,H,W) -> (N,num_classes)"""

    def __init__(
        self, block: type[PlainBlock], n: int, num_classes: int, in_channels: int, seed: int, norm: str = "batch"
    ) -> None:
        num_classes, in_channels, seed = sizes(num_classes, in_channels, seed)
        rng, normed = np.random.default_rng(seed), NORMS[one_of(norm, "norm", NORMS)]

        def stage(c_in: int, c_out: int, stride: int) -> nn.Sequential:
            first = block(c_in, c_out, stride, rng, normed)
            return nn.Sequential(first, *(block(c_out, c_out, 1, rng, normed) for _ in range(n - 1)))

        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False, rng=rng)
        self.bn1 = normed(16)
        self.layer1 = stage(16, 16, stride=1)
        self.layer2 = stage(16, 32, stride=2)
        self.layer3 = stage(32, 64, stride=2)
        self.linear = nn.Linear(64, num_classes, rng=rng, init=nn.init.fan_in_uniform)
        self.name_parameters()

    def forward(self, x: Tensor) -> Tensor:
        x = nn.conv_relu(x, self.conv1, self.bn1)  # (N,16,H,W)
        x = self.layer1(x)
        x = self.layer2(x)  # (N,32,H/2,W/2)
        x = self.layer3(x)  # (N,64,H/4,W/4)
        return self.linear(ops.global_avg_pool2d(x))


# ---- ImageNet


class ProjectionBlock(ResidualBlock):
    """With the shortcut of option B"""

    def __init__(self, c_in: int, c_out: int, stride: int, rng: np.random.Generator) -> None:
        super().__init__(c_in, c_out, stride, rng)
        self.downsample = projection(c_in, c_out, stride, rng)


class Bottleneck(nn.Module):
    """y = relu(F(x) + x), F a 3x3 convolution between two of 1x1, with a quarter of the channels: figure 5, right

    The stride is that of the 3x3 convolution, as in torchvision, whose weights then fit; the paper's is of the first 1x1.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, rng: np.random.Generator) -> None:
        c = c_out // 4
        self.conv1 = nn.Conv2d(c_in, c, 1, bias=False, rng=rng)
        self.bn1 = nn.BatchNorm2d(c)
        self.conv2 = nn.Conv2d(c, c, 3, stride, padding=1, bias=False, rng=rng)
        self.bn2 = nn.BatchNorm2d(c)
        self.conv3 = nn.Conv2d(c, c_out, 1, bias=False, rng=rng)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = projection(c_in, c_out, stride, rng)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.conv_relu(x, self.conv1, self.bn1)
        y = nn.conv_relu(y, self.conv2, self.bn2)
        if ops.fusing():
            return nn.conv_relu(y, self.conv3, self.bn3, self.downsample(x))  # the same
        y = self.bn3(self.conv3(y)) + self.downsample(x)  # F(x) + x
        return ops.relu(y)


def projection(c_in: int, c_out: int, stride: int, rng: np.random.Generator) -> nn.Module:
    """The shortcut of option B: x itself, or a 1x1 convolution of it where the shape changes."""
    if stride == 1 and c_in == c_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False, rng=rng), nn.BatchNorm2d(c_out))


Block = Callable[[int, int, int, np.random.Generator], nn.Module]  # (c_in, c_out, stride, rng) -> a block
WIDE = (64, 128, 256, 512)  # channels of the four stages
WIDER = (256, 512, 1024, 2048)  # with bottlenecks


class ResNet(Net):
    """Four stages of `blocks` with so many `channels`, each half as high and wide as the one before, the mean over the
    image, one linear layer: (N,in_channels,H,W) -> (N,num_classes)"""

    def __init__(
        self,
        block: Block,
        blocks: tuple[int, int, int, int],
        channels: tuple[int, int, int, int],
        num_classes: int,
        in_channels: int,
        seed: int,
    ) -> None:
        num_classes, in_channels, seed = sizes(num_classes, in_channels, seed)
        rng = np.random.default_rng(seed)

        def stage(c_in: int, c_out: int, n: int, stride: int) -> nn.Sequential:
            return nn.Sequential(block(c_in, c_out, stride, rng), *(block(c_out, c_out, 1, rng) for _ in range(n - 1)))

        c1, c2, c3, c4 = channels
        self.conv1 = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False, rng=rng)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = stage(64, c1, blocks[0], stride=1)
        self.layer2 = stage(c1, c2, blocks[1], stride=2)
        self.layer3 = stage(c2, c3, blocks[2], stride=2)
        self.layer4 = stage(c3, c4, blocks[3], stride=2)
        self.fc = nn.Linear(c4, num_classes, rng=rng, init=nn.init.fan_in_uniform)
        self.name_parameters()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(nn.conv_relu(x, self.conv1, self.bn1))  # (N,64,H/4,W/4)
        x = self.layer1(x)
        x = self.layer2(x)  # (N,c2,H/8,W/8)
        x = self.layer3(x)  # (N,c3,H/16,W/16)
        x = self.layer4(x)  # (N,c4,H/32,W/32)
        return self.fc(ops.global_avg_pool2d(x))


# ---- the nets of table 6


def resnet8(num_classes: int = 10, in_channels: int = 3, seed: int = 0, norm: str = "batch") -> CifarResNet:
    """One block a stage: smaller than any in the paper, for lessons and quick trials."""
    return CifarResNet(BasicBlock, 1, num_classes, in_channels, seed, norm)


def resnet20(num_classes: int = 10, in_channels: int = 3, seed: int = 0, norm: str = "batch") -> CifarResNet:
    """0.27 million parameters; the paper's table 6 gives 91.25% on CIFAR-10."""
    return CifarResNet(BasicBlock, 3, num_classes, in_channels, seed, norm)


def resnet32(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """0.46 million parameters; 92.49%."""
    return CifarResNet(BasicBlock, 5, num_classes, in_channels, seed)


def resnet44(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """0.66 million parameters; 92.83%."""
    return CifarResNet(BasicBlock, 7, num_classes, in_channels, seed)


def resnet56(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """0.85 million parameters; 93.03%."""
    return CifarResNet(BasicBlock, 9, num_classes, in_channels, seed)


def resnet110(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """1.7 million parameters; 93.57%."""
    return CifarResNet(BasicBlock, 18, num_classes, in_channels, seed)


def resnet1202(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """19.4 million parameters; 92.07%, less than `resnet110`: it fits the training set and overfits."""
    return CifarResNet(BasicBlock, 200, num_classes, in_channels, seed)


def plain20(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """`resnet20` without shortcuts."""
    return CifarResNet(PlainBlock, 3, num_classes, in_channels, seed)


def plain32(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """`resnet32` without shortcuts."""
    return CifarResNet(PlainBlock, 5, num_classes, in_channels, seed)


def plain44(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """`resnet44` without shortcuts."""
    return CifarResNet(PlainBlock, 7, num_classes, in_channels, seed)


def plain56(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """`resnet56` without shortcuts."""
    return CifarResNet(PlainBlock, 9, num_classes, in_channels, seed)


def plain110(num_classes: int = 10, in_channels: int = 3, seed: int = 0) -> CifarResNet:
    """`resnet110` without shortcuts."""
    return CifarResNet(PlainBlock, 18, num_classes, in_channels, seed)


# ---- the nets of table 1, with the top-5 errors of table 3 on the ImageNet validation set (10 crops)


def resnet18(num_classes: int = 1000, in_channels: int = 3, seed: int = 0) -> ResNet:
    """11.7 million parameters."""
    return ResNet(ProjectionBlock, (2, 2, 2, 2), WIDE, num_classes, in_channels, seed)


def resnet34(num_classes: int = 1000, in_channels: int = 3, seed: int = 0) -> ResNet:
    """21.8 million parameters; 7.46%."""
    return ResNet(ProjectionBlock, (3, 4, 6, 3), WIDE, num_classes, in_channels, seed)


def resnet50(num_classes: int = 1000, in_channels: int = 3, seed: int = 0) -> ResNet:
    """25.6 million parameters; 6.71%."""
    return ResNet(Bottleneck, (3, 4, 6, 3), WIDER, num_classes, in_channels, seed)


def resnet101(num_classes: int = 1000, in_channels: int = 3, seed: int = 0) -> ResNet:
    """44.5 million parameters; 6.05%."""
    return ResNet(Bottleneck, (3, 4, 23, 3), WIDER, num_classes, in_channels, seed)


def resnet152(num_classes: int = 1000, in_channels: int = 3, seed: int = 0) -> ResNet:
    """60.2 million parameters; 5.71%."""
    return ResNet(Bottleneck, (3, 8, 36, 3), WIDER, num_classes, in_channels, seed)


def plain34(num_classes: int = 1000, in_channels: int = 3, seed: int = 0) -> ResNet:
    """`resnet34` without shortcuts: 21,623,848 parameters; 10.02%.

    By hand: the 21,797,672 of `resnet34` less three projections, 64 x 128 + 128 x 256 + 256 x 512 weights, and their norms,
    2 x (128 + 256 + 512).
    """
    return ResNet(PlainBlock, (3, 4, 6, 3), WIDE, num_classes, in_channels, seed)

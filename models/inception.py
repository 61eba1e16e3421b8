"""Inception-v3: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2016, "Rethinking the Inception architecture for computer vision".

Large kernels are taken apart into small ones: 5x5 into two of 3x3 (25 to 18 weights, figure 5), nxn into 1xn and nx1
(n^2 to 2n, figure 6). Grids shrink without squeezing the channels first (figure 10). The net is the one with published
weights, torchvision's; where that differs from the paper, the docstrings say so. In training there is an auxiliary head:

    logits, aux = model(x)
    loss = cross_entropy(logits, labels) + 0.4 * cross_entropy(aux, labels)

num_classes and in_channels below 1, a seed below 0 and a dropout outside [0, 1) raise ValueError, and what are no numbers
TypeError. A call raises ValueError for images (N,C,H,W) of other channels, or too small.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl import Tensor, nn, ops
from minidl.arguments import flag, number
from models.googlenet import ConvRelu
from models.net import Net, sizes


class InceptionA(nn.Module):
    """Figure 5, on 35x35: 5x5 taken apart into two of 3x3, (N,C,H,W) -> (N, 224 + pool, H, W)

    The published net has one branch of each: `branch5x5` as it was, and `branch3x3dbl`, which sees the same 5x5 pixels.
    """

    def __init__(self, c_in: int, pool: int, rng: np.random.Generator) -> None:
        self.branch1x1 = ConvRelu(c_in, 64, 1, rng=rng)
        self.branch5x5_1 = ConvRelu(c_in, 48, 1, rng=rng)
        self.branch5x5_2 = ConvRelu(48, 64, 5, padding=2, rng=rng)
        self.branch3x3dbl_1 = ConvRelu(c_in, 64, 1, rng=rng)
        self.branch3x3dbl_2 = ConvRelu(64, 96, 3, padding=1, rng=rng)
        self.branch3x3dbl_3 = ConvRelu(96, 96, 3, padding=1, rng=rng)
        self.branch_pool = ConvRelu(c_in, pool, 1, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1x1(x)
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pool = self.branch_pool(ops.avg_pool2d(x, 3, 1, padding=1))
        return ops.concat([one, five, double, pool])


class InceptionB(nn.Module):
    """Figure 10, from 35x35 to 17x17: convolutions and a pooling side by side, (N,C,H,W) -> (N, 480 + C, H/2, W/2)

    `PoolFirst` and `PoolLast` do the same with the same weights, and worse.
    """

    stride, padding = 2, 0  # of the last convolution of each branch

    def __init__(self, c_in: int, rng: np.random.Generator) -> None:
        self.branch3x3 = ConvRelu(c_in, 384, 3, self.stride, self.padding, rng=rng)
        self.branch3x3dbl_1 = ConvRelu(c_in, 64, 1, rng=rng)
        self.branch3x3dbl_2 = ConvRelu(64, 96, 3, padding=1, rng=rng)
        self.branch3x3dbl_3 = ConvRelu(96, 96, 3, self.stride, self.padding, rng=rng)

    def convolved(self, x: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch3x3(x), double]

    def forward(self, x: Tensor) -> Tensor:
        return ops.concat([*self.convolved(x), ops.max_pool2d(x, 3, 2)])


class PoolFirst(InceptionB):
    """Figure 9, left: the cheapest, but all must pass the C channels of the small grid, a representational bottleneck."""

    stride, padding = 1, 1

    def forward(self, x: Tensor) -> Tensor:
        x = ops.max_pool2d(x, 3, 2)
        return ops.concat([*self.convolved(x), x])


class PoolLast(InceptionB):
    """Figure 9, right: no bottleneck, but every convolution runs on the large grid, with four times the pixels."""

    stride, padding = 1, 1

    def forward(self, x: Tensor) -> Tensor:
        y = ops.concat([*self.convolved(x), x])
        return ops.max_pool2d(y, 3, 2)


class InceptionC(nn.Module):
    """Figure 6, on 17x17: 7x7 taken apart into 1x7 and 7x1, (N,C,H,W) -> (N,768,H,W), c channels in between"""

    def __init__(self, c_in: int, c: int, rng: np.random.Generator) -> None:
        flat, tall = (1, 7), (7, 1)
        self.branch1x1 = ConvRelu(c_in, 192, 1, rng=rng)
        self.branch7x7_1 = ConvRelu(c_in, c, 1, rng=rng)
        self.branch7x7_2 = ConvRelu(c, c, flat, padding=(0, 3), rng=rng)
        self.branch7x7_3 = ConvRelu(c, 192, tall, padding=(3, 0), rng=rng)
        self.branch7x7dbl_1 = ConvRelu(c_in, c, 1, rng=rng)
        self.branch7x7dbl_2 = ConvRelu(c, c, tall, padding=(3, 0), rng=rng)
        self.branch7x7dbl_3 = ConvRelu(c, c, flat, padding=(0, 3), rng=rng)
        self.branch7x7dbl_4 = ConvRelu(c, c, tall, padding=(3, 0), rng=rng)
        self.branch7x7dbl_5 = ConvRelu(c, 192, flat, padding=(0, 3), rng=rng)
        self.branch_pool = ConvRelu(c_in, 192, 1, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1x1(x)
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pool = self.branch_pool(ops.avg_pool2d(x, 3, 1, padding=1))
        return ops.concat([one, seven, double, pool])


class InceptionD(nn.Module):
    """The second shrinking, from 17x17 to 8x8, as in figure 10: (N,C,H,W) -> (N, 512 + C, H/2, W/2)"""

    def __init__(self, c_in: int, rng: np.random.Generator) -> None:
        self.branch3x3_1 = ConvRelu(c_in, 192, 1, rng=rng)
        self.branch3x3_2 = ConvRelu(192, 320, 3, 2, rng=rng)
        self.branch7x7x3_1 = ConvRelu(c_in, 192, 1, rng=rng)
        self.branch7x7x3_2 = ConvRelu(192, 192, (1, 7), padding=(0, 3), rng=rng)
        self.branch7x7x3_3 = ConvRelu(192, 192, (7, 1), padding=(3, 0), rng=rng)
        self.branch7x7x3_4 = ConvRelu(192, 192, 3, 2, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return ops.concat([three, self.branch7x7x3_4(seven), ops.max_pool2d(x, 3, 2)])


class InceptionE(nn.Module):
    """Figure 7, on 8x8: 3x3 as 1x3 and 3x1 side by side, which makes more channels, (N,C,H,W) -> (N,2048,H,W)"""

    def __init__(self, c_in: int, rng: np.random.Generator) -> None:
        flat, tall = (1, 3), (3, 1)
        self.branch1x1 = ConvRelu(c_in, 320, 1, rng=rng)
        self.branch3x3_1 = ConvRelu(c_in, 384, 1, rng=rng)
        self.branch3x3_2a = ConvRelu(384, 384, flat, padding=(0, 1), rng=rng)
        self.branch3x3_2b = ConvRelu(384, 384, tall, padding=(1, 0), rng=rng)
        self.branch3x3dbl_1 = ConvRelu(c_in, 448, 1, rng=rng)
        self.branch3x3dbl_2 = ConvRelu(448, 384, 3, padding=1, rng=rng)
        self.branch3x3dbl_3a = ConvRelu(384, 384, flat, padding=(0, 1), rng=rng)
        self.branch3x3dbl_3b = ConvRelu(384, 384, tall, padding=(1, 0), rng=rng)
        self.branch_pool = ConvRelu(c_in, 192, 1, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        one = self.branch1x1(x)
        y = self.branch3x3_1(x)
        three = [self.branch3x3_2a(y), self.branch3x3_2b(y)]
        y = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        double = [self.branch3x3dbl_3a(y), self.branch3x3dbl_3b(y)]
        pool = self.branch_pool(ops.avg_pool2d(x, 3, 1, padding=1))
        return ops.concat([one, *three, *double, pool])


class AuxiliaryHead(nn.Module):
    """A classifier on the last 17x17 grid: (N,C,H,W) -> (N,num_classes), H and W at least 17"""

    def __init__(self, c_in: int, num_classes: int, rng: np.random.Generator) -> None:
        self.conv0 = ConvRelu(c_in, 128, 1, rng=rng)
        self.conv1 = ConvRelu(128, 768, 5, rng=rng)
        self.fc = nn.Linear(768, num_classes, rng=rng, init=nn.init.fan_in_uniform)

    def forward(self, x: Tensor) -> Tensor:
        x = ops.avg_pool2d(x, 5, 3)  # (N,C,5,5)
        x = self.conv1(self.conv0(x))  # (N,768,1,1)
        return self.fc(ops.global_avg_pool2d(x))


class InceptionLogits(NamedTuple):
    """What training gives: two tensors (N,num_classes)."""

    logits: Tensor
    aux: Tensor


class Inception3(Net):
    """Eleven Inception modules, the mean over the image, one linear layer: (N,in_channels,H,W) -> (N,num_classes)

    In training, unless it was made with `aux=False`, to `InceptionLogits`. Made for images of 299x299; smaller ones, of at
    least 75x75, pass through all but the auxiliary head.
    """

    def __init__(self, num_classes: int, in_channels: int, seed: int, aux: bool, dropout: float) -> None:
        num_classes, in_channels, seed = sizes(num_classes, in_channels, seed)
        dropout, rng = number(dropout, "dropout", "[0, 1)"), np.random.default_rng(seed)
        self.Conv2d_1a_3x3 = ConvRelu(in_channels, 32, 3, 2, rng=rng)
        self.Conv2d_2a_3x3 = ConvRelu(32, 32, 3, rng=rng)
        self.Conv2d_2b_3x3 = ConvRelu(32, 64, 3, padding=1, rng=rng)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvRelu(64, 80, 1, rng=rng)
        self.Conv2d_4a_3x3 = ConvRelu(80, 192, 3, rng=rng)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = InceptionA(192, 32, rng)
        self.Mixed_5c = InceptionA(256, 64, rng)
        self.Mixed_5d = InceptionA(288, 64, rng)
        self.Mixed_6a = InceptionB(288, rng)
        self.Mixed_6b = InceptionC(768, 128, rng)
        self.Mixed_6c = InceptionC(768, 160, rng)
        self.Mixed_6d = InceptionC(768, 160, rng)
        self.Mixed_6e = InceptionC(768, 192, rng)
        self.aux = aux
        if aux:
            self.AuxLogits = AuxiliaryHead(768, num_classes, rng)
        self.Mixed_7a = InceptionD(768, rng)
        self.Mixed_7b = InceptionE(1280, rng)
        self.Mixed_7c = InceptionE(2048, rng)
        self.dropout = nn.Dropout(dropout, rng)
        self.fc = nn.Linear(2048, num_classes, rng=rng, init=nn.init.fan_in_uniform)
        self.name_parameters()

    auxiliary_weight = 0.4  # of the head's loss

    @property
    def smallest(self) -> int:  # type: ignore[override]
        return 299 if self.training and self.aux else 75  # the head wants 17x17

    def forward(self, x: Tensor) -> Tensor | InceptionLogits:  # type: ignore[override]
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (N,64,147,147) for 299x299
        x = self.maxpool1(x)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (N,192,71,71)
        x = self.maxpool2(x)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (N,288,35,35)
        x = self.Mixed_6a(x)
        x = x_6e = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))  # (N,768,17,17)
        x = self.Mixed_7a(x)
        x = self.Mixed_7c(self.Mixed_7b(x))  # (N,2048,8,8)
        logits = self.fc(self.dropout(ops.global_avg_pool2d(x)))
        return InceptionLogits(logits, self.AuxLogits(x_6e)) if self.training and self.aux else logits


def inception_v3(
    num_classes: int = 1000, in_channels: int = 3, seed: int = 0, aux: bool = True, dropout: float = 0.5
) -> Inception3:
    """23.8 million parameters, and 3.3 million in the auxiliary head; 5.6% top-5 error on ImageNet (table 3, one crop).

    aux: whether there is an auxiliary head. dropout: before the last linear layer.
    """
    return Inception3(num_classes, in_channels, seed, flag(aux, "aux"), dropout)

"""GoogLeNet: Szegedy et al. 2015, "Going deeper with convolutions".

An Inception module looks at its input with kernels of several sizes side by side and stacks what they find. The naive module
makes more channels than it is given each time; the other first reduces them with 1x1 convolutions (figure 2).

In training two auxiliary heads classify the images halfway, and `model(x)` gives three tensors of logits (section 5):

    logits, aux1, aux2 = model(x)
    loss = cross_entropy(logits, labels) + 0.3 * (cross_entropy(aux1, labels) + cross_entropy(aux2, labels))

num_classes and in_channels below 1, a seed below 0 and a dropout outside [0, 1) raise ValueError, and what are no numbers
TypeError. A call raises ValueError for images (N,C,H,W) of other channels, or too small.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl import Tensor, nn, ops
from minidl.arguments import Pair, flag, number, one_of
from models.net import Net, sizes


class ConvRelu(nn.Module):
    """y = relu(bn(conv(x))), or relu(conv(x) + b) without batch norm"""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int | Pair,
        stride: int = 1,
        padding: int | Pair = 0,
        norm: bool = True,
        *,
        rng: np.random.Generator,
    ) -> None:
        self.conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding, bias=not norm, rng=rng)
        self.bn = nn.BatchNorm2d(c_out, eps=1e-3) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        return nn.conv_relu(x, self.conv, self.bn)


class Widths(NamedTuple):
    """A row of table 1: the channels that each convolution of a module makes."""

    one: int
    reduce_three: int  # 1x1, before the 3x3
    three: int
    reduce_five: int  # 1x1, before the 5x5
    five: int
    pool: int  # 1x1, behind the pooling


class NaiveInception(nn.Module):
    """Figure 2(a): 1x1, 3x3, 5x5 and pooling side by side, (N,C,H,W) -> (N, one + three + five + C, H, W)

    five: the kernel of the third branch, 5 in the paper, 3 in the published weights. The reductions of `widths` are not used.
    """

    def __init__(self, c_in: int, widths: Widths, five: int, norm: bool, rng: np.random.Generator) -> None:
        w = widths
        self.branch1 = ConvRelu(c_in, w.one, 1, norm=norm, rng=rng)
        self.branch2 = ConvRelu(c_in, w.three, 3, padding=1, norm=norm, rng=rng)
        self.branch3 = ConvRelu(c_in, w.five, five, padding=five // 2, norm=norm, rng=rng)
        self.branch4 = nn.MaxPool2d(3, 1, padding=1)
        self.c_out = w.one + w.three + w.five + c_in

    def forward(self, x: Tensor) -> Tensor:
        return ops.concat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)])


class Inception(nn.Module):
    """Figure 2(b): the same with 1x1 convolutions that reduce, (N,C,H,W) -> (N, one + three + five + pool, H, W)"""

    def __init__(self, c_in: int, widths: Widths, five: int, norm: bool, rng: np.random.Generator) -> None:
        w = widths
        self.branch1 = ConvRelu(c_in, w.one, 1, norm=norm, rng=rng)
        self.branch2 = nn.Sequential(
            ConvRelu(c_in, w.reduce_three, 1, norm=norm, rng=rng),
            ConvRelu(w.reduce_three, w.three, 3, padding=1, norm=norm, rng=rng),
        )
        self.branch3 = nn.Sequential(
            ConvRelu(c_in, w.reduce_five, 1, norm=norm, rng=rng),
            ConvRelu(w.reduce_five, w.five, five, padding=five // 2, norm=norm, rng=rng),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, padding=1),
            ConvRelu(c_in, w.pool, 1, norm=norm, rng=rng),
        )
        self.c_out = w.one + w.three + w.five + w.pool

    def forward(self, x: Tensor) -> Tensor:
        return ops.concat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)])


MODULES: dict[str, type[NaiveInception | Inception]] = {"naive": NaiveInception, "reduced": Inception}


class AuxiliaryHead(nn.Module):
    """A classifier halfway: (N,C,H,W) -> (N,num_classes)

    The paper pools windows of 5x5, which leave the 4x4 cells only of 14x14, that is of images of 224x224.
    """

    def __init__(self, c_in: int, num_classes: int, dropout: float, paper: bool, rng: np.random.Generator) -> None:
        self.pool = nn.AvgPool2d(5, 3) if paper else nn.AdaptiveAvgPool2d(4)
        self.conv = ConvRelu(c_in, 128, 1, norm=not paper, rng=rng)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024, rng=rng)
        self.dropout = nn.Dropout(dropout, rng)
        self.fc2 = nn.Linear(1024, num_classes, rng=rng, init=nn.init.fan_in_uniform)

    def forward(self, x: Tensor) -> Tensor:
        x = ops.flatten(self.conv(self.pool(x)))  # (N,2048)
        return self.fc2(self.dropout(ops.relu(self.fc1(x))))


class LocalResponseNorm(nn.Module):
    """y[c] = x[c] / (1 + alpha mean_{|d| <= 2} x[c+d]^2)^0.75: a channel is damped where its neighbours are strong.

    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks", section 3.3, with
    the constants of Caffe's GoogLeNet; beyond the first and last channel stand zeros.
    """

    def __init__(self, alpha: float = 1e-4) -> None:
        self.alpha = number(alpha, "alpha", "[0, inf)")

    def forward(self, x: Tensor) -> Tensor:
        N, C, H, W = x.shape
        column = ops.reshape(x * x, (N, 1, C, H * W))  # the channels become the rows of one image
        mean = ops.reshape(ops.avg_pool2d(column, (5, 1), 1, (2, 0)), (N, C, H, W))
        return x / (1 + self.alpha * mean) ** 0.75

    def extra_repr(self) -> str:
        return f"{self.alpha}"


class GoogLeNetLogits(NamedTuple):
    """What training gives: three tensors (N,num_classes)."""

    logits: Tensor
    aux1: Tensor
    aux2: Tensor


class GoogLeNet(Net):
    """Nine Inception modules, the mean over the image, one linear layer: (N,in_channels,H,W) -> (N,num_classes)

    In training, unless it was made with `aux=False`, to `GoogLeNetLogits`. H and W are at least 15, in the paper's net 31.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        seed: int,
        module: str,
        paper: bool,
        aux: bool,
        dropout: float,
        aux_dropout: float,
    ) -> None:
        one_of(module, "module", MODULES)
        num_classes, in_channels, seed = sizes(num_classes, in_channels, seed)
        dropout, aux_dropout = number(dropout, "dropout", "[0, 1)"), number(aux_dropout, "aux_dropout", "[0, 1)")
        rng, norm = np.random.default_rng(seed), not paper

        def inception(c_in: int, *widths: int) -> NaiveInception | Inception:
            return MODULES[module](c_in, Widths(*widths), 5 if paper else 3, norm, rng)

        self.conv1 = ConvRelu(in_channels, 64, 7, 2, padding=3, norm=norm, rng=rng)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.lrn1 = LocalResponseNorm() if paper else nn.Identity()
        self.conv2 = ConvRelu(64, 64, 1, norm=norm, rng=rng)
        self.conv3 = ConvRelu(64, 192, 3, padding=1, norm=norm, rng=rng)
        self.lrn2 = LocalResponseNorm() if paper else nn.Identity()
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception3a = inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = inception(self.inception3a.c_out, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception4a = inception(self.inception3b.c_out, 192, 96, 208, 16, 48, 64)
        self.inception4b = inception(self.inception4a.c_out, 160, 112, 224, 24, 64, 64)
        self.inception4c = inception(self.inception4b.c_out, 128, 128, 256, 24, 64, 64)
        self.inception4d = inception(self.inception4c.c_out, 112, 144, 288, 32, 64, 64)
        self.inception4e = inception(self.inception4d.c_out, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(3 if paper else 2, 2, ceil_mode=True)
        self.inception5a = inception(self.inception4e.c_out, 256, 160, 320, 32, 128, 128)
        self.inception5b = inception(self.inception5a.c_out, 384, 192, 384, 48, 128, 128)
        self.aux, self.paper = aux, paper
        if aux:
            self.aux1 = AuxiliaryHead(self.inception4a.c_out, num_classes, aux_dropout, paper, rng)
            self.aux2 = AuxiliaryHead(self.inception4d.c_out, num_classes, aux_dropout, paper, rng)
        self.dropout = nn.Dropout(dropout, rng)
        self.fc = nn.Linear(self.inception5b.c_out, num_classes, rng=rng, init=nn.init.fan_in_uniform)
        self.name_parameters()

    auxiliary_weight = 0.3  # of the loss of each head

    @property
    def smallest(self) -> int:  # type: ignore[override]
        if not self.paper:
            return 15
        return 223 if self.training and self.aux else 31  # the heads want 14x14

    def forward(self, x: Tensor) -> Tensor | GoogLeNetLogits:  # type: ignore[override]
        x = self.lrn1(self.maxpool1(self.conv1(x)))  # (N,64,H/4,W/4)
        x = self.lrn2(self.conv3(self.conv2(x)))
        x = self.maxpool2(x)  # (N,192,H/8,W/8)
        x = self.inception3b(self.inception3a(x))
        x = self.maxpool3(x)  # (N,480,H/16,W/16), as all channels here: with the reduced module
        x = x_4a = self.inception4a(x)
        x = self.inception4c(self.inception4b(x))
        x = x_4d = self.inception4d(x)
        x = self.inception4e(x)
        x = self.maxpool4(x)  # (N,832,H/32,W/32)
        x = self.inception5b(self.inception5a(x))  # (N,1024,H/32,W/32)
        logits = self.fc(self.dropout(ops.global_avg_pool2d(x)))
        return GoogLeNetLogits(logits, self.aux1(x_4a), self.aux2(x_4d)) if self.training and self.aux else logits


def googlenet(
    num_classes: int = 1000,
    in_channels: int = 3,
    seed: int = 0,
    module: str = "reduced",
    paper: bool = False,
    aux: bool = True,
    dropout: float | None = None,
    aux_dropout: float = 0.7,
) -> GoogLeNet:
    """6.6 million parameters, and 6.4 million in the auxiliary heads.

    module: "reduced" or "naive", figure 2(b) or (a). paper: without batch norm, with local response normalisation and with
    the 5x5 kernels of table 1; it has a top-5 error of 10.07% on the ImageNet validation set (table 3, one crop). By default
    it is the net of torchvision, whose weights then fit: with batch norm, and with 3x3 in place of 5x5. aux: whether there are
    auxiliary heads. dropout: before the last linear layer, 0.2 or the paper's 0.4 if None; aux_dropout: in the heads.

    The naive modules make 70,300,872 parameters, without the heads. By hand: one that is given C channels has
    C (one + 9 three + 9 five) weights and 2 (one + three + five) in its norms, and passes on C + one + three + five; so the
    nine are given 192, 416, 832, 1,280, 1,728, 2,176, 2,640, 3,344 and 4,048 channels.

        stem         147 x 64 + 64 x 64 + 9 x 64 x 192 + 2 x (64 + 64 + 192)        124,736
        modules                                                                  65,231,136
        the end      4,944 x 1,000 + 1,000                                        4,945,000
    """
    paper, aux = flag(paper, "paper"), flag(aux, "aux")
    if dropout is None:
        dropout = 0.4 if paper else 0.2
    return GoogLeNet(num_classes, in_channels, seed, module, paper, aux, dropout, aux_dropout)

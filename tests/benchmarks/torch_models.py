"""The nets of the comparison in PyTorch, which comes without torchvision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.benchmarks.cifar_peer import ResNet


class DenseLayer(nn.Module):
    """Huang et al. 2017: conv(relu(bn(x))) behind x, with a bottleneck of 4 growth channels in the variant BC"""

    def __init__(self, c: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if bottleneck:
            layers += [nn.BatchNorm2d(c), nn.ReLU(inplace=True), nn.Conv2d(c, 4 * growth, 1, bias=False)]
            c = 4 * growth
        layers += [nn.BatchNorm2d(c), nn.ReLU(inplace=True), nn.Conv2d(c, growth, 3, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.layers(x)], 1)


class GlobalMean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def densenet(depth: int, growth: int, bottleneck: bool) -> nn.Module:
    n, c = (depth - 4) // (6 if bottleneck else 3), 2 * growth if bottleneck else 16
    layers: list[nn.Module] = [nn.Conv2d(3, c, 3, padding=1, bias=False)]
    for block in range(3):
        for _ in range(n):
            layers.append(DenseLayer(c, growth, bottleneck))
            c += growth
        layers += [nn.BatchNorm2d(c), nn.ReLU(inplace=True)]
        if block < 2:
            out = c // 2 if bottleneck else c
            layers += [nn.Conv2d(c, out, 1, bias=False), nn.AvgPool2d(2)]
            c = out
    return nn.Sequential(*layers, GlobalMean(), nn.Linear(c, 10))


def vgg16() -> nn.Module:
    """Simonyan and Zisserman 2015, configuration D, without dropout; means over 7x7 cells before the classifier"""
    layers: list[nn.Module] = []
    c = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(c, width, 3, padding=1), nn.ReLU(inplace=True)]
            c = width
        layers.append(nn.MaxPool2d(2))
    head = [
        nn.Linear(512 * 49, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Linear(4096, 1000),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head)


class BasicBlock(nn.Module):
    def __init__(self, c: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c != out:
            self.shortcut = nn.Sequential(nn.Conv2d(c, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def resnet18() -> nn.Module:
    """He et al. 2016, table 1"""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    blocks, c = [], 64
    for out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        blocks += [BasicBlock(c, out, stride), BasicBlock(out, out, 1)]
        c = out
    return nn.Sequential(*stem, *blocks, GlobalMean(), nn.Linear(512, 1000))


MODELS = {
    "resnet8": lambda: ResNet(1),
    "resnet20": lambda: ResNet(3),
    "resnet56": lambda: ResNet(9),
    "densenet40_12": lambda: densenet(40, 12, False),
    "densenet_bc100_12": lambda: densenet(100, 12, True),
    "vgg16": vgg16,
    "resnet18": resnet18,
}

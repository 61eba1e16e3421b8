"""Modules: the layers, the containers, and how their weights start."""

from minidl.nn import init
from minidl.nn.containers import ModuleList, Sequential
from minidl.nn.dense import dense_block
from minidl.nn.fused import conv_norm, conv_relu
from minidl.nn.layers import (
    GELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Identity,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Sigmoid,
    Tanh,
    TopKPool2d,
)
from minidl.nn.module import Module

__all__ = [
    "GELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Identity",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "TopKPool2d",
    "conv_norm",
    "conv_relu",
    "dense_block",
    "init",
]

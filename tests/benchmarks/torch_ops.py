"""PyTorch's side of the comparison op by op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tests.benchmarks.shapes import CONVOLUTIONS, IMAGES, Conv

Step = Callable[[], Any]


def convolution(c: Conv, what: str) -> Step:
    x, w = torch.randn(c.N, c.C, c.H, c.H), torch.randn(c.F, c.C // c.groups, *c.kernel_size)
    stride, padding = [c.stride, c.stride], list(c.padding)
    gy = F.conv2d(x, w, None, stride, padding, 1, c.groups)
    mask = [what == "dx", what == "dw", False]
    if what == "forward":
        return torch.no_grad()(lambda: F.conv2d(x, w, None, stride, padding, 1, c.groups))
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(gy, x, w, None, stride, padding, [1, 1], False, [0, 0], c.groups, mask)


def sweep(what: str, shape: tuple[int, int, int, int]) -> Step:
    x, b = (torch.randn(shape, requires_grad=True) for _ in range(2))
    few = torch.randn(shape[0], 12, *shape[2:], requires_grad=True)
    gamma, beta = (torch.ones(shape[1], requires_grad=True) for _ in range(2))
    f: Callable[[], torch.Tensor] = {
        "batch norm + relu": lambda: F.relu(F.batch_norm(x, None, None, gamma, beta, True), inplace=True),
        "relu": lambda: F.relu(x),
        "add": lambda: x + b,
        "max pool 2x2": lambda: F.max_pool2d(x, 2),
        "average pool 2x2": lambda: F.avg_pool2d(x, 2),
        "concat with 12 channels": lambda: torch.cat([x, few], 1),
    }[what]
    gy = f().detach().clone()

    def step() -> None:
        x.grad = b.grad = few.grad = gamma.grad = beta.grad = None
        f().backward(gy)

    return step


def setup(name: str, what: str) -> Step:
    return convolution(CONVOLUTIONS[name], what) if name in CONVOLUTIONS else sweep(what, IMAGES[name])

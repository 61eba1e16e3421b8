"""minidl's side of the comparison op by op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import Tensor, ops
from minidl.kernels import compiled
from tests.benchmarks.shapes import CONVOLUTIONS, IMAGES, Conv

Step = Callable[[], Any]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def convolution(c: Conv, what: str) -> Step:
    x, w = random(c.N, c.C, c.H, c.H), random(c.F, c.C // c.groups, *c.kernel_size)
    geometry = (c.stride, c.stride), c.padding, (1, 1), c.groups
    gy = compiled.conv2d(x, w, None, *geometry)
    return {
        "forward": lambda: compiled.conv2d(x, w, None, *geometry),
        "dx": lambda: compiled.conv2d_grad_x(gy, w, x.shape, *geometry),
        "dw": lambda: compiled.conv2d_grad_w(gy, x, w.shape, *geometry),
    }[what]


def sweep(what: str, shape: tuple[int, int, int, int]) -> Step:
    x, b = (Tensor(random(*shape), requires_grad=True) for _ in range(2))
    few = Tensor(random(shape[0], 12, *shape[2:]), requires_grad=True)
    gamma, beta = (Tensor(np.ones(shape[1], np.float32), requires_grad=True) for _ in range(2))
    f: Callable[[], Tensor] = {
        "batch norm + relu": lambda: ops.batch_norm_relu(x, gamma, beta),
        "relu": lambda: ops.relu(x),
        "add": lambda: x + b,
        "max pool 2x2": lambda: ops.max_pool2d(x, 2),
        "average pool 2x2": lambda: ops.avg_pool2d(x, 2),
        "concat with 12 channels": lambda: ops.concat([x, few]),
    }[what]
    gy = f().data

    def step() -> None:
        x.grad = b.grad = few.grad = gamma.grad = beta.grad = None
        f().backward(gy)

    return step


def copy(n: int = 2**25) -> Step:
    a, b = np.ones(n, np.float32), np.ones(n, np.float32)
    return lambda: np.copyto(a, b)


def setup(name: str, what: str) -> Step:
    if name == "copy":
        return copy()
    return convolution(CONVOLUTIONS[name], what) if name in CONVOLUTIONS else sweep(what, IMAGES[name])

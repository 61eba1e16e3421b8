"""Small nets of drawn shape, with residual and concat joins, in float64: what the ledger and the flow must hold for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minidl import Tensor, ops

BLOCKS = ("conv", "norm", "relu", "leaky", "max pool", "avg pool", "add", "concat", "shift", "resize", "clip")


@st.composite
def scores(draw: Any, blocks: tuple[str, ...] = BLOCKS) -> tuple[Tensor, Tensor]:
    """(score (), image (1,C,H,W)) of a net of up to eight blocks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    C, H, W = draw(st.integers(1, 3)), draw(st.integers(4, 8)), draw(st.integers(4, 8))
    x = Tensor(rng.normal(size=(1, C, H, W)), requires_grad=True, name="x")
    y = x
    for name in draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=8)):
        y = _block(name, y, rng)
    return head(y, rng), x


def head(y: Tensor, rng: np.random.Generator) -> Tensor:
    y = ops.flatten(y) if rng.random() < 0.5 else ops.global_avg_pool2d(y)
    return ops.linear(y, Tensor(rng.normal(size=(3, y.shape[1]))), Tensor(rng.normal(size=3)))[0, 1]


def conv(y: Tensor, rng: np.random.Generator, C: int, **settings: int) -> Tensor:
    k = 1 if min(y.shape[2:]) < 3 else 3
    return ops.conv2d(y, Tensor(rng.normal(size=(C, y.shape[1], k, k))), Tensor(rng.normal(size=C)), padding=k // 2, **settings)


def norm(y: Tensor, rng: np.random.Generator) -> Tensor:
    gamma, beta, mean = rng.normal(size=(3, y.shape[1]))
    return ops.batch_norm_frozen(y, Tensor(gamma), Tensor(beta), mean, 0.1 + rng.random(y.shape[1]))


def _block(name: str, y: Tensor, rng: np.random.Generator) -> Tensor:
    C = y.shape[1]
    small = min(y.shape[2:]) < 2
    blocks: dict[str, Callable[[], Tensor]] = {
        "conv": lambda: conv(y, rng, int(rng.integers(1, 5)), stride=int(rng.integers(1, 3))),
        "norm": lambda: norm(y, rng),
        "relu": lambda: ops.relu(y),
        "leaky": lambda: ops.leaky_relu(y, 0.1),
        "max pool": lambda: y if small else ops.max_pool2d(y, 2, 1 + int(rng.integers(2)), padding=int(rng.integers(2))),
        "avg pool": lambda: y if small else ops.avg_pool2d(y, 2, count_include_pad=False, ceil_mode=True),
        "add": lambda: ops.relu(conv(ops.relu(conv(y, rng, C)), rng, C) + y),
        "concat": lambda: ops.concat([y, ops.relu(conv(y, rng, 2)), ops.pad(y, [(0, 0), (1, 0), (0, 0), (0, 0)], 0.3)]),
        "shift": lambda: 0.5 - y * 1.5,
        "resize": lambda: ops.resize(y, (3, 5)),
        "clip": lambda: ops.clip(y, -1.0, 0.7),
    }
    return blocks[name]()

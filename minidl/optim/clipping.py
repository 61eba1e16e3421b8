"""Gradients that are cut to a length."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minidl.arguments import number
from minidl.array import array_module
from minidl.core import Parameter
from minidl.optim.groups import listed, name_of


def clip_gradients(params: Iterable[Parameter], max_norm: float) -> float:
    """g <- g min(1, max_norm / |g|), |g| the joint L2 norm of all gradients g; returns |g| before.

    Raises ValueError, naming the first such parameter, where a gradient is not finite, TypeError or ValueError for a max_norm
    that is no number above 0.

    Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """
    max_norm, total, params = number(max_norm, "max_norm", "(0, inf)"), 0.0, listed(params)
    for i, p in enumerate(params):
        if p.grad is not None:
            total += float(array_module(p.grad).square(p.grad, dtype="float64").sum())
            if not math.isfinite(total):
                raise ValueError(f"clip_gradients: the gradient of {name_of(i, p)} is not finite")
    norm = math.sqrt(total)
    if norm > max_norm:
        for p in params:
            if p.grad is not None:
                p.grad = p.grad * (max_norm / norm)  # a new array: others may hold the old one
    return norm

"""Ops that draw random numbers, from a generator that the caller owns."""

from __future__ import annotations

import numpy as np

from minidl import kernels
from minidl.arguments import generator, number
from minidl.array import Array
from minidl.core import Grads, Op, Tensor
from minidl.ops.recompute import once


class Dropout(Op):
    """y = x m / (1 - p), m = 0 with probability p, else 1"""

    def __init__(self, p: float, rng: np.random.Generator) -> None:
        self.p, self.rng = p, rng

    def forward(self, x: Array) -> Array:
        self.seed = once(lambda: int(self.rng.integers(2**63)))
        return kernels.of(x).dropout(x, self.p, self.seed)

    def push(self, tx: Array) -> Array:
        """ty = tx m / (1 - p): m is drawn again from the same seed"""
        return kernels.of(tx).dropout(tx, self.p, self.seed)

    def backward(self, gy: Array) -> Grads:
        """gx = gy m / (1 - p): m is drawn again from the same seed"""
        return (kernels.of(gy).dropout(gy, self.p, self.seed),)


def dropout(x: Tensor, p: float, rng: np.random.Generator) -> Tensor:
    """y = x m / (1 - p), m = 0 with probability p, else 1: each element by itself, any shape.

    rng: the generator, on the CPU, of one seed a call; the elements are drawn from that seed where x is, the same ones on the
    CPU and on a GPU. In evaluation call nothing: `nn.Dropout` does that. Raises ValueError for p outside [0, 1), TypeError
    for one that is no number, or another rng.

    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, "Dropout: a simple way to prevent neural networks from
    overfitting", here with the scaling in training, so that evaluation needs none.
    """
    return Dropout(number(p, "p", "[0, 1)"), generator(rng))(x)

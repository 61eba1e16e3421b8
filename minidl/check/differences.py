"""Slopes of a function, measured by differences of its own values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minidl.array import Array, array_like, array_module
from minidl.core import Tensor, no_grad, tape


class GradientError(AssertionError):
    """A gradient is wrong, or cannot be checked; the message says what was found."""


@dataclass(frozen=True)
class Difference:
    """Two values of one derivative, at an element or along a direction."""

    at: str  # "[0, 2, 1]" or "random direction"
    analytic: float
    numeric: float

    @property
    def error(self) -> float:
        """|analytic - numeric| / max(1, |analytic|, |numeric|)"""
        error = abs(self.analytic - self.numeric) / max(1.0, abs(self.analytic), abs(self.numeric))
        return math.inf if math.isnan(error) else error

    def __str__(self) -> str:
        return f"{self.at}: analytic {self.analytic:.9g}, numeric {self.numeric:.9g}, error {self.error:.2g}"


@dataclass(frozen=True)
class Point:
    """F(x) = sum_k gy[k] f(x)[k] at the arrays xs, and how steep it is there."""

    f: Callable[..., Tensor]
    xs: list[Array]
    gy: Array
    step: float

    def outputs(self, i: int, tx: Array) -> Array:
        """f where input i is moved by tx"""
        with no_grad():
            tx = array_like(tx, self.xs[i])
            return self.f(*[Tensor(x + tx if k == i else x.copy()) for k, x in enumerate(self.xs)]).data

    def slope(self, i: int, d: Array, step: float = 0) -> float:
        """sum_k gy[k] (f(x + h d)[k] - f(x - h d)[k]) / 2h, x the input i"""
        h = step or self.step
        return float((self.gy * (self.outputs(i, h * d) - self.outputs(i, -h * d))).sum()) / (2 * h)

    def sides(self, i: int, d: Array, step: float) -> tuple[float, float]:
        """The slopes to the left, (F(x) - F(x - h d)) / h, and to the right, (F(x + h d) - F(x)) / h"""
        left, right = (float((self.gy * (self.outputs(i, s * d) - self.y)).sum()) / s for s in (-step, step))
        return left, right

    def is_constant(self, i: int) -> bool:
        """Whether f stays as it is where every number of input i changes a little, up or down"""
        change = self.step * array_module(self.xs[i]).ones_like(self.xs[i])
        return all(same(self.outputs(i, sign * change), self.y, 0) for sign in (1, -1))

    def one(self, i: int, index: tuple[int, ...]) -> Array:
        """The direction in which the element at `index` of input i grows alone"""
        d = array_module(self.xs[i]).zeros_like(self.xs[i])
        d[index] = 1
        return d

    @cached_property
    def y(self) -> Array:
        return self.outputs(0, array_module(self.xs[0]).zeros_like(self.xs[0]))

    @cached_property
    def rounding(self) -> float:
        """How far a slope may be off for the rounding of f in float64"""
        return 16 * float(np.finfo(np.float64).eps) * float(abs(self.gy * self.y).sum()) / self.step


def as_float64(inputs: Sequence[Any]) -> list[Array]:
    """The arrays of the inputs of f. Raises ValueError where there is none, or one is empty."""
    if len(inputs) == 0:
        raise ValueError("inputs: expected at least one array or Tensor, got none")
    tensors = [x if isinstance(x, Tensor) else Tensor(x) for x in inputs]
    for i, x in enumerate(tensors):
        if x.size == 0:
            raise ValueError(f"inputs[{i}]: expected at least one element, got shape {x.shape}")
    return [x.data.astype(np.float64) for x in tensors]


def normal(x: Array, rng: np.random.Generator) -> Array:
    """Normal numbers of the shape of x, where x is"""
    return array_module(x).asarray(rng.standard_normal(x.shape))


def same(a: Array, b: Array, tolerance: float) -> bool:
    return bool(array_module(a).allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def in_words(f: Callable[..., Tensor], xs: Sequence[Array]) -> str:
    """ "conv2d at (1, 2, 5, 5), (3, 2, 3, 3)\""""
    return f"{name(f)} at {', '.join(str(x.shape) for x in xs)}"


def name(f: Callable[..., Tensor]) -> str:
    return getattr(f, "__qualname__", repr(f))


def chain(f: Callable[..., Tensor], xs: list[Array]) -> str:
    """The ops from the inputs to the output"""
    y = f(*[Tensor(x.copy(), requires_grad=True) for x in xs])
    return " -> ".join(type(op).__name__ for op in reversed(tape(y))) if y.requires_grad else "none"

"""Reductions along axes. `axis` is None (all), an int or a tuple; `keepdims` keeps the reduced axes with length 1."""

from __future__ import annotations

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from minidl.arguments import count, flag
from minidl.array import Array, array_module
from minidl.core import Grads, Op, Tensor
from minidl.mixed import FLOAT32

Axis = int | tuple[int, ...] | None


class _Reduction(Op):
    """What the reductions share: the axes, and how a gradient gets the shape of the input again."""

    precision = (FLOAT32,)

    def __init__(self, axis: Axis, keepdims: bool) -> None:
        self.axis, self.keepdims = axis, flag(keepdims, "keepdims")

    def spread(self, g: Array, x_shape: tuple[int, ...]) -> Array:
        """g, one value per reduction, repeated along the reduced axes to x_shape"""
        return array_module(g).broadcast_to(self.kept(g, x_shape), x_shape)

    def kept(self, g: Array, x_shape: tuple[int, ...]) -> Array:
        """g with the reduced axes at length 1"""
        axes = self.axes(len(x_shape))
        return g.reshape(tuple(1 if i in axes else n for i, n in enumerate(x_shape)))

    def sum(self, t: Array) -> Array:
        """sum t along the axes"""
        return t.sum(axis=self.axes(t.ndim), keepdims=self.keepdims)

    def axes(self, ndim: int) -> tuple[int, ...]:
        """Counted from 0. As NumPy's sum has it, a scalar has an axis 0 (or -1) to add up along, which changes nothing."""
        if self.axis is None or (ndim == 0 and self.axis in (0, -1)):
            return tuple(range(ndim))
        axes = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        found = tuple(normalize_axis_index(axis, ndim, "axis") for axis in axes)
        if len(set(found)) < len(found):
            raise ValueError(f"axis: expected different axes, got {self.axis}")
        return found

    def count(self, x_shape: tuple[int, ...]) -> int:
        """how many values one reduction takes in"""
        m = 1
        for i in self.axes(len(x_shape)):
            m *= x_shape[i]
        return m


class Sum(_Reduction):
    """y = sum x"""

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        return self.sum(x)

    def push(self, tx: Array) -> Array:
        """ty = sum tx"""
        return self.forward(tx)

    def backward(self, gy: Array) -> Grads:
        """gx = gy, the same for all"""
        return (self.spread(gy, self.x_shape),)


class Mean(_Reduction):
    """y = sum x / m"""

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        return x.mean(axis=self.axes(x.ndim), keepdims=self.keepdims)

    def push(self, tx: Array) -> Array:
        """ty = sum tx / m"""
        return self.forward(tx)

    def backward(self, gy: Array) -> Grads:
        """gx = gy / m, the same for all"""
        return (self.spread(gy / self.count(self.x_shape), self.x_shape),)


class Max(_Reduction):
    """y = max x"""

    def forward(self, x: Array) -> Array:
        axes = self.axes(x.ndim)
        y = x.max(axis=axes, keepdims=True)
        self.share = (x == y) / (x == y).sum(axis=axes, keepdims=True).astype(x.dtype)
        return y if self.keepdims else y.squeeze(axis=axes)

    def push(self, tx: Array) -> Array:
        """ty = tx at the maximum, the mean of tx over equal maxima"""
        return self.sum(self.share * tx)

    def backward(self, gy: Array) -> Grads:
        """gx = gy at the maximum, shared by equal maxima, 0 elsewhere"""
        return (self.kept(gy, self.share.shape) * self.share,)


class Var(_Reduction):
    """y = sum (x - mean)^2 / (m - correction)"""

    def __init__(self, axis: Axis, keepdims: bool, correction: int) -> None:
        super().__init__(axis, keepdims)
        self.correction = correction

    def forward(self, x: Array) -> Array:
        if self.count(x.shape) <= self.correction:
            raise ValueError(f"correction: {self.correction} leaves nothing of {self.count(x.shape)} values")
        self.x = x
        return x.var(axis=self.axes(x.ndim), keepdims=self.keepdims, ddof=self.correction)

    def push(self, tx: Array) -> Array:
        """ty = sum 2 (x - mean) tx / (m - correction)"""
        return self.sum(self.slope() * tx)

    def backward(self, gy: Array) -> Grads:
        """gx = 2 (x - mean) gy / (m - correction)"""
        return (self.kept(gy, self.x.shape) * self.slope(),)

    def slope(self) -> Array:
        """dy/dx = 2 (x - mean) / (m - correction)"""
        deviation = self.x - self.x.mean(axis=self.axes(self.x.ndim), keepdims=True)
        return deviation * 2 / (self.count(self.x.shape) - self.correction)


class LogSumExp(_Reduction):
    """y = log sum exp x = max + log sum exp(x - max), where inf - inf is 0: of infinities alone y is their maximum"""

    def forward(self, x: Array) -> Array:
        xp, axes = array_module(x), self.axes(x.ndim)
        top = x.max(axis=axes, keepdims=True)
        with np.errstate(invalid="ignore"):  # inf - inf, which is not taken
            e = xp.exp(xp.where(x == top, x.dtype.type(0), x - top))
        total = e.sum(axis=axes, keepdims=True)
        self.p = e / total
        y = top + xp.log(total)
        return y if self.keepdims else y.squeeze(axis=axes)

    def push(self, tx: Array) -> Array:
        """ty = sum p tx, p = softmax x"""
        return self.sum(self.p * tx)

    def backward(self, gy: Array) -> Grads:
        """gx = p gy, p = softmax x, in which equal infinities share"""
        return (self.kept(gy, self.p.shape) * self.p,)


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = sum x along the axes, any shape -> the shape without them.

    Raises ValueError for an axis that x has not, or that comes twice, TypeError for `keepdims` that is neither True nor False.
    """
    return Sum(axis, keepdims)(x)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = sum x / m along the axes, m values each: shapes and what is raised as of `sum`."""
    return Mean(axis, keepdims)(x)


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = max x along the axes; equal maxima share the gradient. Shapes and what is raised as of `sum`."""
    return Max(axis, keepdims)(x)


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Tensor:
    """y = sum (x - mean)^2 / (m - correction) along the axes, m values each: shapes as of `sum`.

    correction: 1: unbiased, as in PyTorch; 0: biased, as in NumPy. Raises TypeError where it is no integer, ValueError where it
    is below 0 or leaves nothing of m, and for axes as `sum` does.
    """
    return Var(axis, keepdims, count(correction, "correction", 0))(x)


def logsumexp(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = log sum exp(x) along the axes, without overflow. Shapes and what is raised as of `sum`."""
    return LogSumExp(axis, keepdims)(x)

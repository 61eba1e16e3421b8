"""Reductions along axes. `axis` is None (all), an int or a tuple; `keepdims` keeps the reduced axes with length 1."""

from __future__ import annotations

from numpy.lib.array_utils import normalize_axis_tuple

from minidl.arguments import count
from minidl.array import Array, array_module
from minidl.core import Grads, Op, Tensor
from minidl.mixed import FLOAT32

Axis = int | tuple[int, ...] | None


class _Reduction(Op):
    """What the reductions share: the axes, and how a gradient gets the shape of the input again."""

    precision = (FLOAT32,)

    def __init__(self, axis: Axis, keepdims: bool) -> None:
        self.axis, self.keepdims = axis, keepdims

    def spread(self, g: Array, x_shape: tuple[int, ...]) -> Array:
        """g, one value per reduction, repeated along the reduced axes to x_shape"""
        return array_module(g).broadcast_to(self.kept(g, x_shape), x_shape)

    def kept(self, g: Array, x_shape: tuple[int, ...]) -> Array:
        """g with the reduced axes at length 1"""
        axes = self.axes(len(x_shape))
        return g.reshape(tuple(1 if i in axes else n for i, n in enumerate(x_shape)))

    def axes(self, ndim: int) -> tuple[int, ...]:
        return tuple(range(ndim)) if self.axis is None else normalize_axis_tuple(self.axis, ndim, "axis")

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
        return x.sum(axis=self.axis, keepdims=self.keepdims)

    def backward(self, gy: Array) -> Grads:
        return (self.spread(gy, self.x_shape),)


class Mean(_Reduction):
    """y = sum x / m"""

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        return x.mean(axis=self.axis, keepdims=self.keepdims)

    def backward(self, gy: Array) -> Grads:
        return (self.spread(gy / self.count(self.x_shape), self.x_shape),)


class Max(_Reduction):
    """y = max x; equal maxima share the gradient"""

    def forward(self, x: Array) -> Array:
        y = x.max(axis=self.axis, keepdims=True)
        self.share = (x == y) / (x == y).sum(axis=self.axis, keepdims=True).astype(x.dtype)
        return y if self.keepdims else y.squeeze(axis=self.axes(x.ndim))

    def backward(self, gy: Array) -> Grads:
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
        return x.var(axis=self.axis, keepdims=self.keepdims, ddof=self.correction)

    def backward(self, gy: Array) -> Grads:
        deviation = self.x - self.x.mean(axis=self.axis, keepdims=True)
        m = self.count(self.x.shape) - self.correction
        return (self.kept(gy, self.x.shape) * deviation * 2 / m,)


class LogSumExp(_Reduction):
    """y = log sum exp x = max + log sum exp(x - max)"""

    def forward(self, x: Array) -> Array:
        xp = array_module(x)
        top = x.max(axis=self.axis, keepdims=True)
        y = top + xp.log(xp.exp(x - top).sum(axis=self.axis, keepdims=True))
        self.x, self.y = x, y
        return y if self.keepdims else y.squeeze(axis=self.axes(x.ndim))

    def backward(self, gy: Array) -> Grads:
        return (self.kept(gy, self.x.shape) * array_module(gy).exp(self.x - self.y),)  # dy/dx = softmax


def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum along the axes."""
    return Sum(axis, keepdims)(x)


def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean along the axes."""
    return Mean(axis, keepdims)(x)


def max(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest value along the axes; equal maxima share the gradient."""
    return Max(axis, keepdims)(x)


def var(x: Tensor, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Tensor:
    """The variance along the axes, divided by m - correction (1: unbiased, as in PyTorch; 0: biased, as in NumPy)."""
    return Var(axis, keepdims, count(correction, "correction", 0))(x)


def logsumexp(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log sum exp(x) along the axes, without overflow."""
    return LogSumExp(axis, keepdims)(x)

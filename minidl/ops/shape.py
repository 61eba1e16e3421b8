"""Ops that move values and compute nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from minidl.arguments import count, counts, number, pairs
from minidl.array import Array, array_module, is_array, sum_to
from minidl.core import Grads, Op, Tensor, getitem


class Reshape(Op):
    """y[k] = x[k], k counting the elements row by row"""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Array) -> Array:
        self.x_shape, known = x.shape, math.prod(n for n in self.shape if n != -1)
        whole = known > 0 and x.size % known == 0 if -1 in self.shape else x.size == known
        if not whole or self.shape.count(-1) > 1:
            raise ValueError(f"shape: expected one of {x.size} elements, as x of {x.shape} has, got {self.shape}")
        return x.reshape(self.shape)

    def push(self, tx: Array) -> Array:
        """ty[k] = tx[k], k counting the elements row by row"""
        return tx.reshape(self.shape)

    def backward(self, gy: Array) -> Grads:
        """gx[k] = gy[k], in the shape of x"""
        return (gy.reshape(self.x_shape),)


class Transpose(Op):
    """y = x with axis axes[i] as axis i"""

    def __init__(self, axes: tuple[int, ...] | None) -> None:
        self.axes = axes

    def forward(self, x: Array) -> Array:
        self.order = tuple(range(x.ndim))[::-1] if self.axes is None else normalize_axis_tuple(self.axes, x.ndim, "axes")
        return x.transpose(self.order)

    def push(self, tx: Array) -> Array:
        """ty = tx with axis axes[i] as axis i"""
        return tx.transpose(self.order)

    def backward(self, gy: Array) -> Grads:
        """gx = gy with its axes put back"""
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return (gy.transpose(inverse),)


class Concat(Op):
    """y = the inputs, one behind the other along an axis"""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, *xs: Array) -> Array:
        axis = normalize_axis_index(self.axis, xs[0].ndim)
        if len({(*x.shape[:axis], *x.shape[axis + 1 :]) for x in xs} | {x.ndim for x in xs}) > 2:
            raise ValueError(f"xs: expected shapes that differ along axis {axis} alone, got {[x.shape for x in xs]}")
        self.sizes = [x.shape[self.axis] for x in xs]
        return array_module(xs[0]).concatenate(xs, axis=self.axis)

    def push(self, *txs: Array | None) -> Array:
        """ty = the tangents, one behind the other along the axis"""
        parts = self.tangents(*txs)
        return array_module(parts[0]).concatenate(parts, axis=self.axis)

    def backward(self, gy: Array) -> Grads:
        """gx_i = its own part of gy"""
        gxs, start = [], 0
        for size in self.sizes:
            part = [slice(None)] * gy.ndim
            part[self.axis] = slice(start, start + size)
            gxs.append(gy[tuple(part)])
            start += size
        return gxs


class Pad(Op):
    """y = x with a border of one value"""

    def __init__(self, widths: tuple[tuple[int, int], ...], value: float) -> None:
        self.widths, self.value = widths, value

    def forward(self, x: Array) -> Array:
        if len(self.widths) != x.ndim:
            raise ValueError(f"widths: expected {x.ndim} pairs (before, after), one per axis of x, got {len(self.widths)}")
        self.inside = tuple(slice(a, a + n) for (a, _), n in zip(self.widths, x.shape, strict=True))
        return array_module(x).pad(x, self.widths, constant_values=self.value)

    def push(self, tx: Array) -> Array:
        """ty = tx with a border of 0, which does not change"""
        return array_module(tx).pad(tx, self.widths)

    def backward(self, gy: Array) -> Grads:
        """gx = gy without the border"""
        return (gy[self.inside],)


class Flip(Op):
    """y[i] = x[n - 1 - i] along the axes"""

    def __init__(self, axis: int | tuple[int, ...]) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        return array_module(x).flip(x, self.axis)

    def push(self, tx: Array) -> Array:
        """ty[i] = tx[n - 1 - i] along the axes"""
        return array_module(tx).flip(tx, self.axis)

    def backward(self, gy: Array) -> Grads:
        """gx[i] = gy[n - 1 - i] along the axes"""
        return (array_module(gy).flip(gy, self.axis),)


class BroadcastTo(Op):
    """y = x repeated along its axes of length 1 and along new leading axes"""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Array) -> Array:
        self.x_shape = x.shape
        return array_module(x).broadcast_to(x, self.shape)

    def push(self, tx: Array) -> Array:
        """ty = tx repeated as x is"""
        return array_module(tx).broadcast_to(tx, self.shape)

    def backward(self, gy: Array) -> Grads:
        """gx = sum gy over the repetitions"""
        return (sum_to(gy, self.x_shape),)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """y[k] = x[k], k counting row by row, in another shape: (N,C,H,W) with shape (N,-1) -> (N,C H W); one size may be -1.

    Raises ValueError for a shape of another number of elements, TypeError for one that is not of integers.
    """
    return Reshape(counts(shape, "shape", -1))(x)


def flatten(x: Tensor) -> Tensor:
    """y = x, (N, ...) -> (N, all the rest). Raises ValueError for a scalar, which has no N."""
    if x.ndim == 0:
        raise ValueError("x: expected (N, ...), got a scalar; write ops.reshape(x, (1, 1))")
    return Reshape((x.shape[0], math.prod(x.shape[1:])))(x)


def transpose(x: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """y = x with axis axes[i] as axis i, reversed by default: (N,C,H,W) with axes (0, 2, 3, 1) -> (N,H,W,C).

    Raises ValueError unless every axis of x comes once, TypeError for axes that are no integers.
    """
    return Transpose(None if axes is None else counts(axes, "axes", None))(x)


def concat(xs: Sequence[Tensor], axis: int = 1) -> Tensor:
    """y = the tensors xs one behind the other along `axis`, the channels by default: (N,C1,H,W), (N,C2,H,W) -> (N,C1+C2,H,W).

    Raises ValueError where there is none, another size than that of the axis differs, or there is no such axis, TypeError for
    what is no tensor.
    """
    if len(xs) == 0:
        raise ValueError("xs: expected at least one tensor, got none")
    for i, x in enumerate(xs):
        if not isinstance(x, Tensor) and not is_array(x):
            raise TypeError(f"xs: expected tensors, got {type(x).__name__} as number {i}")
    return Concat(count(axis, "axis", None))(*xs)


def split(x: Tensor, sizes: int | Sequence[int], axis: int = 1) -> list[Tensor]:
    """Consecutive pieces along `axis`, by default of channels: (N,C,H,W) with sizes (a, b) -> (N,a,H,W), (N,b,H,W).

    sizes: one, which must divide the axis, or several, which add up to it. Raises ValueError where they do not, or x has no
    such axis, TypeError where they are no integers.
    """
    axis = normalize_axis_index(count(axis, "axis", None), x.ndim)
    n = x.shape[axis]
    if isinstance(sizes, tuple | list):
        parts = list(counts(sizes, "sizes"))
    else:
        size = count(sizes, "sizes")
        parts = [size] * (n // size)
    if sum(parts) != n:
        raise ValueError(f"sizes: expected sizes that add up to {n}, the length of axis {axis}, got {sizes}")
    starts = [sum(parts[:i]) for i in range(len(parts))]
    return [getitem(x, (slice(None),) * axis + (slice(a, a + s),)) for a, s in zip(starts, parts, strict=True)]


def pad(x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """y = x with `widths[i] = (before, after)` extra elements of `value` along axis i, any shape.

    Raises ValueError unless there is one pair per axis, none negative, TypeError for what are no integers or no number.
    """
    return Pad(pairs(widths, "widths"), number(value, "value", "[-inf, inf]"))(x)


def flip(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """y[i] = x[n - 1 - i] along the axes, any shape. Raises ValueError for an axis that x has not, TypeError for no integer."""
    return Flip(counts(axis, "axis", None) if isinstance(axis, tuple | list) else count(axis, "axis", None))(x)


def broadcast_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """y = x repeated to `shape` by the rules of broadcasting: (C,1,1) with shape (N,C,H,W) -> (N,C,H,W).

    Raises ValueError for a shape that x does not broadcast to, TypeError for one that is not of integers.
    """
    return BroadcastTo(counts(shape, "shape"))(x)

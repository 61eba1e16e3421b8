"""Every op as the linear map that it is around its inputs: y + dy = f(x + dx) with dy = J dx, gates and switches held fixed.

`backward` applies J transposed, from the output's gradient to the inputs'. `push` applies J itself, forward, so that

    t_y = sum_i J_i t_i    and    <t_y, gy> = sum_i <t_i, gx_i>

A piecewise linear op (a convolution, a relu, a max pooling, a batch norm with frozen statistics) is that map plus a constant:
y = sum_i J_i x_i + c. `constant` gives <c, gy>, what its biases add to the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from minidl import kernels
from minidl.array import Array, array_module
from minidl.core import Add, Div, GetItem, MatMul, Mul, Neg, Op, Pow, Sub, To
from minidl.ops.activation import GELU, LeakyReLU, ReLU, Sigmoid, Softplus, Tanh
from minidl.ops.conv import Conv2d
from minidl.ops.elementwise import Abs, Clip, Exp, Log, Maximum, Sqrt, Where
from minidl.ops.linear import Linear
from minidl.ops.loss import MSE, BinaryCrossEntropyWithLogits, CrossEntropy, LogSoftmax, Softmax
from minidl.ops.norm import BatchNorm, BatchNormFrozen
from minidl.ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minidl.ops.random import Dropout
from minidl.ops.reduce import LogSumExp, Max, Mean, Sum, Var
from minidl.ops.resize import RowsAndColumns
from minidl.ops.shape import BroadcastTo, Concat, Flip, Pad, Reshape, Transpose

Tangents = Sequence[Array | None]  # one for each input, None for 0


def push(op: Op, ts: Tangents) -> Array:
    """t_y = sum_i J_i t_i, the change of the output for small changes ts of the inputs.

    Raises TypeError for a fused op, and for a norm whose parameters depend on the picture.
    """
    if type(op) not in PUSH:
        raise TypeError(f"{op!r} has no forward rule; in place of fused ops there are single ones inside minidl.ops.unfused()")
    t = PUSH[type(op)](op, ts)
    return array_module(t).asarray(t)  # NumPy makes scalars of 0-d sums


def dot(a: Array, b: Array) -> float:
    """<a, b> = sum_k a_k b_k, in float64"""
    return float(array_module(a).multiply(a, b, dtype="float64").sum())


def winners(op: MaxPool2d) -> tuple[Array, Array]:
    """The row and the column in x of the winner of each window, (N,C,OH,OW) both."""
    xp, (sh, sw), (ph, pw) = array_module(op.winner), op.stride, op.padding
    u, v = xp.divmod(op.winner, op.kernel[1])
    OH, OW = op.winner.shape[2:]
    return xp.arange(OH)[:, None] * sh + u - ph, xp.arange(OW) * sw + v - pw


# ---- how each kind of op pushes


def _forward(op: Op, ts: Tangents) -> Array:
    """A linear op: J is forward itself."""
    xs = [x for x in op.inputs if x is not None]
    full = [array_module(x.data).zeros_like(x.data) if t is None else t for x, t in zip(xs, ts, strict=True)]
    return copy(op).forward(*full)  # of a copy: forward writes down what it was given


def _backward(op: Op, ts: Tangents) -> Array:
    """J is symmetric, most often diagonal: backward, which applies J transposed, pushes as well."""
    return op.backward(_only(op, ts))[0]


def _reduce(op: Any, ts: Tangents) -> Array:
    """Each x counts in one y alone: t_y = sum (dy/dx) t over what y takes in."""
    t = _only(op, ts)
    axes, keepdims = (op.axes(t.ndim), op.keepdims) if hasattr(op, "axes") else (None, False)
    y_shape = array_module(t).sum(t, axis=axes, keepdims=keepdims).shape
    (slope,) = op.backward(array_module(t).ones(y_shape, t.dtype))
    return (slope * t).sum(axis=axes, keepdims=keepdims)


def _product(op: Op, ts: Tangents) -> Array:
    """y = f(a, b) + c, linear in a and in b: t_y = f(t_a, b) + f(a, t_b) + t_c"""
    a, b = (x.data for x in op.inputs[:2] if x is not None)
    rest: tuple[None, ...] = (None,) * (len(ts) - 2)  # the bias
    parts = [copy(op).forward(*pair, *rest) for pair, t in (((ts[0], b), ts[0]), ((a, ts[1]), ts[1])) if t is not None]
    parts += [t.reshape(-1, *(1,) * (a.ndim - 2)) for t in ts[2:] if t is not None]
    return sum(parts[1:], parts[0])


def _div(op: Div, ts: Tangents) -> Array:
    """y = a / b: t_y = t_a / b - t_b a / b^2"""
    parts = [] if ts[0] is None else [ts[0] / op.b]
    parts += [] if ts[1] is None else [-ts[1] * (op.y / op.b)]
    return sum(parts[1:], parts[0])


def _choose(op: Maximum | Where, ts: Tangents) -> Array:
    """t_y = share t_a + (1 - share) t_b"""
    ta, tb = (0 if t is None else t for t in ts)
    share = op.share if isinstance(op, Maximum) else op.condition
    return share * ta + (1 - share) * tb if isinstance(op, Maximum) else array_module(share).where(share, ta, tb)


def _max_pool(op: MaxPool2d, ts: Tangents) -> Array:
    """t_y = t_x at the winner of the window"""
    t, (rows, columns) = _only(op, ts), winners(op)
    xp, (N, C) = array_module(t), t.shape[:2]
    return t[xp.arange(N)[:, None, None, None], xp.arange(C)[:, None, None], rows, columns]


def _pad(op: Pad, ts: Tangents) -> Array:
    """The border does not change: t_y = 0 there."""
    t = _only(op, ts)
    return array_module(t).pad(t, op.widths)


def _batch_norm_frozen(op: BatchNormFrozen, ts: Tangents) -> Array:
    """t_y = scale[c] t_x"""
    t = _only(op, ts)
    return kernels.of(t).channel_affine(t, op.scale, 0 * op.scale)


def _log_softmax(op: LogSoftmax, ts: Tangents) -> Array:
    """t_y = t_z - sum_j p_j t_j"""
    t = _only(op, ts)
    p = array_module(t).exp(op.y)
    return t - (p * t).sum(axis=op.axis, keepdims=True)


def _only(op: Op, ts: Tangents) -> Array:
    """The tangent of the first input, the only one that there is."""
    if ts[0] is None or any(t is not None for t in ts[1:]):
        raise TypeError(f"{op!r}: expected parameters that do not depend on the picture")
    return ts[0]


PUSH: dict[type[Op], Callable[[Any, Tangents], Array]] = {
    **dict.fromkeys((Add, Concat, Sub, AvgPool2d, BroadcastTo, Flip, GetItem, GlobalAvgPool2d, Mean, Neg, Reshape), _forward),
    **dict.fromkeys((RowsAndColumns, Sum, To, Transpose), _forward),
    **dict.fromkeys((Abs, BatchNorm, Clip, Dropout, Exp, GELU, LeakyReLU, Log, Pow, ReLU, Sigmoid, Softmax), _backward),
    **dict.fromkeys((Softplus, Sqrt, Tanh), _backward),
    **dict.fromkeys((BinaryCrossEntropyWithLogits, CrossEntropy, LogSumExp, MSE, Max, Var), _reduce),
    **dict.fromkeys((Conv2d, Linear, MatMul, Mul), _product),
    **dict.fromkeys((Maximum, Where), _choose),
    Div: _div,
    MaxPool2d: _max_pool,
    Pad: _pad,
    BatchNormFrozen: _batch_norm_frozen,
    LogSoftmax: _log_softmax,
}


# ---- what the biases add: <c, gy>


def constant(op: Op, gy: Array) -> float | None:
    """<c, gy> for y = sum_i J_i x_i + c; None for an op that is not piecewise linear in the inputs that need a gradient."""
    if type(op) in (Mul, MatMul, Conv2d, Linear) and op.needs[0] == op.needs[1]:  # a product of two that change, or of none
        return None
    if isinstance(op, Div):
        return None if op.needs[1] else 0.0
    if isinstance(op, Pow):
        return 0.0 if op.n == 1 else None
    if isinstance(op, Add | Sub | Concat | Maximum | Where):
        return _of_fixed_inputs(op, gy)
    if type(op) in (Conv2d, Linear):
        b = op.inputs[2]
        return 0.0 if b is None or op.needs[2] else dot(b.data, _channel_sums(gy))
    if isinstance(op, BatchNormFrozen):
        if op.needs[1:] != (False, False):
            return None
        beta = op.inputs[2].data  # type: ignore[union-attr]
        return dot(beta - op.mean * op.scale, _channel_sums(gy))
    if isinstance(op, Clip):
        x = op.inputs[0].data  # type: ignore[union-attr]
        return dot(x.clip(op.low, op.high) * ~op.inside, gy)
    if isinstance(op, Pad):
        return op.value * (float(gy.sum(dtype="float64")) - float(gy[op.inside].sum(dtype="float64")))
    return 0.0 if type(op) in HOMOGENEOUS else None


# y = J x without a constant, J the same for x and for a multiple of x
HOMOGENEOUS = {
    Abs, AvgPool2d, BroadcastTo, Dropout, Flip, GetItem, GlobalAvgPool2d, LeakyReLU, MatMul, Max, MaxPool2d, Mean, Mul, Neg,
    ReLU, Reshape, RowsAndColumns, Sum, To, Transpose,
}  # fmt: skip


def _of_fixed_inputs(op: Op, gy: Array) -> float:
    """An op that is linear in all its inputs: those that do not change are its constant, c = sum_fixed J_i x_i."""
    fixed = [i for i, need in enumerate(op.needs) if not need]
    if not fixed:
        return 0.0
    every = copy(op)
    every.needs = (True,) * len(op.needs)
    gxs = every.backward(gy)
    return math.fsum(dot(op.inputs[i].data, gxs[i]) for i in fixed)  # type: ignore[union-attr]


def _channel_sums(gy: Array) -> Array:
    """sum gy over all but the channels: (N,C,...) -> (C,) float64"""
    return gy.sum(axis=(0, *range(2, gy.ndim)), dtype="float64")

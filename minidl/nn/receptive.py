"""Receptive fields: which pixels of the picture an activation can see, followed from op to op.

Rows and columns are followed apart. Along one of them, position i of a tensor sees the pixels

    first + jump i  ..  last + jump i          its receptive field is  last - first + 1  pixels wide

as if the picture went on beyond its border. At the picture itself first = last = 0 and jump = 1, and a window of k taps, d
apart, with stride s and padding p makes of them

    first - p jump,    last + (d (k - 1) - p) jump,    s jump

Where branches meet, the union of what they see counts. Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep
learning"; Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional neural networks".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from minidl.array import Array, to_cpu
from minidl.core import GetItem, MatMul, Op
from minidl.ops.conv import Conv2d
from minidl.ops.dense import DenseBlock
from minidl.ops.fused import Conv2dReLU
from minidl.ops.linear import Linear
from minidl.ops.loss import LogSoftmax, Softmax
from minidl.ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minidl.ops.reduce import LogSumExp, Max, Mean, Sum, Var
from minidl.ops.resize import RowsAndColumns
from minidl.ops.shape import Concat, Flip, Pad, Reshape, Transpose

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sight:
    """What a tensor sees of the picture's rows, or of its columns.

    axis: of the tensor, the one along which the sight moves, None if all positions see the same; length: how many positions
    it has; inner: how many elements of the axis share one before the next comes, 1 unless a reshape has merged axes; first,
    last, jump: in pixels, see above.
    """

    axis: int | None
    length: int
    inner: int
    first: float
    last: float
    jump: float

    @property
    def size(self) -> float:
        """Pixels; infinite where the whole picture is seen."""
        return self.last - self.first + 1


Field = tuple[Sight, ...]  # of the rows and of the columns; empty for a tensor that sees nothing of the picture

EVERYTHING = Sight(None, 1, 1, -math.inf, math.inf, 0)


def of_picture(shape: Shape) -> Field:
    """The field of the input itself; empty where it is no batch of pictures (N,C,H,W)."""
    return tuple(Sight(axis, shape[axis], 1, 0, 0, 1) for axis in (2, 3)) if len(shape) == 4 else ()


def after(op: Op, fields: Sequence[Field], shapes: Sequence[Shape], y_shape: Shape) -> Field:
    """The field of an op's output, from the fields and shapes of its inputs.

    An op of which no more is known sees what its inputs see at the same position where their shapes broadcast to that of its
    output, and everything otherwise. That a batch norm in training looks at the whole batch does not count.
    """
    if not any(fields):
        return ()
    x = fields[0]
    match op:
        case Conv2d():
            seen = _windows(x, shapes[0], y_shape, op.w.shape[2:], op.stride, op.padding, op.dilation)
            added = isinstance(op, Conv2dReLU) and op.inputs[3] is not None  # the last input, of the shape of the output
            return _join([seen, fields[-1]], [y_shape, y_shape], y_shape) if added else seen
        case MaxPool2d() | AvgPool2d():
            return _windows(x, shapes[0], y_shape, op.kernel, op.stride, op.padding, (1, 1))
        case DenseBlock():
            taps = [1 + sum(step.w.shape[axis] - 1 for step in op.steps) for axis in (2, 3)]
            return _windows(x, shapes[0], y_shape, taps, (1, 1), [k // 2 for k in taps], (1, 1))
        case RowsAndColumns():
            for axis, matrix in (2, op.A), (3, op.B):
                x = _move(x, shapes[0], axis, partial(_by_matrix, A=matrix))
            return x
        case GlobalAvgPool2d():
            return _mix(x, (2, 3))
        case Linear():
            return _mix(x, (1,))
        case MatMul():
            a, b = fields
            return _join([_mix(a, (len(shapes[0]) - 1,)), _mix(b, (len(shapes[1]) - 2,))], shapes, y_shape)
        case Softmax() | LogSoftmax():
            return _mix(x, (normalize_axis_index(op.axis, len(y_shape)),))
        case Sum() | Mean() | Max() | Var() | LogSumExp():
            reduced = op.axes(len(shapes[0]))
            kept = [axis for axis in range(len(shapes[0])) if op.keepdims or axis not in reduced]
            return _renumber(_mix(x, reduced), kept)
        case Transpose():
            return _renumber(x, op.order)
        case Reshape():
            return _reshape(x, shapes[0], y_shape)
        case GetItem():
            return _index(x, shapes[0], op.index)
        case Pad():
            for axis, (before, _) in enumerate(op.widths):
                x = _move(x, shapes[0], axis, partial(_shift, n=-before, length=y_shape[axis]))
            return x
        case Flip():
            for axis in normalize_axis_tuple(op.axis, len(y_shape)):
                x = _move(x, shapes[0], axis, lambda s: replace(_shift(s, s.length - 1, s.length), jump=-s.jump))
            return x
        case Concat():
            return _join([_mix(f, (op.axis % len(y_shape),)) for f in fields], shapes, y_shape)
    if all(_broadcasts(shape, y_shape) for shape, field in zip(shapes, fields, strict=True) if field):
        return _join(fields, shapes, y_shape)
    return EVERYTHING, EVERYTHING


def _windows(x: Field, x_shape: Shape, y_shape: Shape, *windows: Sequence[int]) -> Field:
    """windows: kernel, stride, padding and dilation, each for rows and columns"""
    for axis, k, s, p, d in zip((2, 3), *windows, strict=True):
        if (k, s, p) != (1, 1, 0):
            x = _move(x, x_shape, axis, partial(_window, k=k, s=s, p=p, d=d, length=y_shape[axis]))
    return x


def _window(x: Sight, k: int, s: int, p: int, d: int, length: int) -> Sight:
    """k taps, d apart, with stride s and padding p: the formula at the top of this file"""
    taps = -p * x.jump, (d * (k - 1) - p) * x.jump  # the jump is negative in a flipped picture
    return Sight(x.axis, length, 1, x.first + min(taps), x.last + max(taps), s * x.jump)


def _by_matrix(x: Sight, A: Array) -> Sight:
    """y[i] = sum_j A[i,j] x[j], as in a resized picture: on average i H / OH is the middle of the pixels j that count."""
    OH, H = A.shape
    used = to_cpu(A) != 0
    low, high = used.argmax(1), H - 1 - used[:, ::-1].argmax(1)  # of each row the first and last pixel that counts
    if H > 1 and (high - low == H - 1).all():
        return EVERYTHING
    offset = (low + high) / 2 - np.arange(OH) * H / OH
    middle, half = float(offset.min() + offset.max()) / 2 * x.jump, float((high - low).max()) / 2 * abs(x.jump)
    return Sight(x.axis, OH, 1, x.first + middle - half, x.last + middle + half, x.jump * H / OH)


def _shift(x: Sight, n: int, length: int) -> Sight:
    """y[i] = x[i + n]"""
    return replace(x, first=x.first + n * x.jump, last=x.last + n * x.jump, length=length)


def _move(x: Field, x_shape: Shape, axis: int, change: Callable[[Sight], Sight]) -> Field:
    """The field with `change` applied to the sight along an axis, which is lost where the axis holds more than that."""
    return tuple(s if s.axis != axis else change(s) if s.length == x_shape[axis] else EVERYTHING for s in x)


def _mix(x: Field, axes: Sequence[int]) -> Field:
    """All positions along the axes flow together."""
    return tuple(EVERYTHING if s.axis in axes else s for s in x)


def _renumber(x: Field, axes: Sequence[int]) -> Field:
    """Axis i of the output is axes[i] of the input."""
    return tuple(s if s.axis is None else replace(s, axis=list(axes).index(s.axis)) for s in x)


def _join(fields: Sequence[Field], shapes: Sequence[Shape], y_shape: Shape) -> Field:
    """The union of fields that meet at the same position, shapes broadcast; at different jumps, the widest."""
    aligned = []
    for field, shape in zip(fields, shapes, strict=True):
        new = len(y_shape) - len(shape)
        if field:
            aligned.append([s if s.axis is None else replace(s, axis=s.axis + new) for s in field])
    return tuple(_union(sights) for sights in zip(*aligned, strict=True))


def _union(sights: Sequence[Sight]) -> Sight:
    widest = max(sights, key=lambda s: s.size)
    if any(_place(s) != _place(widest) for s in sights):
        return widest
    return replace(widest, first=min(s.first for s in sights), last=max(s.last for s in sights))


def _place(x: Sight) -> tuple[Any, ...]:
    return x.axis, x.length, x.inner, x.jump


def _broadcasts(shape: Shape, to: Shape) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))


def _reshape(x: Field, before: Shape, after: Shape) -> Field:
    """Element n of a tensor, counted row by row, has the position (n // inner) % length along a sight."""
    return tuple(s if s.axis is None else _find(s, s.inner * math.prod(before[s.axis + 1 :]), after) for s in x)


def _find(x: Sight, inner: int, shape: Shape) -> Sight:
    """The axis of `shape` that x moves along, if it is one."""
    for axis, n in enumerate(shape):
        unit = math.prod(shape[axis + 1 :])
        if unit <= inner < unit * n and inner % unit == 0 and unit * n % (inner * x.length) == 0:
            return replace(x, axis=axis, inner=inner // unit)
    return EVERYTHING


def _index(x: Field, shape: Shape, index: Any) -> Field:
    """x[index]: slices shift and stretch a sight, an integer holds it at one place, None renumbers the axes behind it."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(part, bool) or not (part is None or part is ... or isinstance(part, int | slice)) for part in parts):
        return EVERYTHING, EVERYTHING
    missing = len(shape) - sum(part is not None and part is not ... for part in parts)
    at = parts.index(...) if ... in parts else len(parts)
    parts[at : at + 1] = [slice(None)] * missing
    kept, axis = list[int](), 0  # for each axis of the output the one of the input, -1 for a new one
    for part in parts:
        if part is None:
            kept.append(-1)
            continue
        if isinstance(part, slice):
            kept.append(axis)
            if part != slice(None):
                x = _move(x, shape, axis, partial(_slice, part=part))
        else:
            x = _move(x, shape, axis, partial(_hold, i=part))
        axis += 1
    return _renumber(x, kept)


def _slice(x: Sight, part: slice) -> Sight:
    start, stop, step = part.indices(x.length)
    return replace(_shift(x, start, len(range(start, stop, step))), jump=x.jump * step)


def _hold(x: Sight, i: int) -> Sight:
    return replace(_shift(x, i % x.length, 1), axis=None, jump=0)

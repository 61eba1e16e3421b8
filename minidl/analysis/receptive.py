"""Receptive fields: which pixels of the image an activation can see, followed from op to op.

Rows and columns are followed apart. Along one of them, position i of a tensor sees the pixels

    first + jump i  ..  last + jump i          its receptive field is  last - first + 1  pixels wide

as if the image went on beyond its border. At the image itself first = last = 0 and jump = 1, and a window of k taps, d
apart, with stride s and padding p makes of them

    first - p jump,    last + (d (k - 1) - p) jump,    s jump

Where branches meet, the union of what they see counts. Here is how fields move; which op moves them how stands in `facts`.
Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep
learning"; Araujo, Norris and Sim 2019, "Computing receptive fields of convolutional neural networks".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from minidl.array import Array, to_cpu

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sight:
    """What a tensor sees of the image's rows, or of its columns.

    axis: of the tensor, the one along which the sight moves, None if all positions see the same; length: how many positions
    it has; inner: how many elements of the axis share one before the next comes, 1 unless a reshape has merged axes; first,
    last, jump: in pixels, see above, NaN where an op of which nothing is known stands in the way. guessed: on the way stands an
    op of which nothing is known but that its output has the shape of its input, as if it computed value by value.
    """

    axis: int | None
    length: int
    inner: int
    first: float
    last: float
    jump: float
    guessed: bool = False

    @property
    def size(self) -> float:
        """Pixels; infinite where the whole image is seen, NaN where nobody knows."""
        return self.last - self.first + 1


Field = tuple[Sight, ...]  # of the rows and of the columns; empty for a tensor that sees nothing of the image

EVERYTHING = Sight(None, 1, 1, -math.inf, math.inf, 0)
NOBODY_KNOWS = Sight(None, 1, 1, math.nan, math.nan, math.nan)


def of_image(shape: Shape) -> Field:
    """The field of the input itself; empty where it is no batch of images (N,C,H,W)."""
    return tuple(Sight(axis, shape[axis], 1, 0, 0, 1) for axis in (2, 3)) if len(shape) == 4 else ()


# ---- for all kinds of op: the field of the output, from the fields and shapes of the inputs


def same_position(op: object, fields: Sequence[Field], shapes: Sequence[Shape], y_shape: Shape) -> Field:
    """What the inputs see at the same position, shapes broadcast. That a batch norm in training looks at all does not count."""
    broadcast = all(_broadcasts(shape, y_shape) for shape, field in zip(shapes, fields, strict=True) if field)
    return join(fields, shapes, y_shape) if broadcast else everything(op, fields, shapes, y_shape)


def everything(op: object, fields: Sequence[Field], shapes: Sequence[Shape], y_shape: Shape) -> Field:
    """All positions flow together."""
    return EVERYTHING, EVERYTHING


def unknown(op: object, fields: Sequence[Field], shapes: Sequence[Shape], y_shape: Shape) -> Field:
    """Of an op of which nothing is known: guessed to be what the inputs see where the shape stays, else nobody knows."""
    if all(shape == y_shape for shape, field in zip(shapes, fields, strict=True) if field):
        return tuple(replace(s, guessed=True) for s in join(fields, shapes, y_shape))
    return NOBODY_KNOWS, NOBODY_KNOWS


# ---- for single kinds


def windows(x: Field, x_shape: Shape, y_shape: Shape, *settings: Sequence[int]) -> Field:
    """settings: kernel, stride, padding and dilation, each for rows and columns"""
    for axis, k, s, p, d in zip((2, 3), *settings, strict=True):
        if (k, s, p) != (1, 1, 0):
            x = _move(x, x_shape, axis, partial(_window, k=k, s=s, p=p, d=d, length=y_shape[axis]))
    return x


def _window(x: Sight, k: int, s: int, p: int, d: int, length: int) -> Sight:
    """k taps, d apart, with stride s and padding p: the formula at the top of this file"""
    taps = -p * x.jump, (d * (k - 1) - p) * x.jump  # the jump is negative in a flipped image
    return Sight(x.axis, length, 1, x.first + min(taps), x.last + max(taps), s * x.jump, x.guessed)


def by_matrices(x: Field, x_shape: Shape, A: Array, B: Array) -> Field:
    """y = A x B^T"""
    for axis, matrix in (2, A), (3, B):
        x = _move(x, x_shape, axis, partial(_by_matrix, A=matrix))
    return x


def _by_matrix(x: Sight, A: Array) -> Sight:
    """y[i] = sum_j A[i,j] x[j], as in a resized image: on average i H / OH is the middle of the pixels j that count."""
    OH, H = A.shape
    used = to_cpu(A) != 0
    low, high = used.argmax(1), H - 1 - used[:, ::-1].argmax(1)  # of each row the first and last pixel that counts
    if H > 1 and (high - low == H - 1).all():
        return EVERYTHING
    offset = (low + high) / 2 - np.arange(OH) * H / OH
    middle, half = float(offset.min() + offset.max()) / 2 * x.jump, float((high - low).max()) / 2 * abs(x.jump)
    return Sight(x.axis, OH, 1, x.first + middle - half, x.last + middle + half, x.jump * H / OH, x.guessed)


def pad(x: Field, x_shape: Shape, y_shape: Shape, widths: Sequence[tuple[int, int]]) -> Field:
    """widths: how many elements stand before and behind each axis"""
    for axis, (before, _) in enumerate(widths):
        x = _move(x, x_shape, axis, partial(_shift, n=-before, length=y_shape[axis]))
    return x


def flip(x: Field, x_shape: Shape, axes: int | tuple[int, ...]) -> Field:
    """y[i] = x[n - 1 - i]"""
    for axis in normalize_axis_tuple(axes, len(x_shape)):
        x = _move(x, x_shape, axis, lambda s: replace(_shift(s, s.length - 1, s.length), jump=-s.jump))
    return x


def _shift(x: Sight, n: int, length: int) -> Sight:
    """y[i] = x[i + n]"""
    return replace(x, first=x.first + n * x.jump, last=x.last + n * x.jump, length=length)


def _move(x: Field, x_shape: Shape, axis: int, change: Callable[[Sight], Sight]) -> Field:
    """The field with `change` applied to the sight along an axis, which is lost where the axis holds more than that."""
    return tuple(s if s.axis != axis else change(s) if s.length == x_shape[axis] else EVERYTHING for s in x)


def mix(x: Field, axes: Sequence[int]) -> Field:
    """All positions along the axes flow together."""
    return tuple(EVERYTHING if s.axis in axes else s for s in x)


def renumber(x: Field, axes: Sequence[int]) -> Field:
    """Axis i of the output is axes[i] of the input."""
    return tuple(s if s.axis is None else replace(s, axis=list(axes).index(s.axis)) for s in x)


def join(fields: Sequence[Field], shapes: Sequence[Shape], y_shape: Shape) -> Field:
    """The union of fields that meet at the same position, shapes broadcast; at different jumps, the widest."""
    aligned = []
    for field, shape in zip(fields, shapes, strict=True):
        new = len(y_shape) - len(shape)
        if field:
            aligned.append([s if s.axis is None else replace(s, axis=s.axis + new) for s in field])
    return tuple(_union(sights) for sights in zip(*aligned, strict=True))


def _union(sights: Sequence[Sight]) -> Sight:
    if any(math.isnan(s.size) for s in sights):
        return NOBODY_KNOWS
    guessed = any(s.guessed for s in sights)
    widest = replace(max(sights, key=lambda s: s.size), guessed=guessed)
    if any(_place(s) != _place(widest) for s in sights):
        return widest
    return replace(widest, first=min(s.first for s in sights), last=max(s.last for s in sights))


def _place(x: Sight) -> tuple[Any, ...]:
    return x.axis, x.length, x.inner, x.jump


def _broadcasts(shape: Shape, to: Shape) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))


def reshape(x: Field, before: Shape, after: Shape) -> Field:
    """Element n of a tensor, counted row by row, has the position (n // inner) % length along a sight."""
    return tuple(s if s.axis is None else _find(s, s.inner * math.prod(before[s.axis + 1 :]), after) for s in x)


def _find(x: Sight, inner: int, shape: Shape) -> Sight:
    """The axis of `shape` that x moves along, if it is one."""
    for axis, n in enumerate(shape):
        unit = math.prod(shape[axis + 1 :])
        if unit <= inner < unit * n and inner % unit == 0 and unit * n % (inner * x.length) == 0:
            return replace(x, axis=axis, inner=inner // unit)
    return EVERYTHING


def index(x: Field, shape: Shape, index: Any) -> Field:
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
    return renumber(x, kept)


def _slice(x: Sight, part: slice) -> Sight:
    start, stop, step = part.indices(x.length)
    return replace(_shift(x, start, len(range(start, stop, step))), jump=x.jump * step)


def _hold(x: Sight, i: int) -> Sight:
    return replace(_shift(x, i % x.length, 1), axis=None, jump=0)

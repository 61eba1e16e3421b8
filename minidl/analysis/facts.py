"""What is known about each op besides how it computes: the one table, by class.

Words for someone who sees a backward pass for the first time, the kind of box in an image of a net, multiply-adds, what of the
image its output sees, and the constant of an op that is piecewise linear. Formulas are not in it: they are the first lines of
the docstrings of the op, see `formulas`.

An op that is not in the table is drawn and walked all the same. What a default cannot know is unknown and is said to be:
multiply-adds and receptive field are `?`, and the account of the score ends there. `FACTS[MyOp] = Facts(...)` tells more. An op
that is made of others (`Op.parts`) is described by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np

from minidl.analysis import receptive
from minidl.analysis.receptive import Field, Shape
from minidl.array import Array, array_module, dot
from minidl.core import Add, Div, GetItem, MatMul, Mul, Neg, Op, Pow, Sub, To
from minidl.ops.activation import GELU, LeakyReLU, ReLU, Sigmoid, Softplus, Tanh
from minidl.ops.conv import Conv2d
from minidl.ops.dense import DenseBlock
from minidl.ops.dilation import SmoothMaxConvolution
from minidl.ops.elementwise import Abs, Clip, Exp, Log, Maximum, Sqrt, Where
from minidl.ops.fused import BatchNormFrozenReLU, BatchNormReLU, Conv2dReLU
from minidl.ops.linear import Linear
from minidl.ops.loss import MSE, BinaryCrossEntropyWithLogits, CrossEntropy, LogSoftmax, Softmax
from minidl.ops.norm import BatchNorm, BatchNormFrozen, GroupNorm
from minidl.ops.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from minidl.ops.random import Dropout
from minidl.ops.reduce import LogSumExp, Max, Mean, Sum, Var
from minidl.ops.resize import RowsAndColumns
from minidl.ops.shape import BroadcastTo, Concat, Flip, Pad, Reshape, Transpose
from minidl.ops.top_k import TopKPool2d

Pair = tuple[int, int]


class Windows(NamedTuple):
    """How an op looks at its input through windows."""

    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair = (1, 1)
    groups: int = 1


# ---- multiply-adds: how many one call takes


def _none(op: Op, y: Shape) -> int:
    """No sums of products, or none that published figures count"""
    return 0


def _weights(op: Any, y: Shape) -> int:
    """Each output of a convolution sums C/groups kh kw products, of a linear layer I"""
    return math.prod(y) * math.prod(map(int, op.w.shape[1:]))


def _matmul(op: MatMul, y: Shape) -> int:
    return math.prod(y) * int(op.a.shape[-1])


def _dense_block(op: DenseBlock, y: Shape) -> int:
    return y[0] * y[2] * y[3] * sum(int(step.w.size) for step in op.steps)


# ---- what the output sees of the image, from what the inputs see: see `receptive`


def _through_windows(windows: Callable[[Any], Windows]) -> Callable[..., Field]:
    def field(op: Op, fields: Sequence[Field], shapes: Sequence[Shape], y: Shape) -> Field:
        kernel_size, stride, padding, dilation, _ = windows(op)
        return receptive.windows(fields[0], shapes[0], y, kernel_size, stride, padding, dilation)

    return field


def _conv_relu(op: Conv2dReLU, fields: Sequence[Field], shapes: Sequence[Shape], y: Shape) -> Field:
    seen = _through_windows(_of_weights)(op, fields, shapes, y)
    return seen if op.inputs[3] is None else receptive.join([seen, fields[-1]], [y, y], y)  # what is added comes last


def _matrices(op: RowsAndColumns, fields: Sequence[Field], shapes: Sequence[Shape], y: Shape) -> Field:
    return receptive.by_matrices(fields[0], shapes[0], op.A, op.B)


def _smooth_max(op: SmoothMaxConvolution, fields: Sequence[Field], shapes: Sequence[Shape], y: Shape) -> Field:
    """Pixel i of y looks at the cells i // s - r to i // s + r"""
    r, s = op.kernel.shape[0] // 2, op.kernel.shape[2]
    A, B = (abs(np.arange(n * s)[:, None] // s - np.arange(n)) <= r for n in shapes[0][2:])
    return receptive.by_matrices(fields[0], shapes[0], A, B)


def _matmul_field(op: MatMul, fields: Sequence[Field], shapes: Sequence[Shape], y: Shape) -> Field:
    mixed = [receptive.mix(f, (len(shape) + at,)) for f, shape, at in zip(fields, shapes, (-1, -2), strict=True)]
    return receptive.join(mixed, shapes, y)


def _mixing(axes: Callable[[Any, int], Sequence[int]]) -> Callable[..., Field]:
    return lambda op, fields, shapes, y: receptive.mix(fields[0], [axis % len(shapes[0]) for axis in axes(op, len(shapes[0]))])


def _reduced(op: Any, fields: Sequence[Field], shapes: Sequence[Shape], y: Shape) -> Field:
    axes = op.axes(len(shapes[0]))
    kept = [axis for axis in range(len(shapes[0])) if op.keepdims or axis not in axes]
    return receptive.renumber(receptive.mix(fields[0], axes), kept)


def _concat(op: Concat, fields: Sequence[Field], shapes: Sequence[Shape], y: Shape) -> Field:
    return receptive.join([receptive.mix(f, (op.axis % len(y),)) for f in fields], shapes, y)


# ---- <c, gy> of y = sum_i J_i x_i + c, i the inputs that need a gradient; None where the op is not piecewise linear in them

Constant = Callable[[Any, Array], float | None]


def _bends(op: Op, gy: Array) -> None:
    """Not piecewise linear, or nobody knows"""


def _homogeneous(op: Op, gy: Array) -> float:
    """y = J x, J the same for x and for a multiple of x"""
    return 0.0


def _product(op: Op, gy: Array) -> float | None:
    """Of two that change, or of none, it is not linear"""
    return None if op.needs[0] == op.needs[1] else 0.0


def _bias(op: Op, gy: Array) -> float | None:
    b = op.inputs[2]
    if op.needs[0] == op.needs[1]:
        return None
    return 0.0 if b is None or op.needs[2] else dot(b.data, _channel_sums(gy))


def _shift(op: Any, gy: Array) -> float | None:
    """beta - mean scale"""
    return None if op.needs[1] or op.needs[2] else dot(op.inputs[2].data - op.mean * op.scale, _channel_sums(gy))


def _rectified(constant: Constant) -> Constant:
    """Of an op with an addition of r and a relu behind it"""

    def rectified(op: Op, gy: Array) -> float | None:
        gy, r = gy * op.gate(), op.inputs[3]
        c = constant(op, gy)
        return None if c is None else c + (0.0 if r is None or op.needs[3] else dot(r.data, gy))

    return rectified


def _frozen_block(op: DenseBlock, gy: Array) -> float | None:
    """c = y - J x"""
    x, *parameters = op.inputs
    if not op.frozen or any(op.needs[1:]) or x is None:
        return None
    return dot(op.X - op.push(x.data, *(None for _ in parameters)), gy)


def _fixed_inputs(op: Op, gy: Array) -> float:
    """An op that is linear in all its inputs: those that do not change are its constant, c = sum_fixed J_i x_i."""
    fixed = [i for i, need in enumerate(op.needs) if not need]
    if not fixed:
        return 0.0
    every = copy(op)
    every.needs = (True,) * len(op.needs)
    gxs = every.backward(gy)
    return math.fsum(dot(op.inputs[i].data, gxs[i]) for i in fixed)  # type: ignore[union-attr, arg-type]


def _quotient(op: Div, gy: Array) -> float | None:
    return None if op.needs[1] else 0.0


def _power(op: Pow, gy: Array) -> float | None:
    return 0.0 if op.n == 1 else None


def _clipped(op: Clip, gy: Array) -> float:
    x: Array = op.inputs[0].data  # type: ignore[union-attr]
    return dot(array_module(x).clip(x, op.low, op.high) * ~op.inside, gy)


def _border(op: Pad, gy: Array) -> float:
    return op.value * (float(gy.sum(dtype="float64")) - float(gy[op.inside].sum(dtype="float64")))


def _channel_sums(gy: Array) -> Array:
    """sum gy over all but the channels: (N,C,...) -> (C,) float64"""
    return gy.sum(axis=(0, *range(2, gy.ndim)), dtype="float64")


# ---- the table


class Facts(NamedTuple):
    """What is known about a kind of op. What is left out here holds for most that compute value by value.

    name: for a list; there, back: a sentence or two each about the way there and the way back; kind, word: the colour of its
    box in an image of the net, and what stands in it. windows, setting: its windows, or another setting in a word.
    multiply_adds: of the op and the shape of y, None where nobody knows. field: what y sees of the image, see `receptive`.
    constant: what its biases add to the score, see `flow.ledger`.
    """

    name: str = ""
    there: str = "A step of the computation."
    back: str = "Every input takes back the gradient of each output times how much that output changes with it."
    kind: str = "other"
    word: str = ""
    windows: Callable[[Any], Windows] | None = None
    setting: Callable[[Any], str] | None = None
    multiply_adds: Callable[[Any, Shape], int] | None = _none
    field: Callable[[Any, Sequence[Field], Sequence[Shape], Shape], Field] = receptive.same_position
    constant: Constant = _bends


UNKNOWN = Facts(multiply_adds=None, field=receptive.unknown)


def _of_weights(op: Conv2d) -> Windows:
    return Windows(op.w.shape[2:], op.stride, op.padding, op.dilation, op.groups)


def _of_pool(op: MaxPool2d | AvgPool2d) -> Windows:
    return Windows(op.kernel_size, op.stride, op.padding)


def _of_block(op: DenseBlock) -> Windows:
    """All convolutions of it, one behind the other"""
    h, w = (1 + sum(step.w.shape[axis] - 1 for step in op.steps) for axis in (2, 3))
    return Windows((h, w), (1, 1), (h // 2, w // 2))


_REDUCTION = Facts(field=_reduced)
_LOSS = Facts(field=receptive.everything)
_CONV2D = Facts(
    "convolution",
    "A small window slides over its input. At every place it multiplies what it sees by its weights and adds up.",
    "An input cell was seen from several places, each time through another weight. Its gradient adds up what those places ask "
    "for, each times that weight: the same window, with the kernel turned around.",
    kind="convolution",
    word="conv",
    windows=_of_weights,
    multiply_adds=_weights,
    field=_through_windows(_of_weights),
    constant=_bias,
)
_CURVE = "The gradient is multiplied by the slope of the curve, which is close to 0 at both ends"

FACTS: dict[type[Op], Facts] = {
    # the layers
    Conv2d: _CONV2D,
    Linear: Facts(
        "linear layer",
        "Every output adds up all inputs, each times a weight of its own.",
        "An input takes back the gradient of every output, each times the weight between the two.",
        kind="linear",
        multiply_adds=_weights,
        field=_mixing(lambda op, ndim: (1,)),
        constant=_bias,
    ),
    MatMul: Facts(kind="linear", multiply_adds=_matmul, field=_matmul_field, constant=_product),
    BatchNorm: Facts(
        "batch norm, training",
        "Every channel is shifted and stretched to mean 0 and spread 1, by what this batch says.",
        "All values of a channel share their mean and spread, so that each gradient depends on all the others too. No straight "
        "line describes this step.",
    ),
    BatchNormFrozen: Facts(
        "batch norm",
        "Every channel is stretched and shifted by fixed numbers that training has found.",
        "The shift changes nothing on the way back. The stretch does: each gradient is multiplied by the scale of its channel.",
        word="norm",
        constant=_shift,
    ),
    GroupNorm: Facts(
        "group norm",
        "The channels of an image are taken in groups, and every group is shifted and stretched to mean 0 and spread 1, by "
        "what it holds itself.",
        "All values of a group share their mean and spread, so that each gradient depends on all the others in it. No straight "
        "line describes this step.",
        word="group norm",
        field=_mixing(lambda op, ndim: range(1, ndim)),
    ),
    Dropout: Facts(constant=_homogeneous),
    # activations
    ReLU: Facts(
        "relu",
        "Positive values pass, negative ones become 0.",
        "Where the value passed, the gate is open and the gradient goes through unchanged. Where it was cut to 0, a small "
        "change would be cut to 0 too: the gate is closed and nothing gets through.",
        constant=_homogeneous,
    ),
    LeakyReLU: Facts(
        "leaky relu",
        "Positive values pass, negative ones become small.",
        "Where the value passed, the gradient passes. Elsewhere a small part of it does.",
        constant=_homogeneous,
    ),
    Sigmoid: Facts(
        "sigmoid",
        "Every value is squeezed into the range from 0 to 1.",
        f"{_CURVE}: there it saturates, and hardly anything comes back.",
    ),
    Tanh: Facts("tanh", "Every value is squeezed into the range from -1 to 1.", f"{_CURVE}."),
    Softplus: Facts(),
    GELU: Facts(),
    # pooling and resizing
    MaxPool2d: Facts(
        "max pooling",
        "Of every window only the largest value goes on.",
        "Only the maximum of a window had a say, so only the maximum gets the gradient. All other cells get 0.",
        kind="pooling",
        word="max pool",
        windows=_of_pool,
        field=_through_windows(_of_pool),
        constant=_homogeneous,
    ),
    AvgPool2d: Facts(
        "average pooling",
        "Every window is replaced by its mean.",
        "All cells of a window had the same say, and share its gradient evenly.",
        kind="pooling",
        word="mean pool",
        windows=_of_pool,
        field=_through_windows(_of_pool),
        constant=_homogeneous,
    ),
    GlobalAvgPool2d: Facts(
        "mean over the image",
        "Every channel becomes one number, its mean over all places. From here on nothing knows where.",
        "Every place had the same say, and receives the same small part of the gradient: the way back begins with no idea "
        "where, and only the gates further down bring that back.",
        kind="pooling",
        word="global mean",
        field=_mixing(lambda op, ndim: (2, 3)),
        constant=_homogeneous,
    ),
    TopKPool2d: Facts(
        "mean of the largest",
        "Of every channel only the largest values go on, as their mean. From here on nothing knows where.",
        "Only those that were largest had a say, and share the gradient evenly. All other cells get 0.",
        kind="pooling",
        word="top mean",
        setting=lambda op: f"k={op.k}",
        field=_mixing(lambda op, ndim: (2, 3)),
        constant=_homogeneous,
    ),
    RowsAndColumns: Facts(
        "resize",
        "Rows and columns are averaged or interpolated to another size.",
        "Every cell takes back as much of the gradient as it gave.",
        kind="pooling",
        word="resize",
        setting=lambda op: str(op.kind),
        field=_matrices,
        constant=_homogeneous,
    ),
    SmoothMaxConvolution: Facts(field=_smooth_max),
    # joins and arithmetic
    Add: Facts(
        "join: add",
        "Two ways come together, and their values are added.",
        "Each way counts fully in the sum, so both receive the whole gradient. This is why residual nets learn well: the "
        "shortcut carries it past the convolutions undiminished.",
        word="+",
        constant=_fixed_inputs,
    ),
    Concat: Facts(
        "join: stack",
        "The channels of several ways are stacked behind each other.",
        "Every way takes back the gradient of its own channels. Nothing is mixed.",
        field=_concat,
        constant=_fixed_inputs,
    ),
    Sub: Facts(word="−", constant=_fixed_inputs),
    Mul: Facts(
        "multiply", "Two values are multiplied.", "Each receives the gradient times the other.", word="×", constant=_product
    ),
    Div: Facts(
        "divide",
        "One value is divided by another.",
        "What stands above gets the gradient divided by what stands below, which itself gets a part of the other sign.",
        word="÷",
        constant=_quotient,
    ),
    Pow: Facts(
        "power",
        "Every value is raised to a fixed power.",
        "The gradient is multiplied by the slope of that curve at the value.",
        constant=_power,
    ),
    Maximum: Facts(constant=_fixed_inputs),
    Where: Facts(constant=_fixed_inputs),
    Neg: Facts(constant=_homogeneous),
    Abs: Facts(constant=_homogeneous),
    Clip: Facts(constant=_clipped),
    Exp: Facts(),
    Log: Facts(),
    Sqrt: Facts(),
    # moves
    To: Facts(constant=_homogeneous),
    GetItem: Facts(
        "pick",
        "Some of the values are taken, the others are left behind.",
        "Those that were taken receive the gradient, the others 0: they had no say.",
        field=lambda op, fields, shapes, y: receptive.index(fields[0], shapes[0], op.index),
        constant=_homogeneous,
    ),
    Pad: Facts(
        "border",
        "Values are put around, here mostly channels of zeros, to make shapes fit.",
        "The border is fixed, and its part of the gradient falls away.",
        field=lambda op, fields, shapes, y: receptive.pad(fields[0], shapes[0], y, op.widths),
        constant=_border,
    ),
    Reshape: Facts(
        "reshape",
        "The same numbers in another order of rows and columns. Nothing is computed.",
        "The same gradients, put back into the old shape.",
        field=lambda op, fields, shapes, y: receptive.reshape(fields[0], shapes[0], y),
        constant=_homogeneous,
    ),
    Transpose: Facts(field=lambda op, fields, *_: receptive.renumber(fields[0], op.order), constant=_homogeneous),
    Flip: Facts(field=lambda op, fields, shapes, y: receptive.flip(fields[0], shapes[0], op.axis), constant=_homogeneous),
    BroadcastTo: Facts(constant=_homogeneous),
    # reductions and losses
    Sum: _REDUCTION._replace(constant=_homogeneous),
    Mean: _REDUCTION._replace(constant=_homogeneous),
    Max: _REDUCTION._replace(constant=_homogeneous),
    Var: _REDUCTION,
    LogSumExp: _REDUCTION,
    Softmax: Facts(
        "softmax",
        "Scores become probabilities that add up to 1.",
        "To raise one probability is to lower the others, so every score hears from all of them.",
        field=_mixing(lambda op, ndim: (op.axis,)),
    ),
    LogSoftmax: Facts(field=_mixing(lambda op, ndim: (op.axis,))),
    CrossEntropy: _LOSS,
    BinaryCrossEntropyWithLogits: _LOSS,
    MSE: _LOSS,
    # several at once: described by their parts
    Conv2dReLU: Facts(windows=_of_weights, multiply_adds=_weights, field=_conv_relu, constant=_rectified(_bias)),
    BatchNormReLU: Facts(),
    BatchNormFrozenReLU: Facts(constant=_rectified(_shift)),
    DenseBlock: Facts(windows=_of_block, multiply_adds=_dense_block, field=_through_windows(_of_block), constant=_frozen_block),
}


def facts(op: Op) -> Facts:
    """Those of the op's own class, for a subclass may compute something else; of one without a name those of its parts."""
    own = _of_class(type(op))
    parts = [_of_class(part) for part in op.parts()]
    if not parts or FACTS.get(type(op), UNKNOWN).name:
        return own
    return own._replace(
        name=", ".join(part.name for part in parts),
        there=" ".join(part.there for part in parts),
        back=" ".join(part.back for part in reversed(parts)),
        kind=next((part.kind for part in parts if part.kind != "other"), "other"),
        word=" · ".join(part.word for part in parts),
    )


def _of_class(cls: type[Op]) -> Facts:
    own = FACTS.get(cls, UNKNOWN)
    return own._replace(name=own.name or cls.__name__, word=own.word or cls.__name__.lower())


# ---- the formulas


class Formulas(NamedTuple):
    """The first lines of the docstrings of an op's class, of its push and of its backward."""

    forward: str
    push: str
    backward: str


def formulas(op: Op) -> Formulas:
    """Those of the op; where it has none, what is true of every op."""
    cls = type(op)
    return Formulas(
        _first_line(cls) or "y = f(x)",
        _first_line(cls.push) or "ty[m] = sum_k dy[m]/dx[k] tx[k]",
        _first_line(cls.backward) or "gx[k] = sum_m dy[m]/dx[k] gy[m]",
    )


def _first_line(what: Any) -> str:
    return (what.__doc__ or "").strip().partition("\n")[0].rstrip(".")

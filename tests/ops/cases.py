"""For every op a hypothesis strategy that draws a call of it, shapes, settings and values: `CASES[name]` for class `name`.

Values are drawn by NumPy from a seed that hypothesis draws. Where an op has kinks or ties (relu, max, clip) the values are
`apart`: all different by 0.1 at least, and none nearer than 0.05 to a multiple of 0.1, so that a step of 1e-6 crosses nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl import Tensor, ops, tape
from minidl.array import to_device
from minidl.core import To
from minidl.ops.activation import ReLU
from minidl.ops.dense import DenseBlock
from minidl.ops.sync import SyncBatchNorm, SyncBatchNormReLU
from minidl.parallel import ALONE

Shape = tuple[int, ...]


class Case:
    """A function of tensors, `op(*tensors, **settings)`, and float64 arrays to call it with."""

    def __init__(self, op: Callable[..., Tensor], *inputs: np.ndarray, **settings: Any) -> None:
        self.op, self.inputs, self.settings = op, [np.asarray(x) for x in inputs], settings

    def __call__(self, *xs: Tensor) -> Tensor:
        return self.op(*xs, **{name: _beside(xs[0], value) for name, value in self.settings.items()})

    def __repr__(self) -> str:
        arguments = [str(x.shape) for x in self.inputs] + [f"{name}={value!r}" for name, value in self.settings.items()]
        return f"{self.op.__name__}({', '.join(arguments)})"


def _beside(x: Tensor, value: Any) -> Any:
    """An array among the settings goes where x is, and gets its float type."""
    if isinstance(value, tuple):
        return tuple(_beside(x, v) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    return to_device(value.astype(x.dtype) if value.dtype.kind == "f" else value, x.device)


CASES: dict[str, st.SearchStrategy[Case]] = {}


def case(*names: str) -> Callable[[Callable[..., Case]], Callable[..., st.SearchStrategy[Case]]]:
    """Enter the strategy under the names of the op classes."""

    def enter(draw_case: Callable[..., Case]) -> Callable[..., st.SearchStrategy[Case]]:
        strategy = st.composite(draw_case)
        for name in names:
            CASES[name] = strategy(name)
        return strategy

    return enter


# ---- shapes and values


def shapes(min_dims: int = 0, max_dims: int = 3, max_side: int = 4) -> st.SearchStrategy[Shape]:
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, max_side=max_side)


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def draw_rng(draw: Any) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def apart(rng: np.random.Generator, *of_shapes: Shape) -> list[np.ndarray]:
    """Arrays of values 0.1 (k + 1/2), k whole numbers around 0, no two alike."""
    sizes = [int(np.prod(shape)) for shape in of_shapes]
    n = sum(sizes)
    all_values = 0.1 * (rng.permutation(n) - n // 2 + 0.5)
    parts = np.split(all_values, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, of_shapes, strict=True)]


def draw_shapes_that_broadcast(draw: Any, n: int, max_dims: int = 3) -> tuple[list[Shape], Shape]:
    """n shapes, and the one that they broadcast to"""
    drawn = draw(hnp.mutually_broadcastable_shapes(num_shapes=n, max_dims=max_dims, min_side=1, max_side=3))
    return list(drawn.input_shapes), drawn.result_shape


def draw_axis(draw: Any, ndim: int) -> int:
    return draw(st.integers(-ndim, ndim - 1))


def draw_axes(draw: Any, ndim: int) -> int | tuple[int, ...]:
    """one axis or several, counted from the front or from the back"""
    several = draw(st.sets(st.integers(0, ndim - 1), min_size=1))
    signed = tuple(axis - ndim if draw(st.booleans()) else axis for axis in sorted(several))
    return signed[0] if len(signed) == 1 and draw(st.booleans()) else signed


def draw_int_or_pair(draw: Any, low: int, high: int) -> int | tuple[int, int]:
    return draw(st.one_of(st.integers(low, high), pairs(low, high)))


def as_pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


# ---- arithmetic and element-wise mathematics

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Exp": ops.exp,
    "GELU": ops.gelu,
    "Neg": operator.neg,
    "Sigmoid": ops.sigmoid,
    "Softplus": ops.softplus,
    "Tanh": ops.tanh,
}
POSITIVE: dict[str, Callable[[Tensor], Tensor]] = {"Log": ops.log, "Sqrt": ops.sqrt}
KINKED: dict[str, Callable[[Tensor], Tensor]] = {"Abs": ops.abs, "ReLU": ops.relu}
BINARY: dict[str, Callable[..., Tensor]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
}


@case(*UNARY)
def unary(draw: Any, name: str) -> Case:
    return Case(UNARY[name], draw_rng(draw).uniform(-3, 3, draw(shapes())))


@case(*POSITIVE)
def positive(draw: Any, name: str) -> Case:
    return Case(POSITIVE[name], draw_rng(draw).uniform(0.3, 3, draw(shapes())))


@case(*KINKED)
def kinked(draw: Any, name: str) -> Case:
    return Case(KINKED[name], *apart(draw_rng(draw), draw(shapes())))


@case("LeakyReLU")
def leaky_relu(draw: Any, name: str) -> Case:
    return Case(ops.leaky_relu, *apart(draw_rng(draw), draw(shapes())), negative_slope=draw(st.sampled_from((0.01, 0.3, -0.5))))


@case("Clip")
def clip(draw: Any, name: str) -> Case:
    low, high = draw(st.sampled_from(((-0.2, 0.3), (0.0, None), (None, 0.1))))
    return Case(ops.clip, *apart(draw_rng(draw), draw(shapes())), low=low, high=high)


@case(*BINARY)
def binary(draw: Any, name: str) -> Case:
    (a_shape, b_shape), _ = draw_shapes_that_broadcast(draw, 2)
    rng = draw_rng(draw)
    a, b = rng.uniform(-2, 2, a_shape), rng.uniform(0.5, 2, b_shape) * rng.choice((-1, 1), b_shape)  # b: divisible by
    return Case(BINARY[name], a, b)


@case("Pow")
def power(draw: Any, name: str) -> Case:
    exponent = draw(st.sampled_from((0, 1, 2, 3, -1, -2, 0.5, 1.5)))
    shape, rng = draw(shapes()), draw_rng(draw)
    x = rng.uniform(0.5, 2, shape)
    if isinstance(exponent, int):
        x = x * rng.choice((-1, 1), shape)
    return Case(lambda x, exponent: x**exponent, x, exponent=exponent)


@case("Maximum")
def maximum(draw: Any, name: str) -> Case:
    both, _ = draw_shapes_that_broadcast(draw, 2)
    return Case(ops.maximum, *apart(draw_rng(draw), *both))


@case("Where")
def where(draw: Any, name: str) -> Case:
    (condition_shape, a_shape, b_shape), _ = draw_shapes_that_broadcast(draw, 3)
    rng = draw_rng(draw)
    condition = np.asarray(rng.random(condition_shape) < 0.5)
    a, b = rng.uniform(-2, 2, a_shape), rng.uniform(-2, 2, b_shape)
    return Case(lambda a, b, condition: ops.where(condition, a, b), a, b, condition=condition)


@case("MatMul")
def matmul(draw: Any, name: str) -> Case:
    (a_batch, b_batch), _ = draw_shapes_that_broadcast(draw, 2, max_dims=2)
    i, j, k = draw(st.tuples(*[st.integers(1, 4)] * 3))
    rng = draw_rng(draw)
    return Case(ops.matmul, rng.uniform(-2, 2, (*a_batch, i, j)), rng.uniform(-2, 2, (*b_batch, j, k)))


@case("Linear")
def linear(draw: Any, name: str) -> Case:
    n, i, o = draw(st.tuples(*[st.integers(1, 4)] * 3))
    rng = draw_rng(draw)
    bias = [rng.uniform(-2, 2, o)] if draw(st.booleans()) else []
    return Case(ops.linear, rng.uniform(-2, 2, (n, i)), rng.uniform(-2, 2, (o, i)), *bias)


@case("Dropout")
def dropout(draw: Any, name: str) -> Case:
    x = draw_rng(draw).uniform(-2, 2, draw(shapes()))
    return Case(
        lambda x, p, seed: ops.dropout(x, p, np.random.default_rng(seed)),
        x,
        p=draw(st.sampled_from((0.0, 0.3, 0.8))),
        seed=draw(st.integers(0, 99)),
    )


# ---- moves


@case("GetItem")
def getitem(draw: Any, name: str) -> Case:
    x = draw_rng(draw).uniform(-2, 2, draw(shapes(min_dims=1)))
    lists = st.lists(st.integers(0, len(x) - 1), min_size=1, max_size=4)
    index = draw(
        st.one_of(
            hnp.basic_indices(x.shape, allow_newaxis=True).filter(lambda index: x[index].size > 0),
            hnp.integer_array_indices(x.shape, result_shape=hnp.array_shapes(max_dims=2, max_side=3)),
            st.builds(lambda first: (slice(None, None, -1),) * (x.ndim - 1) + ([i % x.shape[-1] for i in first],), lists),
            st.just(x > np.sort(x, axis=None)[x.size // 2] - 1e-9),
        )
    )
    return Case(ops.getitem, x, index=index)


@case("To")
def to(draw: Any, name: str) -> Case:
    def to_where_it_is(x: Tensor) -> Tensor:
        return To(x.device, x.dtype)(x)  # x.to(...) would return x itself

    return Case(to_where_it_is, draw_rng(draw).uniform(-2, 2, draw(shapes())))


@case("Reshape")
def reshape(draw: Any, name: str) -> Case:
    x = draw_rng(draw).uniform(-2, 2, draw(shapes(min_dims=1)))
    return Case(ops.reshape, x, shape=draw(st.sampled_from(((-1,), x.shape[::-1], (1, *x.shape), (x.shape[0], -1)))))


@case("Transpose")
def transpose(draw: Any, name: str) -> Case:
    x = draw_rng(draw).uniform(-2, 2, draw(shapes()))
    axes = tuple(axis - x.ndim if draw(st.booleans()) else axis for axis in draw(st.permutations(range(x.ndim))))
    return Case(ops.transpose, x, axes=draw(st.sampled_from((axes, None))))


@case("Concat")
def concat(draw: Any, name: str) -> Case:
    shape, rng = draw(shapes(min_dims=1, max_side=3)), draw_rng(draw)
    axis = draw_axis(draw, len(shape))
    parts = []
    for n in draw(st.lists(st.integers(1, 3), min_size=1, max_size=4)):
        part_shape = list(shape)
        part_shape[axis] = n
        parts.append(rng.uniform(-2, 2, part_shape))
    return Case(lambda *xs, axis: ops.concat(xs, axis), *parts, axis=axis)


@case("Pad")
def pad(draw: Any, name: str) -> Case:
    x = draw_rng(draw).uniform(-2, 2, draw(shapes(min_dims=1)))
    return Case(ops.pad, x, widths=tuple(draw(pairs(0, 2)) for _ in x.shape), value=draw(st.sampled_from((0.0, -1.5))))


@case("Flip")
def flip(draw: Any, name: str) -> Case:
    x = draw_rng(draw).uniform(-2, 2, draw(shapes(min_dims=1)))
    return Case(ops.flip, x, axis=draw_axes(draw, x.ndim))


@case("BroadcastTo")
def broadcast_to(draw: Any, name: str) -> Case:
    (x_shape,), result = draw_shapes_that_broadcast(draw, 1)
    grown = tuple(draw(st.integers(1, 3)) if n == 1 else n for n in result)
    new_axes = draw(shapes(max_dims=2, max_side=2))
    return Case(ops.broadcast_to, draw_rng(draw).uniform(-2, 2, x_shape), shape=new_axes + grown)


# ---- reductions and losses

REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "LogSumExp": ops.logsumexp,
    "Max": ops.max,
    "Mean": ops.mean,
    "Sum": ops.sum,
    "Var": ops.var,
}


@case(*REDUCTIONS)
def reduction(draw: Any, name: str) -> Case:
    (x,) = apart(draw_rng(draw), draw(shapes()))
    axis = draw_axes(draw, x.ndim) if x.ndim and draw(st.booleans()) else None
    settings: dict[str, Any] = {"axis": axis, "keepdims": draw(st.booleans())}
    if name == "Var":
        settings["correction"] = int(draw(st.booleans()) and x.size > np.sum(x, axis=axis).size)
    return Case(REDUCTIONS[name], x, **settings)


@case("Softmax", "LogSoftmax")
def softmax(draw: Any, name: str) -> Case:
    z = draw_rng(draw).uniform(-3, 3, draw(shapes(min_dims=1)))
    return Case({"Softmax": ops.softmax, "LogSoftmax": ops.log_softmax}[name], z, axis=draw_axis(draw, z.ndim))


@case("CrossEntropy")
def cross_entropy(draw: Any, name: str) -> Case:
    n, k = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng, ignored = draw_rng(draw), draw(st.sampled_from((None, -1, 0)))
    return Case(
        ops.cross_entropy,
        rng.uniform(-3, 3, (n, k)),
        labels=rng.integers(0 if ignored is None else min(ignored, 0), k, size=n),
        class_weights=rng.uniform(0.5, 2, k) if draw(st.booleans()) else None,
        label_smoothing=draw(st.sampled_from((0.0, 0.1, 0.6))),
        ignore_index=ignored,
    )


@case("BinaryCrossEntropyWithLogits")
def binary_cross_entropy_with_logits(draw: Any, name: str) -> Case:
    shape, rng = draw(shapes()), draw_rng(draw)
    targets = rng.random(shape)
    return Case(ops.binary_cross_entropy_with_logits, rng.uniform(-3, 3, shape), targets=np.asarray(targets))


@case("MSE")
def mse(draw: Any, name: str) -> Case:
    shape, rng = draw(shapes()), draw_rng(draw)
    return Case(ops.mse, rng.uniform(-3, 3, shape), targets=np.asarray(rng.uniform(-3, 3, shape)))


# ---- images


@case("Conv2d")
def conv2d(draw: Any, name: str) -> Case:
    kernel = draw(st.sampled_from(((1, 1), (3, 3), (1, 7), (7, 1), (2, 3), (5, 2))))
    half = (kernel[0] // 2, kernel[1] // 2)  # (0, 3) for a kernel of 1x7
    padding = draw(st.one_of(st.just(half), st.integers(0, 2), pairs(0, 3)))
    stride, dilation = draw_int_or_pair(draw, 1, 3), draw_int_or_pair(draw, 1, 2)
    groups = draw(st.integers(1, 3))
    N, C, F = draw(st.integers(1, 3)), groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    H, W = (
        max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 4))
        for k, d, p in zip(kernel, as_pair(dilation), as_pair(padding), strict=True)
    )
    rng = draw_rng(draw)
    bias = [rng.uniform(-1, 1, F)] if draw(st.booleans()) else []
    x, w = rng.uniform(-1, 1, (N, C, H, W)), rng.uniform(-1, 1, (F, C // groups, *kernel))
    return Case(ops.conv2d, x, w, *bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


@case("Conv2dReLU")
def conv2d_relu(draw: Any, name: str) -> Case:
    plain = draw(CASES["Conv2d"])
    bias, residual = len(plain.inputs) == 3, draw(st.booleans())
    inputs = [*plain.inputs]
    if residual:
        inputs.append(draw_rng(draw).uniform(-1, 1, plain(*map(Tensor, plain.inputs)).shape))

    def fused(x: Tensor, w: Tensor, *more: Tensor, **settings: Any) -> Tensor:
        return ops.conv2d_relu(x, w, more[0] if bias else None, more[-1] if residual else None, **settings)

    def twin() -> Tensor:
        y = plain(*(Tensor(a, requires_grad=True) for a in plain.inputs))
        return ops.relu(y + inputs[-1] if residual else y)

    away_from_kinks(twin)
    return Case(fused, *inputs, **plain.settings)


@case("MaxPool2d", "AvgPool2d")
def pool(draw: Any, name: str) -> Case:
    kernel = draw_int_or_pair(draw, 1, 4)
    padding = tuple(draw(st.integers(0, k // 2)) for k in as_pair(kernel))
    stride = draw(st.one_of(st.none(), st.integers(1, 3), pairs(1, 3)))
    ceil_mode = draw(st.booleans())
    spare = [s - 1 if ceil_mode else 0 for s in as_pair(kernel if stride is None else stride)]  # what may be missing
    H, W = (max(1, k - 2 * p - s) + draw(st.integers(0, 4)) for k, p, s in zip(as_pair(kernel), padding, spare, strict=True))
    (x,) = apart(draw_rng(draw), (draw(st.integers(1, 2)), draw(st.integers(1, 3)), H, W))
    settings: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    if name == "AvgPool2d":
        settings["count_include_pad"] = draw(st.booleans())
    return Case({"MaxPool2d": ops.max_pool2d, "AvgPool2d": ops.avg_pool2d}[name], x, **settings)


@case("GlobalAvgPool2d")
def global_avg_pool2d(draw: Any, name: str) -> Case:
    return Case(ops.global_avg_pool2d, draw_rng(draw).uniform(-2, 2, draw(shapes(min_dims=4, max_dims=4))))


@case("TopKPool2d")
def top_k_pool2d(draw: Any, name: str) -> Case:
    (x,) = apart(draw_rng(draw), draw(shapes(min_dims=4, max_dims=4)))
    return Case(ops.top_k_pool2d, x, k=draw(st.integers(1, x[0, 0].size)))


def synchronized(x: Tensor, *others: Any, kind: type[SyncBatchNorm] | type[SyncBatchNormReLU], eps: float = 1e-5) -> Tensor:
    """Of one rank; several are those of tests/parallel"""
    no_residual = (None,) if kind is SyncBatchNormReLU and len(others) == 2 else ()
    return kind(eps, ALONE)(x, *others, *no_residual)


@case("BatchNorm", "SyncBatchNorm")
def batch_norm(draw: Any, name: str) -> Case:
    N, C, pixels = draw(st.integers(3, 4)), draw(st.integers(1, 3)), draw(shapes(max_dims=2, max_side=3))
    rng = draw_rng(draw)
    (x,) = apart(rng, (N, C, *pixels))
    norm, kind = (ops.batch_norm, {}) if name == "BatchNorm" else (synchronized, {"kind": SyncBatchNorm})
    return Case(norm, x, rng.uniform(0.5, 2, C), rng.uniform(-1, 1, C), eps=draw(st.sampled_from((1e-5, 1e-3, 0.1))), **kind)


@case("BatchNormFrozen")
def batch_norm_frozen(draw: Any, name: str) -> Case:
    N, C, pixels = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(shapes(max_dims=2, max_side=3))
    rng = draw_rng(draw)
    x, gamma, beta, mean = (rng.uniform(-2, 2, shape) for shape in ((N, C, *pixels), C, C, C))
    return Case(ops.batch_norm_frozen, x, gamma, beta, mean=mean, var=rng.uniform(0.3, 2, C))


@case("GroupNorm")
def group_norm(draw: Any, name: str) -> Case:
    groups, pixels, affine = draw(st.integers(1, 3)), draw(shapes(max_dims=2, max_side=3)), draw(st.booleans())
    N, C, rng = draw(st.integers(1, 3)), groups * draw(st.integers(2, 3)), draw_rng(draw)
    (x,) = apart(rng, (N, C, *pixels))
    inputs = [x, rng.uniform(0.5, 2, C), rng.uniform(-1, 1, C)] if affine else [x]
    eps = draw(st.sampled_from((1e-5, 1e-3, 0.1)))

    def group_norm(x: Tensor, *affine: Tensor, num_groups: int, eps: float) -> Tensor:
        return ops.group_norm(x, num_groups, *affine, eps=eps)

    return Case(group_norm, *inputs, num_groups=groups, eps=eps)


def away_from_kinks(relus: Callable[[], Tensor]) -> None:
    """Give the draw up where a relu in the graph of the function has an input that steps of the check may carry over 0."""
    assume(all(np.abs(op.inputs[0].data).min() > 1e-4 for op in tape(relus()) if isinstance(op, ReLU)))


@case("BatchNormReLU", "BatchNormFrozenReLU", "SyncBatchNormReLU")
def batch_norm_relu(draw: Any, name: str) -> Case:
    N, C, pixels = draw(st.integers(3, 4)), draw(st.integers(1, 3)), draw(shapes(max_dims=2, max_side=3))
    rng = draw_rng(draw)
    (x,) = apart(rng, (N, C, *pixels))
    gamma, beta, mean = rng.uniform(0.5, 2, C), rng.uniform(-1, 1, C), rng.uniform(-1, 1, C)
    inputs = [x, gamma, beta] + ([rng.uniform(-1, 1, x.shape)] if draw(st.booleans()) else [])
    statistics = {"mean": mean, "var": rng.uniform(0.3, 2, C)} if name == "BatchNormFrozenReLU" else {}
    xs = [Tensor(a, requires_grad=True) for a in inputs]
    norm, fused = ops.batch_norm, ops.batch_norm_relu
    if statistics:
        norm, fused = (
            ops.batch_norm_frozen,
            lambda x, gamma, beta, r=None, **more: ops.batch_norm_frozen_relu(x, gamma, beta, **more, residual=r),
        )

    def twin() -> Tensor:
        y = norm(*xs[:3], **statistics)
        return ops.relu(y + xs[3] if len(inputs) == 4 else y)

    away_from_kinks(twin)
    return (
        Case(synchronized, *inputs, kind=SyncBatchNormReLU)
        if name == "SyncBatchNormReLU"
        else Case(fused, *inputs, **statistics)
    )


def dense_block(x: Tensor, *parameters: Tensor, convolutions: tuple[int, ...], frozen: Any = None) -> Tensor:
    return DenseBlock(list(convolutions), 1e-3, frozen)(x, *parameters)


def unfused_dense_block(x: Tensor, *parameters: Tensor, convolutions: tuple[int, ...], frozen: Any = None) -> Tensor:
    """What `DenseBlock` computes, op by op."""
    triples, statistics = zip(*[iter(parameters)] * 3, strict=True), iter(frozen or ())
    for count in convolutions:
        y = x
        for _ in range(count):
            gamma, beta, w = next(triples)
            mean_var = next(statistics, None)
            y = (
                ops.batch_norm(y, gamma, beta, 1e-3)
                if mean_var is None
                else ops.batch_norm_frozen(y, gamma, beta, *mean_var, 1e-3)
            )
            y = ops.conv2d(ops.relu(y), w, padding=(w.shape[2] // 2, w.shape[3] // 2))
        x = ops.concat([x, y])
    return x


@case("DenseBlock")
def draw_dense_block(draw: Any, name: str) -> Case:
    N, C, H, W = draw(st.integers(2, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 4))
    convolutions = tuple(draw(st.lists(st.integers(1, 2), min_size=1, max_size=3)))
    rng = draw_rng(draw)
    inputs, statistics, channels = [apart(rng, (N, C, H, W))[0]], [], C
    for count in convolutions:
        into = channels
        for _ in range(count):
            out, k = draw(st.integers(1, 3)), draw(st.sampled_from((1, 3)))
            inputs += [rng.uniform(0.5, 2, into), rng.uniform(-1, 1, into), rng.uniform(-1, 1, (out, into, k, k))]
            statistics.append((rng.uniform(-1, 1, into), rng.uniform(0.3, 2, into)))
            into = out
        channels += into
    frozen = tuple(statistics) if draw(st.booleans()) else None
    away_from_kinks(
        lambda: unfused_dense_block(*(Tensor(a, requires_grad=True) for a in inputs), convolutions=convolutions, frozen=frozen)
    )
    return Case(dense_block, *inputs, convolutions=convolutions, frozen=frozen)


def draw_images(draw: Any) -> np.ndarray:
    return draw_rng(draw).uniform(-2, 2, draw(hnp.array_shapes(min_dims=4, max_dims=4, max_side=6)))


@st.composite
def resize(draw: Any) -> Case:
    mode, align_corners = draw(st.sampled_from((("nearest", False), ("bilinear", False), ("bilinear", True))))
    return Case(ops.resize, draw_images(draw), size=draw_int_or_pair(draw, 1, 9), mode=mode, align_corners=align_corners)


@st.composite
def adaptive_avg_pool2d(draw: Any) -> Case:
    return Case(ops.adaptive_avg_pool2d, draw_images(draw), output_size=draw_int_or_pair(draw, 1, 7))


@st.composite
def gaussian_blur(draw: Any) -> Case:
    x = draw_images(draw)
    sigma = draw(st.sampled_from((0.4, 1.0, (0.5, 2.0))))
    return Case(ops.gaussian_blur, x, sigma=sigma, radius=tuple(draw(st.integers(0, n - 1)) for n in x.shape[2:]))


CASES["RowsAndColumns"] = resize() | adaptive_avg_pool2d() | gaussian_blur()


@case("SmoothMaxConvolution")
def smooth_max_convolution(draw: Any, name: str) -> Case:
    rng, (r, s) = draw_rng(draw), (draw(st.integers(0, 2)), draw(st.integers(1, 3)))
    kernel = rng.uniform(0, 1, (2 * r + 1, 2 * r + 1, s, s))
    x = rng.uniform(0, 1, draw(shapes(4, 4, 4)))
    return Case(ops.smooth_max_convolution, x, kernel=kernel, temperature=draw(st.sampled_from((100.0, 1.0, 0.2))))

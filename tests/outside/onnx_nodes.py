"""ONNX's operators in the words of minidl: one function an operator, its inputs first, then its attributes by name.

Inputs come as tensors, those of SETTINGS (numbers, shapes, indices, labels) as arrays. What minidl has not raises
NotInMinidlError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from minidl import Tensor, gradients, nn, ops
from minidl.ops.norm import BatchNorm, running_average

Array = np.ndarray
Ints = Sequence[int]


class NotInMinidlError(Exception):
    """What the node asks for and minidl does not have."""


# ---- convolution and pooling


def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = (),
    group: int = 1,
    kernel_shape: Ints = (),
    pads: Ints = (),
    strides: Ints = (),
) -> Tensor:
    strides, dilations = _ones(strides, w), _ones(dilations, w)
    x, padding = _padded(x, _pads(x, w.shape[2:], strides, dilations, auto_pad, pads), 0.0)
    return ops.conv2d(x, w, b, strides, padding, dilations, group)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints = (),
    group: int = 1,
    kernel_shape: Ints = (),
    output_padding: Ints = (),
    output_shape: Ints = (),
    pads: Ints = (),
    strides: Ints = (),
) -> Tensor:
    """The gradient of the convolution that leads from the whole result z to x; then a part of z, with zeros behind it"""
    strides, dilations = _ones(strides, w), _ones(dilations, w)
    whole = [s * (n - 1) + d * (k - 1) + 1 for n, k, s, d in zip(x.shape[2:], w.shape[2:], strides, dilations, strict=True)]
    extra = output_padding or [0] * len(whole)
    if auto_pad != "NOTSET" and not output_shape:
        output_shape = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if output_shape:
        cut = [n + e - o for n, e, o in zip(whole, extra, output_shape, strict=True)]
        before = [c // 2 if auto_pad == "SAME_UPPER" else c - c // 2 for c in cut]
    else:
        before, after = _halves(pads or [0] * 2 * len(whole))
        output_shape = [n + e - a - b for n, e, a, b in zip(whole, extra, before, after, strict=True)]
    z = Tensor(np.zeros((len(x), w.shape[1] * group, *whole), x.dtype), requires_grad=True)
    z = Tensor(gradients(ops.conv2d(z, w, None, strides, 0, dilations, group), [z], x.data)[0])
    behind = [max(a + o - n, 0) for n, a, o in zip(whole, before, output_shape, strict=True)]
    z = ops.pad(z, [(0, 0), (0, 0), *((0, n) for n in behind)])
    y = z[(..., *(slice(a, a + o) for a, o in zip(before, output_shape, strict=True)))]
    return y if b is None else y + ops.reshape(b, (-1, *[1] * len(whole)))


def max_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints = (),
    kernel_shape: Ints,
    pads: Ints = (),
    storage_order: int = 0,
    strides: Ints = (),
) -> Tensor:
    strides, dilations = _ones(strides, x), _undilated(dilations, x)
    x, padding = _padded(x, _pads(x, kernel_shape, strides, dilations, auto_pad, pads), -np.inf)
    return ops.max_pool2d(x, kernel_shape, strides, padding, bool(ceil_mode))


def average_pool(
    x: Tensor,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints = (),
    kernel_shape: Ints,
    pads: Ints = (),
    strides: Ints = (),
) -> Tensor:
    strides, dilations = _ones(strides, x), _undilated(dilations, x)
    widths = _pads(x, kernel_shape, strides, dilations, auto_pad, pads)
    wider, padding = _padded(x, widths, 0.0)
    y = ops.avg_pool2d(wider, kernel_shape, strides, padding, bool(ceil_mode), bool(count_include_pad))
    if wider is x or count_include_pad:
        return y
    inside, _ = _padded(Tensor(np.ones_like(x.data)), widths, 0.0)
    return y / ops.avg_pool2d(inside, kernel_shape, strides, padding, bool(ceil_mode))  # the share that lies inside


def _ones(values: Ints, x: Tensor) -> Ints:
    return values or [1] * (x.ndim - 2)


def _undilated(dilations: Ints, x: Tensor) -> Ints:
    if any(d != 1 for d in dilations):
        raise NotInMinidlError("the attribute dilations of pooling")
    return _ones((), x)


def _halves(pads: Ints) -> tuple[Ints, Ints]:
    return pads[: len(pads) // 2], pads[len(pads) // 2 :]


def _pads(x: Tensor, kernel: Ints, strides: Ints, dilations: Ints, auto_pad: str, pads: Ints) -> tuple[Ints, Ints]:
    """What to pad before and after each axis of the image; with auto_pad so that ceil(size / stride) windows fit"""
    if auto_pad in ("NOTSET", "VALID"):
        return _halves(pads or [0] * 2 * len(kernel))
    sizes = zip(x.shape[2:], kernel, strides, dilations, strict=True)
    missing = [max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, k, s, d in sizes]
    less, more = [n // 2 for n in missing], [n - n // 2 for n in missing]
    return (less, more) if auto_pad == "SAME_UPPER" else (more, less)


def _padded(x: Tensor, widths: tuple[Ints, Ints], value: float) -> tuple[Tensor, Ints]:
    """x, padded here where before and after differ, and the padding that is left for the op"""
    before, after = widths
    if before == after:
        return x, before
    return ops.pad(x, [(0, 0), (0, 0), *zip(before, after, strict=True)], value), [0] * len(before)


def global_average_pool(x: Tensor) -> Tensor:
    return ops.reshape(ops.global_avg_pool2d(x), (*x.shape[:2], 1, 1))


def global_max_pool(x: Tensor) -> Tensor:
    return ops.max(x, tuple(range(2, x.ndim)), keepdims=True)


# ---- normalisation


def batch_norm(
    x: Tensor,
    scale: Tensor,
    b: Tensor,
    mean: Array,
    var: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Any:
    if not training_mode:
        return ops.batch_norm_frozen(x, scale, b, mean, var, epsilon)
    op = BatchNorm(epsilon)
    return op(x, scale, b), running_average(mean, op.mean, 1 - momentum), running_average(var, op.var, 1 - momentum)


def instance_norm(x: Tensor, scale: Tensor, b: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return ops.group_norm(x, x.shape[1], scale, b, epsilon)


def group_norm(x: Tensor, scale: Tensor, b: Tensor, *, epsilon: float = 1e-5, num_groups: int, stash_type: int = 1) -> Tensor:
    return ops.group_norm(x, num_groups, scale, b, epsilon)


def layer_norm(
    x: Tensor, scale: Tensor, b: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    axes = tuple(range(axis % x.ndim, x.ndim))
    mean = ops.mean(x, axes, keepdims=True)
    inv_std = 1 / ops.sqrt(ops.var(x, axes, keepdims=True, correction=0) + epsilon)
    y = (x - mean) * inv_std * scale
    return y if b is None else y + b, mean, inv_std


def rms_norm(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    axes = tuple(range(axis % x.ndim, x.ndim))
    return x / ops.sqrt(ops.mean(x * x, axes, keepdims=True) + epsilon) * scale


def mean_variance_norm(x: Tensor, *, axes: Ints = (0, 2, 3)) -> Tensor:
    return (x - ops.mean(x, tuple(axes), True)) / ops.sqrt(ops.var(x, tuple(axes), True, correction=0))


def lp_norm(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    norm = (reduce_l1 if p == 1 else reduce_l2)(x, axes=[axis])
    return x / (norm + Tensor((norm.data == 0).astype(x.dtype)))  # 0 where all are


def lrn(x: Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int) -> Tensor:
    N, C = x.shape[:2]
    around = ops.avg_pool2d(ops.reshape(x * x, (N, 1, C, -1)), (size, 1), 1, (size // 2, 0))  # of each channel's neighbours
    return x / (bias + alpha * ops.reshape(around, x.shape)) ** beta


# ---- activations


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate != "tanh":
        raise NotInMinidlError("the attribute approximate=none of Gelu")
    return ops.gelu(x)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return ops.where(x.data > 0, x, alpha * (ops.exp(x) - 1))


def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return ops.where(x.data > 0, x, alpha * (ops.exp(x / alpha) - 1))


def selu(x: Tensor, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Tensor:
    return gamma * elu(x, alpha=alpha)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return ops.clip(alpha * x + beta, 0, 1)


def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return ops.where(x.data > alpha, x, 0 * x)


def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    return ops.where(x.data < -lambd, x + bias, ops.where(x.data > lambd, x - bias, 0 * x))


def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return x * ops.sigmoid(alpha * x)


# ---- losses


def nll_loss(
    log_p: Tensor, labels: Array, weight: Array | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Tensor:
    rows, flat, v = _rows(log_p, labels, weight, ignore_index)
    losses = -rows[np.arange(len(flat)), np.where(v > 0, flat, 0)] * Tensor(v)
    if reduction == "none":
        return ops.reshape(losses, labels.shape)
    return ops.sum(losses) if reduction == "sum" else ops.sum(losses) / v.sum()


def softmax_cross_entropy_loss(
    z: Tensor, labels: Array, weight: Array | None = None, *, ignore_index: int | None = None, reduction: str = "mean"
) -> Any:
    log_p = ops.log_softmax(z, axis=1)
    if reduction != "mean":
        return nll_loss(log_p, labels, weight, ignore_index=ignore_index, reduction=reduction), log_p
    rows, flat, v = _rows(z, labels, weight, ignore_index)
    return ops.cross_entropy(rows[v > 0], flat[v > 0], weight), log_p


def _rows(x: Tensor, labels: Array, weight: Array | None, ignored: int | None) -> tuple[Tensor, Array, Array]:
    """(N,K,...) as (M,K), the labels as (M,), and the weight of each, 0 where it is ignored"""
    rows = ops.reshape(ops.transpose(x, (0, *range(2, x.ndim), 1)), (-1, x.shape[1]))
    flat = labels.reshape(-1)
    v = np.ones(len(flat), x.dtype) if weight is None else weight[np.where(flat == ignored, 0, flat)]
    return rows, flat, np.where(flat == ignored, 0, v).astype(x.dtype)


# ---- element by element


def clip(x: Tensor, low: Array | None = None, high: Array | None = None) -> Tensor:
    return ops.clip(x, None if low is None else low.item(), None if high is None else high.item())


def power(x: Tensor, n: Array) -> Tensor:
    return x ** (n.item() if n.size == 1 else n)


def maximum(*xs: Tensor) -> Tensor:
    return reduce(ops.maximum, xs)


def minimum(*xs: Tensor) -> Tensor:
    return xs[0] if len(xs) == 1 else -reduce(ops.maximum, [-x for x in xs])


def total(*xs: Tensor) -> Tensor:
    return reduce(Tensor.__add__, xs)


def cast(x: Tensor, *, to: Any, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(dtype=to)


def gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Tensor:
    y = alpha * ops.linear(ops.transpose(a) if transA else a, b if transB else ops.transpose(b))
    return y if c is None else y + beta * c


def dropout(x: Tensor, ratio: Any = 0.5, training: Array | None = None, *, seed: int = 0) -> Tensor:
    layer = nn.Dropout(float(ratio)).train(training is not None and bool(training))
    if layer.training and layer.p > 0:
        raise NotInMinidlError("random numbers of another generator")
    return layer(x)


# ---- reductions


def reduction(of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduced(x: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        axis = () if axes is None else tuple(int(i) for i in axes)
        return of(x, axis if axis or noop_with_empty_axes else None, keepdims=bool(keepdims))

    return reduced


reduce_l1 = reduction(lambda x, axis, keepdims: ops.sum(ops.abs(x), axis, keepdims))
reduce_l2 = reduction(lambda x, axis, keepdims: ops.sqrt(ops.sum(x * x, axis, keepdims)))


# ---- shapes and indices


def split(x: Tensor, sizes: Array | None = None, *, axis: int = 0, num_outputs: int) -> list[Tensor]:
    n = x.shape[axis]
    if sizes is None:  # as long as the first, but for the last
        each = math.ceil(n / num_outputs)
        sizes = [each] * (num_outputs - 1) + [n - each * (num_outputs - 1)]
    return ops.split(x, [int(s) for s in sizes], axis)


def slice_(x: Tensor, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None) -> Tensor:
    index = [slice(None)] * x.ndim
    axes, steps = range(len(starts)) if axes is None else axes, [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(int(start), int(end), int(step))
    return x[tuple(index)]


def gather(x: Tensor, indices: Array, *, axis: int = 0) -> Tensor:
    return x[(slice(None),) * (axis % x.ndim) + (indices,)]


def gather_elements(x: Tensor, indices: Array, *, axis: int = 0) -> Tensor:
    index = list(np.indices(indices.shape))
    index[axis] = indices
    return x[tuple(index)]


def gather_nd(x: Tensor, indices: Array, *, batch_dims: int = 0) -> Tensor:
    if batch_dims:
        raise NotInMinidlError("the attribute batch_dims of GatherND")
    return x[tuple(np.moveaxis(indices, -1, 0))]


def compress(x: Tensor, condition: Array, *, axis: int | None = None) -> Tensor:
    if axis is None:
        x, axis = ops.reshape(x, (-1,)), 0
    return gather(x, np.flatnonzero(condition), axis=axis)


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    rows = math.prod(x.shape[:axis])
    return ops.reshape(x, (rows, x.size // max(rows, 1)))


def reshape(x: Tensor, shape: Array, *, allowzero: int = 0) -> Tensor:
    return ops.reshape(x, tuple(x.shape[i] if n == 0 and not allowzero else int(n) for i, n in enumerate(shape)))


def expand(x: Tensor, shape: Array) -> Tensor:
    return ops.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape)))


def pad(x: Tensor, pads: Array, value: Array | None = None, axes: Array | None = None, *, mode: str = "constant") -> Tensor:
    if mode != "constant":
        raise NotInMinidlError(f"the attribute mode={mode} of Pad")
    widths = [(0, 0)] * x.ndim
    for axis, before, after in zip(range(x.ndim) if axes is None else axes, *_halves(pads), strict=True):
        widths[axis] = (before, after)
    return ops.pad(x, widths, 0.0 if value is None else value.item())


def squeeze(x: Tensor, axes: Any = None) -> Tensor:
    gone = {i for i, n in enumerate(x.shape) if n == 1} if axes is None else {int(i) % x.ndim for i in axes}
    return ops.reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))


def unsqueeze(x: Tensor, axes: Any) -> Tensor:
    ndim, sizes = x.ndim + len(axes), iter(x.shape)
    new = {int(i) % ndim for i in axes}
    return ops.reshape(x, tuple(1 if i in new else next(sizes) for i in range(ndim)))


def tile(x: Tensor, repeats: Array) -> Tensor:
    for axis, n in enumerate(repeats):
        x = ops.concat([x] * int(n), axis)
    return x


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    (N, _, H, W), b = x.shape, blocksize
    shape, axes = ((N, b, b, -1, H, W), (0, 3, 4, 1, 5, 2)) if mode == "DCR" else ((N, -1, b, b, H, W), (0, 1, 4, 2, 5, 3))
    return ops.reshape(ops.transpose(ops.reshape(x, shape), axes), (N, -1, H * b, W * b))


def space_to_depth(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    (N, C, H, W), b = x.shape, blocksize
    axes = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return ops.reshape(ops.transpose(ops.reshape(x, (N, C, H // b, b, W // b, b)), axes), (N, -1, H // b, W // b))


# ---- images of another size


def resize(
    x: Tensor,
    roi: Array | None = None,
    scales: Array | None = None,
    sizes: Array | None = None,
    *,
    antialias: int = 0,
    axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    grid = coordinate_transformation_mode
    if antialias or keep_aspect_ratio_policy != "stretch":
        raise NotInMinidlError("the attributes antialias and keep_aspect_ratio_policy of Resize")
    given = dict(zip(range(x.ndim) if axes is None else axes, scales if sizes is None else sizes, strict=True))
    out = [n if i not in given else int(given[i] if sizes is not None else n * given[i]) for i, n in enumerate(x.shape)]
    if sizes is None and any(out[i] != x.shape[i] * np.float64(s) for i, s in given.items()):
        raise NotInMinidlError("scales of Resize that lead to no whole size")
    if mode == "linear" and grid in ("half_pixel", "align_corners"):
        return ops.resize(x, tuple(out[2:]), "bilinear", align_corners=grid == "align_corners")
    if mode == "nearest" and all(_floors(n, o, grid, nearest_mode) for n, o in zip(x.shape, out, strict=True)):
        return ops.resize(x, tuple(out[2:]), "nearest")
    raise NotInMinidlError(f"mode {mode} of Resize, {grid}" + (f", {nearest_mode}" if mode == "nearest" else ""))


def upsample(x: Tensor, scales: Array, *, mode: str = "nearest") -> Tensor:
    return resize(x, None, scales, mode=mode, coordinate_transformation_mode="asymmetric", nearest_mode="floor")


def _floors(size: int, out: int, grid: str, rounding: str) -> bool:
    """Whether the pixels that ONNX repeats are those of minidl, floor(i size / out)"""
    i = np.arange(out)
    grids = {"half_pixel": (i + 0.5) * size / out - 0.5, "align_corners": i * (size - 1) / max(out - 1, 1)}
    at = grids.get(grid, i * size / out)
    near = {"round_prefer_floor": np.ceil(at - 0.5), "round_prefer_ceil": np.floor(at + 0.5), "ceil": np.ceil(at)}
    return bool((near.get(rounding, np.floor(at)).clip(0, size - 1) == i * size // out).all())


# ---- the table

NODES: dict[str, Callable[..., Any]] = {
    "Abs": ops.abs,
    "Add": lambda a, b: a + b,
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "CastLike": lambda x, like, saturate=1, round_mode="up": x.to(dtype=like.dtype),
    "Celu": celu,
    "Clip": clip,
    "Compress": compress,
    "Concat": lambda *xs, axis: ops.concat(xs, axis),
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Cosh": lambda x: (ops.exp(x) + ops.exp(-x)) / 2,
    "DepthToSpace": depth_to_space,
    "Div": lambda a, b: a / b,
    "Dropout": dropout,
    "Elu": elu,
    "Exp": ops.exp,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "GroupNormalization": group_norm,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": lambda x: x * hard_sigmoid(x, alpha=1 / 6, beta=0.5),
    "Identity": nn.Identity(),
    "InstanceNormalization": instance_norm,
    "LRN": lrn,
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda x, alpha=0.01: ops.leaky_relu(x, alpha),
    "Log": ops.log,
    "LogSoftmax": lambda x, axis=-1: ops.log_softmax(x, axis),
    "LpNormalization": lp_norm,
    "MatMul": ops.matmul,
    "Max": maximum,
    "MaxPool": max_pool,
    "Mean": lambda *xs: total(*xs) / len(xs),
    "MeanVarianceNormalization": mean_variance_norm,
    "Min": minimum,
    "Mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "Mul": lambda a, b: a * b,
    "Neg": lambda x: -x,
    "NegativeLogLikelihoodLoss": nll_loss,
    "PRelu": lambda x, slope: ops.relu(x) - slope * ops.relu(-x),
    "Pad": pad,
    "Pow": power,
    "RMSNormalization": rms_norm,
    "Reciprocal": lambda x: 1 / x,
    "ReduceL1": reduce_l1,
    "ReduceL2": reduce_l2,
    "ReduceLogSum": reduction(lambda x, axis, keepdims: ops.log(ops.sum(x, axis, keepdims))),
    "ReduceLogSumExp": reduction(ops.logsumexp),
    "ReduceMax": reduction(ops.max),
    "ReduceMean": reduction(ops.mean),
    "ReduceMin": reduction(lambda x, axis, keepdims: -ops.max(-x, axis, keepdims)),
    "ReduceSum": reduction(ops.sum),
    "ReduceSumSquare": reduction(lambda x, axis, keepdims: ops.sum(x * x, axis, keepdims)),
    "Relu": ops.relu,
    "Reshape": reshape,
    "Resize": resize,
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": ops.sigmoid,
    "Sinh": lambda x: (ops.exp(x) - ops.exp(-x)) / 2,
    "Slice": slice_,
    "Softmax": lambda x, axis=-1: ops.softmax(x, axis),
    "SoftmaxCrossEntropyLoss": softmax_cross_entropy_loss,
    "Softplus": ops.softplus,
    "Softsign": lambda x: x / (1 + ops.abs(x)),
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Sqrt": ops.sqrt,
    "Squeeze": squeeze,
    "Sub": lambda a, b: a - b,
    "Sum": total,
    "SwiGLU": lambda a, b, alpha=1.0: swish(a, alpha=alpha) * b,
    "Swish": swish,
    "Tanh": ops.tanh,
    "ThresholdedRelu": thresholded_relu,
    "Tile": tile,
    "Transpose": lambda x, perm=None: ops.transpose(x, None if perm is None else tuple(perm)),
    "Unsqueeze": unsqueeze,
    "Upsample": upsample,
    "Where": ops.where,
}

SETTINGS: dict[str, set[int]] = {  # the inputs that are no tensors to minidl, by position
    "BatchNormalization": {3, 4},
    "CastLike": {1},
    "Clip": {1, 2},
    "Compress": {1},
    "Dropout": {1, 2},
    "Expand": {1},
    "Gather": {1},
    "GatherElements": {1},
    "GatherND": {1},
    "NegativeLogLikelihoodLoss": {1, 2},
    "Pad": {1, 2, 3},
    "Pow": {1},
    "Reshape": {1},
    "Resize": {1, 2, 3},
    "Slice": {1, 2, 3, 4},
    "SoftmaxCrossEntropyLoss": {1, 2},
    "Split": {1},
    "Squeeze": {1},
    "Tile": {1},
    "Unsqueeze": {1},
    "Upsample": {1},
    "Where": {0},
} | {f"Reduce{name}": {1} for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Sum", "SumSquare")}

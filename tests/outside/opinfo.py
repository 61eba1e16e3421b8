"""minidl in PyTorch's words: functions of minidl that take the arguments of an entry of PyTorch's OpInfo database.

`ADAPTERS` maps the name of an entry to the ops of minidl that answer it and to a function with PyTorch's signature, which is
called with minidl's tensors in place of PyTorch's. An argument that is annotated `Array` comes as an array, because minidl has
no gradient for it. An adapter raises `Missing` for an argument that minidl cannot express.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from minidl import Tensor, ops
from minidl.array import Array


class Missing(Exception):  # noqa: N818
    """What a sample asks for and minidl does not have; such samples are skipped, and counted by this reason."""


# ops of minidl without a counterpart in the database
UNMATCHED = {
    "fusing": "a setting, no op",
    "unfused": "a setting, no op",
    "gaussian_blur": "PyTorch has none (torchvision has)",
    "global_avg_pool2d": "no sample pools to one pixel; the module database has one, see `opinfo_layers`",
    "smooth_max_convolution": "PyTorch has none",
    "top_k_pool2d": "PyTorch has none",
    "recompute": "it computes what it is given; torch.utils.checkpoint is no op",
    "once": "a part of recompute",
}


# ---- arithmetic


def add(a: Any, b: Any, *, alpha: float = 1) -> Any:
    return a + (b if alpha == 1 else alpha * b)


def sub(a: Any, b: Any, *, alpha: float = 1) -> Any:
    return a - (b if alpha == 1 else alpha * b)


def rsub(a: Any, b: Any, *, alpha: float = 1) -> Any:
    return sub(b, a, alpha=alpha)


def div(a: Any, b: Any, *, rounding_mode: None = None) -> Any:
    return a / b


def float_power(x: Any, exponent: Any) -> Any:
    return (x.to(dtype=np.float64) if isinstance(x, Tensor) else x) ** exponent


def matmul(a: Any, b: Any) -> Any:
    return a @ b


def addmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * x + alpha * (a @ b)


def multi_dot(xs: Sequence[Tensor]) -> Tensor:
    return reduce(ops.matmul, xs)


# ---- element by element


def clamp(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Numbers are the bounds of `clip`; tensors bound by `maximum`, of the negated tensors from above."""
    if not (isinstance(min, Tensor) or isinstance(max, Tensor)):
        return ops.clip(x, min, max)
    x = x if min is None else ops.maximum(x, min)
    return x if max is None else minimum(x, max)


def minimum(a: Any, b: Any) -> Any:
    return -ops.maximum(-a, -b)


def hardtanh(x: Tensor, min_val: float = -1, max_val: float = 1) -> Tensor:
    return ops.clip(x, min_val, max_val)


def relu6(x: Tensor) -> Tensor:
    return ops.clip(x, 0, 6)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    if approximate != "tanh":
        raise Missing(f"gelu(approximate={approximate!r})")
    return ops.gelu(x)


def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    return ops.where(x.data * beta > threshold, x, ops.softplus(beta * x) / beta)


def where(a: Any, condition: Any, b: Any) -> Tensor:
    return ops.where(condition, a, b)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training:
        return x * 1
    if 0 < p < 1:
        raise Missing("random numbers of PyTorch")
    return ops.dropout(x, p, np.random.default_rng(0))


def to(x: Tensor, *args: Any, memory_format: Any = None) -> Tensor:
    """Into a dtype, after a device or not, or into that of another tensor; the order in memory is no matter of minidl."""
    first = args[1] if isinstance(args[0], str) else args[0]
    return x.to(dtype=first.dtype if isinstance(first, Tensor) else first)


def to_dtype(dtype: Any) -> Callable[..., Tensor]:
    def cast(x: Tensor, *, memory_format: Any = None) -> Tensor:
        return x.to(dtype=dtype)

    return cast


# ---- reductions


def reduction(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`op` with PyTorch's names; `dim=()` means all axes, as None does."""

    def reduced(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        x = x if dtype is None else x.to(dtype=dtype)
        return op(x, None if np.size(dim) == 0 else tuple(dim) if isinstance(dim, list) else dim, keepdim)

    return reduced


def var(x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *, correction: float | None = 1) -> Tensor:
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, unbiased = None, dim
    return ops.var(x, dim, keepdim, 0 if not unbiased else 1 if correction is None else correction)


def var_mean(x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, **more: Any) -> list[Tensor]:
    axis = None if isinstance(dim, bool) else dim
    return [var(x, dim, unbiased, keepdim, **more), ops.mean(x, axis, keepdim)]


def softmax(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def over(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
        return op(x if dtype is None else x.to(dtype=dtype), dim)

    return over


# ---- moves


def cat(xs: Any, dim: int = 0) -> Tensor:
    return ops.concat(xs, dim)


def stack(xs: Any, dim: int = 0) -> Tensor:
    return ops.concat([unsqueeze(x, dim) for x in xs], dim)


def hstack(xs: Any) -> Tensor:
    return ops.concat(xs, 0 if xs and xs[0].ndim == 1 else 1)


def vstack(xs: Any) -> Tensor:
    return ops.concat([x[None] if x.ndim == 1 else x for x in xs], 0)


def column_stack(xs: Any) -> Tensor:
    return ops.concat([ops.reshape(x, (-1, 1)) if x.ndim < 2 else x for x in xs], 1)


def expand(x: Tensor, *shape: Any) -> Tensor:
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    kept = (1,) * (len(sizes) - x.ndim) + x.shape
    return ops.broadcast_to(x, tuple(have if want == -1 else want for want, have in zip(sizes, kept, strict=True)))


def expand_as(x: Tensor, other: Array) -> Tensor:
    return ops.broadcast_to(x, other.shape)


def flip(x: Tensor, dims: Any) -> Tensor:
    return ops.flip(x, dims)


def fliplr(x: Tensor) -> Tensor:
    return ops.flip(x, 1)


def flipud(x: Tensor) -> Tensor:
    return ops.flip(x, 0)


def reshape(x: Tensor, shape: Any) -> Tensor:
    return ops.reshape(x, tuple(shape))


def reshape_as(x: Tensor, other: Array) -> Tensor:
    return ops.reshape(x, other.shape)


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    if (start_dim, end_dim) == (1, -1):
        return ops.flatten(x)
    first, last = (dim % max(x.ndim, 1) for dim in (start_dim, end_dim))
    return ops.reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def ravel(x: Tensor) -> Tensor:
    return ops.reshape(x, (-1,))


def unflatten(x: Tensor, dim: int, sizes: Any) -> Tensor:
    dim %= x.ndim
    return ops.reshape(x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))


def permute(x: Tensor, dims: Any) -> Tensor:
    return ops.transpose(x, tuple(dims))


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    axes = list(range(x.ndim))
    if axes:
        axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return ops.transpose(x, tuple(axes))


def matrix_transpose(x: Tensor) -> Tensor:
    return transpose(x, -2, -1)


def split(x: Tensor, sizes: Any, dim: int = 0) -> list[Tensor]:
    return ops.split(x, sizes, dim)


def chunk(x: Tensor, chunks: int, dim: int = 0) -> list[Tensor]:
    n = x.shape[dim]
    size = -(-n // chunks)
    return ops.split(x, [min(size, n - start) for start in range(0, n, size)], dim)


def unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [select(x, dim, i) for i in range(x.shape[dim])]


def getitem(x: Tensor, index: Array) -> Tensor:
    return x[index]


def along(x: Tensor, dim: int, index: Any) -> Tensor:
    """`x[index]` along one axis"""
    return x[(slice(None),) * (dim + x.ndim if dim < 0 else dim) + (index,)]


def select(x: Tensor, dim: int, index: Array) -> Tensor:
    return along(x, dim, index)


def index_select(x: Tensor, dim: int, index: Array) -> Tensor:
    return along(x, dim, index)


def narrow(x: Tensor, dim: int, start: Array, length: int) -> Tensor:
    start = int(start)
    return along(x, dim, slice(start, None if start < 0 and start + length == 0 else start + length))


def slice_(x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Tensor:
    return along(x, dim, slice(start, end, step))


def masked_select(x: Tensor, mask: Array) -> Tensor:
    shape = np.broadcast_shapes(x.shape, mask.shape)
    return ops.broadcast_to(x, shape)[np.broadcast_to(mask, shape)]


def take(x: Tensor, index: Array) -> Tensor:
    return ravel(x)[index]


def gather(x: Tensor, dim: int, index: Array) -> Tensor:
    if x.ndim == 0:
        return x[None][index]
    where = list(np.indices(index.shape))
    where[dim] = index
    return x[tuple(where)]


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    dim = dim + x.ndim + 1 if dim < 0 else dim
    return x[(slice(None),) * dim + (None,)]


def squeeze(x: Tensor, *dim: int) -> Tensor:
    gone = [d % max(x.ndim, 1) for d in dim] or range(x.ndim)
    return ops.reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in gone or n != 1))


def pad(x: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Tensor:
    """PyTorch counts the pairs from the last axis, minidl from the first."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    return ops.pad(x, [(0, 0)] * (x.ndim - len(pairs)) + pairs, 0.0 if value is None else value)


def constant_pad_nd(x: Tensor, pad_: Any, value: float = 0) -> Tensor:
    return pad(x, pad_, "constant", value)


# ---- images


def both(value: Any) -> Any:
    """PyTorch's (3,) is (3, 3)."""
    return value[0] if isinstance(value, tuple | list) and len(value) == 1 else value


def convolution(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def conv2d(
        x: Tensor,
        w: Tensor,
        b: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        if padding == "valid":
            padding = 0
        if padding == "same":
            dilations = dilation if isinstance(dilation, tuple) else (dilation, dilation)
            widths = [d * (k - 1) for d, k in zip(dilations, w.shape[2:], strict=False)]
            if any(width % 2 for width in widths):  # one more on the right
                x = ops.pad(x, [(0, 0)] * (x.ndim - 2) + [(width // 2, width - width // 2) for width in widths])
                widths = [0, 0]
            padding = tuple(width // 2 for width in widths)
        return op(x, w, b, stride=both(stride), padding=both(padding), dilation=both(dilation), groups=groups)

    return conv2d


def max_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The values; the indices are no matter of minidl."""
    if dilation not in (1, (1, 1)):
        raise Missing("max_pool2d(dilation)")
    return ops.max_pool2d(x, both(kernel_size), both(stride) or None, both(padding), ceil_mode)


def avg_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """A divisor of one's own is the mean times the size of the window, and that over the divisor."""
    kernel, stride, padding = both(kernel_size), both(stride) or None, both(padding)
    if divisor_override is None:
        return ops.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad)
    mean = ops.avg_pool2d(x, kernel, stride, padding, ceil_mode)
    sizes = []
    for i, (n, out) in enumerate(zip(x.shape[2:], mean.shape[2:], strict=True)):
        k, s, p = (value if isinstance(value, int) else value[i] for value in (kernel, stride or kernel, padding))
        start = np.arange(out) * s - p
        sizes.append(np.minimum(start + k, n + p) - start)  # the last windows may end at the padding
    return mean * Tensor(np.outer(*sizes).astype(x.dtype)) / divisor_override


def adaptive_avg_pool2d(x: Tensor, output_size: Any) -> Tensor:
    if isinstance(output_size, tuple):
        output_size = tuple(n if n is not None else x.shape[i - 2] for i, n in enumerate(output_size))
    return ops.adaptive_avg_pool2d(x, output_size)


def interpolate(mode: str, align_corners: bool = False) -> Callable[..., Tensor]:
    """`resize`, or for the mode "area" the adaptive pooling that it is; the arguments are PyTorch's defaults."""

    def resize(
        x: Tensor,
        size: Any = None,
        scale_factor: float | None = None,
        mode: str = mode,
        align_corners: bool | None = align_corners,
        recompute_scale_factor: bool | None = None,
        antialias: bool = False,
    ) -> Tensor:
        if antialias:
            raise Missing("interpolate(antialias)")
        if size is None:
            size = tuple(int(n * scale_factor) for n in x.shape[2:])
            exact = all(out == n * scale_factor for n, out in zip(x.shape[2:], size, strict=True))
            if x.ndim == 4 and mode != "area" and not (exact or recompute_scale_factor or align_corners):
                raise Missing("interpolate(scale_factor) that is not the ratio of the sizes")
        size = both(tuple(size) if not isinstance(size, int) else size)
        return ops.adaptive_avg_pool2d(x, size) if mode == "area" else ops.resize(x, size, mode, bool(align_corners))

    return resize


# ---- layers and losses


def batch_norm(train: Callable[..., Tensor], frozen: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def norm(
        x: Tensor,
        running_mean: Array | None,
        running_var: Array | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        C = x.shape[1:2]
        gamma = Tensor(np.ones(C, x.dtype)) if weight is None else weight
        beta = Tensor(np.zeros(C, x.dtype)) if bias is None else bias
        if training:
            return train(x, gamma, beta, eps=eps)
        return frozen(x, gamma, beta, running_mean, running_var, eps=eps)

    return norm


def native_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Array | None,
    running_var: Array | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    norm = batch_norm(ops.batch_norm, ops.batch_norm_frozen)
    return norm(x, running_mean, running_var, weight, bias, training, momentum, eps)


def reduced(losses: Tensor, reduction: str) -> Tensor:
    return {"none": lambda y: y, "sum": ops.sum, "mean": ops.mean}[reduction](losses)


def mse_loss(y: Tensor, target: Array, size_average: None = None, reduce: None = None, reduction: str = "mean") -> Tensor:
    mean = ops.mse(y, target)
    return {"mean": mean, "sum": mean * y.size, "none": (y - target) ** 2}[reduction]


def binary_cross_entropy_with_logits(
    z: Tensor,
    target: Array,
    weight: Array | None = None,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Tensor:
    """The op for what it can do; weights by the formula w ((1 - t) z + (1 + (p - 1) t) softplus(-z))."""
    if weight is None and pos_weight is None and reduction != "none":
        mean = ops.binary_cross_entropy_with_logits(z, target)
        return mean if reduction == "mean" else mean * z.size
    p = np.ones_like(target) if pos_weight is None else pos_weight
    losses = (1 - target) * z + (1 + (p - 1) * target) * ops.softplus(-z)
    return reduced(losses if weight is None else losses * weight, reduction)


def cross_entropy(
    z: Tensor,
    target: Array,
    weight: Array | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """The op for means and sums over labels, pixel by pixel; single losses and probabilities by the formula -t log p."""
    if z.ndim < 2:
        return ops.cross_entropy(z, target, weight, label_smoothing)
    pixels, C, last = z.shape[:1] + z.shape[2:], z.shape[1], (0, *range(2, z.ndim), 1)
    z = z if z.ndim == 2 else ops.reshape(ops.transpose(z, last), (-1, C))  # (N,C,...) -> (N ...,C)
    kept = np.ones(len(z), bool)
    if target.dtype.kind == "f":
        if ignore_index >= 0:
            raise Missing("cross_entropy(ignore_index) with probabilities")
        target = target.transpose(last).reshape(-1, C)
    else:
        target = target.reshape(-1)
        kept = target != ignore_index
        if reduction != "none":
            z, target = (z, target) if kept.all() else (z[kept], target[kept])
            mean = ops.cross_entropy(z, target, weight, label_smoothing)
            return mean if reduction == "mean" else mean * float(len(target) if weight is None else weight[target].sum())
        target = np.eye(C)[np.where(kept, target, 0)]
    target = ((1 - label_smoothing) * target + label_smoothing / C) * (1 if weight is None else weight) * kept[:, None]
    losses = ops.reshape(-ops.sum(ops.log_softmax(z) * target.astype(z.dtype), 1), pixels)
    return reduced(losses, reduction)


# ---- the table

ARITHMETIC: dict[str, tuple[str, Callable[..., Any]]] = {
    "add": ("add", add),
    "sub": ("sub", sub),
    "rsub": ("sub", rsub),
    "mul": ("mul", lambda a, b: a * b),
    "div/no_rounding_mode": ("div", div),
    "true_divide": ("div", div),
    "reciprocal": ("div", lambda x: 1 / x),
    "__radd__": ("add", lambda a, b: b + a),
    "__rsub__": ("sub", lambda a, b: b - a),
    "__rmul__": ("mul", lambda a, b: b * a),
    "__rdiv__": ("div", lambda a, b: b / a),
    "__rpow__": ("pow", lambda a, b: b**a),
    "neg": ("neg", lambda x: -x),
    "pow": ("pow", lambda x, exponent: x**exponent),
    "float_power": ("pow", float_power),
    "square": ("pow", lambda x: x**2),
    "rsqrt": ("div sqrt", lambda x: 1 / ops.sqrt(x)),
    "matmul": ("matmul", matmul),
    "__rmatmul__": ("matmul", lambda a, b: b @ a),
    "mm": ("matmul", ops.matmul),
    "bmm": ("matmul", ops.matmul),
    "addmm": ("matmul", addmm),
    "linalg.multi_dot": ("matmul", multi_dot),
}

ELEMENTWISE: dict[str, tuple[str, Callable[..., Any]]] = {
    "abs": ("abs", ops.abs),
    "exp": ("exp", ops.exp),
    "log": ("log", ops.log),
    "sqrt": ("sqrt", ops.sqrt),
    "tanh": ("tanh", ops.tanh),
    "sigmoid": ("sigmoid", ops.sigmoid),
    "nn.functional.relu": ("relu", lambda x, inplace=False: ops.relu(x)),
    "nn.functional.leaky_relu": ("leaky_relu", lambda x, negative_slope=0.01: ops.leaky_relu(x, negative_slope)),
    "nn.functional.gelu": ("gelu", gelu),
    "nn.functional.softplus": ("softplus", softplus),
    "clamp": ("clip maximum", clamp),
    "clamp_min": ("maximum", lambda x, min: ops.maximum(x, min)),
    "clamp_max": ("maximum", minimum),
    "nn.functional.hardtanh": ("clip", hardtanh),
    "nn.functional.relu6": ("clip", relu6),
    "maximum": ("maximum", ops.maximum),
    "max/binary": ("maximum", ops.maximum),
    "where": ("where", where),
    "nn.functional.dropout": ("dropout", dropout),
    "to": ("to", to),
    "float": ("to", to_dtype(np.float32)),
    "double": ("to", to_dtype(np.float64)),
    "half": ("to", to_dtype(np.float16)),
}

REDUCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "sum": ("sum", reduction(ops.sum)),
    "mean": ("mean", reduction(ops.mean)),
    "amax": ("max", reduction(ops.max)),
    "max/reduction_no_dim": ("max", reduction(ops.max)),
    "max/reduction_with_dim": ("max", reduction(ops.max)),
    "var": ("var", var),
    "var/unbiased": ("var", var),
    "var_mean": ("var mean", var_mean),
    "var_mean/unbiased": ("var mean", var_mean),
    "logsumexp": ("logsumexp", reduction(ops.logsumexp)),
    "softmax": ("softmax", softmax(ops.softmax)),
    "softmax/with_dtype": ("softmax", softmax(ops.softmax)),
    "nn.functional.softmin": ("softmax", softmax(lambda x, dim: ops.softmax(-x, dim))),
    "nn.functional.softmin/with_dtype": ("softmax", softmax(lambda x, dim: ops.softmax(-x, dim))),
    "log_softmax": ("log_softmax", softmax(ops.log_softmax)),
    "log_softmax/with_dtype": ("log_softmax", softmax(ops.log_softmax)),
}

MOVES: dict[str, tuple[str, Callable[..., Any]]] = {
    "cat": ("concat", cat),
    "stack": ("concat getitem", stack),
    "hstack": ("concat", hstack),
    "vstack": ("concat", vstack),
    "column_stack": ("concat", column_stack),
    "broadcast_to": ("broadcast_to", ops.broadcast_to),
    "expand": ("broadcast_to", expand),
    "expand_copy": ("broadcast_to", expand),
    "expand_as": ("broadcast_to", expand_as),
    "flip": ("flip", flip),
    "fliplr": ("flip", fliplr),
    "flipud": ("flip", flipud),
    "reshape": ("reshape", reshape),
    "view": ("reshape", reshape),
    "reshape_as": ("reshape", reshape_as),
    "view_as": ("reshape", reshape_as),
    "flatten": ("flatten reshape", flatten),
    "ravel": ("reshape", ravel),
    "unflatten": ("reshape", unflatten),
    "squeeze": ("reshape", squeeze),
    "permute": ("transpose", permute),
    "transpose": ("transpose", transpose),
    "t": ("transpose", lambda x: ops.transpose(x)),
    "T": ("transpose", lambda x: ops.transpose(x)),
    "mT": ("transpose", matrix_transpose),
    "split": ("split", split),
    "split/list_args": ("split", split),
    "split_with_sizes": ("split", split),
    "chunk": ("split", chunk),
    "unbind": ("getitem", unbind),
    "__getitem__": ("getitem", getitem),
    "select": ("getitem", select),
    "index_select": ("getitem", index_select),
    "narrow": ("getitem", narrow),
    "slice": ("getitem", slice_),
    "masked_select": ("getitem", masked_select),
    "take": ("getitem", take),
    "gather": ("getitem", gather),
    "unsqueeze": ("getitem", unsqueeze),
    "constant_pad_nd": ("pad", constant_pad_nd),
    "nn.functional.pad/constant": ("pad", pad),
}

LAYERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "nn.functional.linear": ("linear", ops.linear),
    "nn.functional.conv2d": ("conv2d", convolution(ops.conv2d)),
    "nn.functional.conv2d then relu": ("conv2d_relu", convolution(ops.conv2d_relu)),
    "nn.functional.max_pool2d": ("max_pool2d", max_pool2d),
    "nn.functional.avg_pool2d": ("avg_pool2d", avg_pool2d),
    "nn.functional.adaptive_avg_pool2d": ("adaptive_avg_pool2d", adaptive_avg_pool2d),
    "nn.functional.interpolate/area": ("adaptive_avg_pool2d", interpolate("area")),
    "nn.functional.interpolate/bilinear": ("resize", interpolate("bilinear")),
    "nn.functional.interpolate/nearest": ("resize", interpolate("nearest")),
    "nn.functional.upsample_bilinear": ("resize", interpolate("bilinear", align_corners=True)),
    "nn.functional.upsample_nearest": ("resize", interpolate("nearest")),
    "nn.functional.batch_norm": ("batch_norm batch_norm_frozen", batch_norm(ops.batch_norm, ops.batch_norm_frozen)),
    "nn.functional.batch_norm/without_cudnn": (
        "batch_norm batch_norm_frozen",
        batch_norm(ops.batch_norm, ops.batch_norm_frozen),
    ),
    "nn.functional.batch_norm then relu": (
        "batch_norm_relu batch_norm_frozen_relu",
        batch_norm(ops.batch_norm_relu, ops.batch_norm_frozen_relu),
    ),
    "nn.functional.group_norm": ("group_norm", ops.group_norm),
    "native_batch_norm": ("batch_norm batch_norm_frozen", native_batch_norm),
    "nn.functional.mse_loss": ("mse", mse_loss),
    "nn.functional.binary_cross_entropy_with_logits": (
        "binary_cross_entropy_with_logits",
        binary_cross_entropy_with_logits,
    ),
    "nn.functional.cross_entropy": ("cross_entropy", cross_entropy),
}

SUMS = REDUCTIONS.keys() | LAYERS.keys() | {name for name, (covers, _) in ARITHMETIC.items() if covers == "matmul"}
ADAPTERS = ARITHMETIC | ELEMENTWISE | REDUCTIONS | MOVES | LAYERS
OPERATORS = {"add", "sub", "mul", "div", "neg", "pow", "to"}  # of Tensor, beside the ops


def constants(adapter: Callable[..., Any]) -> set[str]:
    """The names of the arguments that come as arrays."""
    return {name for name, p in inspect.signature(adapter).parameters.items() if str(p.annotation).startswith("Array")}

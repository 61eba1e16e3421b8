"""Calls of every kernel, drawn by families: the degenerate first, since that is what a short cut takes for granted.

A family draws one geometry and gives the calls of all the kernels that belong to it. `agree` compares a call of one set of
kernels with the same call of the reference. Tests draw a few in each run, always the same; guarded.py draws fresh ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from minidl.array import sum_type
from minidl.kernels import halves, reference
from minidl.kernels.compiled import columns, direct_plan, winograd, winograd_plan
from minidl.kernels.compiled.tiles import ROWS
from minidl.kernels.shapes import Pair, conv_size
from minidl.ops.resize import MATRICES


class Call(NamedTuple):
    """A kernel's name, its arguments, and by how many eps of what its results may differ."""

    name: str
    args: list[Any]
    scale: Any = None  # one number a result, or one for all; None: the reference's results with all terms positive
    limits: dict[str, Any] = {}  # constants of minidl.kernels.compiled to set before: {"winograd.SMALLEST": 1}  # noqa: RUF012

    def __repr__(self) -> str:
        limits = "".join(f", {name} = {value}" for name, value in self.limits.items())
        return f"{self.name}({', '.join(_in_words(a) for a in self.args)}){limits}"


def _in_words(a: Any) -> str:
    if not isinstance(a, np.ndarray):
        return repr(a)
    return f"{a.dtype}{list(a.shape)}" + ("" if a.flags.c_contiguous else f" strides {a.strides}")


# ---- drawing


def _contiguous(x: np.ndarray) -> np.ndarray:
    return x


def _strided(x: np.ndarray) -> np.ndarray:
    wide = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    every_other = wide[(slice(None, None, 2),) * x.ndim]
    every_other[...] = x
    return every_other


def _reversed(x: np.ndarray) -> np.ndarray:
    return np.flip(np.flip(x).copy())


def _broadcast(x: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x[:1], x.shape)


LAYOUTS = (_contiguous, _strided, _reversed, np.asfortranarray, _broadcast)


class Draw:
    """Draws numbers, and arrays of one dtype, of random values and layouts. All of it goes through `pick`."""

    def __init__(self, data: st.DataObject, dtypes: Sequence[type] = (np.float32, np.float64), small: bool = False) -> None:
        self.data, self.small = data, small  # small: for a simulated GPU, which is slow
        self.dtype = self.pick(st.sampled_from(dtypes))
        self.rng = np.random.default_rng(self.pick(st.integers(0, 2**32 - 1)))
        self.eps = float(np.finfo(self.dtype).eps)

    def pick(self, strategy: st.SearchStrategy[Any]) -> Any:
        return self.data.draw(strategy)

    def int(self, low: int, high: int) -> int:
        return int(self.pick(st.integers(low, high)))

    def bool(self) -> bool:
        return bool(self.pick(st.booleans()))

    def of(self, *values: Any) -> Any:
        return self.pick(st.sampled_from(values))

    def size(self, most: int, least: int = 1) -> int:
        """From `least` to `most`: in a third of the draws the least, and mostly a few more"""
        most = max(least, min(most, 7) if self.small else most)
        few = min(most, least + 7)
        return int(self.pick(st.one_of(st.just(least), st.integers(least, few), st.integers(least, most))))

    def sizes(self, most: int) -> Pair:
        return self.size(most), self.size(most)

    def values(self, shape: Sequence[int]) -> np.ndarray:
        return np.asarray(self.rng.standard_normal(shape).astype(self.dtype))

    def array(self, shape: Sequence[int]) -> np.ndarray:
        """In any layout of memory"""
        return np.asarray(self.of(*LAYOUTS)(self.values(shape)) if len(shape) else self.values(shape))

    def vector(self, size: int) -> np.ndarray:
        """One number a channel, in the type in which the arrays are added up"""
        return np.asarray(self.of(*LAYOUTS)(self.rng.standard_normal(size).astype(sum_type(np.dtype(self.dtype)))))

    def batch(self) -> np.ndarray:
        """(N,C), (N,C,L) or (N,C,H,W)"""
        return self.array((self.size(5), self.size(20), *(self.size(20) for _ in range(self.of(0, 1, 2)))))

    def special(self, shape: Sequence[int]) -> np.ndarray:
        """With zeros of both signs, NaN and infinities"""
        x = self.values(shape)
        strange = np.array([0, -0.0, np.nan, np.inf, -np.inf, 1e-4], self.dtype)
        x[self.rng.random(shape) < 0.3] = self.rng.choice(strange)
        return x


Family = Callable[[Draw], list[Call]]


# ---- products


def matmuls(draw: Draw) -> list[Call]:
    """Of matrices in any layout, whose leading axes broadcast"""
    rows, inner, columns = (draw.size(40) for _ in range(3))
    lead = draw.of(((), ()), ((3,), (3,)), ((2, 1), (3,)), ((), (2,)))
    a, b = (draw.array((*axes, *shape)) for axes, shape in zip(lead, ((rows, inner), (inner, columns)), strict=True))
    return [Call("matmul", [a, b])]


# ---- convolution


def _geometry(draw: Draw, kernel_size: Pair, dilation: Pair, padding: Pair, most: int) -> tuple[int, ...]:
    """Height and width for at least one window; in a third of the draws the kernel is as large as the padded image"""
    least = (max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel_size, dilation, padding, strict=True))
    return tuple(draw.size(max(most, n), n) for n in least)


def _all_passes(
    draw: Draw, shape: tuple[int, ...], w_shape: tuple[int, ...], bias: bool, geometry: Any, limits: dict[str, Any]
) -> list[Call]:
    x, w = draw.array(shape), draw.array(w_shape)
    b = draw.vector(w_shape[0]).astype(sum_type(np.dtype(draw.dtype))) if bias else None
    stride, padding, dilation, _ = geometry
    out = [conv_size(*a) for a in zip(shape[2:], w_shape[2:], stride, padding, dilation, strict=True)]
    gy = draw.array((shape[0], w_shape[0], *out))
    return [
        Call("conv2d", [x, w, b, *geometry], limits=limits),
        Call("conv2d_grad_x", [gy, w, shape, *geometry], limits=limits),
        Call("conv2d_grad_w", [gy, x, w_shape, *geometry], limits=limits),
    ]


SCRATCH = {"direct_plan.SCRATCH": 4096, "winograd_plan.SCRATCH": 4096}  # images are then cut into many bands


def convolution(draw: Draw) -> list[Call]:
    """Of any kind, by the kernels that serve it; strides and paddings may exceed the kernel"""
    groups = draw.of(1, 1, 2, 3)
    one_channel = groups > 1 and draw.bool()
    N, C, F = draw.size(5), 1 if one_channel else draw.size(20 // groups), draw.size(20 // groups)  # C, F of one group
    kernel_size = draw.sizes(3 if draw.small else 7)
    stride = draw.int(1, min(3, kernel_size[0] + 2)), draw.int(1, kernel_size[1] + 2)
    dilation = draw.sizes(3)
    padding = draw.int(0, kernel_size[0] + 2), draw.int(0, kernel_size[1] + 2)
    H, W = _geometry(draw, kernel_size, dilation, padding, 40)
    geometry = stride, padding, dilation, groups
    limits = SCRATCH if draw.bool() else {}
    return _all_passes(draw, (N, C * groups, H, W), (F * groups, C, *kernel_size), draw.bool(), geometry, limits)


def convolution_by_winograd(draw: Draw) -> list[Call]:
    """Of 3x3, also where `winograd` would not pay"""
    (N, C, F), padding = (draw.size(most) for most in (9, 40, 40)), (draw.int(0, 4), draw.int(0, 4))
    H, W = _geometry(draw, (3, 3), (1, 1), padding, 40)
    limits = {"winograd.SMALLEST": 1, "winograd.FEWEST": 1, "winograd.CHANNELS": (1, 40)}
    limits |= {"winograd.CHANNELS_CORRELATION": (1, 40)} | (SCRATCH if draw.bool() else {})
    limits |= {"direct.convolve": None} if max(padding) <= 2 else {}  # which would raise
    return _all_passes(draw, (N, C, H, W), (F, C, 3, 3), draw.bool(), ((1, 1), padding, (1, 1), 1), limits)


def convolution_of_few_pixels(draw: Draw) -> list[Call]:
    """By `columns`, also where it would not pay"""
    kernel_size, dilation = (draw.int(1, 3), draw.int(1, 3)), draw.sizes(2)
    stride, padding = (draw.int(1, 4), draw.int(1, 4)), (draw.int(0, 4), draw.int(0, 4))
    H, W = _geometry(draw, kernel_size, dilation, padding, 9)
    N, F = draw.size(5), ROWS * draw.size(4)
    C = columns._channels(kernel_size[0] * kernel_size[1], 4) * draw.size(2)  # those of float64 are half as many
    limits = {"columns.MOST": 10**6, "columns.MOST_CORRELATION": 10**6, "columns.LEAST": 1}
    limits |= {"direct.convolve": None, "direct.correlate": None}
    return _all_passes(draw, (N, C, H, W), (F, C, *kernel_size), draw.bool(), (stride, padding, dilation, 1), limits)


def convolution_3x3(F: int) -> Family:
    """What the CUDA kernels without columns serve: stride 1, images of some size, F features"""

    def family(draw: Draw) -> list[Call]:
        (N, C), padding, out = draw.sizes(3), (draw.int(0, 2), draw.int(0, 2)), (draw.int(5, 9), draw.int(5, 9))
        H, W = (size - 2 * p + 2 for size, p in zip(out, padding, strict=True))
        return _all_passes(draw, (N, C, H, W), (F, C, 3, 3), False, ((1, 1), padding, (1, 1), 1), {})

    family.__name__ = f"convolution_3x3 to {F}"
    return family


# ---- pooling


def pooling(draw: Draw) -> list[Call]:
    """Also of equal values, NaN and infinities, and of nothing but -inf, which is what the padding holds"""
    kernel_size = draw.sizes(4 if draw.small else 7)
    stride = draw.int(1, kernel_size[0] + 2), draw.int(1, kernel_size[1] + 2)
    padding = draw.int(0, kernel_size[0] // 2), draw.int(0, kernel_size[1] // 2)
    H, W = _geometry(draw, kernel_size, (1, 1), padding, 40)
    out = []
    for size, k, s, p in zip((H, W), kernel_size, stride, padding, strict=True):
        o = conv_size(size, k, s, p)
        out.append(o + 1 if draw.bool() and o * s < size + p else o)  # as ceil_mode may
    shape, window = (draw.size(5), draw.size(20), H, W), (kernel_size, stride, padding)
    x = draw.array(shape)
    x = np.round(x) if draw.bool() else x  # ties
    _, argmax = reference.max_pool2d(x, *window, tuple(out))
    gy, with_pad = draw.array(argmax.shape), draw.bool()
    strange = draw.of(x, np.resize(draw.special((7,)), shape), np.full(shape, -np.inf, draw.dtype))
    return [
        Call("max_pool2d", [strange, *window, tuple(out)], scale=0),
        Call("max_pool2d_grad", [gy, argmax, shape, *window]),
        Call("avg_pool2d", [x, *window, tuple(out), with_pad]),
        Call("avg_pool2d_grad", [gy, shape, *window, with_pad]),
    ]


# ---- batch normalisation, element by element


def channels(draw: Draw) -> list[Call]:
    x = draw.batch()
    r = draw.array(x.shape) if draw.bool() else None
    gy, scale, shift = draw.array(x.shape), draw.vector(x.shape[1]), draw.vector(x.shape[1])
    return [
        Call("channel_affine", [x, scale, shift]),
        Call("channel_affine_relu", [x, r, scale, shift]),
        Call("channel_affine_relu_grad", [gy, x, scale]),
        Call("channel_sums", [gy, x, scale], reference.channel_sums(abs(gy), abs(x), -abs(scale))),  # sum |g| (|x| + |mean|)
    ]


def elements(draw: Draw) -> list[Call]:
    """Exact to the bit; large ones are cut into several pieces"""
    large = ((2**15,), (2**15 + 1,), (3, 30_001), (9, 4, 33, 35))
    ndim = draw.of(0, 1, 2, 3, 4)
    shape = draw.of(*large) if not draw.small and draw.int(0, 9) == 0 else tuple(draw.size(12) for _ in range(ndim))
    layout = draw.of(*LAYOUTS) if shape else _contiguous
    x, gy = layout(draw.special(shape)), layout(draw.special(shape))
    finite = draw.array(shape), draw.array(shape)
    return [
        Call("add", list(finite), scale=0),
        Call("relu", [x], scale=0),
        Call("relu_grad", [gy, np.maximum(x, 0)], scale=0),
        Call("rectify", [draw.special(shape), None], scale=0),
        Call("rectify", [draw.values(shape), finite[0]], scale=0),
    ]


def norm(draw: Draw) -> list[Call]:
    """Also of one value a channel; 64 eps of the slope gamma / std, since x_hat may be large"""
    x, eps = (draw.batch() + draw.int(0, 3)).astype(draw.dtype), 1e-3
    gy, gamma, beta = draw.array(x.shape), draw.vector(x.shape[1]), draw.vector(x.shape[1])
    r, residual = draw.array(x.shape) if draw.bool() else None, draw.bool()
    y, mean, var = plain(x).batch_norm_relu(x, r, gamma, beta, eps)
    size, root = np.abs(x.astype(np.float64)).max() + 1, np.sqrt(var + eps)
    slope = (np.abs(gamma).max() + 1) / root.min()
    largest = 1 + 2 * size / root.min()  # of x_hat and of its error in eps
    total = np.abs(gy).sum(axis=(0, *range(2, x.ndim))).max()
    of_y, of_gx = (slope * size + 5, size, size**2), slope * np.abs(gy).max() * largest**2
    of_gamma = total * largest, total
    return [
        Call("batch_norm", [x, gamma, beta, eps], of_y),
        Call("batch_norm_grad", [gy, x, gamma, mean, var, eps], (of_gx, *of_gamma)),
        Call("batch_norm_relu", [x, r, gamma, beta, eps], of_y),
        Call("batch_norm_relu_grad", [gy, y, x, gamma, mean, var, eps, residual], (of_gx, 1, *of_gamma)),
    ]


def group_norm(draw: Draw) -> list[Call]:
    """Also of one value a group; scales as in `norm`"""
    groups, eps = draw.size(6), 1e-3
    shape = draw.size(5), groups * draw.size(6), *(draw.size(20) for _ in range(draw.of(0, 1, 2, 3)))
    x = (draw.array(shape) + draw.int(0, 3)).astype(draw.dtype)
    gy, gamma, beta = draw.array(shape), draw.vector(shape[1]), draw.vector(shape[1])
    _, mean, var = plain(x).group_norm(x, groups, gamma, beta, eps)
    size, root = np.abs(x.astype(np.float64)).max() + 1, np.sqrt(var + eps)
    slope = (np.abs(gamma).max() + 1) / root.min()
    largest = 1 + 2 * size / root.min()
    total = np.abs(gy).sum(axis=(0, *range(2, x.ndim))).max()
    return [
        Call("group_norm", [x, groups, gamma, beta, eps], (slope * size + 5, size, size**2)),
        Call(
            "group_norm_grad",
            [gy, x, gamma, mean, var, eps],
            (slope * np.abs(gy).max() * largest**2, total * largest, total),
        ),
    ]


def line(draw: Draw) -> list[Call]:
    C = draw.size(9)
    mean, gamma, beta, scale, sum_g, sum_gd, inv_std = (draw.vector(C) for _ in range(7))
    return [
        Call("norm_line", [mean, abs(draw.vector(C)), gamma, beta, 1e-2]),
        Call("norm_line_grad", [sum_g, sum_gd, scale, inv_std, draw.int(2, 100)]),
        Call("weighted_sum", [mean, 0.9, beta, 0.1]),
    ]


# ---- dense blocks, the loss, dropout, updates, resizing


def _dense(draw: Draw, kernel_sizes: tuple[int, ...], limits: dict[str, Any]) -> list[Call]:
    """In place, on some of the channels of contiguous arrays; the other channels stay as they are"""
    N, C, F, k = draw.size(6), draw.size(20), draw.size(13), draw.of(*kernel_sizes)
    first, H, W = C + draw.int(0, 3), draw.size(36), draw.size(36)
    X, GY, GX = (draw.values((N, first + F + draw.int(0, 2), H, W)) for _ in range(3))
    scale, shift, mean = (draw.vector(C) for _ in range(3))
    w, padding, add, need_w = draw.array((F, C, k, k)), (k // 2, k // 2), draw.bool(), draw.bool()
    line_from = draw.int(0, first + F - C)
    gradient = [GY, first, X, scale, shift, mean, w, padding, GX, add, need_w]
    positive = [abs(a) if isinstance(a, np.ndarray) else a for a in gradient]
    positive[5] = -abs(mean)  # then all terms of sum g (x - mean) are
    sums = _run(plain(X), Call("affine_relu_conv_grad", positive))[0]
    middle = draw.vector(F)
    moments = _run(plain(X), Call("channel_moments", [abs(X), first, -abs(middle)]))[0]
    return [
        Call("channel_statistics", [X, first, F], 4),
        Call("channel_moments", [X, first, middle], tuple(1 + np.max(s) for s in moments)),
        Call("affine_relu_conv", [X, scale, shift, w, padding, GX, first], limits=limits),
        Call("affine_relu_conv_grad", gradient, tuple(0 if s is None else 1 + np.max(s) for s in sums), limits),
        Call("subtract_line", [GX, X, line_from, mean, scale, shift], limits=limits),
    ]


def dense_block(draw: Draw) -> list[Call]:
    return _dense(draw, (1, 3) if draw.small else (1, 3, 5), SCRATCH if draw.bool() else {})


def dense_block_by_winograd(draw: Draw) -> list[Call]:
    """Also where it would not pay"""
    limits = {"winograd.SMALLEST": 1, "winograd.FEWEST": 1, "winograd.CHANNELS_DENSE": (1, 40), "dense.MANY": 1}
    limits |= {"direct.convolve": None, "direct.convolve_gated": None, "direct.correlate": None} | (
        SCRATCH if draw.bool() else {}
    )
    return _dense(draw, (3,), limits)


def loss(draw: Draw) -> list[Call]:
    """Also of logits so large that their exponentials are not, of -inf, and of so many rows that they are cut into pieces"""
    N, K, far, smoothing = draw.size(900), draw.size(40), draw.of(1, 1000), draw.of(0.0, 0.1)
    far = 1 if draw.dtype == np.float16 or draw.small else far
    z, labels, v = draw.array((N, K)) * draw.dtype(far), draw.rng.integers(0, K, N), abs(draw.array((K,)))
    if not draw.small and draw.bool():  # of which simulated threads would warn
        z[draw.rng.random(z.shape) < 0.2] = -np.inf
    return [Call("softmax_cross_entropy", [z, labels, v, smoothing], (10 * far * K, v.sum()))]


def random(draw: Draw) -> list[Call]:
    """The same elements in both sets of kernels, and in every layout"""
    shape = (3, 30_001) if not draw.small and draw.int(0, 9) == 0 else draw.of((1,), (7, 5), (3, 2, 2, 3))
    return [Call("dropout", [draw.array(shape), draw.of(0.0, 0.3, 0.9), draw.int(0, 2**63 - 1)], 0)]


def updates(draw: Draw) -> list[Call]:
    large = ((2**15,), (2**15 + 1,), (3, 30_001))
    shape = tuple(draw.size(6) for _ in range(draw.of(0, 1, 2, 4)))
    shape = draw.of(*large) if not draw.small and draw.int(0, 9) == 0 else shape
    p, m, v, g = draw.values(shape), draw.values(shape), abs(draw.values(shape)), draw.array(shape)
    return [
        Call("sgd_update", [p, g, m, 0.1, 0.9, draw.bool(), 5e-4]),
        Call("adamw_update", [p, g, m, v, draw.int(1, 10_000), 1e-2, (0.9, 0.999), 1e-8, 0.1], 1),
    ]


def resize(draw: Draw) -> list[Call]:
    """Of an op, with rows of zeros where the image gets smaller and this is its gradient; or any other"""
    (H, W), (OH, OW) = draw.sizes(9), draw.sizes(9)
    kind = draw.of("nearest", "bilinear", "bilinear, corners aligned", "adaptive average")
    A, B = (MATRICES[kind](*sizes).astype(draw.dtype) for sizes in ((H, OH), (W, OW)))
    A, B = (A.T, B.T) if draw.bool() else (A, B)
    return [Call("rows_and_columns", [draw.array((draw.size(3), draw.size(3), A.shape[1], B.shape[1])), A, B])]


FAMILIES: tuple[Family, ...] = (
    matmuls,
    convolution,
    convolution_by_winograd,
    convolution_of_few_pixels,
    pooling,
    channels,
    elements,
    norm,
    group_norm,
    line,
    dense_block,
    dense_block_by_winograd,
    loss,
    random,
    updates,
    resize,
)


# ---- comparing


def plain(x: np.ndarray) -> ModuleType:
    """The kernels to compare with, for arrays of the type of x"""
    return halves if x.dtype == np.float16 else reference


@contextmanager
def limits_of(call: Call) -> Iterator[None]:
    """The constants of the call are set, and no plan was made with others"""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in call.limits.items():
            patch.setattr(f"minidl.kernels.compiled.{name}", value)
        _forget_plans()
        yield
    _forget_plans()


def _forget_plans() -> None:
    for plans in (direct_plan.forward_plan, direct_plan.grad_x_plan, winograd_plan.plan, winograd.pays, columns.pays):
        plans.cache_clear()


def agree(call: Call, kernels: ModuleType, eps: float, within: int = 64) -> None:
    """Up to `within` eps of the call's scale the kernel gives what the reference gives, twice the same, and changes the same.

    The two runs need not get their memory alike: see guarded.py.
    """
    try:
        want, changed = _run(plain(call.args[0]), call)
        with limits_of(call):
            (got, mine), (again, theirs) = _run(kernels, call), _run(kernels, call)
        for g, w, scale in zip(got, want, _scales(call, want), strict=True):
            if w is None:
                assert g is None
            else:
                assert (g.shape, g.dtype) == (w.shape, w.dtype), f"{g.dtype}{g.shape}, the reference {w.dtype}{w.shape}"
                _close(g, w, eps * within, scale)
        for a, b, before in zip(mine, changed, call.args, strict=True):
            if isinstance(b, np.ndarray) and not np.array_equal(b, before, equal_nan=b.dtype.kind == "f"):
                largest = float(np.max(np.abs(b), initial=0, where=np.isfinite(b)))
                _close(a, b, eps * within, 4 * (1 + largest) * (call.scale != 0))
            elif isinstance(b, np.ndarray):
                np.testing.assert_array_equal(a, before, err_msg="an argument was changed")
        for one, other in zip([*got, *mine], [*again, *theirs], strict=True):
            np.testing.assert_array_equal(one, other, err_msg="a second call gave other bits")
    except Exception as error:
        raise AssertionError(f"{call!r}: {error}") from error


def _close(got: np.ndarray, want: np.ndarray, eps: float, scale: float) -> None:
    np.testing.assert_allclose(got, want, rtol=eps if scale else 0, atol=eps * scale)


def _run(kernels: ModuleType, call: Call) -> tuple[list[Any], list[Any]]:
    """Results, and the arguments afterwards, which keep their layout of memory"""
    args = [np.copy(a, order="K") if isinstance(a, np.ndarray) and a.flags.writeable else a for a in call.args]
    args = [a if not isinstance(a, np.ndarray) or a.strides == b.strides else b for a, b in zip(args, call.args, strict=True)]
    with np.errstate(all="ignore"):
        result = getattr(kernels, call.name)(*args)
    return list(result) if isinstance(result, tuple) else [] if result is None else [result], args


def _scales(call: Call, want: list[Any]) -> list[float]:
    if call.scale is None:
        positive = call._replace(args=[abs(a) if isinstance(a, np.ndarray) else a for a in call.args])
        return [float(np.max(s, initial=0)) for s in _run(reference, positive)[0]]
    return [float(np.max(s)) for s in call.scale] if isinstance(call.scale, tuple) else [float(call.scale)] * len(want)

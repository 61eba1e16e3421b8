"""The compiled kernels against the reference text: the same names, signatures and, within rounding, results."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl.array import sum_type
from minidl.kernels import compiled, reference
from minidl.kernels.compiled import columns, dense, direct, winograd
from minidl.kernels.compiled.tiles import ROWS

KERNELS = (
    "conv2d",
    "conv2d_grad_x",
    "conv2d_grad_w",
    "max_pool2d",
    "max_pool2d_grad",
    "avg_pool2d",
    "avg_pool2d_grad",
    "batch_norm",
    "batch_norm_grad",
    "batch_norm_relu",
    "batch_norm_relu_grad",
    "channel_affine",
    "channel_affine_relu",
    "channel_affine_relu_grad",
    "channel_sums",
    "norm_line",
    "norm_line_grad",
    "weighted_sum",
    "channel_statistics",
    "affine_relu_conv",
    "affine_relu_conv_grad",
    "subtract_line",
    "add",
    "relu",
    "relu_grad",
    "rectify",
    "rows_and_columns",
    "softmax_cross_entropy",
    "dropout",
    "sgd_update",
    "adamw_update",
)
HELPERS = ("windows", "fold", "conv_size", "array_module", "philox", "threshold")  # what reference has besides

dtypes = st.sampled_from((np.float32, np.float64))


def test_same_names() -> None:
    functions = {name for name, value in vars(reference).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert functions - set(HELPERS) == set(KERNELS) == set(compiled.__all__)


@pytest.mark.parametrize("name", KERNELS)
def test_same_signatures_and_a_formula_each(name: str) -> None:
    ours, theirs = getattr(compiled, name), getattr(reference, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    for kernel in (ours, theirs):
        assert kernel.__doc__ and any(sign in kernel.__doc__ for sign in ("=", "<-", "sum"))


# ---- arrays that are drawn, in any layout of memory


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


layouts = st.sampled_from((_contiguous, _strided, _reversed, np.asfortranarray, _broadcast))


class Draw:
    """Draws arrays of one dtype, of random values and layouts."""

    def __init__(self, data: st.DataObject, dtypes: st.SearchStrategy[type] = dtypes) -> None:
        self.data, self.dtype = data, data.draw(dtypes)
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        self.eps = float(np.finfo(self.dtype).eps)

    def array(self, shape: Sequence[int]) -> np.ndarray:
        return self.data.draw(layouts)(self.rng.standard_normal(shape).astype(self.dtype))

    def vector(self, size: int) -> np.ndarray:
        """One number a channel, in the type in which the arrays are added up"""
        return self.data.draw(layouts)(self.rng.standard_normal(size).astype(sum_type(np.dtype(self.dtype))))

    def int(self, low: int, high: int) -> int:
        return self.data.draw(st.integers(low, high))

    def pair(self, low: int, high: int) -> tuple[int, int]:
        return self.int(low, high), self.int(low, high)

    def batch(self) -> np.ndarray:
        """(N,C), (N,C,L) or (N,C,H,W), at least two values a channel"""
        rest = self.data.draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=20))
        return self.array((self.int(2, 5), self.int(1, 20), *rest))


def _agree(name: str, *args: Any, scale: Any = None, eps: float) -> None:
    """The kernel gives what the reference gives, up to 64 eps of `scale`: by default the reference with all terms positive."""
    frozen = [_copy(a) for a in args]
    want, got = _results(reference, name, args), _results(compiled, name, args)
    for a, before in zip(args, frozen, strict=True):
        np.testing.assert_array_equal(a, before, err_msg="an argument was changed")
    scales = _results(reference, name, [abs(a) if isinstance(a, np.ndarray) else a for a in args]) if scale is None else scale
    for g, w, s in zip(got, want, scales, strict=True):
        assert (g.shape, g.dtype) == (w.shape, w.dtype)
        np.testing.assert_allclose(g, w, rtol=64 * eps, atol=64 * eps * float(np.max(s)))
    again = _results(compiled, name, args)  # also while the first results are alive: they share no memory
    for g, a in zip(got, again, strict=True):
        np.testing.assert_array_equal(g, a, err_msg="a second call gave other bits")


def _results(kernels: ModuleType, name: str, args: Sequence[Any]) -> tuple[np.ndarray, ...]:
    result = getattr(kernels, name)(*args)
    return result if isinstance(result, tuple) else (result,)


def _copy(a: Any) -> Any:
    return a.copy() if isinstance(a, np.ndarray) else a


# ---- convolution


@given(data=st.data())
@settings(max_examples=30)
def test_conv2d(data: st.DataObject) -> None:
    draw = Draw(data)
    groups = draw.data.draw(st.sampled_from((1, 1, 1, 2, 3)))
    N, C, F = draw.int(1, 5), draw.int(1, 20 // groups), draw.int(1, 20 // groups)  # C and F of one group
    kernel, stride, dilation, padding = draw.pair(1, 7), draw.pair(1, 3), draw.pair(1, 2), draw.pair(0, 3)
    H, W = (draw.int(max(1, d * (k - 1) + 1 - 2 * p), 40) for k, d, p in zip(kernel, dilation, padding, strict=True))
    x, w = draw.array((N, C * groups, H, W)), draw.array((F * groups, C, *kernel))
    b = draw.array((F * groups,)) if draw.data.draw(st.booleans()) else None
    geometry = stride, padding, dilation, groups
    _agree("conv2d", x, w, b, *geometry, eps=draw.eps)
    gy = draw.array(reference.conv2d(x, w, b, *geometry).shape)
    _agree("conv2d_grad_x", gy, w, x.shape, *geometry, eps=draw.eps)
    _agree("conv2d_grad_w", gy, x, w.shape, *geometry, eps=draw.eps)


@given(data=st.data())
@settings(max_examples=30)
def test_conv2d_after_winograd(data: st.DataObject) -> None:
    """Also where it would not pay"""
    draw = Draw(data)
    (N, C, F), padding = (draw.int(low, high) for low, high in ((1, 9), (1, 40), (1, 40))), draw.pair(0, 2)
    H, W = (draw.int(max(1, 3 - 2 * p), 40) for p in padding)
    x, w = draw.array((N, C, H, W)), draw.array((F, C, 3, 3))
    b = draw.array((F,)) if draw.data.draw(st.booleans()) else None
    geometry = (1, 1), padding, (1, 1), 1
    gy = draw.array(reference.conv2d(x, w, b, *geometry).shape)
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("SMALLEST", "FEWEST"):
            patch.setattr(winograd, limit, 1)
        for limit in ("CHANNELS", "CHANNELS_CORRELATION"):
            patch.setattr(winograd, limit, (1, 40))
        patch.setattr(direct, "convolve", None)  # would raise
        _agree("conv2d", x, w, b, *geometry, eps=draw.eps)
        _agree("conv2d_grad_x", gy, w, x.shape, *geometry, eps=draw.eps)
        _agree("conv2d_grad_w", gy, x, w.shape, *geometry, eps=draw.eps)


@given(data=st.data())
@settings(max_examples=30)
def test_conv2d_of_few_pixels(data: st.DataObject) -> None:
    """Also where it would not pay"""
    draw = Draw(data)
    kernel, stride, dilation, padding = draw.pair(1, 3), draw.pair(1, 3), draw.pair(1, 2), draw.pair(0, 3)
    H, W = (draw.int(max(1, d * (k - 1) + 1 - 2 * p), 9) for k, d, p in zip(kernel, dilation, padding, strict=True))
    N, F = draw.int(1, 5), ROWS * draw.int(1, 4)
    C = columns._channels(kernel[0] * kernel[1], 4) * draw.int(1, 2)  # those of float64 are half as many
    x, w = draw.array((N, C, H, W)), draw.array((F, C, *kernel))
    b = draw.array((F,)) if draw.data.draw(st.booleans()) else None
    geometry = stride, padding, dilation, 1
    gy = draw.array(reference.conv2d(x, w, b, *geometry).shape)
    with pytest.MonkeyPatch.context() as patch:
        for limit, value in {"MOST": 10**6, "MOST_CORRELATION": 10**6, "LEAST": 1}.items():
            patch.setattr(columns, limit, value)
        patch.setattr(direct, "convolve", None)  # would raise
        patch.setattr(direct, "correlate", None)
        _agree("conv2d", x, w, b, *geometry, eps=draw.eps)
        _agree("conv2d_grad_x", gy, w, x.shape, *geometry, eps=draw.eps)
        _agree("conv2d_grad_w", gy, x, w.shape, *geometry, eps=draw.eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "stride", "padding", "groups"),
    [
        ((2, 3, 32, 32), (16, 3, 3, 3), 1, 1, 1),  # ResNet-20, first layer
        ((2, 16, 32, 32), (32, 16, 3, 3), 2, 1, 1),
        ((2, 16, 32, 32), (32, 16, 1, 1), 2, 0, 1),
        ((1, 3, 64, 64), (64, 3, 7, 7), 2, 3, 1),  # ResNet-18, first layer
        ((2, 32, 17, 17), (48, 32, 1, 7), 1, (0, 3), 1),  # Inception
        ((2, 32, 17, 17), (48, 32, 7, 1), 1, (3, 0), 1),
        ((2, 24, 14, 14), (24, 1, 3, 3), 1, 1, 24),  # one channel a group
        ((1, 512, 7, 7), (256, 512, 3, 3), 1, 1, 1),  # many channels on few pixels
        ((5, 32, 30, 29), (48, 32, 3, 3), 1, 1, 1),
        ((9, 64, 24, 24), (32, 32, 3, 3), 1, 1, 2),
        ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0, 1),
    ],
)
def test_conv2d_of_known_nets(
    x_shape: Any, w_shape: Any, stride: int, padding: Any, groups: int, dtype: type[np.floating]
) -> None:
    rng, eps = np.random.default_rng(0), float(np.finfo(dtype).eps)
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, w_shape[:1]))
    geometry = (stride, stride), padding if isinstance(padding, tuple) else (padding, padding), (1, 1), groups
    _agree("conv2d", x, w, b, *geometry, eps=eps)
    gy = rng.standard_normal(reference.conv2d(x, w, b, *geometry).shape).astype(dtype)
    _agree("conv2d_grad_x", gy, w, x_shape, *geometry, eps=eps)
    _agree("conv2d_grad_w", gy, x, w_shape, *geometry, eps=eps)


# ---- pooling


@given(data=st.data())
@settings(max_examples=40)
def test_pooling(data: st.DataObject) -> None:
    draw = Draw(data)
    kernel, stride = draw.pair(1, 7), draw.pair(1, 3)
    padding = tuple(draw.int(0, k // 2) for k in kernel)
    H, W = (draw.int(max(1, k - 2 * p), 40) for k, p in zip(kernel, padding, strict=True))
    out = []
    for size, k, s, p in zip((H, W), kernel, stride, padding, strict=True):
        o = reference.conv_size(size, k, s, p)
        out.append(o + 1 if draw.data.draw(st.booleans()) and o * s < size + p else o)  # as ceil_mode may
    x = draw.array((draw.int(1, 5), draw.int(1, 20), H, W))
    window = kernel, stride, padding
    _agree("max_pool2d", x, *window, tuple(out), eps=draw.eps)
    _, winner = reference.max_pool2d(x, *window, tuple(out))
    gy = draw.array(winner.shape)
    _agree("max_pool2d_grad", gy, winner, x.shape, *window, eps=draw.eps)
    with_pad = draw.data.draw(st.booleans())
    _agree("avg_pool2d", x, *window, tuple(out), with_pad, eps=draw.eps)
    _agree("avg_pool2d_grad", gy, x.shape, *window, with_pad, eps=draw.eps)


@given(data=st.data())
def test_max_pooling_of_ties_nan_and_infinity(data: st.DataObject) -> None:
    """The first of equal values wins, and NaN wins over all."""
    draw = Draw(data)
    values = np.array([0, 0, 1, 1, np.nan, np.inf, -1, -np.inf], draw.dtype)[: draw.int(1, 8)]
    x = draw.rng.choice(values, (2, 3, draw.int(3, 9), draw.int(3, 9)))
    window = (3, 3), draw.pair(1, 2), (0, 0)
    out = tuple(reference.conv_size(size, 3, s, 0) for size, s in zip(x.shape[2:], window[1], strict=True))
    for got, want in zip(compiled.max_pool2d(x, *window, out), reference.max_pool2d(x, *window, out), strict=True):
        np.testing.assert_array_equal(got, want)


def test_max_pooling_pads_with_less_than_any_value() -> None:
    x = np.full((1, 1, 2, 2), -5.0)
    for kernels in (reference, compiled):
        y, winner = kernels.max_pool2d(x, (2, 2), (2, 2), (1, 1), (2, 2))
        np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), -5.0))
        np.testing.assert_array_equal(winner, [[[[3, 2], [1, 0]]]])


# ---- batch normalisation


@given(data=st.data())
@settings(max_examples=40)
def test_channels(data: st.DataObject) -> None:
    draw = Draw(data)
    x = draw.batch()
    gy, scale, shift = draw.array(x.shape), draw.array(x.shape[1:2]), draw.array(x.shape[1:2])
    _agree("channel_affine", x, scale, shift, eps=draw.eps)
    _agree("channel_sums", gy, x, eps=draw.eps)


@given(data=st.data())
@settings(max_examples=40)
def test_batch_norm(data: st.DataObject) -> None:
    draw = Draw(data)
    x = (draw.batch() + draw.int(0, 3)).astype(draw.dtype)
    gy, gamma, beta, eps = draw.array(x.shape), draw.array(x.shape[1:2]), draw.array(x.shape[1:2]), 1e-3
    mean, var = reference.batch_norm(x, gamma, beta, eps)[1:]
    slope = np.abs(gamma) / np.sqrt(var + eps)
    x_hat = reference.channel_affine(x, 1 / np.sqrt(var + eps), -mean / np.sqrt(var + eps))
    size = np.abs(x).max()
    _agree("batch_norm", x, gamma, beta, eps, scale=(slope * size + 1, size, size**2), eps=draw.eps)
    largest = np.abs(x_hat).max() + 1 + size / np.sqrt(var + eps).min()  # of x_hat and of its error in eps
    gbeta, _ = reference.channel_sums(np.abs(gy), x)
    scales = slope * np.abs(gy).max() * largest**2, gbeta * largest, gbeta
    _agree("batch_norm_grad", gy, x, gamma, mean, var, eps, scale=scales, eps=draw.eps)


@pytest.mark.parametrize("kernels", [reference, compiled])
def test_batch_norm_of_values_far_from_zero(kernels: ModuleType) -> None:
    """The variance is that of the deviations, not E x^2 - (E x)^2, which has no digits left here."""
    x = (1000 + np.random.default_rng(0).standard_normal((4, 3, 16, 16))).astype(np.float32)
    _, mean, var = kernels.batch_norm(x, np.ones(3, np.float32), np.zeros(3, np.float32), 1e-5)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(var, x.var(axis=(0, 2, 3), dtype=np.float64), rtol=1e-3)


# ---- activation and updates


@given(data=st.data())
def test_add(data: st.DataObject) -> None:
    draw = Draw(data)
    shape = data.draw(st.sampled_from(((3,), (2, 3, 40, 41), (9, 4, 33, 35))))  # the last one in several pieces
    _agree("add", draw.array(shape), draw.array(shape), eps=draw.eps)


@given(data=st.data())
@settings(max_examples=40)
def test_relu(data: st.DataObject) -> None:
    draw = Draw(data)
    shape = draw.data.draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=40))
    special = np.array([0, -0.0, np.nan, np.inf, -np.inf, 1e-30], draw.dtype)
    x, gy = (np.asarray(draw.rng.standard_normal(shape).astype(draw.dtype)) for _ in range(2))
    x[draw.rng.random(shape) < 0.3] = draw.rng.choice(special)
    if shape:
        x, gy = draw.data.draw(layouts)(x), draw.data.draw(layouts)(gy)
    y = reference.relu(x)
    for got, want in ((compiled.relu(x), y), (compiled.relu_grad(gy, y), reference.relu_grad(gy, y))):
        assert (got.shape, got.dtype) == (shape, draw.dtype)
        np.testing.assert_array_equal(got, want)


@given(data=st.data(), residual=st.booleans())
@settings(max_examples=40)
def test_rectify(data: st.DataObject, residual: bool) -> None:
    draw = Draw(data)
    shape = draw.data.draw(st.one_of(hnp.array_shapes(max_dims=4, max_side=12), st.sampled_from(((2**15,), (3, 30_001)))))
    special = np.array([0, -0.0, np.nan, np.inf, -np.inf, 1e-30], draw.dtype)
    y = draw.rng.standard_normal(shape).astype(draw.dtype)
    y[draw.rng.random(shape) < 0.3] = draw.rng.choice(special)
    r = draw.array(shape) if residual else None
    for kernels in (reference, compiled):
        changed = y.copy()
        assert kernels.rectify(changed, r) is None
        np.testing.assert_array_equal(changed, reference.relu(y if r is None else y + r))
    with pytest.raises(ValueError, match="y: expected a contiguous array to update in place"):
        compiled.rectify(np.ones((2, 4), draw.dtype)[:, ::2], None)


sizes = st.one_of(hnp.array_shapes(max_dims=4, max_side=6), st.sampled_from(((2**15,), (2**15 + 1,), (3, 30_001))))


@given(data=st.data(), shape=sizes, nesterov=st.booleans())
@settings(max_examples=20)
def test_sgd_update(data: st.DataObject, shape: tuple[int, ...], nesterov: bool) -> None:
    draw = Draw(data)
    p, v, g = (draw.rng.standard_normal(shape).astype(draw.dtype) for _ in range(3))
    _update_alike("sgd_update", [p, v], g, draw, lambda p, v, g: (p, g, v, 0.1, 0.9, nesterov, 5e-4))


@given(data=st.data(), shape=sizes, t=st.integers(1, 10_000))
@settings(max_examples=20)
def test_adamw_update(data: st.DataObject, shape: tuple[int, ...], t: int) -> None:
    draw = Draw(data)
    p, m, g = (draw.rng.standard_normal(shape).astype(draw.dtype) for _ in range(3))
    v = draw.rng.uniform(0, 1, shape).astype(draw.dtype)
    _update_alike("adamw_update", [p, m, v], g, draw, lambda p, m, v, g: (p, g, m, v, t, 1e-2, (0.9, 0.999), 1e-8, 0.1))


def _update_alike(name: str, state: list[np.ndarray], g: np.ndarray, draw: Draw, arguments: Any) -> None:
    g = draw.data.draw(layouts)(g)
    before, results = g.copy(), []
    for kernels in (reference, compiled):
        mine = [a.copy() for a in state]
        assert getattr(kernels, name)(*arguments(*mine, g)) is None
        results.append(mine)
    np.testing.assert_array_equal(g, before)
    for want, got, old in zip(*results, state, strict=True):
        assert got.dtype == draw.dtype
        assert not np.array_equal(got, old)
        np.testing.assert_allclose(got, want, rtol=64 * draw.eps, atol=64 * draw.eps)


# ---- the loss, dropout


@given(data=st.data())
@settings(max_examples=40)
def test_softmax_cross_entropy(data: st.DataObject) -> None:
    """Also of logits so large that their exponentials are not"""
    draw = Draw(data)
    N, K, far = draw.int(1, 900), draw.int(1, 40), draw.data.draw(st.sampled_from((1, 1000)))
    z, labels, v = draw.array((N, K)) * draw.dtype(far), draw.rng.integers(0, K, N), abs(draw.array((K,)))
    smoothing = draw.data.draw(st.sampled_from((0.0, 0.1)))
    _agree("softmax_cross_entropy", z, labels, v, smoothing, scale=(10 * far * K, v.sum()), eps=draw.eps)


@pytest.mark.parametrize("kernels", [reference, compiled])
def test_a_loss_of_what_is_not_finite_is_not_finite(kernels: ModuleType) -> None:
    labels, v = np.zeros(5, int), np.ones(3)
    z = np.zeros((5, 3))
    z[1, 2], z[2, 0], z[3, 1] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        losses, _ = kernels.softmax_cross_entropy(z, labels, v, 0.1)
    assert np.isfinite(losses).tolist() == [True, False, False, False, True]


@given(data=st.data(), p=st.floats(0, 0.99), seed=st.integers(0, 2**63 - 1))
@settings(max_examples=30)
def test_dropout(data: st.DataObject, p: float, seed: int) -> None:
    """The same elements in both, and in every layout, to the bit"""
    draw = Draw(data)
    x = draw.array(data.draw(st.sampled_from(((1,), (7, 5), (3, 2, 2, 3), (3, 30_001)))))
    want = reference.dropout(x, p, seed)
    np.testing.assert_array_equal(compiled.dropout(x, p, seed), want)
    np.testing.assert_array_equal(compiled.dropout(np.ascontiguousarray(x), p, seed), want)
    assert want.dtype == draw.dtype
    assert p > 0 or np.array_equal(want, x)


def test_philox_gives_the_numbers_that_its_authors_publish() -> None:
    """The known answers of Random123 for philox2x32-10: counter, key, result"""
    for low, high, key, found in (
        (0, 0, 0, 0xFF1DAE59),
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x2C3F628B),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0xDD7CE038),
    ):
        assert reference.philox(low, high << 32 | key) == found
        if high < 2**31:
            assert reference.philox(np.array([low, 1]), high << 32 | key)[0] == found


def test_dropped_elements_look_random() -> None:
    """As many as asked for, independent of their neighbours, of other seeds and of other numbers in the same seed"""
    n, p = 1 << 16, 0.25
    kept = [reference.dropout(np.ones(n), p, seed) > 0 for seed in (0, 1, 2**32, 2**62)]
    error = 5 * (p * (1 - p) / n) ** 0.5
    assert all(abs(k.mean() - (1 - p)) < error for k in kept)
    pairs = [(a, b) for i, a in enumerate(kept) for b in kept[:i]] + [(kept[0][:-lag], kept[0][lag:]) for lag in (1, 2, 1024)]
    assert all(abs((a & b).mean() - (1 - p) ** 2) < error for a, b in pairs)


# ---- fused kernels


@given(data=st.data())
def test_affine_relu(data: st.DataObject) -> None:
    draw = Draw(data)
    x = draw.batch()
    r = draw.array(x.shape) if draw.data.draw(st.booleans()) else None
    scale, shift = draw.array(x.shape[1:2]), draw.array(x.shape[1:2])
    _agree("channel_affine_relu", x, r, scale, shift, eps=draw.eps)
    _agree("channel_affine_relu_grad", draw.array(x.shape), x, scale, eps=draw.eps)


@given(data=st.data())
def test_batch_norm_relu(data: st.DataObject) -> None:
    """Adding and rectifying are exact enough: beside what `batch_norm` differs by, nothing more"""
    draw = Draw(data)
    x = draw.batch()
    gamma, beta, eps = draw.array(x.shape[1:2]), draw.array(x.shape[1:2]), 1e-3
    r = draw.array(x.shape) if draw.data.draw(st.booleans()) else None
    y, mean, var = reference.batch_norm_relu(x, r, gamma, beta, eps)
    size, slope = np.abs(x).max() + 1, (1 + np.abs(gamma).max()) / np.sqrt(var + eps).min()
    _agree("batch_norm_relu", x, r, gamma, beta, eps, scale=(slope * size + 5, size, size**2), eps=draw.eps)
    gy, largest = draw.array(x.shape), 1 + size / np.sqrt(var + eps).min()
    total = np.abs(gy).sum(axis=(0, *range(2, x.ndim))).max()
    scales = slope * np.abs(gy).max() * largest**2, 1, total * largest, total
    _agree("batch_norm_relu_grad", gy, y, x, gamma, mean, var, eps, True, scale=scales, eps=draw.eps)
    for kernels in (reference, compiled):  # without a residual the others are the same
        with_it, without = (kernels.batch_norm_relu_grad(gy, y, x, gamma, mean, var, eps, flag) for flag in (True, False))
        assert without[1] is None
        for i in (0, 2, 3):
            np.testing.assert_allclose(without[i], with_it[i], rtol=0, atol=64 * draw.eps * float(np.max(scales[i])))


@given(data=st.data())
@settings(max_examples=30)
def test_dense_block_kernels(data: st.DataObject) -> None:
    """They work in place, on some of the channels of contiguous arrays; the other channels stay as they are"""
    _agree_in_dense_blocks(data, (1, 3, 5))


@given(data=st.data())
@settings(max_examples=30)
def test_dense_block_kernels_after_winograd(data: st.DataObject) -> None:
    """Also where it would not pay"""
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("SMALLEST", "FEWEST"):
            patch.setattr(winograd, limit, 1)
        patch.setattr(winograd, "CHANNELS_DENSE", (1, 40))
        patch.setattr(dense, "MANY", 1)
        patch.setattr(direct, "convolve", None)  # would raise
        patch.setattr(direct, "correlate", None)
        _agree_in_dense_blocks(data, (3,))


def _agree_in_dense_blocks(data: st.DataObject, kernel_sizes: tuple[int, ...]) -> None:
    draw = Draw(data)
    N, C, F, k = draw.int(1, 6), draw.int(1, 20), draw.int(1, 13), draw.data.draw(st.sampled_from(kernel_sizes))
    first, H, W = C + draw.int(0, 3), draw.int(1, 36), draw.int(1, 36)
    rng, padding = draw.rng, (k // 2, k // 2)
    X, GY, GX = (rng.standard_normal((N, first + F + draw.int(0, 2), H, W)).astype(draw.dtype) for _ in range(3))
    scale, shift, mean = (rng.standard_normal(C).astype(draw.dtype) for _ in range(3))
    w = rng.standard_normal((F, C, k, k)).astype(draw.dtype)

    def both(name: str, *args: Any, out: int) -> None:
        found = []
        for kernels in (reference, compiled):
            copies = [_copy(a) for a in args]
            result = getattr(kernels, name)(*copies)
            found.append([copies[out], *(result if isinstance(result, tuple) else ())])
        for want, got in zip(*found, strict=True):
            assert want.dtype == got.dtype
            np.testing.assert_allclose(got, want, rtol=0, atol=256 * draw.eps * (1 + float(np.abs(want).max())))

    both("affine_relu_conv", X, scale, shift, w, padding, GX, first, out=5)
    both("affine_relu_conv_grad", GY, first, X, scale, shift, mean, w, padding, GX, draw.data.draw(st.booleans()), True, out=8)
    for kernels in (reference, compiled):
        assert kernels.affine_relu_conv_grad(GY, first, X, scale, shift, mean, w, padding, GX.copy(), True, False)[0] is None
    both("subtract_line", GX, X, 1 if C < first else 0, mean, scale, shift, out=0)
    for kernels in (reference, compiled):
        got, want = (
            kernels.channel_statistics(X, first, F),
            (X[:, first : first + F].mean((0, 2, 3)), X[:, first : first + F].var((0, 2, 3))),
        )
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=64 * draw.eps, atol=64 * draw.eps)

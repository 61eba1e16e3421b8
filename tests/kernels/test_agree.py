"""The compiled kernels against the reference text: the same names, signatures and, within rounding, results."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from minidl.kernels import compiled, halves, reference
from minidl.kernels.shapes import conv_size
from tests.kernels import draws
from tests.kernels.draws import Call, Draw, agree

KERNELS = tuple(compiled.__all__)
HELPERS = ("windows", "fold", "conv_size", "array_module", "philox", "threshold")  # what reference has besides


def test_same_names() -> None:
    functions = {name for name, value in vars(reference).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert functions - set(HELPERS) == set(KERNELS)


@pytest.mark.parametrize("name", KERNELS)
def test_same_signatures_and_a_formula_each(name: str) -> None:
    ours, theirs = getattr(compiled, name), getattr(reference, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    for kernel in (ours, theirs):
        assert kernel.__doc__ and any(sign in kernel.__doc__ for sign in ("=", "<-", "sum"))


# ---- calls that are drawn


SINGLE_AND_DOUBLE = [np.float32, pytest.param(np.float64, marks=pytest.mark.ci)]  # all of winograd.py and columns.py once more
LONG_TO_COMPILE = (
    draws.convolution_by_winograd,
    draws.convolution_of_few_pixels,
    draws.dense_block,
    draws.dense_block_by_winograd,
)


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, id=f.__name__, marks=[pytest.mark.ci] if f in LONG_TO_COMPILE else []) for f in draws.FAMILIES],
)
@given(data=st.data())
@settings(max_examples=12)  # guarded.py draws fresh ones, thousands a minute
def test_agrees_with_the_reference(family: draws.Family, data: st.DataObject) -> None:
    check(family, data)


def check(family: draws.Family, data: st.DataObject) -> None:
    draw = Draw(data)
    for call in family(draw):
        agree(call, compiled, draw.eps)


def test_every_kernel_is_drawn() -> None:
    seen = set[str]()

    @given(data=st.data())
    @settings(max_examples=1)
    def draw_once(data: st.DataObject) -> None:
        seen.update(call.name for family in draws.FAMILIES for call in family(Draw(data)))

    draw_once()
    assert seen == set(KERNELS)


@pytest.mark.parametrize(
    ("name", "broken", "family"),
    [
        ("conv2d", lambda y: y * 1.001, draws.convolution),
        pytest.param("conv2d_grad_w", lambda gw: gw + 0.01, draws.convolution_by_winograd, marks=pytest.mark.ci),
        ("max_pool2d", lambda found: (found[0], found[1] + 1), draws.pooling),
        ("relu", lambda y: np.where(y == 0, -0.01, y).astype(y.dtype), draws.elements),
        pytest.param("channel_statistics", lambda found: (found[0], found[1] * 1.01), draws.dense_block, marks=pytest.mark.ci),
    ],
)
def test_a_kernel_that_is_wrong_is_found(
    name: str, broken: Callable[[Any], Any], family: draws.Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(compiled, name)
    monkeypatch.setattr(compiled, name, lambda *args: broken(right(*args)))
    look = settings(phases=[Phase.generate])(given(data=st.data())(lambda data: check(family, data)))
    with pytest.raises(BaseException, match=name):  # one failure, or a group of several
        look()


# ---- convolution


@pytest.mark.parametrize("kernels", [reference, compiled])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_one_pixel_wide(kernels: ModuleType, dtype: type[np.floating]) -> None:
    """Rows of one pixel lie one behind the other, and a horizontal stride passes over none of them."""
    x, w = np.arange(1, 7, dtype=dtype).reshape(1, 1, 6, 1), np.ones((1, 1, 1, 1), dtype)
    geometry = (1, 2), (0, 0), (1, 1), 1
    np.testing.assert_array_equal(kernels.conv2d(x, w, None, *geometry), x)
    np.testing.assert_array_equal(kernels.conv2d_grad_x(x, w, x.shape, *geometry), x)
    assert kernels.conv2d_grad_w(x, x, w.shape, *geometry).item() == 91


@pytest.mark.parametrize("dtype", SINGLE_AND_DOUBLE)
def test_a_padding_wider_than_a_band(dtype: type[np.floating]) -> None:
    """The first and the last bands of a large image then see nothing but padding."""
    rng, eps = np.random.default_rng(0), float(np.finfo(dtype).eps)
    x, w = (rng.standard_normal(shape).astype(dtype) for shape in ((1, 64, 61, 59), (64, 64, 3, 3)))
    geometry = (1, 1), (6, 5), (1, 1), 1
    gy = rng.standard_normal(reference.conv2d(x, w, None, *geometry).shape).astype(dtype)
    agree(Call("conv2d", [x, w, None, *geometry]), compiled, eps)
    agree(Call("conv2d_grad_w", [gy, x, w.shape, *geometry]), compiled, eps)


@pytest.mark.parametrize("dtype", SINGLE_AND_DOUBLE)
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
    gy = rng.standard_normal(reference.conv2d(x, w, b, *geometry).shape).astype(dtype)
    agree(Call("conv2d", [x, w, b, *geometry]), compiled, eps)
    agree(Call("conv2d_grad_x", [gy, w, x_shape, *geometry]), compiled, eps)
    agree(Call("conv2d_grad_w", [gy, x, w_shape, *geometry]), compiled, eps)


# ---- pooling


@given(data=st.data())
def test_max_pooling_of_ties_nan_and_infinity(data: st.DataObject) -> None:
    """The first of equal values wins, and NaN wins over all."""
    draw = Draw(data)
    values = np.array([0, 0, 1, 1, np.nan, np.inf, -1, -np.inf], draw.dtype)[: draw.int(1, 8)]
    x = draw.rng.choice(values, (2, 3, draw.int(3, 9), draw.int(3, 9)))
    window = (3, 3), (draw.int(1, 2), draw.int(1, 2)), (0, 0)
    out = tuple(conv_size(size, 3, s, 0) for size, s in zip(x.shape[2:], window[1], strict=True))
    for got, want in zip(compiled.max_pool2d(x, *window, out), reference.max_pool2d(x, *window, out), strict=True):
        np.testing.assert_array_equal(got, want)


def test_max_pooling_pads_with_less_than_any_value() -> None:
    x = np.full((1, 1, 2, 2), -5.0)
    for kernels in (reference, compiled):
        y, argmax = kernels.max_pool2d(x, (2, 2), (2, 2), (1, 1), (2, 2))
        np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), -5.0))
        np.testing.assert_array_equal(argmax, [[[[3, 2], [1, 0]]]])


@pytest.mark.parametrize("kernels", [reference, compiled, halves])
def test_the_argmax_of_a_window_of_minus_infinity_is_in_the_image(kernels: ModuleType) -> None:
    """The first cell that is, and the gradient of no window is lost in the padding."""
    x = np.full((2, 1, 3, 4), -np.inf, np.float16 if kernels is halves else np.float32)
    x[1, 0, 2, 3] = 5
    y, argmax = kernels.max_pool2d(x, (3, 2), (2, 2), (1, 1), (2, 3))
    np.testing.assert_array_equal(argmax[0], [[[3, 2, 2], [1, 0, 0]]])  # u kw + v, the window beginning at 2 i - 1, 2 j - 1
    np.testing.assert_array_equal(argmax[1], [[[3, 2, 2], [1, 0, 2]]])  # 5 is at u, v = 1, 0 of the last window
    np.testing.assert_array_equal(y[1], [[[-np.inf] * 3, [-np.inf, -np.inf, 5]]])
    gy = np.arange(1, 13, dtype=x.dtype).reshape(2, 1, 2, 3)
    gx = kernels.max_pool2d_grad(gy, argmax, x.shape, (3, 2), (2, 2), (1, 1))
    np.testing.assert_array_equal(gx[0, 0], [[1, 2, 0, 3], [4, 5, 0, 6], [0, 0, 0, 0]])
    assert gx.sum() == gy.sum()


@pytest.mark.parametrize("kernels", [reference, compiled])
def test_sums_about_a_mean_far_from_zero(kernels: ModuleType) -> None:
    """sum g (x - mean), the difference first: sum g x - mean sum g is off by 1e-2 here."""
    rng = np.random.default_rng(0)
    gy, x = (np.float32(at + rng.standard_normal((4, 3, 16, 16))) for at in (0, 1000))
    mean = x.mean(axis=(0, 2, 3))
    exact, off = gy.astype(np.float64), x.astype(np.float64) - mean[:, None, None]
    for got, want in zip(kernels.channel_sums(gy, x, mean), (exact.sum((0, 2, 3)), (exact * off).sum((0, 2, 3))), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-5)
    var, ones = x.var(axis=(0, 2, 3)), np.ones(3, np.float32)
    _, ggamma, _ = kernels.batch_norm_grad(gy, x, ones, mean, var, 1e-5)
    np.testing.assert_allclose(ggamma, (exact * off).sum((0, 2, 3)) / np.sqrt(var + 1e-5), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("kernels", [reference, compiled])
def test_batch_norm_of_values_far_from_zero(kernels: ModuleType) -> None:
    """The variance is that of the deviations, not E x^2 - (E x)^2, which has no digits left here."""
    x = (1000 + np.random.default_rng(0).standard_normal((4, 3, 16, 16))).astype(np.float32)
    _, mean, var = kernels.batch_norm(x, np.ones(3, np.float32), np.zeros(3, np.float32), 1e-5)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(var, x.var(axis=(0, 2, 3), dtype=np.float64), rtol=1e-3)


# ---- in place


def test_an_array_that_cannot_change_in_place() -> None:
    with pytest.raises(ValueError, match="y: expected a contiguous array to update in place"):
        compiled.rectify(np.ones((2, 4))[:, ::2], None)


@pytest.mark.parametrize("kernels", [reference, compiled])
def test_without_a_residual_its_gradient_is_left_out(kernels: ModuleType) -> None:
    rng = np.random.default_rng(0)
    gy, y, x = (rng.standard_normal((3, 4, 5, 2)) for _ in range(3))
    with_it, without = (kernels.batch_norm_relu_grad(gy, y, x, *np.ones((3, 4)), 1e-3, flag) for flag in (True, False))
    assert without[1] is None
    for i in (0, 2, 3):
        np.testing.assert_allclose(without[i], with_it[i], rtol=0, atol=1e-12)


def test_the_gradient_of_a_kernel_that_nobody_needs() -> None:
    X = np.ones((1, 2, 3, 3))
    for kernels in (reference, compiled):
        more = np.ones(1), np.ones(1), np.ones(1), np.ones((1, 1, 1, 1)), (0, 0), X.copy(), True
        assert kernels.affine_relu_conv_grad(X, 1, X, *more, False)[0] is None


# ---- the loss, dropout


@pytest.mark.parametrize("kernels", [reference, compiled])
def test_a_loss_of_what_is_not_finite_is_not_finite(kernels: ModuleType) -> None:
    labels, v = np.zeros(5, int), np.ones(3)
    z = np.zeros((5, 3))
    z[1, 2], z[2, 0], z[3, 1] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        losses, _ = kernels.softmax_cross_entropy(z, labels, v, 0.1)
    assert np.isfinite(losses).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("kernels", [reference, compiled, halves])
def test_a_class_of_minus_infinity_is_no_class(kernels: ModuleType) -> None:
    """Its probability is 0, and 0 log 0 = 0: loss and gradient are those of the other logits, except where it is the label."""
    dtype = np.float16 if kernels is halves else np.float64
    z, v = np.array([[0, -np.inf, 1], [0, -np.inf, 1], [np.nan, -np.inf, 1], [-np.inf] * 3], dtype), np.ones(3, dtype)
    with np.errstate(invalid="ignore"):  # of the last row
        losses, g = kernels.softmax_cross_entropy(z, np.array([0, 1, 2, 0]), v, 0.0)
    q = 1 / (1 + np.e)
    np.testing.assert_allclose(
        losses, [1 + np.log(1 + 1 / np.e), np.inf, np.nan, np.nan], rtol=1e-3 if dtype == np.float16 else 1e-15
    )
    np.testing.assert_allclose(g[:2], [[q - 1, 0, 1 - q], [q, -1, 1 - q]], atol=1e-3 if dtype == np.float16 else 1e-15)
    assert np.isnan(g[2:]).all()
    smoothed, _ = kernels.softmax_cross_entropy(z[:1], np.array([0]), v, 0.1)
    assert smoothed[0] == np.inf  # a share of the target is there


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

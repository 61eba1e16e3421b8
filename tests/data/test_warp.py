"""Rotation, zoom and colour: exact cases, and the formula pixel by pixel."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl.data import ColorJitter, Compose, Dataset, Loader, RandomRotation, RandomZoom
from tests.data.test_augment import DTYPES, SHAPES, batch
from tests.gpu import strict_cupy

WARPS = st.one_of(
    st.builds(RandomRotation, st.floats(0, 200), st.floats(0, 1)),
    st.builds(RandomZoom, st.floats(0.3, 1).map(lambda low: (low, 2 * low)), st.floats(0, 1)),
    st.builds(ColorJitter, st.floats(0, 2), st.floats(0, 2)),
)
RNG = np.random.default_rng


@given(shape=SHAPES, dtype=DTYPES, f=WARPS, seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_shape_type_input_and_seed(shape: tuple, dtype: type, f: Any, seed: int) -> None:
    x = batch(*shape, dtype=dtype)
    before = x.copy()
    y = f(x, RNG(seed))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert np.array_equal(x, before) and not np.shares_memory(x, y)
    assert np.array_equal(y, f(x, RNG(seed)))


@given(shape=SHAPES, dtype=DTYPES, f=st.one_of(WARPS, st.just(ColorJitter(0.4, 0.4, 0.4, 0.3))), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_on_the_gpu_the_same_images(shape: tuple, dtype: type, f: Any, seed: int) -> None:
    """The same bits from the same generator, on the stand-in for CuPy"""
    if isinstance(f, ColorJitter) and f.hue:
        shape = (shape[0], 3, *shape[2:])
    x = batch(*shape, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        y = f(strict_cupy._dressed(x), RNG(seed))
    assert isinstance(y, strict_cupy.ndarray)
    want = f(x, RNG(seed))
    assert y.dtype == want.dtype
    np.testing.assert_array_equal(y.get(), want)


# ---- rotation and zoom


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 6, 7])
def test_quarter_turns_are_exact(dtype: type, size: int) -> None:
    x = batch(4, 3, size, size, dtype)
    for quarters in range(-4, 5):
        y = RandomRotation((90 * quarters, 90 * quarters), fill=0.3)(x, RNG(0))
        assert np.array_equal(y, np.rot90(x, quarters, (2, 3))), quarters
    assert np.array_equal(RandomRotation((90, 90))(x, RNG(0)), x.swapaxes(2, 3)[:, :, ::-1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("f", [RandomZoom((1, 1)), RandomRotation(0), ColorJitter()])
def test_identity(dtype: type, f: Any) -> None:
    x = batch(4, 3, 6, 7, dtype)
    assert np.array_equal(f(x, RNG(0)), x)


def test_half_turns_of_what_is_not_square() -> None:
    x = batch(2, 3, 5, 8)
    assert np.array_equal(RandomRotation((180, 180))(x, RNG(0)), x[:, :, ::-1, ::-1])


def test_zoom_by_two_of_a_ramp() -> None:
    """Between pixels of a ramp lie the numbers between."""
    x = np.broadcast_to(np.arange(9.0)[:, None] + 10 * np.arange(9.0), (1, 1, 9, 9)).copy()
    place = 4 + (np.arange(9) - 4) / 2
    np.testing.assert_allclose(RandomZoom((2, 2))(x, RNG(0))[0, 0], place[:, None] + 10 * place, rtol=1e-12)
    small = RandomZoom((0.5, 0.5), fill=-1)(x, RNG(0))[0, 0]
    assert np.array_equal(small[2:7, 2:7], x[0, 0, ::2, ::2]) and (small[:2] == -1).all() and (small[:, 7:] == -1).all()


def slow(x: np.ndarray, forms: list[tuple[float, float, float, float]], fill: np.ndarray) -> np.ndarray:
    """Pixel by pixel, of (u - r, v - s) = (a b; c d) (i - r, j - s)"""
    _, C, H, W = x.shape
    r, s = (H - 1) / 2, (W - 1) / 2
    y = np.zeros(x.shape)
    for n, (a, b, c, d) in enumerate(forms):
        for k in range(C):
            for i in range(H):
                for j in range(W):
                    u, v = r + a * (i - r) + b * (j - s), s + c * (i - r) + d * (j - s)
                    u, v = round(u * 65536) / 65536, round(v * 65536) / 65536
                    for down in 0, 1:
                        for right in 0, 1:
                            p, q = math.floor(u) + down, math.floor(v) + right
                            pixel = x[n, k, p, q] if 0 <= p < H and 0 <= q < W else fill[k]
                            y[n, k, i, j] += (1 - abs(u - p)) * (1 - abs(v - q)) * float(pixel)
    return y


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("shape", [(4, 2, 6, 5), (2, 3, 1, 7), (3, 1, 8, 2)])
def test_the_formula(shape: tuple[int, ...], dtype: type) -> None:
    x, (N, C, _, _) = batch(*shape, dtype=dtype), shape
    fill = np.linspace(0.2, 1, C)
    outside = np.rint(255 * fill) if dtype == np.uint8 else fill
    angles = np.deg2rad(RNG(5).uniform(-40, 70, N))
    turned = slow(x, [(math.cos(a), math.sin(a), -math.sin(a), math.cos(a)) for a in angles], outside)
    factors = RNG(5).uniform(0.4, 1.7, N)
    zoomed = slow(x, [(1 / f, 0, 0, 1 / f) for f in factors], outside)
    for f, want in (RandomRotation((-40, 70), fill), turned), (RandomZoom((0.4, 1.7), fill), zoomed):
        y = f(x, RNG(5))
        if dtype == np.uint8:
            assert abs(y - want).max() <= 0.5 + 1e-4
        else:
            np.testing.assert_allclose(y, want, atol=1e-12)


def test_in_parts_as_one_by_one() -> None:
    """Batches that are gathered in several parts"""
    x = batch(9, 3, 150, 160)
    y = RandomRotation((30, 30))(x, RNG(0))
    assert np.array_equal(y[8:], RandomRotation((30, 30))(x[8:], RNG(0)))


# ---- colour


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_brightness_and_contrast_of_any_channels(channels: int) -> None:
    x = batch(5, channels, 6, 7, np.float64)
    draws = RNG(2).random((4, 5))
    f = (0.7 + 0.6 * draws[0])[:, None, None, None]
    np.testing.assert_allclose(ColorJitter(brightness=0.3)(x, RNG(2)), f * x, rtol=1e-12)
    f, m = (3 * draws[1])[:, None, None, None], x.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(ColorJitter(contrast=2)(x, RNG(2)), m + f * (x - m), rtol=1e-9)


def test_saturation() -> None:
    x = batch(5, 3, 6, 7, np.float64)
    f = (0.5 + RNG(2).random((4, 5))[2])[:, None, None, None]
    grey = np.einsum("nchw,c->nhw", x, [0.299, 0.587, 0.114])[:, None]
    np.testing.assert_allclose(ColorJitter(saturation=0.5)(x, RNG(2)), grey + f * (x - grey), rtol=1e-9)


class Fixed:
    """Draws the same number everywhere."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value)


def test_hue() -> None:
    x = batch(5, 3, 6, 7, np.float64)
    third = ColorJitter(hue=1 / 3)(x, Fixed(1.0))  # type: ignore[arg-type]
    np.testing.assert_allclose(third, x[:, [2, 0, 1]], atol=1e-12)  # red becomes green
    y = ColorJitter(hue=0.5)(x, RNG(0))
    np.testing.assert_allclose(y.sum(1), x.sum(1), atol=1e-12)
    np.testing.assert_allclose((y**2).sum(1), (x**2).sum(1), atol=1e-12)  # it is a turn
    grey = np.repeat(x[:, :1], 3, 1)
    np.testing.assert_allclose(ColorJitter(hue=0.5)(grey, RNG(0)), grey, atol=1e-12)
    back = ColorJitter(hue=0.2)(ColorJitter(hue=0.2)(x, Fixed(1.0)), Fixed(0.0))  # type: ignore[arg-type]
    np.testing.assert_allclose(back, x, atol=1e-12)


def test_bytes_are_rounded_and_cut_off_once() -> None:
    x = batch(6, 3, 8, 8)
    f = ColorJitter(0.8, 0.8, 0.8, 0.5)
    want = np.rint(f(x.astype(np.float32), RNG(1))).clip(0, 255)
    assert np.array_equal(f(x, RNG(1)), want) and 0 in want and 255 in want
    wide = x.astype(np.float32) * 10 - 1000
    assert ColorJitter(0.5)(wide, RNG(1)).min() < -1000  # floats of any range


def test_strengths_do_not_change_each_others_draws() -> None:
    x = batch(6, 3, 4, 4, np.float64)
    both, only = ColorJitter(0.5, hue=0.2)(x, RNG(3)), ColorJitter(0.5)(x, RNG(3))
    np.testing.assert_allclose(both.sum(1), only.sum(1), rtol=1e-9)


# ---- in the loader, and what is refused


def test_in_the_loader() -> None:
    d = Dataset(batch(20, 3, 8, 8), np.arange(20) % 2, ("a", "b"))
    augment = Compose([RandomRotation(15), RandomZoom(), ColorJitter(0.2, 0.2, 0.2, 0.1)])
    runs = [np.concatenate([x for x, _ in Loader(d, 6, augment=augment, seed=4, prefetch=prefetch)]) for prefetch in (0, 3)]
    assert np.array_equal(*runs) and not np.array_equal(runs[0], np.concatenate([x for x, _ in Loader(d, 6, seed=4)]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RandomRotation(-1), ValueError, r"degrees: expected a number in \[0, inf\), got -1"),
        (lambda: RandomRotation("x"), TypeError, "degrees: expected a number"),
        (lambda: RandomRotation((10, 5)), ValueError, r"degrees: expected \(low, high\), low <= high, got \(10, 5\)"),
        (lambda: RandomRotation((1, 2, 3)), ValueError, "degrees: expected 2 finite numbers"),
        (lambda: RandomZoom((0, 1)), ValueError, r"scale\[0\]: expected a number in \(0, inf\), got 0"),
        (lambda: RandomZoom((2, 1)), ValueError, r"scale: expected \(low, high\), low <= high, got \(2, 1\)"),
        (lambda: RandomZoom(1.5), TypeError, r"scale: expected 2 numbers in \(0, inf\), got 1.5"),
        (lambda: ColorJitter(hue=0.6), ValueError, r"hue: expected a number in \[0, 0.5\], got 0.6"),
        (lambda: ColorJitter(contrast=-1), ValueError, r"contrast: expected a number in \[0, inf\), got -1"),
        (
            lambda: ColorJitter(hue=0.1)(batch(2, 1), RNG(0)),
            ValueError,
            "hue: expected images of 3 channels, .* got 1: pass hue=0",
        ),
        (
            lambda: ColorJitter(saturation=1)(batch(2, 4), RNG(0)),
            ValueError,
            "saturation: expected images of 3 channels, .* got 4",
        ),
        (lambda: RandomRotation(9)(batch()[0], RNG(0)), ValueError, r"x: expected a NumPy or CuPy array \(N,C,H,W\)"),
        (
            lambda: RandomZoom(fill=(0, 1))(batch(), RNG(0)),
            ValueError,
            "fill: expected one number, or one for each of 3 channels",
        ),
    ],
)
def test_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.data import Compose, Cutout, Normalize, RandomCrop, RandomFlip
from tests.gpu import strict_cupy


def batch(n: int = 5, c: int = 3, h: int = 6, w: int = 7, dtype: type = np.uint8) -> np.ndarray:
    x = np.random.default_rng(0).integers(0, 256, (n, c, h, w))
    return x.astype(np.uint8) if dtype == np.uint8 else (x / 255).astype(dtype)


SHAPES = st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
DTYPES = st.sampled_from([np.uint8, np.float32, np.float64])
AUGMENTATIONS = st.one_of(
    st.builds(RandomCrop, st.integers(0, 5), st.floats(0, 1)),
    st.builds(RandomFlip, st.floats(0, 1), st.sampled_from(["horizontal", "vertical"])),
    st.builds(Cutout, st.integers(1, 12), st.floats(0, 1)),
)


@given(shape=SHAPES, dtype=DTYPES, f=AUGMENTATIONS, seed=st.integers(0, 100))
def test_shape_type_input_and_seed(shape: tuple, dtype: type, f: object, seed: int) -> None:
    x = batch(*shape, dtype=dtype)
    before = x.copy()
    y = f(x, np.random.default_rng(seed))  # type: ignore[operator]
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert np.array_equal(x, before)
    assert not np.shares_memory(x, y)
    assert np.array_equal(y, f(x, np.random.default_rng(seed)))  # type: ignore[operator]


@given(shape=SHAPES, dtype=DTYPES, f=st.one_of(AUGMENTATIONS, st.just("normalize")), seed=st.integers(0, 100))
def test_on_the_gpu_the_same_images(shape: tuple, dtype: type, f: Any, seed: int) -> None:
    """The same bits from the same generator, on the stand-in for CuPy, which refuses to mix with NumPy"""
    x = batch(*shape, dtype=dtype)
    f = Normalize([0.4] * shape[1], [0.2] * shape[1]) if f == "normalize" else f
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        y = f(strict_cupy._dressed(x), np.random.default_rng(seed))
    assert isinstance(y, strict_cupy.ndarray)
    want = f(x, np.random.default_rng(seed))
    assert y.dtype == want.dtype
    np.testing.assert_array_equal(y.get(), want)


@given(shape=SHAPES, pad=st.integers(0, 5), seed=st.integers(0, 100))
def test_crop_is_the_loop(shape: tuple, pad: int, seed: int) -> None:
    x = batch(*shape)
    N, C, H, W = shape
    fill = np.linspace(0, 1, C)
    top, left = np.random.default_rng(seed).integers(0, 2 * pad + 1, (2, N))
    expected = np.empty_like(x)
    for n in range(N):
        for c in range(C):
            for i in range(H):
                for j in range(W):
                    u, v = i + top[n] - pad, j + left[n] - pad
                    inside = 0 <= u < H and 0 <= v < W
                    expected[n, c, i, j] = x[n, c, u, v] if inside else round(255 * fill[c])
    assert np.array_equal(RandomCrop(pad, fill)(x, np.random.default_rng(seed)), expected)


def test_crop_reaches_every_offset() -> None:
    x = batch(500, 1, 3, 3)
    y = RandomCrop(1)(x, np.random.default_rng(0))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    seen = {
        (i, j)
        for n in range(500)
        for i in range(3)
        for j in range(3)
        if np.array_equal(padded[n, :, i : i + 3, j : j + 3], y[n])
    }
    assert len(seen) == 9


def test_mean_filled_border_is_zero_after_normalising() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.2, 0.2)
    black = Compose([RandomCrop(4, fill=mean), Normalize(mean, std)])(batch(), np.random.default_rng(1))
    floats = Compose([Normalize(mean, std), RandomCrop(4)])(batch(), np.random.default_rng(1))
    np.testing.assert_allclose(black, floats, atol=0.51 / 255 / 0.2)  # uint8 can hold the mean to half a step


@pytest.mark.parametrize(("axis", "number"), [("horizontal", 3), ("vertical", 2)])
def test_flip(axis: str, number: int) -> None:
    x = batch(400)
    mirrored = np.flip(x, number)
    rng = np.random.default_rng(0)
    assert np.array_equal(RandomFlip(1.0, axis)(x, rng), mirrored)
    assert np.array_equal(RandomFlip(0.0, axis)(x, rng), x)
    y = RandomFlip(0.25, axis)(x, rng)
    flipped = (y == mirrored).all((1, 2, 3))
    assert np.array_equal(y[~flipped], x[~flipped])
    assert 60 < flipped.sum() < 140  # 100 expected, standard deviation 9


def test_cutout_is_a_square_cut_at_the_border() -> None:
    x = np.ones((2000, 2, 9, 8), np.float32)
    y = Cutout(3)(x, np.random.default_rng(0))
    assert np.array_equal(y[:, 0], y[:, 1])
    areas = (y[:, 0] == 0).sum((1, 2))
    assert set(areas.tolist()) == {4, 6, 9}  # in a corner, at a side, inside
    holes = y[:, 0] == 0
    for hole in holes[:50]:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert holes.any(0).all()  # every pixel is hit by some


def test_cutout_fill_and_full_cover() -> None:
    y = Cutout(20, fill=(0.0, 0.5, 1.0))(batch(), np.random.default_rng(0))
    assert (y == np.array([0, 128, 255], np.uint8)[:, None, None]).all()


def test_normalize_uint8_and_float_agree() -> None:
    x = batch()
    mean, std = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.3, 0.4])
    expected = (x / 255 - mean[:, None, None]) / std[:, None, None]
    f = Normalize(mean, std)
    for y in (f(x), f(x / 255), f((x / 255).astype(np.float32), np.random.default_rng(0))):
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_compose_runs_in_order() -> None:
    f = Compose([lambda x, rng: x + 1.0, lambda x, rng: x * 2.0])
    assert f(np.zeros((1, 1, 1, 1)), np.random.default_rng(0)).item() == 2.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RandomCrop(-1), ValueError, "padding: expected an integer of at least 0, got -1"),
        (lambda: RandomCrop(2.0), TypeError, "padding: expected an integer of at least 0, got 2.0"),
        (lambda: RandomCrop(True), TypeError, "padding: expected an integer of at least 0, got True"),
        (lambda: RandomFlip(1.5), ValueError, r"p: expected a number in \[0, 1\], got 1.5"),
        (lambda: RandomFlip("x"), TypeError, r"p: expected a number in \[0, 1\], got 'x'"),
        (lambda: RandomFlip(float("nan")), ValueError, r"p: expected a number in \[0, 1\], got nan"),
        (
            lambda: RandomFlip(axis="diagonal"),
            ValueError,
            "axis: expected one of .*'vertical'.*, got 'diagonal'",
        ),
        (lambda: Cutout(0), ValueError, "size: expected an integer of at least 1, got 0"),
        (lambda: Normalize([0.5], [0.1, 0.2]), ValueError, "mean, std: expected one number a channel, got 1 and 2"),
        (lambda: Normalize(0.5, 0.1), TypeError, "mean: expected finite numbers, got 0.5"),
        (lambda: Normalize([0.5], [0.0]), ValueError, r"std\[0\]: expected a number in \(0, inf\), got 0.0"),
        (lambda: Normalize([float("nan")], [1.0]), ValueError, r"mean\[0\]: expected a finite number, got nan"),
        (lambda: Compose([RandomFlip(), 3]), TypeError, r"functions\[1\]: expected a function f\(x, rng\), got 3"),
    ],
)
def test_bad_settings(make: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("f", [RandomCrop(1), RandomFlip(), Cutout(2), Normalize([0.5] * 3, [0.5] * 3)])
def test_bad_batches(f: object) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"x: expected a NumPy or CuPy array \(N,C,H,W\), got \(3, 6, 7\)"):
        f(batch()[0], rng)  # type: ignore[operator]
    with pytest.raises(ValueError, match="got list"):
        f([1], rng)  # type: ignore[operator]
    with pytest.raises(TypeError, match="x: expected uint8 or floats, got int64"):
        f(batch().astype(np.int64), rng)  # type: ignore[operator]


def test_bad_fill_and_channels() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"fill: expected one number, or one for each of 3 channels, got \(0.1, 0.2\)"):
        RandomCrop(1, fill=(0.1, 0.2))(batch(), rng)
    with pytest.raises(ValueError, match=r"fill: expected numbers in \[0, 1\] for uint8 .* got \(128.0,\)"):
        Cutout(1, fill=128)(batch(), rng)
    with pytest.raises(ValueError, match="mean, std: expected one number for each of 3 channels, got 1"):
        Normalize([0.5], [0.5])(batch())

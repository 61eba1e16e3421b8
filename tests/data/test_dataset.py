from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.data import Dataset


def make(n: int = 10, channels: int = 3, dtype: type = np.uint8) -> Dataset:
    rng = np.random.default_rng(n)
    images = rng.integers(0, 256, (n, channels, 4, 5)).astype(dtype)
    labels = np.arange(n, dtype=np.int64) % 2
    return Dataset(images, labels, ("cat", "dog"), {"spot": rng.random((n, 4, 5)) < 0.5}, "pets")


def test_len_and_repr() -> None:
    d = make(7)
    assert len(d) == 7
    assert repr(d) == "Dataset('pets', images (7, 3, 4, 5) uint8, 2 classes, masks ['spot'])"


def test_take_keeps_the_order_and_takes_the_masks_along() -> None:
    d = make()
    part = d.take([4, 0, 4])
    assert np.array_equal(part.images, d.images[[4, 0, 4]])
    assert np.array_equal(part.labels, [0, 0, 0])
    assert np.array_equal(part.masks["spot"], d.masks["spot"][[4, 0, 4]])
    assert (part.classes, part.name) == (d.classes, d.name)
    part.images[:] = 0
    assert d.images.any()


@given(n=st.integers(2, 60), share=st.floats(0.05, 0.95), seed=st.integers(0, 2**40))
def test_split_is_a_partition(n: int, share: float, seed: int) -> None:
    images = np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1)
    d = Dataset(images, np.zeros(n, np.int64), ("only",))
    if not 0 < round(n * share) < n:
        with pytest.raises(ValueError, match="a part would be empty"):
            d.split((share, 1 - share), seed)
        return
    a, b = d.split((share, 1 - share), seed)
    assert len(a) == round(n * share)
    both = np.concatenate([a.images, b.images]).ravel()
    assert np.array_equal(np.sort(both), images.ravel())
    again, _ = d.split((share, 1 - share), seed)
    assert np.array_equal(a.images, again.images)


def test_split_depends_on_the_seed() -> None:
    d = make(40)
    assert not np.array_equal(d.split((0.5, 0.5), 0)[0].images, d.split((0.5, 0.5), 1)[0].images)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mean_std_over_several_chunks(dtype: type) -> None:
    d = make(2500, dtype=dtype)
    scaled = d.images.astype(np.float64) / (255 if dtype == np.uint8 else 1)
    mean, std = d.mean_std()
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-6)


IMAGES, LABELS = np.zeros((3, 1, 2, 2), np.uint8), np.array([0, 1, 1])
NAN = np.full((3, 1, 2, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (IMAGES.tolist(), LABELS, ("a", "b")),
            TypeError,
            "images: expected a NumPy array of uint8 or float32, got list",
        ),
        ((IMAGES.astype(np.int64), LABELS, ("a", "b")), TypeError, "images: expected uint8 or float32, got int64"),
        ((IMAGES[0], LABELS, ("a", "b")), ValueError, r"images: expected 4 axes, got shape \(1, 2, 2\)"),
        ((IMAGES[:0], LABELS[:0], ("a", "b")), ValueError, r"images: expected at least one pixel, got shape \(0, 1, 2, 2\)"),
        ((IMAGES[:, :, :0], LABELS, ("a", "b")), ValueError, r"images: expected at least one pixel, got .* \(3, 1, 0, 2\)"),
        ((NAN, LABELS, ("a", "b")), ValueError, "NaN or infinity in 3 of 3 images, first in image 0"),
        ((IMAGES, LABELS.astype(np.float32), ("a", "b")), TypeError, "labels: expected int64, got float32"),
        ((IMAGES, LABELS[:2], ("a", "b")), ValueError, "labels: expected 3, one for each of the images, got 2"),
        (
            (IMAGES, LABELS, ("a",)),
            ValueError,
            "labels: expected 0 to 0, as there are 1 classes, got 0 to 1",
        ),
        ((IMAGES, LABELS - 1, ("a", "b")), ValueError, "labels: expected 0 to 1, .* got -1 to 0"),
        ((IMAGES, LABELS, "ab"), TypeError, "classes: expected a tuple of strings, got 'ab'"),
        ((IMAGES, LABELS, (1, 2)), TypeError, r"classes: expected a tuple of strings, got \(1, 2\)"),
        (
            (IMAGES, LABELS, ("a", "b"), {"m": np.zeros((3, 2, 2), np.uint8)}),
            TypeError,
            r"'m'\]: expected bool, got uint8",
        ),
        ((IMAGES, LABELS, ("a", "b"), {"m": np.zeros((3, 2, 1), bool)}), ValueError, r"\(3, 2, 2\), got \(3, 2, 1\)"),
    ],
)
def test_bad_parts(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Dataset(*arguments)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], ValueError, "indices: expected at least one, got none"),
        ([10], IndexError, "indices: expected 0 to 9, got 10 to 10"),
        ([-1], IndexError, "indices: expected 0 to 9, got -1 to -1"),
        (np.array([0.5]), TypeError, "indices: expected a flat list of integers, got 1-D float64"),
        ([0.5], TypeError, r"indices\[0\]: expected an integer, got 0.5"),
        ([True, False], TypeError, r"indices\[0\]: expected an integer, got True"),
        (np.array([[0, 1]]), TypeError, "indices: expected a flat list of integers, got 2-D"),
        ([[0, 1]], TypeError, r"indices\[0\]: expected an integer, got \[0, 1\]"),
    ],
)
def test_take_refuses(indices: list, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make().take(indices)


@pytest.mark.parametrize("fractions", [(0.5, 0.4), (1.5, -0.5), (), (0.5, float("nan"))])
def test_split_refuses_fractions(fractions: tuple) -> None:
    with pytest.raises(ValueError, match=r"fractions.*: expected (numbers that sum to 1|a number in \(0, 1\]), got"):
        make().split(fractions, 0)


def test_split_refuses_a_bad_seed() -> None:
    with pytest.raises(ValueError, match="seed: expected an integer of at least 0, got -1"):
        make().split((0.5, 0.5), -1)
    with pytest.raises(TypeError, match=r"seed: expected an integer of at least 0, got 1\.0"):
        make().split((0.5, 0.5), 1.0)  # type: ignore[arg-type]

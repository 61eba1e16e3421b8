"""Pooling of infinities, ties and NaN; the mean of the largest."""

from __future__ import annotations

import numpy as np
import pytest

from minidl import Tensor, gradients, kernels, nn, ops


@pytest.mark.parametrize("kernel", kernels.CHOICES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_the_gradient_of_max_pooling_stays_in_the_image(dtype: type, kernel: str, ceil_mode: bool) -> None:
    """Where all that a window sees is -inf, as the padding is, the first cell of the image wins: nothing is lost."""
    with kernels.use(kernel):
        for shape in (1, 1, 4, 5), (2, 3, 1, 1), (1, 2, 7, 3):
            x = Tensor(np.full(shape, -np.inf, dtype), requires_grad=True)
            y = ops.max_pool2d(x, (3, 2), 2, 1, ceil_mode)
            assert (y.data == -np.inf).all()
            gy = np.arange(1, y.size + 1, dtype=dtype).reshape(y.shape)
            gx = gradients(y, [x], gy)[0]
            assert gx.sum() == gy.sum() and (y.op.argmax < 6).all()  # type: ignore[union-attr]
            tops, lefts = (np.maximum(0, 2 * np.arange(n) - 1) for n in y.shape[2:])
            want = np.zeros(shape, dtype)
            np.add.at(want, (slice(None), slice(None), tops[:, None], lefts), gy)
            np.testing.assert_array_equal(gx, want)


# ---- the mean of the k largest


def test_the_mean_of_the_k_largest_by_hand() -> None:
    x = Tensor(np.float32([[[[1, 4, 2], [3, 4, 4]]]]), requires_grad=True)
    for k, y, cells in ((1, 4, [1]), (2, 4, [1, 4]), (3, 4, [1, 4, 5]), (4, 3.75, [1, 3, 4, 5]), (6, 3, [0, 1, 2, 3, 4, 5])):
        pooled = ops.top_k_pool2d(x, k)
        assert pooled.data.tolist() == [[y]]
        gx = gradients(pooled, [x], np.float32([[k]]))[0].ravel()
        assert np.flatnonzero(gx).tolist() == cells and set(gx[cells]) == {1}  # of equal ones the first


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_mean_of_the_k_largest_beside_a_sort(dtype: type) -> None:
    """With ties, infinities and NaN, which is larger than all: a stable sort takes the first of equal ones"""
    rng = np.random.default_rng(0)
    for values in ([0, 1, 2], [0, np.nan, np.inf], [-np.inf, -1], [np.nan, np.nan, 1, -np.inf, np.inf]):
        x = rng.choice(np.array(values, dtype), (3, 2, 4, 5))
        size = np.where(np.isnan(x), 9, np.where(x == np.inf, 8, np.where(x == -np.inf, -8, x))).reshape(3, 2, 20)
        order = np.argsort(-size, axis=2, kind="stable")
        for k in (1, 2, 7, 19, 20):
            image = Tensor(x, requires_grad=True)
            with np.errstate(invalid="ignore"):  # infinity less infinity
                y = ops.top_k_pool2d(image, k)
            want = np.zeros((3, 2, 20), bool)
            np.put_along_axis(want, order[:, :, :k], True, axis=2)
            (gx,) = gradients(y, [image], np.full(y.shape, k, dtype))
            np.testing.assert_array_equal(gx.reshape(3, 2, 20), want)
            with np.errstate(invalid="ignore"):
                mean = np.take_along_axis(x.reshape(3, 2, 20), order[:, :, :k], 2).mean(2, dtype=np.float64)
            np.testing.assert_allclose(y.data, mean, rtol=2e-3 if dtype == np.float16 else 1e-6)
            assert y.dtype == gx.dtype == dtype


def test_the_ends_are_the_maximum_and_the_mean() -> None:
    x = Tensor(np.random.default_rng(0).normal(size=(2, 3, 5, 4)))
    np.testing.assert_allclose(ops.top_k_pool2d(x, 1).data, x.data.max((2, 3)))
    np.testing.assert_allclose(nn.TopKPool2d(20)(x).data, ops.global_avg_pool2d(x).data)
    with pytest.raises(ValueError, match=r"k: expected at most the 20 pixels of images \(2, 3, 5, 4\), got 21"):
        ops.top_k_pool2d(x, 21)
    with pytest.raises(ValueError, match="k: expected an integer of at least 1, got 0"):
        nn.TopKPool2d(0)

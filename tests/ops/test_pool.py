"""Pooling of infinities."""

from __future__ import annotations

import numpy as np
import pytest

from minidl import Tensor, gradients, kernels, ops


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

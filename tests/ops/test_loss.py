"""Losses where numbers are hard: sure answers, and classes that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, gradients, kernels, ops
from minidl.array import Array, to_cpu
from tests.ops.test_activation import DTYPES, LARGEST, there, ulps

__all__ = ["there"]  # the fixture


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", [0, 1])
def test_bce_of_sure_answers_keeps_its_digits(dtype: Any, target: int, there: Callable[[Array], Array]) -> None:
    """log(1 + exp(z)) - z is 0 in float32 from z = 17 on, where it should be exp(-z)."""
    for z in (-LARGEST[str(dtype)], -20, -7, -1, -1e-3, 0, 0.3, 7, 15, 20, LARGEST[str(dtype)]):
        if abs(z) > LARGEST[str(dtype)]:
            continue
        x = np.array([z], dtype)
        wide = x.astype(np.longdouble) * (1 - 2 * target)  # the logit of the wrong answer
        e = np.exp(-abs(wide))
        loss, wrong = np.maximum(wide, 0) + np.log1p(e), np.where(wide >= 0, 1, e) / (1 + e)
        t = Tensor(there(x), requires_grad=True)
        y = ops.binary_cross_entropy_with_logits(t, there(np.array([target], dtype)))
        assert y.dtype == dtype and ulps(to_cpu(y.data), loss).max() <= 4
        assert ulps(to_cpu(gradients(y, [t])[0]), wrong * (1 - 2 * target)).max() <= 4


def test_bce_of_a_share_and_of_infinities() -> None:
    z, targets = np.array([-3.0, 2.0, 0.5]), np.array([0.3, 0.9, 0.25])
    t, p = Tensor(z, requires_grad=True), 1 / (1 + np.exp(-z))
    y = ops.binary_cross_entropy_with_logits(t, targets)
    assert y.item() == pytest.approx(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(), rel=1e-14)
    np.testing.assert_allclose(gradients(y, [t])[0], (p - targets) / 3, rtol=1e-13)
    for z_, target, loss, slope in (
        (np.inf, 1, 0, 0),
        (np.inf, 0, np.inf, 1),
        (-np.inf, 0, 0, 0),
        (-np.inf, 1, np.inf, -1),
        (np.nan, 1, np.nan, np.nan),
    ):
        t = Tensor(np.array([z_]), requires_grad=True)
        y = ops.binary_cross_entropy_with_logits(t, np.array([target], float))
        np.testing.assert_array_equal([y.item(), *gradients(y, [t])[0]], [loss, slope])


@pytest.mark.parametrize("kernel", kernels.CHOICES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_class_of_minus_infinity_is_no_class(dtype: Any, kernel: str) -> None:
    eps, q = float(np.finfo(dtype).eps), 1 / (1 + np.e)
    with kernels.use(kernel):
        z = Tensor(np.array([[0, -np.inf, 1]], dtype), requires_grad=True)
        y = ops.cross_entropy(z, np.array([0]))
        assert y.item() == pytest.approx(1.3132616875182228, rel=4 * eps)
        np.testing.assert_allclose(gradients(y, [z])[0], [[q - 1, 0, 1 - q]], atol=2 * eps)
        assert ops.cross_entropy(z, np.array([1])).item() == np.inf
        sharing = Tensor(np.array([[0, -np.inf, 1], [2, 1, -np.inf]], dtype), requires_grad=True)
        y = ops.cross_entropy(sharing, np.array([0, 1]), class_weights=np.array([1, 3, 0], dtype))
        assert y.item() == pytest.approx((1.3132616875182228 + 3 * 1.3132616875182228) / 4, rel=8 * eps)
        assert np.isfinite(gradients(y, [sharing])[0]).all()
        for bad in np.nan, np.inf:
            with np.errstate(invalid="ignore"):
                assert np.isnan(ops.cross_entropy(Tensor(np.array([[0, bad, 1]], dtype)), np.array([0])).item())


def test_softmax_of_a_row_with_minus_infinity() -> None:
    z = Tensor(np.array([[0, -np.inf, 1], [-np.inf, 5, -np.inf]]), requires_grad=True)
    p, log_p, q = ops.softmax(z), ops.log_softmax(z), 1 / (1 + np.e)
    np.testing.assert_allclose(p.data, [[q, 0, 1 - q], [0, 1, 0]], rtol=1e-15)
    np.testing.assert_allclose(log_p.data, [[np.log(q), -np.inf, np.log(1 - q)], [-np.inf, 0, -np.inf]], rtol=1e-15)
    gy = np.array([[1.0, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(gradients(p, [z], gy)[0], [[q * (1 - q), 0, -q * (1 - q)], [0, 0, 0]], rtol=1e-14)
    np.testing.assert_allclose(gradients(log_p, [z], gy)[0], [[1 - q, 0, q - 1], [0, 0, 0]], rtol=1e-14)


@pytest.mark.parametrize("kernel", kernels.CHOICES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_of_which_nothing_is_known(dtype: Any, kernel: str) -> None:
    """The loss and the gradients are those of the others alone, whatever the logits of these rows are."""
    rng = np.random.default_rng(0)
    a, labels, v = rng.normal(size=(6, 3)).astype(dtype), np.array([2, -1, 0, -1, 1, 1]), np.array([1, 2, 0.5], dtype)
    a[3] = np.nan
    known = labels >= 0
    with kernels.use(kernel):
        for weights in None, v:
            z, few = Tensor(a, requires_grad=True), Tensor(a[known], requires_grad=True)
            y = ops.cross_entropy(z, labels, weights, 0.1, ignore_index=-1)
            alone = ops.cross_entropy(few, labels[known], weights, 0.1)
            assert y.dtype == dtype and y.item() == pytest.approx(alone.item(), rel=4 * float(np.finfo(dtype).eps))
            g, only = gradients(y, [z])[0], gradients(alone, [few])[0]
            np.testing.assert_allclose(g[known], only, rtol=8 * float(np.finfo(dtype).eps))
            assert g.dtype == dtype and not g[~known].any()
        z = Tensor(a, requires_grad=True)
        y = ops.cross_entropy(z, np.full(6, -1), ignore_index=-1)
        assert y.item() == 0 and not gradients(y, [z])[0].any()
        with pytest.raises(ValueError, match="labels: expected 0 to 2 for 3 classes, got -2 to 0"):
            ops.cross_entropy(z, np.array([-2, -1, 0, 0, 0, 0]), ignore_index=-1)

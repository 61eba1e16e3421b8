"""Batch normalisation of values far from zero; group normalisation beside formulas and beside itself."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, gradients, kernels, nn, ops
from minidl.array import Array, move, to_cpu
from minidl.ops.dense import DenseBlock
from tests.gpu import strict_cupy

RNG = np.random.default_rng(0)
X = np.float32(1000 + RNG.standard_normal((8, 4, 12, 12)))  # mean / std = 1000
GY = np.float32(RNG.standard_normal((8, 6, 12, 12)))
MEAN, VAR = X.mean((0, 2, 3)), X.var((0, 2, 3))
GAMMA, BETA, W = np.float32([0.5, 1, 2, -1.5]), np.float32([0.3, -0.2, 5, 0]), np.float32(RNG.standard_normal((2, 4, 3, 3)))


def gamma_gradient(op: str, dtype: str, device: str) -> Array:
    x, gy, mean, var, gamma, beta, w = move([a.astype(dtype) for a in (X, GY, MEAN, VAR, GAMMA, BETA, W)], device)
    g = Tensor(gamma, requires_grad=True)
    if op == "dense block":
        y = DenseBlock([1], 1e-5, [(mean, var)])(Tensor(x), g, beta, w)
    else:
        y = {"frozen": ops.batch_norm_frozen, "frozen, relu": ops.batch_norm_frozen_relu}[op](Tensor(x), g, beta, mean, var)
        gy = gy[:, :4]
    return to_cpu(gradients(y, [g], gy)[0])


@pytest.mark.parametrize("kernel", ["reference", "compiled", "cupy"])
@pytest.mark.parametrize("op", ["frozen", "frozen, relu", "dense block"])
def test_the_gradient_of_gamma_by_frozen_statistics(op: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sum g (x - mean) / std, the difference first: sum g x - mean sum g is off by 1e-2 in float32."""
    with kernels.use("reference"):
        want = gamma_gradient(op, "float64", "cpu")
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    with kernels.use("compiled" if kernel == "compiled" else "reference"):
        found = gamma_gradient(op, "float32", "gpu" if kernel == "cupy" else "cpu")
    np.testing.assert_allclose(found, want, rtol=0, atol=2e-6 * abs(want).max())


# ---- group normalisation


@pytest.mark.parametrize("kernel", kernels.CHOICES)
@pytest.mark.parametrize("shape", [(2, 6), (1, 6, 5), (3, 6, 4, 5), (2, 6, 2, 3, 2)])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_every_group_has_mean_0_and_spread_1(groups: int, shape: tuple[int, ...], kernel: str) -> None:
    if np.prod(shape[1:]) == groups:
        return
    x = np.random.default_rng(0).normal(3, 2, shape)
    with kernels.use(kernel):
        y = ops.group_norm(Tensor(x), groups, eps=0.0)
    rows = y.data.reshape(shape[0] * groups, -1)
    np.testing.assert_allclose(rows.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(rows.var(1), 1, rtol=1e-10)


def test_an_image_hears_of_no_other_one() -> None:
    """Alone or in a batch, in training or in evaluation: the same bits"""
    x, norm = np.random.default_rng(0).normal(size=(3, 8, 5, 5)).astype(np.float32), nn.GroupNorm(4, 8)
    y = norm(x).data
    for i in range(3):
        np.testing.assert_array_equal(norm.train(i > 0)(x[i : i + 1]).data, y[i : i + 1])


@pytest.mark.parametrize("kernel", kernels.CHOICES)
def test_one_image_in_as_many_groups_as_channels_is_batch_norm_of_one(kernel: str) -> None:
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(1, 6, 7, 5)), rng.normal(size=6), rng.normal(size=6)
    gy = rng.normal(size=arrays[0].shape)
    with kernels.use(kernel):
        xs, others = ([Tensor(a, requires_grad=True) for a in arrays] for _ in range(2))
        ours, theirs = ops.group_norm(xs[0], 6, *xs[1:]), ops.batch_norm(*others)
        pairs = zip([ours.data, *gradients(ours, xs, gy)], [theirs.data, *gradients(theirs, others, gy)], strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kernel", kernels.CHOICES)
def test_groups_far_from_zero(kernel: str) -> None:
    """Of mean / std = 1000, where E x^2 - (E x)^2 has no digits left in float32"""
    found = []
    for dtype, kind in (("float64", "reference"), ("float32", kernel)):
        x = Tensor(X.astype(dtype), requires_grad=True)
        w, b = (Tensor(a.astype(dtype), requires_grad=True) for a in (GAMMA, BETA))
        with kernels.use(kind):
            y = ops.group_norm(x, 2, w, b)
            found.append([y.data, *gradients(y, [x, w, b], GY[:, :4].astype(dtype))])
    for want, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=5e-4 * abs(want).max())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ops.group_norm(x, 4), ValueError, "num_groups: expected a divisor of the 6 channels, got 4"),
        (lambda x: ops.group_norm(x, 0), ValueError, "num_groups: expected an integer of at least 1, got 0"),
        (lambda x: ops.group_norm(x, 2.0), TypeError, "num_groups: expected an integer of at least 1, got 2.0"),
        (lambda x: ops.group_norm(x[:, :, 0, 0], 6), ValueError, r"one value per group has no variance, got shape \(2, 6\)"),
        (lambda x: ops.group_norm(x, 2, Tensor(np.ones(5, np.float32))), ValueError, r"weight: expected shape \(6,\)"),
        (lambda x: ops.group_norm(x, 2, None, Tensor(np.ones(6))), TypeError, "float64"),
        (lambda x: nn.GroupNorm(4, 6), ValueError, "num_groups: expected a divisor of the 6 channels, got 4"),
        (lambda x: nn.GroupNorm(2, 6, eps=0), ValueError, r"eps: expected a number in \(0, inf\)"),
        (lambda x: nn.GroupNorm(2, 4, affine=False)(x), ValueError, r"x: expected \(N, 4, ...\), got shape \(2, 6, 3, 3\)"),
    ],
)
def test_groups_that_cannot_be(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(Tensor(np.ones((2, 6, 3, 3), np.float32)))


def test_the_layer_says_what_it_is() -> None:
    assert repr(nn.GroupNorm(2, 6)) == "GroupNorm(2, 6, eps=1e-05)"
    assert repr(nn.GroupNorm(2, 6, affine=False)) == "GroupNorm(2, 6, eps=1e-05, affine=False)"
    assert list(nn.GroupNorm(2, 6).state_dict()) == ["weight", "bias"] and not nn.GroupNorm(2, 6, affine=False).parameters()

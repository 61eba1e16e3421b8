"""Batch normalisation of values far from zero."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from minidl import Tensor, gradients, kernels, ops
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

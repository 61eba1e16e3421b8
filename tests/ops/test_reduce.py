"""Reductions of infinities."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from minidl import Tensor, gradients, kernels, ops
from minidl.array import to_cpu, to_gpu
from tests.gpu import strict_cupy

INF = np.inf


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("x", "y", "slope"),
    [
        ([-INF, -INF], -INF, [0.5, 0.5]),
        ([-INF], -INF, [1]),
        ([INF, 1], INF, [1, 0]),
        ([INF, 1e4, -INF], INF, [1, 0, 0]),
        ([INF, 0, INF], INF, [0.5, 0, 0.5]),
        ([-INF, 0, 0], np.log(2), [0, 0.5, 0.5]),
        ([1e4, 1e4], 1e4 + np.log(2), [0.5, 0.5]),
        ([np.nan, 1, -INF], np.nan, [np.nan] * 3),
    ],
)
def test_logsumexp_of_infinities(
    x: list[float], y: float, slope: list[float], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest of them; the gradient goes where that is. And NumPy, whose warnings are errors here, says nothing."""
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    for dtype in np.float32, np.float64:
        with kernels.use("reference"):
            values = np.array([x, [3] * len(x)], dtype)  # another row beside it
            t = Tensor(to_gpu(values) if device == "gpu" else values, requires_grad=True)
            found = ops.logsumexp(t, axis=1)
            gx = gradients(ops.sum(found), [t])[0]
        np.testing.assert_allclose(to_cpu(found.data), [y, 3 + np.log(len(x))], rtol=1e-6)
        np.testing.assert_allclose(to_cpu(gx), [slope, [1 / len(x)] * len(x)], rtol=1e-6)

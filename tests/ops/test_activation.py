"""The digits of activation functions: values and slopes against wider arithmetic, from tail to tail, on every array type."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minidl import Tensor, gradients, kernels, mixed, ops
from minidl.array import Array, to_cpu, to_gpu
from tests.gpu import strict_cupy

DTYPES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float32), np.dtype(np.float64))
LARGEST = {"float16": 16, "bfloat16": 80, "float32": 85, "float64": 700}  # beyond, exp(-x) is not normal
Wide = Callable[[Array], Array]  # of numbers of 80 bits


def ulps(got: Array, want: Array) -> Array:
    """|got - want|, in units of the last place of `want` in the type of `got`"""
    eps, tiny = float(ml_dtypes.finfo(got.dtype).eps), float(ml_dtypes.finfo(got.dtype).tiny)
    ulp = np.exp2(np.floor(np.log2(np.maximum(np.abs(want), tiny)))) * eps
    error: Array = np.abs(got.astype(np.longdouble) - want) / ulp
    return error


@pytest.fixture(params=["reference", "compiled", "cupy"])
def there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Array], Array]]:
    """Brings an array to where these kernels compute."""
    if request.param == "cupy":
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    with kernels.use("compiled" if request.param == "compiled" else "reference"):
        yield to_gpu if request.param == "cupy" else lambda x: x


def value_and_slope(f: Callable[[Tensor], Tensor], x: Array) -> tuple[Array, Array]:
    t = Tensor(x, requires_grad=True)
    y = f(t)
    (gx,) = gradients(y, [t], to_gpu(np.ones(x.shape, x.dtype)) if type(x) is not np.ndarray else np.ones(x.shape, x.dtype))
    assert y.dtype == gx.dtype == x.dtype and y.shape == gx.shape == x.shape
    return to_cpu(y.data), to_cpu(gx)


def sigmoid(x: Array) -> Array:
    e = np.exp(-abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def sigmoid_slope(x: Array) -> Array:
    return np.exp(-abs(x)) / (1 + np.exp(-abs(x))) ** 2


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))


EXACT: dict[str, tuple[Callable[[Tensor], Tensor], Wide, Wide]] = {
    "sigmoid": (ops.sigmoid, sigmoid, sigmoid_slope),
    "softplus": (ops.softplus, softplus, sigmoid),
    "tanh": (ops.tanh, np.tanh, lambda x: 4 * sigmoid_slope(2 * x)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_both_tails_keep_their_digits(name: str, dtype: Any, there: Callable[[Array], Array]) -> None:
    ours, value, slope = EXACT[name]
    largest = LARGEST[str(dtype)] / (2 if name == "tanh" else 1)
    x = np.concatenate([np.linspace(-largest, largest, 20_001), [-40, -20, -17, -10, -7, 0, 7, 20]]).astype(dtype)
    x = x[abs(x.astype(np.float64)) <= largest]
    y, gx = value_and_slope(ours, there(x))
    assert ulps(y, value(x.astype(np.longdouble))).max() <= 4
    assert ulps(gx, slope(x.astype(np.longdouble))).max() <= 4


def test_by_hand() -> None:
    x = np.float32([-20, -17, -10])
    np.testing.assert_allclose(ops.sigmoid(Tensor(x)).data, [2.0611536e-09, 4.1399377e-08, 4.5397869e-05], rtol=3e-7)
    np.testing.assert_allclose(ops.sigmoid(Tensor(np.array(-40.0))).data, 4.248354255291589e-18, rtol=1e-15)
    assert abs(ops.sigmoid(Tensor(np.array(-7, np.float16))).item() / 9.110512e-04 - 1) < 5e-4
    y, gx = value_and_slope(lambda x: ops.log(ops.sigmoid(x)), x)
    np.testing.assert_allclose(y, x, rtol=5e-5)  # log sigmoid(-10) is -10 - 5e-5
    np.testing.assert_allclose(gx, 1, rtol=5e-5)


def test_halves_inside_mixed() -> None:
    x = np.float32([-16, -7, -3, 0.1, 9])
    for precision in "float16", "bfloat16":
        with mixed(precision):
            half = Tensor(x).to(dtype=ml_dtypes.bfloat16 if precision == "bfloat16" else np.float16)
            y = ops.sigmoid(half)
        assert y.dtype == half.dtype
        assert ulps(y.data, sigmoid(half.data.astype(np.longdouble))).max() <= 0.51


def test_infinities_and_nan_are_what_they_should_be() -> None:
    x = np.float32([-np.inf, -1e30, 1e30, np.inf, np.nan])
    for f, value, slope in (
        (ops.sigmoid, [0, 0, 1, 1], [0, 0, 0, 0]),
        (ops.softplus, [0, 0, 1e30, np.inf], [0, 0, 1, 1]),
        (ops.tanh, [-1, -1, 1, 1], [0, 0, 0, 0]),
        (ops.gelu, [0, 0, 1e30, np.inf], [0, 0, 1, 1]),
    ):
        y, gx = value_and_slope(f, x)
        np.testing.assert_array_equal(y, np.float32([*value, np.nan]))
        np.testing.assert_array_equal(gx, np.float32([*slope, np.nan]))


def gelu(x: Array) -> tuple[Array, Array]:
    """Its own formula and the derivative of that, 1 + tanh(u) as 2 sigmoid(2 u)"""
    k, c = np.sqrt(2 / (4 * np.arctan(np.longdouble(1)))), np.longdouble("0.044715")
    z, dz = 2 * k * (x + c * x**3), 2 * k * (1 + 3 * c * x**2)
    return x * sigmoid(z), sigmoid(z) + x * sigmoid_slope(z) * dz


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gelu_and_its_tail(dtype: Any, there: Callable[[Array], Array]) -> None:
    """To 4 ulp where 1 + tanh does not cancel; below, the rounding of 2 u is that of an exponent: |2 u| times as much."""
    x = np.linspace(-6 if dtype.itemsize == 4 else -3.5 if dtype == np.float16 else -20, 30, 20_001).astype(dtype)
    wide = x.astype(np.longdouble)
    with np.errstate(under="ignore"):
        value, slope = gelu(wide)
    y, gx = value_and_slope(ops.gelu, there(x))
    size = 2 * np.sqrt(2 / np.pi) * (abs(wide) + 0.044715 * abs(wide) ** 3)
    normal = abs(value) > float(ml_dtypes.finfo(dtype).tiny)
    assert ulps(y, value)[(wide >= -1) & normal].max() <= 4
    assert (ulps(y, value) <= 4 + 4 * size)[normal].all()
    steady = (abs(slope) > float(ml_dtypes.finfo(dtype).tiny)) & (abs(wide + 0.752) > 0.1)  # away from its zero
    assert (ulps(gx, slope) <= 8 * (4 + 4 * size))[steady].all()
    assert (gx[(wide < -1) & normal].astype(np.float64) < 0).all()  # (1 + tanh) is 0 there in float32 from -5.6 on

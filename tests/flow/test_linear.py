"""Every op pushes a change forward as differences of its own values say, and as the adjoint of its backward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import OPS, Tensor, no_grad, ops
from minidl.flow import linear
from minidl.flow.linear import PUSH, constant, dot, push

from ..ops.cases import CASES

WITHOUT = {
    "BatchNormReLU",
    "BatchNormFrozenReLU",
    "Conv2dReLU",
    "DenseBlock",
    "SmoothMaxConvolution",
}  # fused ones, and one that is for masks
PARAMETERS = {"BatchNorm": 1, "BatchNormFrozen": 1}  # of these only the first input may change


def test_every_op_pushes_or_says_why_not() -> None:
    assert {op.__name__ for op in PUSH} == set(OPS) - WITHOUT


@pytest.mark.parametrize("name", sorted(op.__name__ for op in PUSH))
def test_push_is_the_derivative_and_the_adjoint_of_backward(name: str) -> None:
    @settings(max_examples=12)
    @given(CASES[name], st.integers(0, 2**32 - 1))
    def check(case: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        changing = PARAMETERS.get(name, len(case.inputs))
        xs = [Tensor(x, requires_grad=i < changing) for i, x in enumerate(case.inputs)]
        ts = [rng.normal(size=x.shape) if i < changing else None for i, x in enumerate(xs)]
        y = case(*xs)
        if type(y.op).__name__ != name:
            return  # the case ends in another op
        given_ts = [ts[xs.index(x)] if x in xs else None for x in y.op.inputs]
        if any(x is not None and x not in xs for x in y.op.inputs):
            return
        t = push(y.op, given_ts)
        gy = rng.normal(size=y.shape)
        gxs = y.op.backward(gy)
        back = sum(dot(t_i, gx) for t_i, gx in zip(given_ts, gxs, strict=True) if t_i is not None)
        assert t.shape == y.shape and dot(t, gy) == pytest.approx(back, rel=1e-9, abs=1e-9)
        h = 1e-6
        with no_grad():
            high, low = (
                case(*[Tensor(x + s * h * t_i if t_i is not None else x) for x, t_i in zip(case.inputs, ts, strict=True)]).data
                for s in (1, -1)
            )
        np.testing.assert_allclose(t, (high - low) / (2 * h), rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(t).max())))

    check()


@pytest.mark.parametrize("name", sorted(op.__name__ for op in PUSH))
def test_what_is_called_piecewise_linear_is_its_slope_and_a_constant(name: str) -> None:
    """<y, gy> = sum <x, gx> + <c, gy> for every pattern of inputs that need a gradient, unless `constant` says None."""

    @settings(max_examples=12)
    @given(CASES[name], st.integers(0, 2**32 - 1))
    def check(case: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        needs = rng.random(len(case.inputs)) < 0.6
        needs[rng.integers(len(needs))] = True
        y = case(*[Tensor(x, requires_grad=bool(need)) for x, need in zip(case.inputs, needs, strict=True)])
        gy = rng.normal(size=y.shape)
        c = constant(y.op, gy)
        if c is None or any(x is not None and x.op is not None for x in y.op.inputs):
            return
        gxs = y.op.backward(gy)
        parts = [dot(x.data, gx) for x, gx, need in zip(y.op.inputs, gxs, y.op.needs, strict=True) if need]
        assert dot(y.data, gy) == pytest.approx(sum(parts) + c, rel=1e-9, abs=1e-9)

    check()


def test_what_bends_is_not_called_linear() -> None:
    x = Tensor(np.random.default_rng(0).normal(size=(2, 3, 4, 4)) + 3, requires_grad=True)
    one = Tensor(np.ones(3))
    for y in (
        ops.sigmoid(x), ops.tanh(x), ops.gelu(x), ops.softplus(x), ops.exp(x), ops.log(x), ops.sqrt(x), x**2, x * x, 1 / x,
        ops.softmax(x), ops.log_softmax(x), ops.batch_norm(x, one, one), ops.var(x), ops.logsumexp(x),
    ):  # fmt: skip
        assert y.op is not None and constant(y.op, np.ones(y.shape)) is None, y.op


def test_ops_that_do_several_things_are_refused() -> None:
    x, one = Tensor(np.ones((1, 3, 2, 2)), requires_grad=True), Tensor(np.ones(3))
    y = ops.batch_norm_frozen_relu(x, one, one, np.zeros(3), np.ones(3))
    assert y.op is not None
    with pytest.raises(TypeError, match=r"BatchNormFrozenReLU.*no forward rule; in place of fused ops"):
        push(y.op, [x.data, None, None, None])
    gamma = ops.relu(Tensor(np.ones(3), requires_grad=True))
    y = ops.batch_norm_frozen(x, gamma, one, np.zeros(3), np.ones(3))
    assert y.op is not None
    with pytest.raises(TypeError, match="parameters that do not depend on the picture"):
        push(y.op, [x.data, gamma.data, None])


def test_winners_are_where_the_largest_values_are() -> None:
    x = np.random.default_rng(0).permutation(2 * 3 * 7 * 6).reshape(2, 3, 7, 6).astype(float)
    y = ops.max_pool2d(Tensor(x, requires_grad=True), (3, 2), (2, 1), padding=1)
    rows, columns = linear.winners(y.op)  # type: ignore[arg-type]
    for n, c, i, j in np.ndindex(*y.shape):
        assert x[n, c, rows[n, c, i, j], columns[n, c, i, j]] == y.data[n, c, i, j]

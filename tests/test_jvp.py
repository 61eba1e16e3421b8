"""`jvp`: what arrives at y of small changes, where it comes from, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minidl
from minidl import Op, Tensor, gradients, jvp, nn, no_grad, ops
from minidl.array import Array
from minidl.check import GradientError, adjoint_check
from minidl.core import Grads, pushes

RNG = np.random.default_rng(0)


def leaf(*shape: int, dtype: Any = np.float64, **settings: Any) -> Tensor:
    return Tensor(RNG.normal(size=shape).astype(dtype), **{"requires_grad": True, **settings})


def t(x: Tensor) -> Array:
    return RNG.normal(size=x.shape).astype(x.dtype)


def dot(a: Array, b: Array) -> float:
    return float((a * b).sum())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_net_changes_as_its_gradients_say(fused: bool, training: bool) -> None:
    rng = np.random.default_rng(1)
    conv, norm, head = nn.Conv2d(2, 4, 3, padding=1, rng=rng), nn.BatchNorm2d(4), nn.Linear(4, 3, rng=rng)
    net = nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool2d(2), nn.GlobalAvgPool2d(), head).to(dtype="float64")
    net = net.train() if training else net.eval()
    x = leaf(3, 2, 6, 6)
    xs = [x, *net.parameters()]
    txs, gy = [t(x) for x in xs], RNG.normal(size=(3, 3))

    def values(h: float) -> Tensor:
        for x, tx in zip(xs, txs, strict=True):
            x.data = x.data + h * tx
        try:
            return net(xs[0])
        finally:
            for x, tx in zip(xs, txs, strict=True):
                x.data = x.data - h * tx

    with minidl.kernels.use("compiled") if fused else ops.unfused():
        y = net(x)
        with no_grad():
            difference = (values(1e-6).data - values(-1e-6).data) / 2e-6
    ty = jvp(y, xs, txs)
    np.testing.assert_allclose(ty, difference, rtol=1e-5, atol=1e-7)
    back = sum(dot(tx, gx) for tx, gx in zip(txs, gradients(y, xs, gy), strict=True))
    assert dot(ty, gy) == pytest.approx(back, rel=1e-10)
    assert all(x.grad is None for x in xs)
    y.backward(gy)  # the graph is still there
    assert all(x.grad is not None for x in xs)


def test_a_tensor_between_changes_on_top_of_what_reaches_it() -> None:
    x = leaf(2, 3)
    h = ops.exp(x)
    y = h * x
    tx, th = t(x), t(h)
    np.testing.assert_allclose(jvp(y, [h], [th]), x.data * th)
    np.testing.assert_allclose(jvp(y, [x, h], [tx, th]), jvp(y, [x], [tx]) + jvp(y, [h], [th]), rtol=1e-12)
    np.testing.assert_allclose(jvp(y, [x, x], [tx, th]), jvp(y, [x], [tx + th]), rtol=1e-12)
    np.testing.assert_allclose(jvp(y, [x, y], [tx, th]), jvp(y, [x], [tx]) + th, rtol=1e-12)


def test_what_reaches_nothing_changes_nothing() -> None:
    x, other = leaf(2, 3), leaf(4)
    y = ops.sum(ops.exp(x), axis=0)
    behind = ops.relu(y)
    for xs in ([], [other], [behind], [ops.exp(other)]):
        ty = jvp(y, xs, [t(x) for x in xs])
        assert ty.shape == (3,) and ty.dtype == np.float64 and not ty.any()


def test_a_leaf_is_its_own_output() -> None:
    x = leaf(3)
    tx = t(x)
    ty = jvp(x, [x], [tx])
    np.testing.assert_array_equal(ty, tx)
    ty += 1  # belongs to the caller
    assert (ty == tx + 1).all()


def test_the_tangent_that_comes_back_belongs_to_the_caller() -> None:
    x, tx = leaf(2, 3), np.ones((2, 3))
    for y in (ops.reshape(x, (6,)), x + np.zeros((2, 3)), ops.broadcast_to(x, (4, 2, 3)), x[:1]):
        ty = jvp(y, [x], [tx])
        ty += 7
        assert (tx == 1).all()


def test_a_scalar_stays_an_array() -> None:
    x = leaf(4)
    total = ops.sum(x)
    ty = jvp(total * total, [x, total], [t(x), np.array(1.0)])
    assert isinstance(ty, np.ndarray) and ty.shape == ()


def test_a_chain_of_ten_thousand_ops() -> None:
    x = leaf(2)
    y = x
    for _ in range(10_000):
        y = y + 1.0
    np.testing.assert_array_equal(jvp(y, [x], [np.ones(2)]), [1, 1])


def test_only_what_changes_is_pushed() -> None:
    a, b = leaf(3), leaf(3)
    y = ops.exp(a) + ops.tanh(b)
    assert [type(op).__name__ for op, _, _ in pushes(y, {b: np.ones(3)})] == ["Tanh", "Add"]
    (_, txs, _), *_ = pushes(a * b, {b: np.ones(3)})
    assert txs[0] is None and txs[1] is not None


def test_an_infinity_that_stays_as_it_is_makes_no_nan() -> None:
    """0 times infinity would be one: what does not change is left out of the sum."""
    x, far = leaf(2), Tensor(np.array([np.inf, 1.0]))
    np.testing.assert_array_equal(jvp(far * x, [x], [np.ones(2)]), [np.inf, 1])
    y = Tensor(np.array([np.inf, 1.0]), requires_grad=True)
    np.testing.assert_array_equal(jvp(y * np.array([2.0, 2.0]), [y], [np.ones(2)]), [2, 2])
    np.testing.assert_array_equal(jvp(y**0, [y], [np.ones(2)]), [0, 0])


# ---- what is refused, in one sentence


class _Cube(Op):
    """y = x^3, without a push"""

    def forward(self, x: Array) -> Array:
        self.x = x
        return x**3

    def backward(self, gy: Array) -> Grads:
        return (3 * self.x**2 * gy,)


def test_an_op_without_push_says_what_to_write() -> None:
    x = leaf(2, name="x")
    y = ops.sum(_Cube()(x))
    y.backward(keep_graph=True)
    with pytest.raises(NotImplementedError, match=r"write push in class _Cube: ty = sum_i \(dy/dx_i\) tx_i") as caught:
        jvp(y, [x], [t(x)])
    assert caught.value.__notes__ == [f"in the push of {y.op.inputs[0].op!r}, tangents (2,)"]  # type: ignore[union-attr]
    with pytest.raises(NotImplementedError, match="write push in class _Cube"):
        adjoint_check(lambda x: _Cube()(x), [np.ones(3)])


def test_a_push_belongs_to_its_forward() -> None:
    """A class that computes something else does not inherit how its base class changes."""

    class _Doubled(ops.activation.ReLU):
        def forward(self, x: Array) -> Array:
            return 2 * super().forward(x)

        def backward(self, gy: Array) -> Grads:
            return (2 * super().backward(gy)[0],)

    class _Renamed(ops.activation.ReLU):
        """y = max(x, 0), under another name"""

    x = leaf(3)
    with pytest.raises(NotImplementedError, match="write push in class _Doubled"):
        jvp(_Doubled()(x), [x], [t(x)])
    adjoint_check(lambda x: _Renamed()(x), [x])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda tx: tx.sum(), r"push returned \(\) float64 for an output of \(3,\) float64"),
        (lambda tx: tx.astype(np.float32), r"push returned \(3,\) float32 for an output of \(3,\) float64"),
    ],
)
def test_a_tangent_of_another_shape_is_an_error_of_the_op(wrong: Any, message: str) -> None:
    class _Wrong(_Cube):
        def push(self, tx: Array) -> Array:
            return wrong(tx)

    x = leaf(3)
    with pytest.raises(ValueError, match=message) as caught:
        jvp(_Wrong()(x), [x], [t(x)])
    assert "in the push of <_Wrong of input (3,) float64" in caught.value.__notes__[0]


def test_arguments() -> None:
    x = leaf(2, 3, name="x")
    y, constant = ops.exp(x), Tensor(np.ones(3))
    with pytest.raises(ValueError, match=r"txs: expected one tangent for each of the 1 xs, got 2"):
        jvp(y, [x], [t(x), t(x)])
    with pytest.raises(ValueError, match=r"txs\[0\]: expected \(2, 3\) float64 on the cpu, as xs\[0\] is, got \(3,\) float64"):
        jvp(y, [x], [np.ones(3)])
    with pytest.raises(ValueError, match=r"txs\[0\]: expected \(2, 3\) float64 .* got \(2, 3\) float32 on the cpu"):
        jvp(y, [x], [np.ones((2, 3), np.float32)])
    for call in (lambda xs: jvp(y, xs, [t(x)]), lambda xs: gradients(ops.sum(y), xs)):
        with pytest.raises(TypeError, match=r"xs: expected a list of Tensors, got a Tensor; write \[x\]"):
            call(x)  # its rows are tensors, of which y knows nothing
        with pytest.raises(TypeError, match=r"xs\[0\]: expected a Tensor, got ndarray"):
            call([x.data])
    masked = np.ma.masked_array(t(x), mask=x.data > 0)
    for call in (lambda: jvp(y, [x], [masked]), lambda: gradients(y, [x], masked)):
        with pytest.raises(TypeError, match="expected an array without a mask"):
            call()
    with pytest.raises(TypeError, match=r"txs\[0\]: expected an array, got Tensor"):
        jvp(y, [x], [x])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"jvp\(y, xs, txs\): xs\[1\] does not require a gradient: <Tensor \(3,\)"):
        jvp(y, [x, constant], [t(x), np.ones(3)])
    with no_grad():
        unrecorded = ops.exp(x)
    with pytest.raises(ValueError, match="no graph leads to y, which depends on nothing"):
        jvp(unrecorded, [x], [t(x)])


def test_a_graph_that_was_given_back() -> None:
    x = leaf(3)
    y = ops.sum(ops.exp(x))
    y.backward()
    with pytest.raises(RuntimeError, match="given back by an earlier backward"):
        jvp(y, [x], [t(x)])


def test_the_package_exports_it() -> None:
    assert minidl.jvp is jvp


# ---- the check of the two directions


def test_the_adjoint_check_returns_the_worst_error_and_names_the_input() -> None:
    assert 0 <= adjoint_check(lambda x, w: ops.tanh(ops.linear(x, w)), [np.ones((2, 3)), np.ones((4, 3))]) < 1e-14

    class _Half(_Cube):
        def push(self, tx: Array) -> Array:
            return 1.5 * self.x**2 * tx

    def half(a: Tensor, b: Tensor) -> Tensor:
        return a + _Half()(b)

    with pytest.raises(GradientError) as caught:
        adjoint_check(half, [np.ones(3), np.ones(3)], seed=4)
    assert "half at (3,), (3,) disagree" in str(caught.value) and "ops: _Half -> Add" in str(caught.value)
    assert "tangents in inputs [0, 1]" in str(caught.value) and "seed 4" in str(caught.value)


def test_the_adjoint_check_finds_a_nan() -> None:
    class _Nan(_Cube):
        def push(self, tx: Array) -> Array:
            return tx * np.nan

    with pytest.raises(GradientError, match="<ty, gy> = nan"):
        adjoint_check(lambda x: _Nan()(x), [np.ones(3)])


def test_the_adjoint_check_demands_inputs() -> None:
    with pytest.raises(ValueError, match="inputs: expected at least one array or Tensor, got none"):
        adjoint_check(lambda: Tensor(1.0), [])

"""The gradient checker finds what it says it finds, and its report names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidl import Op, Tensor, check, core, ops
from minidl.array import Array
from minidl.check import GradientError, gradient_check
from minidl.core import Grads

rng = np.random.default_rng(0)
X = rng.uniform(0.5, 2, (2, 3))


def test_a_right_gradient_passes_with_a_small_error() -> None:
    report = gradient_check(lambda x, w, b: ops.tanh(ops.linear(x, w, b)), [X, rng.random((4, 3)), rng.random(4)])
    assert len(report.elements) == len(report.directions) == 3
    assert 0 < report.error < 1e-8
    assert report.directions[0].at == "random direction"


def test_float32_numbers_and_tensors_are_taken_in_float64() -> None:
    x = Tensor(X.astype(np.float32), requires_grad=True)
    assert gradient_check(lambda a, b, c: a * b + c, [x, 3.0, [1.0, 2.0, 3.0]]).error < 1e-8
    assert x.grad is None


def test_parameters_that_the_function_brings_along_get_no_gradient() -> None:
    w = Tensor(rng.random((4, 3)), requires_grad=True)
    gradient_check(lambda x: ops.linear(x, w), [X])
    assert w.grad is None


def test_a_given_cotangent_is_used() -> None:
    gy = np.array([[1.0, 0, 0], [0, 0, 0]])
    report = gradient_check(ops.exp, [X], cotangent=gy)
    assert report.elements[0].analytic in (0.0, np.exp(X[0, 0]))
    with pytest.raises(ValueError, match=r"cotangent: expected the shape of the output, \(2, 3\), got \(3,\)"):
        gradient_check(ops.exp, [X], cotangent=np.ones(3))


def test_a_large_input_is_checked_at_some_elements_and_along_a_direction() -> None:
    calls = 0

    def f(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return ops.tanh(x)

    gradient_check(f, [rng.random(5000)])
    assert 2 * check.ONE_BY_ONE < calls < 2 * check.ONE_BY_ONE + 20


class _Unary(Op):
    """y = x^2, to be broken"""

    def forward(self, x: Array) -> Array:
        self.x = x
        return x * x

    def backward(self, gy: Array) -> Grads:
        return (2 * gy * self.x,)


def _broken(**methods: Any) -> Any:
    return lambda x: type("_Broken", (_Unary,), methods)()(x)


def test_the_unbroken_op_passes() -> None:
    gradient_check(_broken(), [X])


def test_the_report_names_the_input_the_element_and_the_values() -> None:
    def one_element_off(self: Any, gy: Array) -> Grads:
        gx = 2 * gy * self.x
        gx[1, 2] += 0.25
        return (gx,)

    def chain_of_three(a: Tensor, b: Tensor) -> Tensor:
        return ops.exp(a) * _broken(backward=one_element_off)(b)

    with pytest.raises(GradientError) as caught:
        gradient_check(chain_of_three, [X, X], seed=5)
    report = str(caught.value)
    assert "chain_of_three at (2, 3), (2, 3) is wrong" in report
    assert "input 1 (2, 3): wrong in 1 of 6 elements, worst\n    [1, 2]: analytic " in report
    assert "random direction: analytic " in report
    assert "seed 5" in report
    assert "ops: Exp -> _Broken -> Mul" in report
    assert "input 0" not in report


def test_a_gradient_that_a_cotangent_of_ones_would_not_miss_is_found() -> None:
    """The sum over a softmax is 1: with ones as cotangent a zero gradient would look right."""

    class _FlatSoftmax(ops.loss.Softmax):
        def backward(self, gy: Array) -> Grads:
            return (0 * gy,)

    gradient_check(lambda z: _FlatSoftmax(1)(z), [X], cotangent=np.ones((2, 3)))
    with pytest.raises(GradientError):
        gradient_check(lambda z: _FlatSoftmax(1)(z), [X])


def test_a_detached_input_is_found() -> None:
    with pytest.raises(GradientError, match=r"input 0 .*wrong in 6 of 6 elements.*\n.*analytic 0, "):
        gradient_check(lambda x: x.detach() * 2, [X])


def test_an_input_that_is_not_used_is_fine() -> None:
    gradient_check(lambda a, b: ops.exp(a), [X, X])


def test_a_function_that_is_not_deterministic_is_found() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(GradientError, match="two calls with the same inputs gave different values; seed random numbers inside"):
        gradient_check(lambda x: ops.dropout(x, 0.5, generator), [X])


def test_changes_in_place_are_found() -> None:
    def forward(self: Any, x: Array) -> Array:
        self.x = x.copy()
        x *= x
        return x

    def gy_changed(self: Any, gy: Array) -> Grads:
        gx = 2 * gy * self.x
        gy *= 0
        return (gx,)

    def x_changed(self: Any, gy: Array) -> Grads:
        gx = 2 * gy * self.x
        self.x *= 2
        return (gx,)

    def saved_changed(self: Any, gy: Array) -> Grads:
        self.factor = getattr(self, "factor", 1) * 2
        return (self.factor * gy * self.x,)

    for methods, complaint in [
        ({"forward": forward}, "the forward pass changes input 0 in place"),
        ({"backward": gy_changed}, "backward changes gy in place"),
        ({"backward": x_changed}, "backward changes input 0 in place"),
        ({"backward": saved_changed}, "a second backward gives input 0 another one"),
    ]:
        with pytest.raises(GradientError, match=complaint):
            gradient_check(_broken(**methods), [X])


def test_wrong_shapes_types_and_numbers_of_gradients_are_found() -> None:
    for wrong, complaint in [
        (lambda self, gy: (gy.sum(axis=0),), r"backward returned \(3,\) float64 for an input of \(2, 3\) float64"),
        (lambda self, gy: (gy.astype(np.float32),), "float32 for an input of .* float64"),
        (lambda self, gy: (gy, gy), "zip"),
        (lambda self, gy: 1 / 0, "ZeroDivisionError"),
    ]:
        with pytest.raises(GradientError, match=complaint) as caught:
            gradient_check(_broken(backward=wrong), [X])
        assert "in the backward of <_Broken of input 0 (2, 3) float64, called at " + __file__ in str(caught.value)


def test_an_op_that_is_wrong_only_where_one_input_needs_a_gradient_is_found() -> None:
    class _Careless(core.Mul):
        def backward(self, gy: Array) -> Grads:
            if all(self.needs):
                return super().backward(gy)
            return gy, gy

    with pytest.raises(GradientError, match="input 0 changes where only these inputs need one: 0"):
        gradient_check(lambda a, b: _Careless()(a, b), [X, X])


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(ValueError, match="inputs: expected at least one"):
        gradient_check(ops.exp, [])
    with pytest.raises(ValueError, match=r"inputs\[0\]: expected at least one element, got shape \(0, 3\)"):
        gradient_check(ops.exp, [np.ones((0, 3))])
    with pytest.raises(TypeError, match="returns one Tensor, got list"):
        gradient_check(lambda x: ops.split(x, 1), [X])
    with pytest.raises(GradientError, match="float64 inputs gave an output of float32"):
        gradient_check(lambda x: x.to(dtype=np.float32), [X])
    with pytest.raises(GradientError, match="the output is not finite"), np.errstate(divide="ignore"):
        gradient_check(ops.log, [np.zeros(2)])


@pytest.mark.parametrize("inputs", [1, 5, 6])
def test_every_input_of_many_is_checked(inputs: int) -> None:
    def f(*xs: Tensor) -> Tensor:
        return ops.concat(list(xs), axis=0)

    xs = [rng.random((1, 2)) for _ in range(inputs)]
    assert len(gradient_check(f, xs).elements) == inputs
    with pytest.raises(GradientError, match=f"input {inputs - 1} "):
        gradient_check(lambda *xs: f(*xs[:-1], _broken(backward=lambda self, gy: (gy,))(xs[-1])), xs)

"""The gradient checker finds what it says it finds, and its report names it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import Op, Tensor, core, ops
from minidl.array import Array
from minidl.check import GradientError, adjoint_check, gradient_check
from minidl.check.gradient import ONE_BY_ONE
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
    assert 2 * ONE_BY_ONE < calls < 2 * ONE_BY_ONE + 20


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
    assert "input 1 (2, 3): wrong in 1 of 6 elements: only x[1, 2]\n    worst [1, 2]: analytic " in report
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
        (lambda self, gy: (gy, gy), "returned 2 gradients, expected a tuple with one for its input; write `return .gx,.`"),
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


# ---- what slipped


def _square(x: Array, gy: Array) -> Array:
    return 2 * x * gy


def _slipped(change: Any) -> Any:
    """x^2 whose gradient is changed"""
    return _broken(backward=lambda self, gy: (change(_square(self.x, gy)),))


def _said(f: Any, inputs: list[Any], **more: Any) -> str:
    """What the check says of the gradients: nothing where they are right, else all of the error"""
    try:
        gradient_check(f, inputs, **more)
    except GradientError as error:
        return str(error)
    return ""


def _slip(f: Any, inputs: list[Any], **more: Any) -> str:
    """The mistake that is named for input 0, or "" """
    found = re.search(r"input 0 .*: wrong in \d+ of \d+ elements(?:: (.*))?\n", _said(f, inputs, **more))
    assert found
    return found[1] or ""


def _in(index: Any, change: Any) -> Any:
    def changed(g: Array) -> Array:
        g = g.copy()
        g[index] = change(g[index])
        return g

    return changed


def _shifted(g: Array) -> Array:
    return np.concatenate([np.zeros_like(g[:1]), g[:-1]])


S, R, W = rng.uniform(0.5, 2, (3, 3)), rng.uniform(0.5, 2, (2, 5)), rng.uniform(0.5, 2, (2, 3, 4, 4))
ZERO = "zero everywhere; look for detach(), .data, or a backward that returns None"


@pytest.mark.parametrize(
    "x, change, said",
    [
        (S, lambda g: 2 * g, "2.00 times too large everywhere"),
        (S, lambda g: 1.4427 * g, "1.44 times too large everywhere"),
        (S, lambda g: 1.0001 * g, "1.0001 times too large everywhere"),
        (S, lambda g: g / 7, "7.00 times too small everywhere"),
        (S, lambda g: -g, "the sign is turned everywhere"),
        (S, lambda g: -2 * g, "the sign is turned, and it is 2.00 times too large everywhere"),
        (S, lambda g: 0 * g, ZERO),
        (S, lambda g: g.T, "transposed: write gx.T"),
        (R, lambda g: g.T.reshape(g.shape), "reshaped where it should be transposed: write gx.reshape(5, 2).T"),
        (W, lambda g: g.swapaxes(2, 3), "transposed: write gx.transpose(0, 1, 3, 2)"),
        (W, lambda g: g[:, :, ::-1, ::-1], "reversed along axes 2, 3: write np.flip(gx, (2, 3))"),
        (R, lambda g: g[:, ::-1], "reversed along axis 1: write np.flip(gx, 1)"),
        (R, lambda g: np.roll(g, 1, 1), "rolled by 1 along axis 1: write np.roll(gx, -1, axis=1)"),
        (R, lambda g: np.roll(g, -2, 1), "rolled by -2 along axis 1: write np.roll(gx, 2, axis=1)"),
        (S, _shifted, "shifted by 1 along axis 0, so that an edge of it is lost"),
        (S, lambda g: g + 1, "too large by 1 everywhere"),
        (S, lambda g: g - 0.25, "too small by 0.25 everywhere"),
        (S, lambda g: 2 * g.T, "transposed: write gx.T; and 2.00 times too large"),
        (S, lambda g: -g[::-1], "reversed along axis 0: write np.flip(gx, 0); and the sign is turned"),
        (S, _in(1, lambda g: 2 * g), "only x[1, :], and 2.00 times too large there"),
        (W, _in((slice(None), 2), lambda g: -g), "only x[:, 2, :, :], and the sign is turned there"),
        (W, _in((slice(None), slice(1, None), 0), lambda g: 0 * g), "only x[:, 1:3, 0, :], and 0 there"),
        # not the same at each call, so that nothing holds
        (S, _in((slice(None), [0, 2]), np.sin), "only x[:, [0, 2]]"),
        (S[0, 0], lambda g: 2 * g, "2.00 times too large everywhere"),
        (S[0, 0], lambda g: -g, "the sign is turned everywhere"),
        (S[0, 0], lambda g: g + 1, "too large by 1 everywhere"),
        (S.astype(np.float32), lambda g: 2 * g, "2.00 times too large everywhere"),
        (rng.uniform(0.5, 2, 2000), lambda g: g / 2, "2.00 times too small everywhere"),
    ],
)
def test_a_slip_is_named(x: Any, change: Any, said: str) -> None:
    assert re.sub("; [0-9]+ is the (length|number) .*", "", _slip(_slipped(change), [x])) == said


@pytest.mark.parametrize(
    "change",
    [
        lambda g: 2 * g + 1,
        lambda g: np.roll(g, 1, 0) + 1,
        lambda g: g.T - 1,
        lambda g: _in(0, lambda r: 2 * r)(g) + 1,
        lambda g: _in(0, lambda r: 2 * r)(g.T),
        lambda g: _in((0, 0), lambda r: 2 * r)(_in((2, 1), lambda r: -r)(g)),
        lambda g: _in(0, lambda r: 2 * r)(_in((slice(None), 0), lambda r: 3 * r)(g)),
        lambda g: g * (1 + np.arange(9).reshape(3, 3)),
        lambda g: g**2,
        np.sin,
    ],
)
def test_two_slips_at_once_and_other_formulas_are_given_no_name(change: Any) -> None:
    for x in S, S[:2], W:
        if x is not S and change(np.ones((3, 3))).shape != change(np.ones((3, 3)).T).shape:
            continue
        try:
            change(np.ones(x.shape))
        except (IndexError, ValueError):
            continue
        if change(np.ones(x.shape)).shape == x.shape:
            assert _slip(_slipped(change), [x]) == ""


@pytest.mark.parametrize("x", [S[0, 0], S[0, :1], S[:1, :1]])
def test_of_a_single_number_no_other_formula_is_taken_for_a_factor(x: Any) -> None:
    """x^3, whose gradient is that of x^2: a factor, but another one at every x"""

    def cube(self: Any, x: Array) -> Array:
        self.x = x
        return x**3

    assert _slip(_broken(forward=cube), [x]) == ""
    assert _slip(_slipped(np.sin), [x]) == ""


@given(st.integers(0, 10**6), st.sampled_from([(), (1,), (2,), (2, 2), (3, 1), (2, 3), (3, 3), (2, 2, 2)]))
@settings(max_examples=40, deadline=None)
def test_a_gradient_is_right_or_wrong_in_a_way_of_its_own(seed: int, shape: tuple[int, ...]) -> None:
    """Formulas that nobody changed are not said to be wrong; one that is wrong at each element in another way has no name."""
    r = np.random.default_rng(seed)
    x, power, wave = r.uniform(0.5, 2, shape), r.uniform(0.5, 3), r.uniform(0.5, 2)
    assert not _said(lambda x: ops.tanh(wave * x) * x**power, [x])
    factors = r.uniform(1.1, 3, shape)
    said = _slip(_slipped(lambda g: g * factors), [x])
    assert said == "" or np.size(factors) == 1 or "only" in said


@pytest.mark.parametrize(
    "shape, axes, said",
    [
        ((3, 5), 1, "5 is the length of axis 1 of input 0"),
        ((7, 3, 2), (1, 2), "6 is the length of axes 1, 2 of input 0"),
        ((3, 5), None, "15 is the number of elements of input 0"),
    ],
)
def test_summed_instead_of_averaged_names_the_axis(shape: tuple[int, ...], axes: Any, said: str) -> None:
    class _Mean(Op):
        def forward(self, x: Array) -> Array:
            self.x = x
            return np.asarray(x.mean(axis=axes))

        def backward(self, gy: Array) -> Grads:
            spread = gy if axes is None else np.expand_dims(gy, axes)
            return (np.broadcast_to(spread, self.x.shape).copy(),)

    class _Sum(_Mean):
        def forward(self, x: Array) -> Array:
            self.x = x
            return np.asarray(x.sum(axis=axes))

        def backward(self, gy: Array) -> Grads:
            n = self.x.size / gy.size
            return tuple(gx / n for gx in super().backward(gy))

    x = rng.random(shape)
    assert f"{said}: summed where it should be averaged?" in _slip(lambda x: _Mean()(x), [x])
    assert f"{said}: averaged where it should be summed?" in _slip(lambda x: _Sum()(x), [x])


class _Product(Op):
    """y = a b, to be broken"""

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return a * b


def _product(*gradients: Any) -> Any:
    def backward(self: Any, gy: Array) -> Grads:
        return tuple(g(self, gy) for g in gradients)

    return lambda a, b: type("_Broken", (_Product,), {"backward": backward})()(a, b)


def test_gradients_in_the_wrong_order_are_named() -> None:
    said = _said(_product(lambda s, gy: gy * s.a, lambda s, gy: gy * s.b), [S, S.T + 1])
    order = "inputs 0 and 1 have each other's gradient: return them in the order of the inputs"
    assert said.count(order) == 2
    one = _said(_product(lambda s, gy: gy * s.a, lambda s, gy: gy * s.a), [S, S.T + 1])
    assert "input 0" in one and order not in one and "input 1 (" not in one


def test_a_cotangent_that_is_not_used_is_named() -> None:
    f = _broken(backward=lambda self, gy: (2 * self.x,))
    assert _slip(f, [S]) == "gy is not used: multiply by it"
    assert _slip(f, [S], cotangent=2 * np.ones((3, 3))) == "gy is not used: multiply by it"
    assert _slip(_broken(backward=lambda self, gy: (3 * self.x,)), [S]) == ""


def test_a_gradient_where_nothing_depends_on_the_input_is_named() -> None:
    f = _broken(forward=lambda self, x: np.ones_like(x), backward=lambda self, gy: (gy,))
    assert _slip(f, [S]) == "not 0, although the values do not depend on this input"


@pytest.mark.parametrize("at", [0.0, 3e-7, -3e-7])
def test_a_kink_is_named_with_its_place(at: float) -> None:
    said = _slip(ops.relu, [np.array([1.0, at, -1.0])], cotangent=np.array([1.0, 1.0, 1.0]))
    assert re.match(r"a kink at \[1\], where the slope is 0(\.\d+)? to the left and (1|0\.7) to the right; no difference", said)
    assert said.endswith("so move the point, by more than the step 1e-06")
    assert not _said(ops.relu, [np.array([1.0, at + 1e-3, -1.0])])


def test_a_kink_is_no_excuse_for_a_wrong_gradient() -> None:
    f = _broken(forward=lambda self, x: abs(x), backward=lambda self, gy: (7 * gy,))
    for x in [0.0], [0.0, 1.0], [0.0, -0.0]:
        assert _slip(f, [np.array(x)]) == ""
    steep = _broken(forward=lambda self, x: np.tanh(300 * x), backward=lambda self, gy: (gy,))
    assert _slip(steep, [np.array([1e-3, 2e-3])]) == ""  # much curved, but smooth


def test_a_tie_of_a_maximum_is_a_kink() -> None:
    assert "a kink at " in _slip(lambda x: ops.max_pool2d(x, 2), [np.array([[[[1.0, 2.0], [2.0, 0.0]]]])])


def test_a_step_that_is_too_small_or_too_large_is_named() -> None:
    assert "with step=1e-05 the wrong elements agree" in _slip(ops.exp, [S], step=1e-3, tolerance=1e-7)
    offset = _broken(forward=lambda self, x: 1e8 + x * x, backward=lambda self, gy: (2 * gy * X,))
    assert "with step=0.0001 the wrong elements agree" in _slip(offset, [X], tolerance=1e-3)


# ---- gradients that do not fit


@pytest.mark.parametrize(
    "shape, axes",
    [
        ((3,), "axis 0, which was"),
        ((2, 1), "axis 1, which was"),
        ((1, 1), "axes 0, 1, which were"),
        ((), "axes 0, 1, which were"),
    ],
)
def test_a_sum_over_a_broadcast_axis_is_asked_for(shape: tuple[int, ...], axes: str) -> None:
    f = _product(lambda s, gy: gy * s.b, lambda s, gy: gy * s.a)
    said = _said(f, [X, rng.random(shape)])
    assert f"with this it is right: for input 1 of _Broken, sum over {axes} broadcast: minidl.array.sum_to(gx, x.shape)" in said
    assert "with this" not in _said(_product(lambda s, gy: gy * s.b, lambda s, gy: 2 * gy * s.a), [X, rng.random(shape)])


def test_other_shapes_and_types_are_mended_in_words() -> None:
    def summed(**methods: Any) -> Any:
        return _broken(forward=lambda self, x: x.sum(axis=1), **methods)

    for f, said in [
        (summed(backward=lambda self, gy: (gy,)), "repeat it along axis 1: np.broadcast_to(np.expand_dims(gx, 1), x.shape)"),
        (summed(backward=lambda self, gy: (gy[:, None],)), "repeat it along axis 1: np.broadcast_to(gx, x.shape)"),
        (_broken(backward=lambda self, gy: (_square(X, gy).T,)), "transpose it: gx.T"),
        (_broken(backward=lambda self, gy: (_square(X, gy).ravel(),)), "reshape it: gx.reshape(x.shape)"),
        (_broken(backward=lambda self, gy: (_square(X, gy)[..., None],)), "sum over it: gx.sum(axis=2)"),
    ]:
        assert f"with this it is right: for input 0 of _Broken, {said}" in _said(f, [X]), said
    exact = np.array([[0.5, 1.0, 1.5]])
    single = _broken(backward=lambda self, gy: (_square(exact, gy).astype(np.float32),))
    said = _said(single, [exact], cotangent=np.array([[1.0, 2.0, 0.5]]))
    assert "give it the type of its input: .astype(x.dtype)" in said
    assert "with this" not in _said(_broken(backward=lambda self, gy: (gy.T,)), [X])


@pytest.mark.parametrize(
    "returned, said",
    [
        (
            lambda gy: None,
            "TypeError: backward returned nothing for gradients, expected a tuple with one for its input; write `return",
        ),
        (lambda gy: gy, "TypeError: backward returned an array for gradients, expected a tuple"),
        (lambda gy: Tensor(gy), "TypeError: backward returned a Tensor for gradients, expected a tuple"),
        (lambda gy: (gx for gx in (gy,)), "TypeError: backward returned a generator for gradients"),
        (lambda gy: (), "ValueError: backward returned 0 gradients, expected a tuple with one for its input"),
        (lambda gy: (gy, None), "ValueError: backward returned 2 gradients"),
        (lambda gy: (Tensor(gy),), r"TypeError: backward returned a Tensor for an input of \(2, 3\) float64, .* write gx.data"),
        (lambda gy: (1.0,), r"TypeError: backward returned a float for an input of .* write np.asarray\(gx, x.dtype\)"),
        (lambda gy: (gy.tolist(),), "TypeError: backward returned a list for an input of"),
    ],
)
def test_what_is_no_tuple_of_arrays_is_refused_in_one_sentence(returned: Any, said: str) -> None:
    f = _broken(backward=lambda self, gy: returned(gy))
    with pytest.raises(GradientError, match=said):
        gradient_check(f, [X])
    x = Tensor(X, requires_grad=True)
    with pytest.raises((TypeError, ValueError), match=said.partition(": ")[2]):
        for _ in core.walk(ops.sum(f(x))):
            pass
    with pytest.raises((TypeError, ValueError), match=said.partition(": ")[2]):
        ops.sum(f(x)).backward()
    assert x.grad is None


# ---- the report


def test_a_report_is_one_line() -> None:
    report = gradient_check(ops.tanh, [X])
    assert re.fullmatch(r"tanh: right in 1 input, 6 elements checked, largest error below 1e-\d+, tolerance 1e-06", str(report))
    assert repr(report) == str(report) and report.checked == 6
    assert float(re.search(r"below (\S+),", str(report))[1]) >= report.error  # type: ignore[index]
    many = gradient_check(lambda a, b: a * b, [rng.random(5000), 1.0])
    assert "right in 2 inputs, 301 elements checked" in str(many)


def test_the_adjoint_check_says_which_of_the_two_is_wrong() -> None:
    def push(self: Any, tx: Array) -> Array:
        return 2 * self.x * tx

    adjoint_check(_broken(push=push), [X])
    with pytest.raises(GradientError, match=r"disagree; push is wrong: differences of the values give \S+, as backward does"):
        adjoint_check(_broken(push=lambda self, tx: self.x * tx), [X])
    with pytest.raises(GradientError, match=r"disagree; backward is wrong: .* as push does"):
        adjoint_check(_broken(push=push, backward=lambda self, gy: (self.x * gy,)), [X])
    with pytest.raises(GradientError, match=r"disagree\n"):
        adjoint_check(_broken(push=lambda self, tx: tx, backward=lambda self, gy: (self.x * gy,)), [X])


def test_gradients_of_other_shapes_in_the_wrong_order_are_named() -> None:
    class _Swapped(core.MatMul):
        def backward(self, gy: Array) -> Grads:
            ga, gb = super().backward(gy)
            return gb, ga

    said = _said(lambda a, b: _Swapped()(a, b), [rng.random((2, 3)), rng.random((3, 4))])
    assert "with this it is right: return the gradients of the inputs 0 and 1 of _Swapped in the order of the inputs" in said


def _tanh(slope: Any) -> Any:
    def forward(self: Any, x: Array) -> Array:
        self.y = np.tanh(x)
        return self.y

    return _broken(forward=forward, backward=lambda self, gy: (gy * slope(self.y),))


def test_at_zero_too_another_formula_is_not_taken_for_a_factor() -> None:
    """2 (1 - y) is at 0 twice 1 - y^2, and not elsewhere"""
    zeros = np.zeros((2, 3))
    assert _slip(_tanh(lambda y: 2 * (1 - y)), [zeros]) == ""
    assert _slip(_tanh(lambda y: 2 * (1 - y**2)), [zeros]).startswith("2.00 times too large everywhere")


def test_a_slip_is_named_where_the_function_is_not_defined_beside() -> None:
    def forward(self: Any, x: Array) -> Array:
        self.x = x
        return np.arccos(x - 0.001)

    f = _broken(forward=forward, backward=lambda self, gy: (gy / np.sqrt(1 - (self.x - 0.001) ** 2),))
    with np.errstate(invalid="ignore"):
        assert _slip(f, [np.ones((3, 3))]) == "the sign is turned everywhere"


@pytest.mark.parametrize("n", [12, 40])
def test_many_wrong_places_are_not_listed(n: int) -> None:
    assert _slip(_slipped(_in(slice(0, None, 2), np.sin)), [np.linspace(0.5, 2, 2 * n)]) == ""


def test_five_axes_are_permuted() -> None:
    x = rng.uniform(0.5, 2, (2, 1, 3, 2, 3))
    said = _slip(_slipped(lambda g: g.transpose(3, 1, 4, 0, 2)), [x])
    assert said == "transposed: write gx.transpose(3, 1, 4, 0, 2)"

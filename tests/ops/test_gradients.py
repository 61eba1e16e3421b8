"""Every op's gradient against central differences, and the same for checks: a broken gradient must turn them red."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from minidl import OPS, Op, Tensor, core, gradients, kernels, ops
from minidl.check import GradientError, gradient_check
from tests.ops.cases import CASES, Case

NAMES = sorted(CASES)


def test_every_op_has_a_case() -> None:
    of_minidl = {name for name, op in OPS.items() if op.__module__.startswith("minidl.")}  # tests define ops too
    assert of_minidl == set(CASES)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=15)
def test_gradient_with_reference_kernels(name: str, data: st.DataObject) -> None:
    _check_drawn_case("reference", name, data)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=5)
def test_gradient_with_compiled_kernels(name: str, data: st.DataObject) -> None:
    _check_drawn_case("compiled", name, data)


def _check_drawn_case(kernel: str, name: str, data: st.DataObject) -> None:
    case = data.draw(CASES[name])
    with kernels.use(kernel):
        gradient_check(case, case.inputs)
        y = case(*[Tensor(x, requires_grad=True) for x in case.inputs])
    assert type(y.op).__name__ == name  # it is this op that was checked


@pytest.mark.parametrize("kernel", kernels.CHOICES)
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=3)
def test_float32_stays_float32(kernel: str, name: str, data: st.DataObject) -> None:
    case = data.draw(CASES[name])
    xs = [Tensor(x.astype(np.float32), requires_grad=True) for x in case.inputs]
    with kernels.use(kernel):
        y = case(*xs)
        gxs = gradients(y, xs, np.ones_like(y.data))
        with core.no_grad():
            y64 = case(*[Tensor(x) for x in case.inputs])
    assert y.dtype == np.float32
    assert [gx.dtype for gx in gxs] == [np.float32] * len(xs)
    assert [gx.shape for gx in gxs] == [x.shape for x in xs]
    np.testing.assert_allclose(y.data, y64.data, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=4)
def test_gradients_of_leaves_belong_to_the_leaves_alone(name: str, data: st.DataObject) -> None:
    """They share no memory with each other, with gy or with the data, and may be changed in place."""
    case = data.draw(CASES[name])
    xs = [Tensor(x, requires_grad=True) for x in case.inputs]
    y = case(*xs)
    gy = np.ones_like(y.data)
    y.backward(gy, keep_graph=True)
    others = [gy, y.data, *(x.data for x in xs), *(value for value in vars(y.op).values() if isinstance(value, np.ndarray))]
    for i, x in enumerate(xs):
        assert x.grad is not None and x.grad.flags.writeable
        for other in [*others, *(x.grad for x in xs[i + 1 :])]:
            assert not np.may_share_memory(x.grad, other)


# ---- the checks are checked

Backward = Callable[[Op, np.ndarray], Any]


def _sevenfold(gxs: list[np.ndarray]) -> list[np.ndarray]:
    return [7 * gx for gx in gxs]


def _zero(gxs: list[np.ndarray]) -> list[np.ndarray]:
    return [0 * gx for gx in gxs]


def _one_element(gxs: list[np.ndarray]) -> list[np.ndarray]:
    gx = gxs[0].copy()
    gx[(-1,) * gx.ndim] += 0.01
    return [gx, *gxs[1:]]


def _reversed(gxs: list[np.ndarray]) -> list[np.ndarray]:
    return [np.asarray(gx).ravel()[::-1].reshape(gx.shape) for gx in gxs]


def _break(op: type[Op], change: Callable[[list[np.ndarray]], list[np.ndarray]], patch: pytest.MonkeyPatch) -> None:
    right = op.backward

    def wrong(self: Op, gy: np.ndarray) -> list[np.ndarray | None]:
        gxs = list(right(self, gy))
        changed = iter(change([gx for gx, need in zip(gxs, self.needs, strict=True) if need]))
        return [next(changed) if need else None for need in self.needs]

    patch.setattr(op, "backward", wrong)


@pytest.mark.parametrize("change", [_sevenfold, _zero, _one_element, _reversed])
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=3, suppress_health_check=list(HealthCheck))  # of a sum over all, the reversed gradient is the same
def test_a_broken_gradient_is_found(name: str, change: Any, data: st.DataObject) -> None:
    case = data.draw(CASES[name])
    gxs = _gradients(case)
    assume(any(np.abs(a - b).max() > 1e-3 for a, b in zip(gxs, change(gxs), strict=True)))  # not where the gradient is zero
    with pytest.MonkeyPatch.context() as patch, kernels.use("reference"):
        _break(OPS[name], change, patch)
        with pytest.raises(GradientError):
            gradient_check(case, case.inputs)


def _gradients(case: Case) -> list[np.ndarray]:
    xs = [Tensor(x, requires_grad=True) for x in case.inputs]
    with kernels.use("reference"):
        y = case(*xs)
        return gradients(y, xs, np.random.default_rng(1).standard_normal(y.shape))


@pytest.mark.parametrize("name", ["Add", "Sub", "Mul", "Div", "Maximum", "Where"])
def test_a_forgotten_sum_over_broadcasting_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_instead_of_sum(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        g = g[(0,) * (g.ndim - len(shape))]
        return g[tuple(slice(n) for n in shape)]

    f = {
        "Add": lambda a, b: a + b,
        "Sub": lambda a, b: a - b,
        "Mul": lambda a, b: a * b,
        "Div": lambda a, b: a / b,
        "Maximum": ops.maximum,
        "Where": lambda a, b: ops.where(np.array([True, False, True]), a, b),
    }[name]
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 2, (2, 3)), rng.uniform(1, 2, (1, 3)) * [1, 0.1, 1.3]
    gradient_check(f, [a, b])
    gradient_check(f, [b, a])
    for module in (core, ops.elementwise):
        monkeypatch.setattr(module, "sum_to", first_instead_of_sum)
    with pytest.raises(GradientError, match="input 1"):
        gradient_check(f, [a, b])
    with pytest.raises(GradientError, match="input 0"):
        gradient_check(f, [b, a])


@pytest.mark.parametrize("operator", [ops.matmul, ops.broadcast_to])
def test_a_forgotten_sum_over_leading_axes_is_found(operator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsummed(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return g

    rng = np.random.default_rng(0)
    if operator is ops.matmul:
        f, inputs = ops.matmul, [rng.random((2, 3)), rng.random((4, 3, 2))]
    else:
        f, inputs = (lambda x: ops.broadcast_to(x, (4, 2))), [rng.random(2)]
    gradient_check(f, inputs)
    for module in (core, ops.shape):
        monkeypatch.setattr(module, "sum_to", unsummed)
    with pytest.raises(GradientError, match=r"backward returned \(4, "):
        gradient_check(f, inputs)

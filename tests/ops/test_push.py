"""Every op pushes a change forward: against differences of its own values, against its backward, and broken on purpose."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import minidl
from minidl import OPS, Op, Tensor, gradients, jvp, kernels, no_grad, ops
from minidl.check import GradientError, adjoint_check
from tests.ops.cases import CASES, Case

NAMES = sorted(CASES)


def draw_tangents(case: Case, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(x.shape)) for x in case.inputs]


def pushed(case: Case, txs: list[np.ndarray]) -> tuple[Tensor, np.ndarray]:
    xs = [Tensor(x, requires_grad=True) for x in case.inputs]
    y = case(*xs)
    return y, jvp(y, xs, txs)


def check(name: str, case: Case, seed: int) -> None:
    """The adjoint identity to 1e-10 of |tx| |gy|, with a tangent in every input and in each alone; and differences."""
    adjoint_check(case, case.inputs, seed=seed)
    txs, h = draw_tangents(case, seed), 1e-6
    y, ty = pushed(case, txs)
    assert type(y.op).__name__ == name  # it is this op that was checked
    with no_grad():
        high, low = (case(*[Tensor(x + s * h * tx) for x, tx in zip(case.inputs, txs, strict=True)]).data for s in (1, -1))
    np.testing.assert_allclose(ty, (high - low) / (2 * h), rtol=0, atol=1e-6 * max(1.0, float(np.abs(ty).max())))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=5)
def test_push_with_reference_kernels(name: str, data: st.DataObject) -> None:
    with kernels.use("reference"):
        check(name, data.draw(CASES[name]), data.draw(st.integers(0, 99)))


@pytest.mark.ci
@pytest.mark.parametrize("kernel", kernels.CHOICES)
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=25)
def test_push_on_many_shapes(name: str, kernel: str, data: st.DataObject) -> None:
    with kernels.use(kernel):
        check(name, data.draw(CASES[name]), data.draw(st.integers(0, 99)))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=2)
def test_float32_stays_float32_and_nothing_is_changed(name: str, data: st.DataObject) -> None:
    case = data.draw(CASES[name])
    case.inputs = [x.astype(np.float32) for x in case.inputs]
    txs = [tx.astype(np.float32) for tx in draw_tangents(case, 0)]
    before = [a.copy() for a in (*case.inputs, *txs)]
    y, ty = pushed(case, txs)
    assert (ty.shape, ty.dtype) == (y.shape, np.float32)
    assert ty.flags.writeable and not any(np.may_share_memory(ty, a) for a in (*case.inputs, *txs))
    assert all((a == b).all() for a, b in zip((*case.inputs, *txs), before, strict=True))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_halves_push_halves(precision: str) -> None:
    rng = np.random.default_rng(0)
    x, gamma, beta, w, b, v = (
        Tensor(rng.normal(size=s).astype(np.float32), requires_grad=True) for s in ((3, 2, 6, 6), 4, 4, (4, 2, 3, 3), 4, (3, 4))
    )
    xs = [x, gamma, beta, w, b, v]
    txs = [rng.normal(size=t.shape).astype(np.float32) for t in xs]
    with minidl.mixed(precision):
        h = ops.batch_norm_relu(ops.conv2d(x, w, b), gamma, beta)
        h = ops.relu(ops.batch_norm(ops.max_pool2d(h, 2), gamma, beta))
        y = ops.cross_entropy(ops.linear(ops.global_avg_pool2d(h), v, b[:3]), np.array([0, 1, 2]))
    ty = jvp(y, xs, txs)
    back = sum(float((tx * gx).sum()) for tx, gx in zip(txs, gradients(y, xs), strict=True))
    assert ty.dtype == np.float32 and float(ty) == pytest.approx(back, rel=1e-5 if precision == "float32" else 3e-2)


# ---- the text of an op


@pytest.mark.parametrize("name", NAMES)
def test_forward_push_and_backward_stand_together_with_their_formulas(name: str) -> None:
    own = vars(OPS[name])
    methods = [own[method] for method in ("forward", "push", "backward")]
    lines = [inspect.getsourcelines(method)[1] for method in methods]
    assert lines == sorted(lines)
    between = [m for m in own.values() if inspect.isfunction(m) and lines[0] < inspect.getsourcelines(m)[1] < lines[2]]
    assert between == [own["push"]]
    docs = [text.__doc__ for text in (OPS[name], *methods[1:])]
    assert all(docs), "the first lines of the docstrings of the class, of push and of backward are its formulas"
    formulas = [doc.partition("\n")[0] for doc in docs]
    assert all(" = " in formula or " += " in formula for formula in formulas), formulas
    assert [formula[0] for formula in formulas] == ["y", "t", "g"], formulas
    assert formulas[1].startswith("ty")


# ---- the checks are checked


def _sevenfold(a: np.ndarray) -> np.ndarray:
    return 7 * a


def _zero(a: np.ndarray) -> np.ndarray:
    return 0 * a


def _negative(a: np.ndarray) -> np.ndarray:
    return -a


CHANGES: list[Callable[[np.ndarray], np.ndarray]] = [_sevenfold, _zero, _negative]


def breaks(name: str, method: str, change: Callable[[np.ndarray], np.ndarray], data: st.DataObject) -> None:
    """The adjoint check of the op turns red where what `method` returns is changed."""
    case = data.draw(CASES[name])
    seed = data.draw(st.integers(0, 99))
    cls, right = OPS[name], getattr(OPS[name], method)
    xs = [Tensor(x, requires_grad=True) for x in case.inputs]
    gxs = gradients(case(*xs), xs, np.random.default_rng(seed).standard_normal(case(*xs).shape))
    assume(any(np.abs(gx).max() > 1e-3 for gx in gxs))  # not where everything is zero

    def wrong(self: Op, *arrays: Any) -> Any:
        out = right(self, *arrays)
        return change(out) if method == "push" else [None if gx is None else change(gx) for gx in out]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, method, wrong)
        with pytest.raises(GradientError, match="<ty, gy> = "):
            adjoint_check(case, case.inputs, seed=seed)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("method", ["push", "backward"])
@pytest.mark.parametrize("name", ["BatchNorm", "Conv2dReLU", "Maximum", "MaxPool2d", "Softmax"])
@given(data=st.data())
@settings(max_examples=2, suppress_health_check=list(HealthCheck))
def test_a_broken_direction_is_found(name: str, method: str, change: Any, data: st.DataObject) -> None:
    breaks(name, method, change, data)


@pytest.mark.ci
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("method", ["push", "backward"])
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=5, suppress_health_check=list(HealthCheck))
def test_a_broken_direction_of_any_op_is_found(name: str, method: str, change: Any, data: st.DataObject) -> None:
    breaks(name, method, change, data)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("Dropout", "To")])
def test_one_forgotten_input_is_found(name: str) -> None:
    """A push that leaves out the tangent of one input, as the norms once refused those of their parameters."""

    @given(data=st.data())
    @settings(max_examples=1, suppress_health_check=list(HealthCheck))
    def run(data: st.DataObject) -> None:
        case = data.draw(CASES[name])
        xs = [Tensor(x, requires_grad=True) for x in case.inputs]
        y = case(*xs)
        gxs = gradients(y, xs, np.random.default_rng(0).standard_normal(y.shape))
        last = len(case.inputs) - 1
        assume(np.abs(gxs[last]).max() > 1e-3)
        right = OPS[name].push

        def forgetful(self: Op, *txs: Any) -> Any:
            at = max(i for i, x in enumerate(self.inputs) if x is not None)
            txs = tuple(None if t is None else 0 * t if i == at else t for i, t in enumerate(txs))
            return right(self, *txs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OPS[name], "push", forgetful)
            with pytest.raises(GradientError):
                adjoint_check(case, case.inputs)

    run()


def test_max_pooling_knows_where_its_maxima_are() -> None:
    x = np.random.default_rng(0).permutation(2 * 3 * 7 * 6).reshape(2, 3, 7, 6).astype(float)
    y = ops.max_pool2d(Tensor(x, requires_grad=True), (3, 2), (2, 1), padding=1)
    rows, columns = y.op.indices()  # type: ignore[union-attr]
    for n, c, i, j in np.ndindex(*y.shape):
        assert x[n, c, rows[n, c, i, j], columns[n, c, i, j]] == y.data[n, c, i, j]

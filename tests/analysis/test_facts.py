"""The table of what is known about each op: whole, right where it can be checked, and honest about an op that is not in it."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
import models
from minidl import OPS, Op, Tensor, nn, ops, view
from minidl.analysis import cost
from minidl.analysis.facts import FACTS, Facts, facts, formulas
from minidl.array import Array, dot
from minidl.core import Grads
from minidl.ops.activation import ReLU
from minidl.ops.conv import Conv2d
from minidl.ops.dense import DenseBlock
from minidl.ops.norm import BatchNormFrozen
from tests.ops.cases import CASES, dense_block

NAMES = sorted(CASES)


def test_the_table_knows_every_op_that_the_layers_and_models_call() -> None:
    """It need not know one of the reader's own, which has a case all the same."""
    assert {op.__name__ for op in FACTS} <= OPS.keys()
    for model in (models.googlenet(paper=True), models.resnet8(), models.densenet_bc(depth=16, growth=4)):
        table = cost(model, (3, 33, 33))
        assert not table.at_least and not any(sight.guessed or math.isnan(sight.size) for r in table.rows for sight in r.field)
        assert {r.op for r in table.rows} <= {op.__name__ for op in FACTS}
    assert len(FACTS) >= 52


# ---- the account


@pytest.mark.parametrize("name", NAMES)
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
        c = facts(y.op).constant(y.op, gy)
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
        ops.softmax(x), ops.log_softmax(x), ops.batch_norm(x, one, one), ops.batch_norm_relu(x, one, one), ops.var(x),
        ops.logsumexp(x), ops.group_norm(x, 3),
    ):  # fmt: skip
        assert y.op is not None and facts(y.op).constant(y.op, np.ones(y.shape)) is None, y.op


def test_fused_ops_keep_an_account_too() -> None:
    """With a frozen norm and fixed parameters they are piecewise linear, bias, residual and gates included."""
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(2, 3, 4, 4)), requires_grad=True)
    w, b, r, gamma, beta, mean = (Tensor(rng.normal(size=s)) for s in ((3, 3, 3, 3), 3, (2, 3, 4, 4), 3, 3, 3))
    var = 0.5 + rng.random(3)
    block = dense_block(x, gamma, beta, w, convolutions=(1,), frozen=((mean.data, var),))
    for y in (
        ops.conv2d_relu(x, w, b, r, padding=1),
        ops.conv2d_relu(x, w, b, padding=1),
        ops.batch_norm_frozen_relu(x, gamma, beta, mean.data, var, r),
        ops.batch_norm_frozen_relu(x, gamma, beta, mean.data, var),
        block,
    ):
        gy = rng.normal(size=y.shape)
        assert y.op is not None
        c = facts(y.op).constant(y.op, gy)
        assert c is not None and abs(c) > 1e-3
        gx = y.op.backward(gy)[0]
        assert gx is not None and dot(y.data, gy) == pytest.approx(dot(x.data, gx) + c, rel=1e-10)


# ---- words and formulas


def test_a_fused_op_is_described_by_its_parts() -> None:
    rng = np.random.default_rng(0)
    x, w, r = (Tensor(rng.normal(size=s), requires_grad=True) for s in ((1, 2, 4, 4), (2, 2, 1, 1), (1, 2, 4, 4)))
    plain, added = ops.conv2d_relu(x, w).op, ops.conv2d_relu(x, w, None, r).op
    assert plain is not None and added is not None
    assert [part.__name__ for part in plain.parts()] == ["Conv2d", "ReLU"]
    assert [part.__name__ for part in added.parts()] == ["Conv2d", "Add", "ReLU"]
    assert facts(plain).name == "convolution, relu" and facts(added).word == "conv · + · relu"
    assert facts(plain).kind == "convolution" and facts(plain).back.startswith(FACTS[ReLU].back)
    norm = ops.batch_norm_frozen_relu(x, *(Tensor(np.ones(2)) for _ in "ab"), np.ones(2), np.ones(2)).op
    assert norm is not None and norm.parts() == (BatchNormFrozen, ReLU)
    block = dense_block(x, *(Tensor(np.ones(s)) for s in (2, 2, (3, 2, 1, 1))), convolutions=(1,)).op
    assert block is not None and ReLU in block.parts() and facts(block).kind == "convolution"


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=3)
def test_parts_are_what_the_op_computes(name: str, data: st.DataObject) -> None:
    """Only what computes several things has parts, all of them ops of the table; the relu at the end is there."""
    case = data.draw(CASES[name])
    op = case(*[Tensor(x, requires_grad=True) for x in case.inputs]).op
    assert op is not None and set(op.parts()) <= FACTS.keys() and not any(OPS[part.__name__] is type(op) for part in op.parts())
    assert bool(op.parts()) == (
        name in ("BatchNormFrozenReLU", "BatchNormReLU", "Conv2dReLU", "DenseBlock", "SyncBatchNormReLU")
    )


def test_formulas_are_the_first_lines_of_docstrings() -> None:
    y = ops.relu(Tensor(np.ones(2), requires_grad=True))
    assert y.op is not None
    assert formulas(y.op) == ("y = max(x, 0)", "ty = tx where x > 0, else 0", "gx = gy where x > 0, else 0")
    assert formulas(Shifted()) == ("y = f(x)", "ty[m] = sum_k dy[m]/dx[k] tx[k]", "gx[k] = sum_m dy[m]/dx[k] gy[m]")


# ---- an op that nobody knows


class Shifted(Op):
    def forward(self, x: Array) -> Array:
        return x + 1

    def backward(self, gy: Array) -> Grads:
        return (gy,)


class Halved(Op):
    """y[i,j] = x[2 i, 2 j]"""

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x[:, :, ::2, ::2].copy()

    def backward(self, gy: Array) -> Grads:
        gx = np.zeros(self.shape, gy.dtype)
        gx[:, :, ::2, ::2] = gy
        return (gx,)


class Wider(Conv2d):
    """y = 2 conv2d(x, w) + b: a class of one's own that inherits, and computes something else"""

    def forward(self, x: Array, w: Array, b: Array | None) -> Array:
        return 2 * super().forward(x, w, b)


for own in (Shifted, Halved, Wider):
    del OPS[own.__name__]


class Function(nn.Module):
    def __init__(self, f: Any) -> None:
        self.f, self.conv, self.head = f, nn.Conv2d(2, 3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(ops.global_avg_pool2d(ops.relu(self.f(self.conv(x)))))


def test_an_op_of_the_same_shape_is_guessed_and_said_to_be() -> None:
    table = cost(Function(lambda x: Shifted()(x)), (2, 8, 8))
    conv, own, relu, _, head = table.rows
    assert (own.multiply_adds, own.at_least, own.kind, own.word) == (0, True, "other", "shifted")
    assert own.receptive_field == relu.receptive_field == (3, 3) and not conv.field[0].guessed
    assert table.at_least and table.multiply_adds == conv.multiply_adds + head.multiply_adds
    lines = [line.split() for line in str(table).splitlines()]
    assert lines[3] == ["Shifted", "(1,3,6,6)", "3x3?", "1x1", "0", "?", str(own.bytes)]
    assert lines[4][:3] == ["ReLU", "(1,3,6,6)", "3x3?"] and lines[2][4] == "3x3"
    assert "  at least 1,950  " in str(table).splitlines()[-1] and conv.multiply_adds + head.multiply_adds == 1950
    behind = cost(Function(lambda x: ops.resize(ops.conv2d(Shifted()(x), np.ones((3, 3, 3, 3), np.float32)), 8)), (2, 8, 8))
    assert [r.field[0].guessed for r in behind.rows[:5]] == [False, True, True, True, True]
    assert behind.rows[2].receptive_field == (5, 5)
    collapsed = cost(nn.Sequential(Function(lambda x: Shifted()(x))), (2, 8, 8)).collapsed(1)
    assert collapsed.at_least and "at least 1,950" in str(collapsed).splitlines()[2]


def test_an_op_that_changes_the_shape_leaves_the_field_unknown() -> None:
    net = Function(lambda x: ops.max_pool2d(ops.conv2d(Halved()(x), np.ones((3, 3, 1, 1), np.float32)), 2))
    table = cost(net, (2, 14, 14))
    assert [r.op for r in table.rows[:4]] == ["Conv2d", "Halved", "Conv2d", "MaxPool2d"]
    assert all(math.isnan(size) for r in table.rows[1:] for size in r.receptive_field or ())
    assert all(r.jump is None for r in table.rows[1:]) and table.rows[0].receptive_field == (3, 3)
    assert str(table).splitlines()[3].split()[:5] == ["Halved", "(1,3,6,6)", "?", "0", "?"]
    joined = cost(Function(lambda x: x[:, :, ::2, ::2] + Halved()(x)), (2, 14, 14)).rows
    assert math.isnan(next(r for r in joined if r.op == "Add").receptive_field[0])  # type: ignore[index]


def test_a_class_that_inherits_is_not_taken_for_its_base() -> None:
    x, w = Tensor(np.ones((1, 2, 5, 5)), requires_grad=True), Tensor(np.ones((3, 2, 3, 3)))
    y = Wider((1, 1), (0, 0), (1, 1), 1)(x, w, None)
    assert y.op is not None and facts(y.op).multiply_adds is None and facts(y.op).constant(y.op, np.ones(y.shape)) is None
    assert facts(y.op).name == "Wider"


def test_it_is_drawn(tmp_path: pathlib.Path) -> None:
    view.architecture(tmp_path / "net.svg", cost(Function(lambda x: Halved()(x)), (2, 8, 8)))
    assert "halved" in (tmp_path / "net.svg").read_text(encoding="utf-8")


def test_more_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Facts("shift", kind="linear", word="+1", constant=lambda op, gy: float(gy.sum()))
    monkeypatch.setitem(FACTS, Shifted, known)
    row = cost(Function(lambda x: Shifted()(x)), (2, 8, 8)).rows[1]
    assert (row.at_least, row.kind, row.word) == (False, "linear", "+1") and not row.field[0].guessed


def test_a_group_norm_sees_the_whole_image() -> None:
    rows = cost(nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.TopKPool2d(3)), (1, 12, 12)).rows
    assert [row.receptive_field for row in rows] == [(3, 3), (math.inf, math.inf), (math.inf, math.inf)]
    assert [row.at_least for row in rows] == [False] * 3 and rows[2].shape == (1, 4)


def test_a_smooth_maximum_sees_the_cells_around() -> None:
    """Of a kernel of 5x5 cells the two on each side, in images of the same size too."""
    for s in (1, 2):
        kernel = np.full((5, 5, s, s), 0.5, np.float32)
        field = cost(nn.Sequential(Smooth(kernel)), (1, 12, 12)).rows[0].receptive_field
        assert field == (5, 5)


class Smooth(nn.Module):
    def __init__(self, kernel: Array) -> None:
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        return ops.smooth_max_convolution(x, self.kernel, 1.0)


def test_a_dense_block_counts_and_sees() -> None:
    assert FACTS[DenseBlock].multiply_adds is not None
    assert minidl.cost(nn.Sequential(nn.Conv2d(1, 2, 3)), (1, 5, 5)).at_least is False

"""The account of the score and the flow of pixels, at every cut of drawn nets and of the models; and what turns them red."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import models
from minidl import OPS, Tensor, flow, nn, ops
from minidl.analysis.facts import Facts
from minidl.array import Array
from minidl.core import Grads, Op, pushes
from minidl.flow import BackwardPass, Wire, arithmetic, ledger, pixel_flow, strongest_path
from minidl.ops.pool import MaxPool2d

from .nets import BLOCKS, conv, head, scores


def some_pixels(x: Tensor, count: int = 3) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    return [tuple(int(rng.integers(n)) for n in x.shape) for _ in range(count)]


def account_error(backward_pass: BackwardPass) -> float:
    return max(abs(line.total - backward_pass.y.item()) for line in ledger(backward_pass) if line.open is None)


def flow_error(backward_pass: BackwardPass, x: Tensor) -> float:
    flows = [pixel_flow(backward_pass, x, index) for index in some_pixels(x)]
    return max(abs(total - f.derivative) for f in flows for total in f.sums)


def cell_error(backward_pass: BackwardPass, x: Tensor) -> float:
    cells = [cell for index in some_pixels(x) for cell in strongest_path(backward_pass, x, index)]
    return max(abs(cell.value - cell.engine) for cell in cells)


@given(scores())
@settings(max_examples=60)
def test_drawn_nets(net: tuple[Tensor, Tensor]) -> None:
    y, x = net
    backward_pass = BackwardPass(y)
    assert all(line.open is None for line in ledger(backward_pass)) and len(backward_pass.cuts) == len(backward_pass.ops) + 1
    size = max(1.0, *(sum(abs(v) for v in line.counts.values()) for line in ledger(backward_pass)))
    assert account_error(backward_pass) < 1e-10 * size
    assert flow_error(backward_pass, x) < 1e-10 * max(1.0, float(np.abs(backward_pass.gradient(x)).max()))
    assert cell_error(backward_pass, x) < 1e-10 * max(1.0, *(float(np.abs(g).max()) for g in backward_pass.gx.values()))


@given(scores())
@settings(max_examples=30)
def test_a_cut_parts_the_score_from_the_image(net: tuple[Tensor, Tensor]) -> None:
    """Every way from x to y crosses each cut once: its wires go from below it to above it, and none is missing."""
    y, _ = net
    backward_pass = BackwardPass(y)
    place: dict[Op | None, int] = {op: k for k, op in enumerate(backward_pass.ops)}
    for k, cut in enumerate(backward_pass.cuts):
        crossing = {
            wire
            for wire in backward_pass.gx
            if place.get(wire.source.op, len(backward_pass.ops)) >= k and (-1 if wire.to is None else place[wire.to]) < k
        }
        assert set(cut) == crossing and len(cut) == len(crossing)


@given(scores())
@settings(max_examples=15)
def test_the_derivative_is_that_of_the_score(net: tuple[Tensor, Tensor]) -> None:
    """What reaches the score, t there, is a difference of the score's own values; J e_j has nothing to do with backward."""
    y, x = net
    backward_pass = BackwardPass(y)
    t = np.random.default_rng(0).normal(size=x.shape)
    *_, (_, _, at_score) = pushes(y, {x: t})
    assert float(at_score) == pytest.approx(float((t * backward_pass.gradient(x)).sum()), rel=1e-9, abs=1e-9)


MODELS = {
    "vgg11": (32, {}),
    "vgg11_bn": (32, {}),
    "googlenet": (33, {"aux": False}),
    "resnet8": (17, {}),
    "resnet18": (33, {}),
    "resnet50": (32, {}),
    "plain20": (8, {}),
    "densenet_bc": (12, {"depth": 16, "growth": 3}),
    "densenet40_12": (8, {}),
    "densenet121": (32, {}),
    "inception_v3": (75, {"aux": False}),
}


def of_model(name: str, size: int, settings: dict[str, Any], fused: bool = False) -> tuple[Tensor, Tensor]:
    """The score of class 2 and the image of a model in float64, with norms that are not those of a new model."""
    rng = np.random.default_rng(0)
    model = getattr(models, name)(num_classes=4, **settings).eval().to(dtype="float64")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            C = module.weight.size
            module.running_mean[:], module.running_var[:] = 0.2 * rng.normal(size=C), 0.5 + rng.random(C)
            module.bias.data[:] = 0.2 * rng.normal(size=C)
    x = Tensor(rng.normal(size=(1, 3, size, size)), requires_grad=True)
    with model.frozen(), nullcontext() if fused else ops.unfused():
        return model(x)[0, 2], x


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.ci] if n.startswith("vgg") else []) for n in MODELS])
def test_models(name: str) -> None:
    y, x = of_model(name, *MODELS[name])
    backward_pass = BackwardPass(y)
    assert all(line.open is None for line in ledger(backward_pass))
    assert (
        account_error(backward_pass) < 1e-10 and flow_error(backward_pass, x) < 1e-10 and cell_error(backward_pass, x) < 1e-10
    )


@pytest.mark.parametrize("name", ["resnet8", "densenet_bc"])
def test_fused_ops_are_single_steps_with_the_same_account(name: str) -> None:
    y, x = of_model(name, *MODELS[name], fused=True)
    assert {"resnet8": "Conv2dReLU", "densenet_bc": "DenseBlock"}[name] in {type(op).__name__ for op in BackwardPass(y).ops}
    backward_pass, single = BackwardPass(y), BackwardPass(of_model(name, *MODELS[name])[0])
    assert len(backward_pass.ops) < len(single.ops) and all(line.open is None for line in ledger(backward_pass))
    assert (
        account_error(backward_pass) < 1e-10 and flow_error(backward_pass, x) < 1e-10 and cell_error(backward_pass, x) < 1e-10
    )
    assert ledger(backward_pass)[-1].biases == pytest.approx(ledger(single)[-1].biases, rel=1e-9)
    assert all(
        cell.window() is None or type(cell.op).__name__ == "Conv2d" for cell in strongest_path(backward_pass, x, (0, 0, 3, 3))
    )


def test_a_normalisation_that_bends_opens_the_lines_below_it() -> None:
    y, x = of_model("googlenet", 33, {"aux": False, "paper": True})
    backward_pass = BackwardPass(y)
    lines = ledger(backward_pass)
    first = next(k for k, line in enumerate(lines) if line.open is not None)
    assert type(lines[first].open).__name__ == "Div" and 0 < first < len(lines) - 1
    assert all(line.open is lines[first].open for line in lines[first:])
    assert account_error(backward_pass) < 1e-10  # of the lines above
    assert flow_error(backward_pass, x) < 1e-10  # a derivative it has all the same


@pytest.mark.parametrize("kind", ["sigmoid", "softmax", "batch norm in training", "square"])
def test_what_is_not_piecewise_linear_is_flagged(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(1, 2, 6, 6)), requires_grad=True)
    y = ops.relu(conv(x, rng, 3))
    bent = {
        "sigmoid": lambda: ops.sigmoid(y),
        "softmax": lambda: ops.softmax(y, 1),
        "batch norm in training": lambda: ops.batch_norm(y, Tensor(rng.normal(size=3)), Tensor(rng.normal(size=3))),
        "square": lambda: y * y,
    }[kind]()
    backward_pass = BackwardPass(head(conv(bent, rng, 4), rng))
    lines = ledger(backward_pass)
    at = backward_pass.ops.index(bent.op)
    assert [line.open is None for line in lines] == [True] * (at + 1) + [False] * (len(lines) - at - 1)
    assert all(line.open is bent.op for line in lines[at + 1 :]) and lines[at + 1].bias is None
    assert (
        account_error(backward_pass) < 1e-10 and flow_error(backward_pass, x) < 1e-10 and cell_error(backward_pass, x) < 1e-10
    )
    assert abs(lines[-1].total - backward_pass.y.item()) > 1e-3  # so it would have been wrong to close them


# ---- broken on purpose


def residual() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(1)
    x = Tensor(rng.normal(size=(1, 2, 8, 8)), requires_grad=True)
    y = ops.relu(conv(x, rng, 4))
    y = ops.relu(conv(ops.relu(conv(y, rng, 4)), rng, 4) + y)
    y = ops.concat([y, ops.max_pool2d(y, 3, 1, padding=1)])
    return head(ops.max_pool2d(y, 2), rng), x


def test_the_net_to_break_is_sound() -> None:
    y, x = residual()
    backward_pass = BackwardPass(y)
    assert (
        account_error(backward_pass) < 1e-10 and flow_error(backward_pass, x) < 1e-10 and cell_error(backward_pass, x) < 1e-10
    )


def test_a_cut_that_forgets_the_shortcut() -> None:
    y, x = residual()
    backward_pass = BackwardPass(y)
    backward_pass.cuts = [cut[:1] for cut in backward_pass.cuts]
    assert account_error(backward_pass) > 1e-3 and flow_error(backward_pass, x) > 1e-3


def test_a_wire_swapped_with_another_cut() -> None:
    y, x = residual()
    backward_pass = BackwardPass(y)
    two = next(k for k, cut in enumerate(backward_pass.cuts) if len(cut) == 2)
    backward_pass.cuts[two] = [backward_pass.cuts[two][0], backward_pass.cuts[1][0]]
    assert account_error(backward_pass) > 1e-3 and flow_error(backward_pass, x) > 1e-3


def test_a_pool_switch_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    true = MaxPool2d.indices

    def off_by_one(op: Any) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = true(op)
        return rows, np.clip(columns + 1, 0, op.x_shape[3] - 1)

    monkeypatch.setattr(MaxPool2d, "indices", off_by_one)
    y, x = residual()
    assert flow_error(BackwardPass(y), x) > 1e-3


@pytest.mark.parametrize("op", ["ReLU", "Conv2d", "Pad"])
def test_a_wrong_push(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    true = OPS[op].push
    monkeypatch.setattr(OPS[op], "push", lambda self, *txs: 0.9 * true(self, *txs))
    x = Tensor(rng.normal(size=(1, 2, 6, 6)), requires_grad=True)
    y = head(ops.pad(ops.relu(conv(x, rng, 3)), [(0, 0), (0, 0), (1, 1), (1, 1)]), rng)
    assert flow_error(BackwardPass(y), x) > 1e-3


def test_a_forgotten_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["minidl.flow.ledger"], "facts", lambda op: Facts(constant=lambda op, gy: 0.0))
    assert account_error(BackwardPass(residual()[0])) > 1e-3


# ---- an op of one's own


class _Sign(Op):
    """y = sign(x), flat wherever it has a derivative: its backward returns None for 0"""

    def forward(self, x: Array) -> Array:
        return np.sign(x)

    def backward(self, gy: Array) -> Grads:
        return (None,)


def test_a_gradient_that_is_none_is_zero() -> None:
    x = Tensor(np.array([2.0, -3.0]), requires_grad=True)
    np.testing.assert_array_equal(BackwardPass(ops.sum(_Sign()(x))).gradient(x), 0)
    np.testing.assert_array_equal(BackwardPass(ops.sum(_Sign()(x) * 5 + x * 7)).gradient(x), 7)


class Halved(Op):
    """y = x / 2 where x > 0, else 0"""

    def forward(self, x: Array) -> Array:
        self.open = x > 0
        return 0.5 * x * self.open

    def push(self, tx: Array) -> Array:
        """ty = tx / 2 where x > 0, else 0"""
        return 0.5 * tx * self.open

    def backward(self, gy: Array) -> Grads:
        """gx = gy / 2 where x > 0, else 0"""
        return (0.5 * gy * self.open,)

    def gate(self) -> Array:
        return self.open


del OPS["Halved"]


def test_gates_of_ones_own_stop_pixels_as_those_of_a_relu_do() -> None:
    nets = []
    for relu in (Halved(), ops.relu):
        rng = np.random.default_rng(0)
        x = Tensor(rng.normal(size=(1, 2, 6, 6)), requires_grad=True)
        nets.append((x, BackwardPass(head(relu(conv(x, rng, 3)), rng))))
    (x, own), (x_relu, relu) = nets
    found, like = pixel_flow(own, x, (0, 1, 2, 3)), pixel_flow(relu, x_relu, (0, 1, 2, 3))
    assert found.derivative == pytest.approx(0.5 * like.derivative, rel=1e-12) and flow_error(own, x) < 1e-12
    assert list(found.stopped.values()) == pytest.approx(list(like.stopped.values()), rel=1e-12)
    assert 0 < next(iter(found.stopped.values())) < 1
    op = next(op for op in own.ops if isinstance(op, Halved))
    notes = {arithmetic(own, Wire(op.inputs[0], op), index).note[-6:] for index in np.ndindex(*own.outputs[op].shape)}  # type: ignore[arg-type]
    assert notes == {"closed", "s open"}
    last = ledger(own)[-1]
    assert last.open is op  # nobody has said that it is piecewise linear


# ---- what is lost on the way


def lost(y: Tensor, x: Tensor, index: tuple[int, ...]) -> tuple[list[tuple[float, ...]], int | None, int | None]:
    found = pixel_flow(BackwardPass(y), x, index)
    return [tuple(round(share, 12) for share in loss) for loss in found.losses], found.dies, found.worst


def test_a_closed_gate_takes_all() -> None:
    x = Tensor(np.array([[1.0, -1.0, 2.0]]), requires_grad=True)
    y = ops.sum(ops.relu(x))
    assert lost(y, x, (0, 1)) == ([(0, 0, 0), (1, 0, 0)], 1, 1)
    assert lost(y, x, (0, 2)) == ([(0, 0, 0), (0, 0, 0)], None, None)


def test_plus_and_minus_meet() -> None:
    """x goes on as (x, x), the score takes 3 and -1 of it: of |3| + |-1| = 4 half is left. Another score is not picked."""
    x = Tensor(np.array([[0.5]]), requires_grad=True)
    h = ops.linear(x, Tensor(np.ones((2, 1))))
    y = ops.linear(h, Tensor(np.array([[3.0, -1.0], [5.0, 5.0]])))[0, 0]
    assert lost(y, x, (0, 0)) == ([(0, round(10 / 12, 12), 0), (0, 0, 0.5), (0, 0, 0)], None, 1)


def test_what_a_stride_leaves_out_and_what_does_not_win() -> None:
    x = Tensor(np.arange(16.0).reshape(1, 1, 4, 4), requires_grad=True)
    y = ops.sum(ops.conv2d(x, Tensor(np.ones((1, 1, 1, 1))), stride=2))
    assert lost(y, x, (0, 0, 0, 1)) == ([(0, 0, 0), (0, 1, 0)], 1, 1) and lost(y, x, (0, 0, 2, 2))[1:] == (None, None)
    pooled = ops.sum(ops.max_pool2d(x, 2))
    assert lost(pooled, x, (0, 0, 0, 1)) == ([(0, 0, 0), (1, 0, 0)], 1, 1) and lost(pooled, x, (0, 0, 1, 1))[1:] == (None, None)


def test_a_shortcut_keeps_a_pixel_alive() -> None:
    """Half of what crosses the cut below the relu stops there; the other half is on its way beside it."""
    x = Tensor(np.array([[-1.0]]), requires_grad=True)
    y = ops.sum(ops.relu(x) + x)
    assert lost(y, x, (0, 0)) == ([(0, 0, 0), (0, 0, 0), (0.5, 0, 0)], None, 2)


@given(scores(BLOCKS))
@settings(max_examples=10)
def test_losses_of_drawn_nets(net: tuple[Tensor, Tensor]) -> None:
    """They are shares, and what counts at the score is what counted at the image and all steps left of it."""
    y, x = net
    backward_pass = BackwardPass(y)
    for index in some_pixels(x):
        found = pixel_flow(backward_pass, x, index)
        assert all(
            -1e-12 <= share <= 1 + 1e-12 for loss in found.losses for share in (*loss, loss.gated + loss.zero, loss.total)
        )
        assert found.dies is None or (
            found.derivative == 0 and found.losses[found.dies].total > 0 and found.worst == found.dies
        )
        if found.derivative != 0:
            assert found.dies is None


# ---- single cells


def test_a_convolution_by_hand() -> None:
    """Stride 2, padding 1: the cell (1, 1) is seen by one output row and column, (0, 2) by two rows."""
    rng = np.random.default_rng(0)
    x, w = Tensor(rng.normal(size=(1, 2, 5, 5)), requires_grad=True), Tensor(rng.normal(size=(3, 2, 3, 3)))
    op_y = ops.conv2d(x, w, stride=2, padding=1)
    gy = rng.normal(size=op_y.shape)
    backward_pass = BackwardPass(op_y, gy)
    wire = Wire(x, op_y.op)
    for c, i, j in np.ndindex(2, 5, 5):
        cell = arithmetic(backward_pass, wire, (0, c, i, j))
        by_hand = sum(
            w.data[f, c, u, v] * gy[0, f, (i + 1 - u) // 2, (j + 1 - v) // 2]
            for f, u, v in np.ndindex(3, 3, 3)
            if (i + 1 - u) % 2 == (j + 1 - v) % 2 == 0 and 0 <= (i + 1 - u) // 2 < 3 and 0 <= (j + 1 - v) // 2 < 3
        )
        assert cell.value == pytest.approx(by_hand, abs=1e-12) and cell.engine == pytest.approx(by_hand, abs=1e-12)
    window = arithmetic(backward_pass, wire, (0, 1, 2, 3)).window()
    assert window is not None and window.rows == [1] and window.columns == [1, 2]
    assert window.kernel.tolist() == [w.data[window.filter, 1, 1, [2, 0]].tolist()]  # turned around
    assert sum(window.sums.values()) == pytest.approx(float(backward_pass.gx[wire][0, 1, 2, 3]))


@pytest.mark.parametrize("settings", [{"groups": 2}, {"dilation": 2, "padding": 2}, {"stride": (2, 3), "padding": (0, 2)}])
def test_every_cell_of_a_convolution(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(2, 4, 7, 8)), requires_grad=True)
    y = ops.conv2d(x, Tensor(rng.normal(size=(6, 4 // settings.get("groups", 1), 3, 3))), **settings)
    backward_pass = BackwardPass(y, rng.normal(size=y.shape))
    for index in np.ndindex(*x.shape):
        cell = arithmetic(backward_pass, Wire(x, y.op), index)
        assert cell.value == pytest.approx(cell.engine, abs=1e-12)


def test_every_cell_of_a_pooling() -> None:
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(1, 2, 7, 6)), requires_grad=True)
    y = ops.max_pool2d(x, 3, 2, padding=1)
    backward_pass = BackwardPass(y, rng.normal(size=y.shape))
    for index in np.ndindex(*x.shape):
        cell = arithmetic(backward_pass, Wire(x, y.op), index)
        assert cell.value == pytest.approx(cell.engine, abs=1e-12) and 1 <= len(cell.at) <= 4
        assert f"wins {int(cell.factor.sum())} of the {len(cell.at)} windows" in cell.note


def test_a_path_is_linked() -> None:
    """Each sum is among the numbers that enter the next one below, and several uses add up."""
    y, x = residual()
    backward_pass = BackwardPass(y)
    index = tuple(int(i) for i in np.unravel_index(np.abs(backward_pass.gradient(x)).argmax(), x.shape))
    path = strongest_path(backward_pass, x, index)
    assert path[0].index == index and path[-1].op is y.op
    for below, above in pairwise(path):
        m = below.largest(1)[0]
        assert tuple(below.at[m]) == above.index and below.gy[m] == pytest.approx(above.arrived, abs=1e-12)
        assert abs(below.products[m]) == np.abs(below.products).max()
    assert any(cell.others for cell in path)


def test_a_path_that_dies() -> None:
    x = Tensor(-np.ones((1, 1, 2, 2)), requires_grad=True)
    path = strongest_path(BackwardPass(ops.sum(ops.relu(x))), x, (0, 0, 1, 1))
    assert len(path) == 1 and path[0].value == 0 and path[0].largest(3) == [] and "closed" in path[0].note


@given(scores(BLOCKS))
@settings(max_examples=10)
def test_what_stops(net: tuple[Tensor, Tensor]) -> None:
    """The share that closed gates and lost windows stop, against its definition."""
    y, x = net
    backward_pass = BackwardPass(y)
    f = pixel_flow(backward_pass, x, some_pixels(x)[0])
    for op, share in f.stopped.items():
        assert type(op).__name__ in ("ReLU", "LeakyReLU", "Clip", "MaxPool2d") and 0 <= share <= 1 + 1e-12
        assert type(op).__name__ != "LeakyReLU" or share == 0
    for op, txs, ty in pushes(y, {x: np.ones_like(x.data)}):
        if type(op).__name__ == "ReLU":
            lost = flow.pixel.stopped(op, txs, ty)
            assert lost is not None and txs[0] is not None
            np.testing.assert_allclose(np.abs(ty) + lost, np.abs(txs[0]))


# ---- bad input


def test_bad_input() -> None:
    y, x = residual()
    backward_pass = BackwardPass(y)
    with pytest.raises(ValueError, match=r"index: expected one of each axis of \(1, 2, 8, 8\), got \(0, 2, 0, 0\)"):
        pixel_flow(backward_pass, x, (0, 2, 0, 0))
    with pytest.raises(ValueError, match="index"):
        strongest_path(backward_pass, x, (1, 1))
    with pytest.raises(ValueError, match="the score does not depend on"):
        pixel_flow(backward_pass, Tensor(x.data, requires_grad=True), (0, 0, 0, 0))
    model = models.resnet8(num_classes=2)
    with ops.unfused(), pytest.raises(ValueError, match=r"requires a gradient; freeze the parameters"):
        BackwardPass(model.eval()(np.zeros((1, 3, 8, 8), np.float32))[0, 0])


def test_a_tensor_that_the_score_does_not_depend_on() -> None:
    x, other = (Tensor(np.ones((2, 3)), requires_grad=True) for _ in range(2))
    backward_pass = BackwardPass(ops.sum(x * 2.0))
    assert backward_pass.gradient(x).sum() == 12
    for ask in (lambda: backward_pass.gradient(other), lambda: strongest_path(backward_pass, other, (0, 0))):
        with pytest.raises(ValueError, match=r"x: y does not depend on this tensor of shape \(2, 3\)"):
            ask()

"""The rules of guided backprop and the deconvnet, on nets whose answer is known; and each rule broken on purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minidl import OPS, Op, Step, Tensor, nn, ops, walk
from minidl.array import Array
from minidl.explain import deconvnet, guided_backprop, saliency
from minidl.flow import relu_rules
from minidl.ops.activation import ReLU
from minidl.ops.reduce import Mean
from tests.explain.nets import Net, images, linear


class Functional(nn.Module):
    """S = V relu(W relu(U x)), the ReLUs a function, a module, or one module twice."""

    def __init__(self, kind: str) -> None:
        rng = np.random.default_rng(0)
        self.U, self.W, self.V = (nn.Linear(a, b, bias=False, rng=rng) for a, b in ((12, 20), (20, 20), (20, 3)))
        self.kind, self.relu, self.other = kind, nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        first = self.relu if self.kind != "function" else ops.relu
        second = {"function": ops.relu, "modules": self.other, "reused": self.relu}[self.kind]
        return self.V(second(self.W(first(self.U(ops.flatten(x))))))


def by_hand(net: Functional, x: Array, target: int, gate: bool, positive: bool) -> Array:
    """What arrives at x (1,3,2,2) when a ReLU looks at its own input (`gate`), at the sign of what comes back, or both."""
    U, W, V = (layer.weight.data for layer in (net.U, net.W, net.V))
    a = U @ x.ravel()
    b = W @ np.maximum(a, 0)
    g = V[target]
    for pre, weight in ((b, W), (a, U)):
        g = weight.T @ (g * ((pre > 0) if gate else 1) * ((g > 0) if positive else 1))
    return g.reshape(x.shape)


METHODS = {"gradient": (saliency, True, False), "guided": (guided_backprop, True, True), "deconvnet": (deconvnet, False, True)}


def check(kind: str, method: str) -> None:
    """Raises AssertionError where the method is not what it is by hand."""
    net, (function, gate, positive) = Functional(kind).to(dtype="float64"), METHODS[method]
    for seed in range(5):
        x = images(1, 3, 2, 2, seed=seed)
        for target in range(3):
            np.testing.assert_allclose(
                function(net, x, target).raw, by_hand(net, x, target, gate, positive), rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("kind", ["function", "modules", "reused"])
@pytest.mark.parametrize("method", METHODS)
def test_by_hand(kind: str, method: str) -> None:
    check(kind, method)


def without_gate(step: Step) -> None:
    if isinstance(step.op, ReLU):
        step.gxs[0] = step.gy * (step.gy > 0)


def without_sign(step: Step) -> None:
    if isinstance(step.op, ReLU):
        step.gxs[0] = step.gy * step.op.gate()


def negative(step: Step) -> None:
    if isinstance(step.op, ReLU):
        step.gxs[0] = step.gy * (step.gy < 0) * step.op.gate()


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        ("guided", without_gate),
        ("guided", without_sign),
        ("guided", negative),
        ("guided", relu_rules.plain),
        ("deconvnet", without_sign),
        ("deconvnet", negative),
        ("deconvnet", relu_rules.guided),
        ("deconvnet", relu_rules.plain),
    ],
)
def test_a_broken_rule_is_noticed(method: str, rule: relu_rules.Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relu_rules, method, rule)
    with pytest.raises(AssertionError):
        check("modules", method)


def test_without_a_relu_all_are_the_gradient() -> None:
    model, w, _ = linear()
    x = images(3, 2, 6, 6)
    for method in guided_backprop, deconvnet:
        with pytest.warns(UserWarning, match=f"{method.__name__}: the model has no ReLU .*this is the plain gradient") as told:
            np.testing.assert_allclose(method(model, x, 1).raw, np.broadcast_to(w[1], x.shape), rtol=1e-12)
        assert len(told) == 1


class Halved(Op):
    """y = x / 2 where x > 0, else 0: an op of the reader's own"""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.open = x > 0
        return 0.5 * x * self.open

    def backward(self, gy: np.ndarray) -> tuple[np.ndarray]:
        return (0.5 * gy * self.open,)

    def gate(self) -> np.ndarray:
        return self.open


del OPS["Halved"]
RELU, DECONVNET = [0, 0, 3, 0], [1, 2, 3, 0]  # gx of guided and of deconvnet for x and gy as below
GATED: dict[str, tuple[Callable[[Tensor], Tensor], list[float], list[float]]] = {
    "relu": (ops.relu, RELU, DECONVNET),
    "maximum": (lambda x: ops.maximum(x, np.zeros(4)), RELU, DECONVNET),
    "maximum of a number": (lambda x: ops.maximum(x, np.array(0.0)), RELU, DECONVNET),
    "clip": (lambda x: ops.clip(x, 0, 10), RELU, DECONVNET),
    "clip from below": (lambda x: ops.clip(x, low=0), RELU, DECONVNET),
    "where": (lambda x: ops.where(x > 0, x, np.zeros(4)), RELU, DECONVNET),
    "maximum, the other way round": (lambda x: ops.maximum(Tensor(np.zeros(4)), x), RELU, DECONVNET),
    "where not below": (lambda x: ops.where(x >= 0, x, np.zeros(4)), RELU, DECONVNET),
    "where, the other way round": (lambda x: ops.where(x <= 0, np.zeros(4), x), RELU, DECONVNET),
    "leaky, slope 0": (lambda x: ops.leaky_relu(x, 0.0), RELU, DECONVNET),
    "one's own": (lambda x: Halved()(x), [0, 0, 1.5, 0], DECONVNET),
    "no relu: a maximum of two": (lambda x: ops.maximum(x, np.full(4, 1.5)), [0, 0, 3, -4], [0, 0, 3, -4]),
    "no relu: another condition": (
        lambda x: ops.where(np.array([True, True, False, True]), x, np.zeros(4)),
        [1, 2, 0, -4],
        [1, 2, 0, -4],
    ),
}


@pytest.mark.parametrize("name", GATED)
def test_what_counts_as_a_relu(name: str) -> None:
    call, *right = GATED[name]
    for rule, gx in zip((relu_rules.guided, relu_rules.deconvnet), right, strict=True):
        x, leaves = Tensor(np.array([-1.0, -2.0, 3.0, 4.0]), requires_grad=True), dict[Tensor, Array]()
        for step in walk(call(x), np.array([1.0, 2.0, 3.0, -4.0]), leaves=leaves):
            rule(step)
        assert leaves[x].tolist() == gx


@pytest.mark.parametrize("rule", [relu_rules.guided, relu_rules.deconvnet])
def test_an_op_with_a_relu_inside_is_refused(rule: relu_rules.Rule) -> None:
    model, image = Net().eval(), Tensor(images(1, 3, 8, 8).astype(np.float32), requires_grad=True)
    with pytest.raises(ValueError, match=r"BatchNormFrozenReLU holds a ReLU inside .* use minidl.ops.unfused\(\)"):
        for step in walk(ops.sum(model(image)), leaves={}):
            rule(step)
    with model.frozen(), pytest.raises(ValueError, match="Conv2dReLU holds a ReLU inside"):
        for step in walk(ops.sum(model(image)), leaves={}):
            rule(step)
    with ops.unfused():
        y = ops.sum(model(image))
    gates = [step.op for step in walk(y, leaves={}) if rule(step) is None and isinstance(step.op, ReLU)]
    assert len(gates) == 6


class Blurred(Op):
    """y = max(mean of neighbours, 0): an op of the reader's own that holds a ReLU inside, and says so"""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.y = np.maximum((x[1:] + x[:-1]) / 2, 0)
        return self.y

    def backward(self, gy: np.ndarray) -> tuple[np.ndarray]:
        g = np.concatenate([[0], gy * (self.y > 0) / 2, [0]])
        return (g[1:] + g[:-1],)

    def parts(self) -> tuple[type[Op], ...]:
        return Mean, ReLU


class Unsaid(Blurred):
    """The same, with gates of the output's shape, which are not those of its input"""

    def parts(self) -> tuple[type[Op], ...]:
        return ()

    def gate(self) -> np.ndarray:
        return self.y > 0


del OPS["Blurred"], OPS["Unsaid"]


@pytest.mark.parametrize("rule", [relu_rules.guided, relu_rules.deconvnet, relu_rules.is_relu])
def test_an_op_of_ones_own_with_a_relu_inside_is_refused(rule: Callable[[Step], object]) -> None:
    """It would be passed by in silence, and the map would be that of another rule."""
    x = Tensor(np.array([1.0, 2.0, -5.0]), requires_grad=True)
    (step,) = walk(Blurred()(x), np.ones(2), leaves={})
    with pytest.raises(ValueError, match="Blurred holds a ReLU inside that no rule can reach"):
        rule(step)
    (step,) = walk(Unsaid()(x), np.ones(2), leaves={})
    with pytest.raises(
        ValueError, match=r"Unsaid.gate\(\): expected one gate for each .* \(3,\) and \(2,\), got \(2,\); write"
    ):
        rule(step)
    (step,) = walk(ops.maximum(x, np.zeros((2, 3))), np.ones((2, 3)), leaves={})  # a relu of a repetition
    with pytest.raises(ValueError, match=r"Maximum.gate\(\): expected one gate"):
        rule(step)


def test_nothing_is_changed_in_place() -> None:
    """The arrays that came in, which the graph or somebody else may hold, stay as they are."""
    with ops.unfused():
        x = Tensor(images(1, 1, 4, 4), requires_grad=True)
        y = ops.relu(x)
    for rule in relu_rules.guided, relu_rules.deconvnet:
        (step,) = walk(y, images(1, 1, 4, 4, seed=1), leaves={})
        gy, gx = step.gy.copy(), step.gxs[0]
        before = gx.copy()
        rule(step)
        assert (step.gy == gy).all() and (gx == before).all() and step.gxs[0] is not gx

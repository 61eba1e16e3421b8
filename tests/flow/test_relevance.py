"""Relevance: by hand on two layers, kept at every cut of small and of real nets, and each rule beside its formula."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from minidl import Tensor, kernels, nn, ops, walk
from minidl.array import Array, to_cpu, to_gpu
from minidl.core import Op
from minidl.explain import grad_times_input, lrp
from minidl.flow import BackwardPass, relevance
from minidl.flow.relevance import RULES, NoRuleError, Relevance, account
from minidl.ops.activation import Tanh
from tests.explain.nets import Net, images, linear
from tests.gpu import strict_cupy

from .nets import scores
from .test_ledger import MODELS, of_model

SMALL = ("resnet8", "densenet_bc", "densenet40_12", "plain20")  # of the real nets


def kept(y: Tensor, **settings: Any) -> tuple[float, Relevance, BackwardPass]:
    """How far the account is from the score at the worst cut, as a share of the largest sum of sizes"""
    rule = Relevance(y, **settings)
    backward_pass = BackwardPass(y, y.data, rule)
    size = max([1.0, *(float(np.abs(R).sum()) for R in backward_pass.gx.values())])
    return max(abs(line.total - y.item()) for line in account(backward_pass, rule)) / size, rule, backward_pass


def at(y: Tensor, x: Tensor, **settings: Any) -> Array:
    leaves: dict[Tensor, Array] = {}
    rule = Relevance(y, **settings)
    for step in walk(y, y.data, leaves=leaves):
        rule(step)
    return leaves[x]


# ---- by hand: x = (1, 2), h = relu(W x + b) = (4, 0.5, 0), y = v h + 1 = 10

X, W, B = [[1.0, 2.0]], [[3.0, 0.0], [-1.0, 1.0], [-2.0, 1.0]], [1.0, -0.5, -1.0]
V, C = [[2.0, 2.0, 5.0]], [1.0]
BY_HAND = {  # on the way: y = 8 + 1 + 1; h_1 = 3 + 0 + 1, h_2 = -1 + 2 - 0.5
    # R_h = (8, 1, 0) / 10 * 10, and then (3/4 * 8 - 1/0.5 * 1, 0 + 2/0.5 * 1)
    ("epsilon", 0.0): (8 * 3 / 4 - 2, 4),
    # g = 1 doubles what is positive: R_h = (16, 2) / 20 * 10 = (8, 1); then h_1: 6 + 2 of 8, h_2: -1 + 4 - 0.5 = 2.5
    ("gamma", 1.0): (8 * 6 / 8 - 1 / 2.5, 4 / 2.5),
    # what is positive alone: R_h = (8, 1); then h_1: 3 + 1 of 4, h_2: 2 of 2
    ("zplus", 0.0): (8 * 3 / 4, 1),
}


def two_layers() -> tuple[Tensor, Tensor]:
    x = Tensor(np.array(X), requires_grad=True)
    h = ops.relu(ops.linear(x, Tensor(np.array(W)), Tensor(np.array(B))))
    return ops.linear(h, Tensor(np.array(V)), Tensor(np.array(C)))[0, 0], x


@pytest.mark.parametrize(("rule", "gamma"), BY_HAND)
def test_two_layers_by_hand(rule: str, gamma: float) -> None:
    y, x = two_layers()
    assert y.item() == 10
    np.testing.assert_allclose(at(y, x, rule=rule, gamma=gamma, epsilon=0.0), [BY_HAND[rule, gamma]], rtol=1e-12)


def test_two_layers_by_hand_with_a_stabiliser() -> None:
    """e = 0.5: R_h = (8, 1) 10 / 10.5, and then 3 / 4.5, -1 / 1, 2 / 1 of them"""
    y, x = two_layers()
    R = np.array([8, 1]) * 10 / 10.5
    np.testing.assert_allclose(at(y, x, rule="epsilon", epsilon=0.5), [[R[0] * 3 / 4.5 - R[1], 2 * R[1]]], rtol=1e-12)
    error, rule, _ = kept(y, rule="epsilon", epsilon=0.5)
    took = 10 * 0.5 / 10.5 + R[0] * 0.5 / 4.5 + R[1] * 0.5
    assert error < 1e-12 and sum(rule.stabilisers.values()) == pytest.approx(took)
    assert sum(rule.biases.values()) == pytest.approx(10 / 10.5 + R[0] * 1 / 4.5 - R[1] * 0.5)


def test_two_layers_by_hand_by_depth() -> None:
    """Epsilon above: R_h = (8, 1). At the input flat: half of each; with the z-box 0 to 2, x w - 2 w-: 3, 0 and 1, 2."""
    y, x = two_layers()
    np.testing.assert_allclose(at(y, x, epsilon=0.0), [[4.5, 4.5]], rtol=1e-12)
    np.testing.assert_allclose(at(y, x, epsilon=0.0, bounds=(0, 2)), [[8 + 1 / 3, 2 / 3]], rtol=1e-12)


def test_gamma_where_the_sum_is_negative() -> None:
    """y = 1 - 3 - 1 = -3; g = 1 doubles what is negative: 1 - 6 - 2 = -7"""
    x = Tensor(np.array([[1.0, 3.0]]), requires_grad=True)
    y = ops.linear(x, Tensor(np.array([[1.0, -1.0]])), Tensor(np.array([-1.0])))[0, 0]
    np.testing.assert_allclose(at(y, x, rule="gamma", gamma=1.0, epsilon=0.0), [[-3 * 1 / -7, -3 * -6 / -7]], rtol=1e-12)


# ---- nothing is lost


@given(net=scores(), rule=st.sampled_from(RULES), epsilon=st.sampled_from([1e-6, 1e-2]))
def test_drawn_nets_keep_the_score(net: tuple[Tensor, Tensor], rule: str, epsilon: float) -> None:
    y, x = net
    error, _, backward_pass = kept(y, rule=rule, epsilon=epsilon)
    assert error < 1e-9
    np.testing.assert_array_equal(backward_pass.gradient(x), at(y, x, rule=rule, epsilon=epsilon))


def keeps(name: str, rule: str) -> None:
    y, _ = of_model(name, *MODELS[name])
    error, rules, _ = kept(y, rule=rule)
    assert error < 1e-10
    assert len(rules.merged) == len(rules.norms)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SMALL)
def test_small_models_keep_the_score(name: str, rule: str) -> None:
    keeps(name, rule)


@pytest.mark.ci
@pytest.mark.parametrize("rule", ["composite", "epsilon", "zplus"])
@pytest.mark.parametrize("name", sorted(MODELS.keys() - set(SMALL)))
def test_models_keep_the_score(name: str, rule: str) -> None:
    keeps(name, rule)


@pytest.mark.parametrize("rule", RULES)
def test_biases_and_stabilisers_take_what_counts(rule: str) -> None:
    y, _ = of_model("resnet8", *MODELS["resnet8"])
    hook = Relevance(y, rule=rule)
    lines = account(BackwardPass(y, y.data, hook), hook)
    took = {op: hook.biases[op] + hook.stabilisers[op] for op in hook.biases}
    assert any(abs(v) > 1e-3 for v in took.values()) and any(0 < abs(v) < 1e-5 for v in hook.stabilisers.values())
    assert max(abs(line.total - line.biases - y.item()) for line in lines) > 1e-3


# ---- what the rules are


def test_epsilon_is_gradient_x_input_where_nothing_is_stabilised() -> None:
    """Known since Ancona et al. 2018: with ReLUs and max pools alone, epsilon -> 0"""
    model, x = Net().to(dtype="float64"), images(2, 3, 8, 8)
    e = lrp(model, x, rule="epsilon", epsilon=1e-14)
    np.testing.assert_allclose(e.raw, grad_times_input(model, x).raw, rtol=1e-6, atol=1e-8)


def test_a_linear_model() -> None:
    model, w, b = linear()
    x, target = images(3, 2, 6, 6), np.array([0, 1, 2])
    e = lrp(model, x, target, rule="epsilon", epsilon=0.0)
    np.testing.assert_allclose(e.raw, w * x, rtol=1e-9)
    np.testing.assert_allclose(e.delta, b, rtol=1e-9)
    np.testing.assert_allclose(
        lrp(model, x, target).raw, np.broadcast_to(e.score[:, None, None, None] / 72, x.shape), rtol=1e-5
    )
    low, high = x.min((0, 2, 3)).reshape(2, 1, 1) - 0.1, 3.5
    c = x * w - low * np.maximum(w, 0) - high * np.minimum(w, 0)
    box = lrp(model, x, target, epsilon=0.0, bounds=(low, high))
    np.testing.assert_allclose(box.raw, c * (e.score / c.sum((1, 2, 3)))[:, None, None, None], rtol=1e-9)
    positive = np.maximum(w * x, 0)
    below = positive.sum((1, 2, 3)) + np.maximum(b, 0)
    zplus = lrp(model, x, target, rule="zplus", epsilon=0.0)
    np.testing.assert_allclose(zplus.raw, positive * (e.score / below)[:, None, None, None], rtol=1e-9)
    sign = np.sign(e.score)[:, None, None, None]
    more = w * x + 0.5 * sign * np.maximum(sign * w * x, 0)
    below = more.sum((1, 2, 3)) + b + 0.5 * np.sign(e.score) * np.maximum(np.sign(e.score) * b, 0)
    gamma = lrp(model, x, target, rule="gamma", gamma=0.5, epsilon=0.0)
    np.testing.assert_allclose(gamma.raw, more * (e.score / below)[:, None, None, None], rtol=1e-9)


def test_a_product_with_a_matrix_is_a_linear_layer() -> None:
    rng = np.random.default_rng(2)
    w, v, x = rng.normal(size=(4, 6)), rng.normal(size=(6, 3)), rng.normal(size=(2, 4))
    for rule in RULES:
        a, b = Tensor(x, requires_grad=True), Tensor(x, requires_grad=True)
        one = ops.relu(a @ Tensor(w)) @ Tensor(v)
        other = ops.linear(ops.relu(ops.linear(b, Tensor(w.T))), Tensor(v.T))
        found = (at(y[np.arange(2), np.array([0, 2])], leaf, rule=rule) for y, leaf in ((one, a), (other, b)))
        np.testing.assert_allclose(*found, rtol=1e-12)


@pytest.mark.parametrize("settings", [*({"rule": rule} for rule in RULES), {"bounds": (-6, np.full((3, 1, 1), 6.0))}])
def test_rules_on_the_gpu(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(2, 3, 8, 8).astype(np.float32)
    with kernels.use("reference"):
        on_cpu = lrp(Net(), x, **settings)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        on_gpu = lrp(Net().to("gpu"), to_gpu(x), **settings)
    assert isinstance(on_gpu.raw, strict_cupy.ndarray) and isinstance(on_gpu.delta, strict_cupy.ndarray)
    np.testing.assert_allclose(to_cpu(on_gpu.raw), on_cpu.raw, rtol=1e-3, atol=1e-4 * np.abs(on_cpu.raw).max())


def test_the_padding_of_a_first_layer_gets_nothing() -> None:
    """Flat, with a border: a corner is seen by 4 windows of 4 pixels each, as all zeros around count for nothing."""
    x = Tensor(np.ones((1, 1, 2, 2)), requires_grad=True)
    y = ops.sum(ops.conv2d(x, Tensor(np.ones((1, 1, 3, 3))), padding=1))
    np.testing.assert_allclose(at(y, x, epsilon=0.0), np.full((1, 1, 2, 2), 4.0), rtol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_a_norm_behind_a_layer_is_the_layer_with_other_weights(rule: str) -> None:
    rng = np.random.default_rng(3)
    x = Tensor(rng.normal(size=(2, 3, 6, 6)), requires_grad=True)
    w, b, v = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4), rng.normal(size=(2, 4))
    gamma, beta, mean, var = rng.normal(size=4), rng.normal(size=4), rng.normal(size=4), 0.1 + rng.random(4)
    s = gamma / np.sqrt(var + 1e-5)
    norm = ops.batch_norm_frozen(ops.conv2d(x, Tensor(w), Tensor(b)), Tensor(gamma), Tensor(beta), mean, var)
    merged = ops.conv2d(x, Tensor(w * s[:, None, None, None]), Tensor((b - mean) * s + beta))
    one, other = (
        at(ops.linear(ops.global_avg_pool2d(ops.relu(y)), Tensor(v))[np.arange(2), np.array([0, 1])], x, rule=rule)
        for y in (norm, merged)
    )
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_a_norm_behind_a_layer_that_is_read_twice_stands_alone() -> None:
    rng = np.random.default_rng(4)
    x = Tensor(rng.normal(size=(1, 2, 4, 4)), requires_grad=True)
    h = ops.conv2d(x, Tensor(rng.normal(size=(3, 2, 1, 1))), Tensor(rng.normal(size=3)))
    norm = ops.batch_norm_frozen(h, Tensor(np.ones(3)), Tensor(rng.normal(size=3)), rng.normal(size=3), np.ones(3))
    y = ops.sum(ops.relu(norm) + h)
    for rule in RULES:
        error, rules, _ = kept(y, rule=rule)
        assert error < 1e-12 and not rules.merged


def test_joins_by_contribution() -> None:
    """3 + 1 = 4, of which the fixed 1 is a bias; 5 - 1 of 4; channels of their own"""
    a, b = (Tensor(np.array([[v]]), requires_grad=True) for v in (3.0, 1.0))
    for y, right in (
        ((a + 1.0)[0, 0], (3.0, None)),
        ((a + b)[0, 0], (3.0, 1.0)),
        ((a + 2.0 - b)[0, 0], (3.0, -1.0)),
        (ops.sum(ops.concat([a, b * 2.0])), (3.0, 2.0)),
    ):
        backward_pass = BackwardPass(y, y.data, Relevance(y, epsilon=0.0))
        for leaf, R in zip((a, b), right, strict=True):
            assert R is None or backward_pass.gradient(leaf) == pytest.approx(R)


def test_of_a_max_pooling_the_winner_takes_all() -> None:
    x = Tensor(np.array([[[[1.0, 5.0], [2.0, 3.0]]]]), requires_grad=True)
    y = ops.sum(ops.max_pool2d(x, 2))
    np.testing.assert_allclose(at(y, x, epsilon=0.0), [[[[0, 5], [0, 0]]]])


def test_relevance_that_nothing_contributes_to_is_the_stabilisers() -> None:
    """y = 1 - 1 = 0 counts twice: once away, and for the 0 there is no share"""
    x = Tensor(np.array([[0.0, 0.0]]), requires_grad=True)
    h = ops.linear(x, Tensor(np.ones((1, 2))))
    for rule in RULES:
        y = ops.sum(h + 2.0)
        for epsilon in 0.0, 1e-6:
            error, _, backward_pass = kept(y, rule=rule, epsilon=epsilon)
            assert error < 1e-12 and np.isfinite(backward_pass.gradient(x)).all()


# ---- the method


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_the_map_of_a_fused_net(rule: str, fused: bool) -> None:
    """The same in whatever way the ops would run; and what it lacks of the score is what was taken."""
    model, x = Net().to(dtype="float64"), images(1, 3, 8, 8)
    with ops.unfused():
        e = lrp(model, x, rule=rule)
    if fused:
        assert (lrp(model, x, rule=rule).raw == e.raw).all()
    with model.evaluating(), model.frozen(), ops.unfused():
        image = Tensor(x, requires_grad=True)
        y = model(image)[0, int(e.target[0])]
        error, hook, backward_pass = kept(y, rule=rule)
    np.testing.assert_allclose(backward_pass.gradient(image), e.raw, rtol=1e-9, atol=1e-12)
    took = sum(hook.biases.values()) + sum(hook.stabilisers.values())
    assert error < 1e-12 and e.delta[0] == pytest.approx(took, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(e.map, e.raw.sum(1))


@pytest.mark.parametrize("rule", ["composite", "epsilon"])
@pytest.mark.parametrize("name", ["resnet8", "densenet_bc", pytest.param("googlenet", marks=pytest.mark.ci)])
def test_the_maps_of_fused_models(name: str, rule: str) -> None:
    """Real nets as they run, with fused ops, and one op after the other; beside the account of the graph"""
    size, settings = MODELS[name]
    y, image = of_model(name, size, settings)  # one op after the other, with other statistics than the model's own
    model = getattr(models, name)(num_classes=4, **settings).to(dtype="float64")
    rng = np.random.default_rng(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            C = module.weight.size
            module.running_mean[:], module.running_var[:] = 0.2 * rng.normal(size=C), 0.5 + rng.random(C)
            module.bias.data[:] = 0.2 * rng.normal(size=C)
    e = lrp(model, image.data, 2, rule=rule)
    error, hook, backward_pass = kept(y, rule=rule)
    assert e.score[0] == pytest.approx(y.item(), rel=1e-9) and error < 1e-10
    np.testing.assert_allclose(e.raw, backward_pass.gradient(image), rtol=1e-6, atol=1e-9 * np.abs(e.raw).max())
    assert e.delta[0] == pytest.approx(sum(hook.biases.values()) + sum(hook.stabilisers.values()), rel=1e-6)


def test_a_first_layer_behind_moves_gets_its_bounds() -> None:
    rng = np.random.default_rng(0)

    class Turned(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(2 * 36, 3, rng=rng)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(ops.flatten(ops.flip(ops.transpose(x, (0, 1, 3, 2)), 3)))

    model, x = Turned().to(dtype="float64"), images(2, 2, 6, 6)
    low, high = x - rng.random(x.shape), x + rng.random(x.shape)
    e = lrp(model, x, 1, epsilon=0.0, bounds=(low, high))
    w = model.linear.weight.data[1].reshape(2, 6, 6)[..., ::-1].transpose(0, 2, 1)
    c = x * w - low * np.maximum(w, 0) - high * np.minimum(w, 0)
    np.testing.assert_allclose(e.raw, c * (e.score / c.sum((1, 2, 3)))[:, None, None, None], rtol=1e-9)


class Gated(nn.Module):
    """A product of two things that both change"""

    def __init__(self, gate: Any) -> None:
        self.conv, self.gate = nn.Conv2d(3, 4, 3, rng=np.random.default_rng(0)), gate

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        return ops.global_avg_pool2d(h * self.gate(h))


class Unknown(Op):
    """y = 2 x, which nobody has said"""

    def forward(self, x: Array) -> Array:
        return 2 * x

    def backward(self, gy: Array) -> list[Array | None]:
        return [2 * gy]


@pytest.mark.parametrize(("gate", "op"), [(ops.sigmoid, "Mul"), (ops.relu, "Mul"), (lambda h: 2.0, None)])
def test_an_op_without_a_rule_is_named(gate: Any, op: str | None) -> None:
    model, x = Gated(gate).to(dtype="float64"), images(1, 3, 6, 6)
    if op is None:
        assert lrp(model, x).raw.any()
        return
    with pytest.raises(NoRuleError, match=rf"relevance: {op} \(called at .*in forward\) has no rule: .*; explain a logit"):
        lrp(model, x)


@pytest.mark.parametrize("f", [ops.tanh, ops.gelu, ops.relu, lambda x: ops.leaky_relu(x, 0.1), lambda x: ops.clip(x, -1, 1)])
def test_an_activation_passes_relevance_on(f: Any) -> None:
    x = Tensor(np.array([[-2.0, -0.5, 0.3, 4.0]]), requires_grad=True)
    h = f(x)
    R = at(ops.sum(h), x, epsilon=0.0)
    np.testing.assert_allclose(R, h.data, rtol=1e-12)


def test_a_clip_that_makes_something_of_0_is_no_activation() -> None:
    """max(0.5, 2) = 2 is the constant's, all of it; max(3, 2) = 3 is the input's"""
    x = Tensor(np.array([[0.5, 3.0]]), requires_grad=True)
    np.testing.assert_allclose(at(ops.sum(ops.clip(x, 2.0, 9.0)), x, epsilon=0.0), [[0, 3]], rtol=1e-12)


def test_an_activation_that_is_changed_needs_a_rule_of_its_own() -> None:
    class Raised(Tanh):
        """y = 1 + tanh x"""

        def forward(self, x: Array) -> Array:
            return 1 + super().forward(x)

    x = Tensor(np.ones((1, 2)), requires_grad=True)
    with pytest.raises(NoRuleError, match="relevance: Raised"):
        at(ops.sum(Raised()(x)), x)


def test_an_op_of_ones_own_without_a_rule_is_named() -> None:
    x = Tensor(np.ones((1, 2)), requires_grad=True)
    with pytest.raises(NoRuleError, match="relevance: Unknown"):
        at(ops.sum(Unknown()(x)), x)


def test_fused_ops_are_refused() -> None:
    y, _ = of_model("resnet8", *MODELS["resnet8"], fused=True)
    with pytest.raises(ValueError, match=r"holds a ReLU inside that no rule can reach; use minidl.ops.unfused\(\)"):
        kept(y)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"rule": "zbox"}, ValueError, r"rule: expected one of \('composite', 'epsilon', 'gamma', 'zplus'\), got 'zbox'"),
        ({"gamma": -1}, ValueError, r"gamma: expected a number in \[0, inf\), got -1"),
        ({"epsilon": -1e-6}, ValueError, r"epsilon: expected a number in \[0, inf\)"),
        ({"bounds": (0, 1)}, ValueError, r"bounds: expected None, or \(low, high\), .*x holds values from -.*got \(0.0, 1.0\)"),
        ({"bounds": 3.0}, TypeError, r"bounds: expected None, or \(low, high\)"),
        ({"bounds": (1, 2, 3)}, ValueError, r"bounds: expected None, or \(low, high\)"),
        ({"bounds": (np.zeros(5), 9)}, ValueError, r"bounds\[0\]: expected a number, or an array that broadcasts"),
        ({"bounds": (-9, 9), "rule": "gamma"}, ValueError, "bounds: expected None with rule='gamma'"),
        ({"reduce": "max"}, ValueError, "reduce: expected one of"),
    ],
)
def test_bad_settings(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lrp(Net().to(dtype="float64"), images(1, 3, 8, 8), **bad)


def test_bounds_of_an_image_that_is_changed_before_the_first_layer() -> None:
    class Scaled(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * 2.0)

    model, x = Scaled().to(dtype="float64"), images(1, 3, 8, 8)
    assert lrp(model, x).raw.any()
    with pytest.raises(ValueError, match="bounds: expected None, or a model whose first layer reads the image itself; Mul"):
        lrp(model, x, bounds=(-9, 9))


def test_every_rule_says_something_else() -> None:
    model, x = Net().to(dtype="float64"), images(2, 3, 8, 8)
    maps = [lrp(model, x, rule=rule).raw for rule in RULES] + [lrp(model, x, bounds=(-5, 5)).raw]
    assert all(np.abs(a - b).max() > 1e-4 for i, a in enumerate(maps) for b in maps[:i])


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("rule", RULES)
def test_a_part_of_a_share_that_goes_missing_is_noticed(part: int, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relevance, what the bias took, and what the stabiliser did"""
    share = relevance._share

    def less(*arguments: Any) -> list[Any]:
        return [0.9 * found if i == part else found for i, found in enumerate(share(*arguments))]

    y, _ = two_layers()
    assert kept(y, rule=rule, epsilon=0.1)[0] < 1e-12
    monkeypatch.setattr(relevance, "_share", less)
    assert kept(y, rule=rule, epsilon=0.1)[0] > 1e-4

"""Recompute: the same bits for less memory, and an error where it could not be."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import Tensor, explain, gradients, jvp, kernels, mixed, nn, no_grad, ops, walk
from minidl.array import Array, to_cpu, to_device
from minidl.core import tape
from minidl.flow.relevance import Relevance
from tests.gpu import strict_cupy

Recompute = Callable[..., Tensor]


def plainly(f: Callable[..., Tensor], *xs: Tensor) -> Tensor:
    return f(*xs)


class Block(nn.Module):
    """x + dropout(conv(relu(norm(x)))) with a parameter that others share"""

    def __init__(self, shared: nn.Conv2d, rng: np.random.Generator) -> None:
        self.norm, self.shared, self.drop = nn.BatchNorm2d(4), shared, nn.Dropout(0.3, rng)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.shared(self.norm.relu(self.shared(x))))


class Net(nn.Module):
    """Blocks that share a convolution, each of which is recomputed in the way that `again` says, and a shortcut around all"""

    def __init__(self, again: Recompute, blocks: int = 3, products: bool = True) -> None:
        rng = np.random.default_rng(0)
        self.conv = nn.Conv2d(2, 4, 3, padding=1, rng=rng)
        shared, draws = nn.Conv2d(4, 4, 3, padding=1, rng=rng), np.random.default_rng(1)
        self.blocks = nn.ModuleList([Block(shared, draws) for _ in range(blocks)])
        self.head = nn.Linear(4, 3, rng=rng)
        self.again, self.products = again, products

    def forward(self, x: Tensor) -> Tensor:
        first = y = self.again(self.conv, x)
        for block in self.blocks:
            y = self.again(block, y)
        y = self.again(lambda y: y * first if self.products else y - first, y)  # which takes a tensor from elsewhere
        return self.head(ops.global_avg_pool2d(y + first))


def nested(f: Callable[..., Tensor], *xs: Tensor) -> Tensor:
    return ops.recompute(lambda *xs: ops.recompute(f, *xs), *xs)


def images() -> Array:
    return np.random.default_rng(2).normal(size=(3, 2, 6, 6)).astype(np.float32)


def trained(again: Recompute, precision: str = "float32") -> list[bytes]:
    """All that two steps leave: losses, gradients of image and parameters, running statistics, the states of generators"""
    model, found = Net(again), list[Any]()
    for _ in range(2):
        x = Tensor(images(), requires_grad=True)
        with mixed(precision):
            loss = ops.cross_entropy(model(x), np.array([0, 1, 2]))
        loss.backward()
        found += [loss.data, x.grad, *(p.grad for p in model.parameters()), *(a for _, a in model.named_buffers())]
    found += [np.frombuffer(str(rng.bit_generator.state).encode(), np.uint8) for rng in model.generators()]
    return [np.asarray(a).tobytes() for a in found]


@pytest.mark.parametrize("again", [ops.recompute, nested])
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("kernel", kernels.CHOICES)
def test_all_bits_are_those_of_a_graph_that_is_kept(again: Recompute, precision: str, kernel: str) -> None:
    """Masks of dropout, running statistics, a shared parameter and a tensor from elsewhere included"""
    with kernels.use(kernel), np.errstate(all="ignore"):
        assert trained(again, precision) == trained(plainly, precision)


def test_on_the_stand_in_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    found = []
    for again in (ops.recompute, plainly):
        with kernels.use("reference"):
            model = Net(again).to("gpu")
            ops.sum(model(Tensor(to_device(images(), "gpu")))).backward()
        found.append([to_cpu(p.grad) for p in model.parameters()])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_nan_is_the_same_the_second_time() -> None:
    x = Tensor(np.float32([np.nan, 1]), requires_grad=True)
    ops.sum(ops.recompute(lambda x: x * 2.0, x)).backward()
    np.testing.assert_array_equal(x.grad, [2, 2])


def test_a_dropout_draws_and_a_norm_moves_once() -> None:
    model = Net(ops.recompute)
    loss = ops.sum(model(images()))
    moved = [a.copy() for _, a in model.named_buffers()]
    drawn = [str(rng.bit_generator.state) for rng in model.generators()]
    assert {int(block.norm.num_batches_tracked) for block in model.blocks} == {1}
    loss.backward()
    for (_, a), before in zip(model.named_buffers(), moved, strict=True):
        np.testing.assert_array_equal(a, before)
    assert [str(rng.bit_generator.state) for rng in model.generators()] == drawn


def test_a_block_within_a_block_takes_what_is_outside_of_both() -> None:
    w, grads = np.float32([1, 2, 3]), []
    for again in (ops.recompute, plainly):

        def outer(x: Tensor, again: Recompute = again) -> Tensor:
            y = again(lambda v: v * x + v, ops.exp(x))  # x, which is an input of the outer block
            return again(lambda v: v * x * y, y)

        x = Tensor(w, requires_grad=True)
        z = ops.tanh(x)
        y = ops.sum(again(outer, z) + z)
        y.backward(keep_graph=True)
        grads.append((x.grad, gradients(y, [z])[0], jvp(y, [x, z], [w, w])))
    for ours, theirs in zip(*grads, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_holds_in_the_first_run_holds_in_the_second() -> None:
    """Frozen parameters and evaluation, left before the walk; and a walk that keeps the graph may be repeated"""
    grads = []
    for again in (ops.recompute, plainly):
        model, x = Net(again), Tensor(images(), requires_grad=True)
        with model.evaluating(), model.frozen():
            y = ops.sum(model(x))
        y.backward(keep_graph=True)
        y.backward()
        assert all(p.grad is None for p in model.parameters())
        grads.append(x.grad)
    np.testing.assert_array_equal(*grads)


def test_there_is_no_graph_without_recording() -> None:
    model = Net(ops.recompute)
    with no_grad():
        assert not model(images()).requires_grad
    y = ops.recompute(lambda x: x * 2.0, Tensor(np.ones(3, np.float32)))
    assert not y.requires_grad and y.op is None


def test_a_function_that_does_nothing() -> None:
    x, w = (Tensor(np.ones(2, np.float32), requires_grad=True) for _ in "xw")
    assert ops.recompute(lambda x: x, x) is x
    assert ops.recompute(lambda x: w, x) is w


def test_pushed_forward() -> None:
    """jvp is the transpose of the gradient, and that of the kept graph; in a parameter and a tensor from elsewhere, too"""
    found, rng = [], np.random.default_rng(0)
    for again in (ops.recompute, nested, plainly):
        model, x = Net(again), Tensor(images(), requires_grad=True)
        y, xs = model(x), [x, *model.parameters()]
        txs = [np.float32(np.random.default_rng(i).normal(size=a.shape)) for i, a in enumerate(xs)]
        ty, gy = jvp(y, xs, txs), rng.normal(size=y.shape).astype(np.float32)
        gxs = gradients(y, xs, gy)
        assert np.vdot(ty, gy) == pytest.approx(sum(np.vdot(a, b) for a, b in zip(txs, gxs, strict=True)), rel=1e-3)
        found.append(ty)
    for other in found[:2]:
        np.testing.assert_allclose(other, found[2], rtol=1e-5)


def test_hooks_meet_the_ops_inside() -> None:
    kinds = []
    for again in (ops.recompute, nested, plainly):
        with Net(again).frozen() as model:
            y = ops.sum(model(Tensor(images(), requires_grad=True)))
            kinds.append([type(step.op).__name__ for step in walk(y)])
    assert kinds[0] == kinds[1] == kinds[2] and {"BatchNormReLU", "Dropout"} <= set(kinds[0])


@pytest.mark.parametrize(
    "method", [explain.saliency, explain.guided_backprop, explain.grad_cam, explain.integrated_gradients, explain.lrp]
)
def test_explainers_do_not_notice(method: Any) -> None:
    ours, theirs = (method(Net(again, products=False), images()) for again in (ops.recompute, plainly))
    np.testing.assert_array_equal(ours.raw, theirs.raw)
    assert np.abs(ours.raw).max() > 0


def test_cost_counts_what_is_inside() -> None:
    ours, theirs = (str(minidl.cost(Net(again), (2, 6, 6))) for again in (ops.recompute, plainly))
    assert ours == theirs


# ---- errors


def test_a_function_that_computes_something_else_is_found() -> None:
    x, rng = Tensor(np.ones(4, np.float32), requires_grad=True), np.random.default_rng(0)
    w = Tensor(np.ones(4, np.float32), requires_grad=True)
    calls = list[int]()

    def counted(x: Tensor) -> Tensor:
        calls.append(1)
        return x * w if len(calls) == 1 else ops.exp(x) * w.detach()

    changed = ops.recompute(lambda x: x * w, x)
    for y in (
        ops.recompute(lambda x: x * Tensor(np.float32(rng.normal(size=4))), x),
        ops.recompute(lambda x: x * Tensor(np.ones(4, np.float32), requires_grad=True), x),
        ops.recompute(counted, x),
        changed,
    ):
        if y is changed:
            w.data *= 2  # as an optimiser does
        for ask in (lambda y=y: ops.sum(y).backward(), lambda y=y: jvp(y, [x], [x.data])):
            with pytest.raises(RuntimeError, match="f computed something else when it was run again; expected a function"):
                ask()
        assert x.grad is None


def test_what_a_layer_of_ones_own_draws_or_changes_is_told_by_once() -> None:
    x, rng, seen = Tensor(np.ones(4, np.float32), requires_grad=True), np.random.default_rng(0), list[Any]()

    def f(x: Tensor) -> Tensor:
        noise = ops.once(lambda: np.float32(rng.normal(size=4)))
        seen.append(noise)
        return x * Tensor(noise)

    y = ops.recompute(f, x)
    ops.sum(y).backward()
    assert len(seen) == 2
    np.testing.assert_array_equal(x.grad, seen[0])
    f(x)
    assert not np.array_equal(seen[2], seen[0])


def test_a_tensor_from_inside_is_told_of() -> None:
    x, inside = Tensor(np.ones(4, np.float32), requires_grad=True), list[Tensor]()

    def f(x: Tensor) -> Tensor:
        inside.append(x * 2.0)
        return inside[-1] * 3.0

    y = ops.sum(ops.recompute(f, x))
    with pytest.raises(RuntimeError, match=r"xs\[0\], .* was given back, .* or as inside of ops.recompute"):
        gradients(y, [inside[0]])
    with pytest.raises(RuntimeError, match="was given back"):
        ops.sum(inside[0]).backward()
    with ops.unfused():
        y = ops.sum(ops.recompute(f, x))
        np.testing.assert_array_equal(gradients(y, [inside[-1]])[0], np.full(4, 3, np.float32))


@pytest.mark.parametrize("block", [no_grad(), ops.unfused(), mixed("float32")])
def test_what_is_no_tensor(block: Any) -> None:
    with block, pytest.raises(TypeError, match="f: expected a function that returns a Tensor, got tuple"):
        ops.recompute(lambda x: (x, x), Tensor(np.ones(2, np.float32), requires_grad=True))


def test_relevance_wants_a_graph_that_is_there() -> None:
    x = Tensor(np.ones(4, np.float32), requires_grad=True)
    with pytest.raises(ValueError, match=r"expected a graph that is there, got one with ops.recompute; use .*unfused"):
        Relevance(ops.sum(ops.recompute(lambda x: x * 2.0, x)))


# ---- memory


def peak_and_held(again: Recompute, blocks: int) -> tuple[float, float]:
    """In arrays of the size of the image: what a training step needs at most, and what its graph holds in between"""
    x = np.ones((1, 64, 64, 64), np.float32)
    weights = [Tensor(np.ones(1, np.float32), requires_grad=True) for _ in range(blocks)]

    def block(w: Tensor) -> Callable[[Tensor], Tensor]:
        def f(x: Tensor) -> Tensor:
            for _ in range(4):
                x = ops.tanh(x * w)  # two arrays
            return x

        return f

    gc.collect()
    tracemalloc.start()
    y = Tensor(x, requires_grad=True)
    for w in weights:
        y = again(block(w), y)
    held = tracemalloc.get_traced_memory()[0]
    ops.sum(y).backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(w.grad is not None for w in weights)
    return peak / x.nbytes, held / x.nbytes


def test_of_k_blocks_are_held_k_inputs_and_what_one_block_needs(tell: Callable[[str], None]) -> None:
    for blocks in (4, 12):
        (peak, held), (most, kept) = (peak_and_held(again, blocks) for again in (ops.recompute, plainly))
        tell(f"{blocks} blocks of 8 arrays: {peak:.1f} arrays at most, {most:.1f} without recompute")
        assert held == pytest.approx(blocks, abs=0.5) and kept == pytest.approx(8 * blocks, abs=0.5)
        assert peak < blocks + 8 + 4 and most > 8 * blocks


def test_nothing_stays_behind() -> None:
    y = ops.sum(Net(ops.recompute)(Tensor(images(), requires_grad=True)))
    forgotten = [op for op in tape(y) if op.unfolds]
    assert len(forgotten) == 5
    y.backward()
    assert all(set(vars(op)) == {"where", "freed"} for op in forgotten)

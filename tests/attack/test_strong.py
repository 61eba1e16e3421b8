"""The strong attacks: closed forms, never worse than PGD, what they keep, nets that hide their gradients, few classes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, attack, kernels, nn, ops, optim
from minidl.array import Array, to_gpu
from minidl.attack.apgd import checkpoints
from minidl.attack.ball import NORMS, sizes
from minidl.attack.best import losses_of
from minidl.attack.square import area, grid, peaks, recolour
from minidl.core import Op, gradients
from minidl.inference import predict
from minidl.metrics import bootstrap
from tests.attack.nets import ATTACKS, SIZE, Attack, convolutional, images, linear, same
from tests.attack.test_closed_forms import MEAN, STD, WIDE, margin
from tests.gpu import strict_cupy


@pytest.fixture(autouse=True)
def plain_text() -> Any:
    with kernels.use("reference"):
        yield


# ---- linear models, where the best is known


@pytest.mark.parametrize("C", [1, 2, 3, 4])
@pytest.mark.parametrize("output", ["dlr", "logprob", "margin"])
@pytest.mark.parametrize("targeted", [False, True])
def test_apgd_reaches_the_optimum_in_the_box(C: int, output: str, targeted: bool) -> None:
    """The one of FGSM: each value at that end of the box to which the margin's weight points. So far that nothing succeeds."""
    model, _ = linear(C, 2)
    x, eps = images(7, C), 1e-3
    y = predict(model, (x - np.array(MEAN[:C])[:, None, None]) / np.array(STD[:C])[:, None, None]).argmax(1)
    y = 1 - y if targeted else y
    best = attack.fgsm(model, x, y, eps, targeted=targeted, mean=MEAN[:C], std=STD[:C])
    found = attack.apgd(model, x, y, eps, targeted=targeted, steps=10, output=output, mean=MEAN[:C], std=STD[:C])
    assert not best.success.any()
    np.testing.assert_allclose(found.x, best.x, rtol=1e-12)


@pytest.mark.parametrize("name", ["apgd", "pgd", "square"])
@pytest.mark.parametrize("K", [2, 3, 5])
def test_how_far_the_margin_falls_in_the_l2_ball(name: str, K: int) -> None:
    """By at most eps ||w_y - w_k||_2, for the best of the other classes; APGD and PGD get there, squares come near."""
    model, w = linear(3, K)
    x, eps = images(5, 3), 0.01
    y = predict(model, x).argmax(1)
    more = {"square": {"steps": 400}, "pgd": {"restarts": 2}, "apgd": {"candidates": K - 1, "steps": 60}}[name]
    more |= {} if name == "square" else {"output": "margin"}
    found = getattr(attack, name)(model, x, y, eps, WIDE, norm="l2", **more)
    lengths = np.sqrt(((w[y][:, None] - w) ** 2).sum((2, 3, 4)))
    gaps = found.before.max(1, keepdims=True) - found.before - eps * lengths
    gaps[np.arange(5), y] = np.inf
    best = gaps.min(1)
    assert not found.success.any() and (margin(found.logits, y) >= best - 1e-9).all()
    if name == "square":
        fallen = (margin(found.before, y) - margin(found.logits, y)) / (margin(found.before, y) - best)
        assert (fallen > 0.35).all()
    else:
        np.testing.assert_allclose(margin(found.logits, y), best, rtol=1e-4)


def test_squares_reach_the_optimum_in_the_box() -> None:
    """Single pixels at the end, of one sign a channel: of a linear model with enough of them each corner"""
    model, w = linear(1, 2)
    x = images(3, 1)
    y = predict(model, x).argmax(1)
    found = attack.square(model, x, y, 1e-3, WIDE, steps=900)
    np.testing.assert_allclose(found.delta, -1e-3 * np.sign(w[y] - w[1 - y]), rtol=1e-6)


@pytest.mark.parametrize(("C", "K"), [(3, 2), *(pytest.param(C, K, marks=pytest.mark.ci) for C, K in ((1, 2), (4, 4)))])
def test_the_distance_of_carlini_and_wagner(C: int, K: int) -> None:
    """|margin| / ||w_y - w_k||_2, from above"""
    model, w = linear(C, K)
    w, x, bounds = w / np.array(STD[:C])[:, None, None], images(4, C), (-1, 2)
    found = attack.carlini_wagner(model, x, bounds=bounds, steps=60, mean=MEAN[:C], std=STD[:C])
    y = found.before.argmax(1)
    lengths = np.sqrt(((w[y][:, None] - w) ** 2).sum((2, 3, 4)))
    lengths[np.arange(4), y] = np.nan
    distance = np.nanmin((found.before.max(1, keepdims=True) - found.before) / lengths, axis=1)
    assert found.success.all()
    assert (found.norms["l2"] >= distance * (1 - 1e-9)).all() and (found.norms["l2"] < 1.01 * distance).all()


def test_carlini_and_wagner_to_a_class_and_beyond_a_margin() -> None:
    model, w = linear(2, 2)
    x, kappa = images(4, 2), 0.5
    other = 1 - predict(model, x).argmax(1)
    found = attack.carlini_wagner(model, x, other, (-1, 2), targeted=True, kappa=kappa, steps=60, lr=0.05)
    distance = (kappa - margin(found.before, other)) / np.sqrt(((w[0] - w[1]) ** 2).sum())
    assert found.success.all() and (margin(found.logits, other) >= kappa - 1e-9).all()
    assert (found.norms["l2"] >= distance * (1 - 1e-9)).all() and (found.norms["l2"] < 1.01 * distance).all()


def test_carlini_and_wagner_give_back_what_they_cannot_change() -> None:
    model, _ = linear(2, 2)
    x = images(4, 2)
    found = attack.carlini_wagner(model, x, searches=2, steps=3, lr=1e-6)
    assert not found.success.any() and not found.delta.any()


def test_the_units_of_the_bounds_do_not_matter_to_carlini_and_wagner() -> None:
    model, x = convolutional(3, 4), images(3, 3)
    small = attack.carlini_wagner(model, x, searches=4, steps=20)
    large = attack.carlini_wagner(model, 256 * x, bounds=(0, 256), mean=[0] * 3, std=[256] * 3, searches=4, steps=20)
    np.testing.assert_allclose(large.x / 256, small.x, rtol=1e-9, atol=1e-12)


# ---- losses


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("K", [2, 3, 4, 6])
def test_the_difference_of_logits_ratio(K: int, targeted: bool) -> None:
    S, y = np.random.default_rng(K).normal(size=(20, K)), np.arange(20) % K
    top = np.sort(S, axis=1)[:, ::-1]
    spread = np.ones(20) if K == 2 else top[:, 0] - top[:, 2]
    if targeted and K > 3:
        spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    expected = margin(S, y) / spread * (1 if targeted else -1)
    np.testing.assert_allclose(losses_of(Tensor(S), y, targeted, "dlr").data, expected, rtol=1e-10)
    if K > 2:
        np.testing.assert_allclose(losses_of(Tensor(10 * S + 3), y, targeted, "dlr").data, expected, rtol=1e-9)


def test_equal_logits_have_a_finite_ratio() -> None:
    logits = Tensor(np.zeros((2, 4), np.float32), requires_grad=True)
    losses = losses_of(logits, np.array([0, 3]), False, "dlr")
    (g,) = gradients(losses, [logits], np.ones(2, np.float32))
    assert not losses.data.any() and np.isfinite(g).all() and (g[0, 0] < 0)


def test_checkpoints() -> None:
    """w_j of the paper's recursion"""
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(checkpoints(1000)) == [220, 410, 570, 700, 800, 870, 930, 990]
    assert all(1 <= k <= steps for steps in range(1, 40) for k in checkpoints(steps))


def test_the_step_of_apgd_is_halved_where_it_overshoots() -> None:
    """On -|S| a step of 2 eps jumps over the top; with halved ones it is found to a hundredth of eps."""

    class Valley(nn.Module):
        """S_0 = (mean x - 0.5)^2 + 1, S_1 = 0: never fooled, and the least right at 0.5"""

        def forward(self, x: Tensor) -> Tensor:
            off = ops.mean(x, axis=(1, 2, 3)) - 0.5
            return ops.reshape(off * off + 1, (-1, 1)) * np.array([1.0, 0.0])

    x = np.full((1, 1, 4, 4), 0.46)
    found = attack.apgd(Valley(), x, 0, 0.1, steps=100, output="margin", random_start=False)
    assert abs(found.x.mean() - 0.5) < 1e-3 and not found.success.any()
    once = attack.pgd(Valley(), x, 0, 0.1, steps=100, output="margin", random_start=False, step_size=0.2)
    assert abs(once.x.mean() - 0.5) > 0.03


# ---- squares


@pytest.mark.parametrize("side", range(1, 9))
def test_peaks(side: int) -> None:
    both = peaks(side)
    np.testing.assert_allclose((both**2).sum((1, 2)), 1, rtol=1e-12)
    np.testing.assert_array_equal(both[1], both[0].T)
    assert (both[0][: side // 2] > 0).all() and (both[0][side // 2 :] < 0).all()
    if side == 6:  # 3 x 6: 1 + 1/4 + 1/9 + 1/16 in the middle, without 1 beside it, ...
        half = both[0][:3] / both[0][1, 3]
        np.testing.assert_allclose(half[1, 3:0:-1] * (205 / 144), [205 / 144, 61 / 144, 25 / 144], rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 3), (6, 6), (32, 20)])
@pytest.mark.parametrize("norm", NORMS)
def test_squares_on_images_of_any_shape(norm: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * shape[0] * shape[1], 3, rng=rng)).to(dtype="float64")
    x = rng.random((3, 2, *shape))
    y = predict(model, x).argmax(1)
    found = attack.square(model, x, y, 0.01, norm=norm, steps=30, keep_path=True)
    assert (sizes(found.delta, norm) <= 0.01).all() and found.path is not None
    assert (margin(found.logits, y) < margin(found.before, y)).all()


def test_the_first_squares() -> None:
    x, rngs = np.zeros((2, 3, 32, 32)), [np.random.default_rng(k) for k in range(2)]
    d = recolour(np.zeros_like(x), 0.5, 0.8, rngs)
    assert set(np.unique(d)) <= {-0.5, 0, 0.5} and ((d != 0).sum((2, 3)) == 29**2).all()  # sqrt(0.8 32 32) = 28.6
    d = grid(x, 0.5, rngs)
    np.testing.assert_allclose(sizes(d, "l2"), 0.5, rtol=1e-12)
    assert ((d != 0).sum((2, 3)) == 900).all() and not d[:, :, [0, 31]].any()
    assert [area(0.8, t, 10_000) / 0.8 for t in (1, 10, 11, 51, 1001, 9999)] == [1, 1, 0.5, 0.25, 2**-5, 2**-9]
    assert area(0.8, 999, 1000) == area(0.8, 9990, 10_000)


@pytest.mark.parametrize("norm", NORMS)
def test_squares_only_ever_lower_the_margin(norm: str) -> None:
    model, x = convolutional(3, 4), images(4, 3)
    y = predict(model.eval(), x).argmax(1)
    found = attack.square(model, x, y, 1e-3 if norm == "linf" else 1e-2, norm=norm, steps=40, keep_path=True)
    assert found.path is not None and not found.success.any()
    walk = np.stack([margin(predict(model, x), y) for x in found.path[1:]])
    assert (np.diff(walk, axis=0) <= 1e-12).all() and (walk[-1] < walk[0]).all()


# ---- what is kept


KEEPERS: dict[str, Attack] = {name: ATTACKS[name] for name in ATTACKS if name.startswith(("apgd", "square", "pgd r"))}
KEEPERS["pgd best"] = partial(attack.pgd, steps=5, best=True)


@pytest.mark.parametrize("name", KEEPERS)
def test_the_first_success_or_the_nearest_is_kept(name: str) -> None:
    model, x = convolutional(3, 4), images(8, 3)
    y = predict(model.eval(), x).argmax(1)
    for eps in (0.005, 0.03, 0.1):
        found = KEEPERS[name](model, x, y, eps=eps, keep_path=True)
        assert found.path is not None
        walk = np.stack([predict(model, step) for step in found.path])
        for n in range(8):
            wins = np.flatnonzero(walk[:, n].argmax(1) != y[n])
            kept = found.path[wins[0], n] if len(wins) else found.path[margin(walk[:, n], y[[n] * len(walk)]).argmin(), n]
            np.testing.assert_array_equal(found.x[n], kept)
            assert found.success[n] == bool(len(wins))


@pytest.mark.parametrize("name", [*KEEPERS, "carlini_wagner"])
def test_what_is_wrong_already_stays_as_it_is(name: str) -> None:
    model, x = convolutional(3, 4), images(4, 3)
    y = predict(model.eval(), x).argmax(1)
    y[1:] = (y[1:] + 1) % 4
    found = (KEEPERS | ATTACKS)[name](model, x, y)
    assert found.success[1:].all() and not found.steps[1:].any() and not found.delta[1:].any()


@pytest.mark.parametrize("name", KEEPERS)
def test_a_ball_of_no_size(name: str) -> None:
    model, x = convolutional(3, 4), images(4, 3)
    y = predict(model.eval(), x).argmax(1)
    y[0] = (y[0] + 1) % 4
    found = KEEPERS[name](model, x, y, eps=0.0)
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.success, [True, False, False, False])


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_as_in_the_paper_is_what_it_was(norm: str) -> None:
    """One start, the last image: project(x - step sign(g)), by hand"""
    model, x = convolutional(3, 4, dtype="float32"), images(3, 3, dtype="float32")
    y, eps = np.array([0, 1, 2]), np.float32(0.1)
    found = attack.pgd(model, x, y, 0.1, norm=norm, steps=4, random_start=False)
    now = x
    for _ in range(4):
        image = Tensor(now, requires_grad=True)
        with model.evaluating(), model.frozen():
            (g,) = gradients(ops.sum(ops.log_softmax(model(image))[np.arange(3), y]), [image])
        d = now - eps / 4 * (np.sign(g) if norm == "linf" else g / sizes(g, "l2")) - x
        now = (x + d * np.minimum(1, eps / sizes(d, "l2")) if norm == "l2" else x + d.clip(-eps, eps)).clip(0, 1)
    np.testing.assert_allclose(found.x, now, atol=1e-6)
    assert (found.steps == 4).all() and found.params["best"] is False


def test_more_starts_break_more() -> None:
    """All that one start breaks, and something else"""
    model, x, y = trained()
    once, often = (attack.pgd(model, x, y, 0.06, steps=2, best=True, restarts=k) for k in (1, 12))
    assert (often.success >= once.success).all() and often.success.sum() > once.success.sum()
    stood = ~once.success & ~often.success
    assert (margin(often.logits, y) <= margin(once.logits, y))[stood].all()


# ---- a small net that was trained


@cache
def trained() -> tuple[nn.Module, Array, Array]:
    """It tells the brightest of three columns, and images that it gets right."""
    with kernels.use("reference"):
        rng = np.random.default_rng(0)
        x = rng.random((200, 1, SIZE, SIZE)).astype(np.float32)
        labels = x.reshape(200, SIZE, 3, 2).mean((1, 3)).argmax(1)
        layers = [nn.Conv2d(1, 6, 3, padding=1, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(6 * SIZE**2, 3, rng=rng)]
        model = nn.Sequential(*layers)
        optimiser = optim.AdamW(model.parameters(), 0.01)
        for _ in range(60):
            optimiser.zero_grad()
            ops.cross_entropy(model(Tensor(x)), labels).backward()
            optimiser.step()
        right = predict(model, x).argmax(1) == labels
    assert right.mean() > 0.95
    return model.eval(), x[right][:60], labels[right][:60]


@pytest.mark.ci
@pytest.mark.parametrize("norm", NORMS)
def test_never_worse_than_pgd_of_the_same_budget(norm: str) -> None:
    """APGD breaks no fewer than PGD with as many gradients; the worst case of all, no fewer than each."""
    model, x, y = trained()
    for eps in (0.02, 0.04, 0.06) if norm == "linf" else (0.1, 0.2, 0.3):
        for output in "dlr", "logprob":
            plain = attack.pgd(model, x, y, eps, norm=norm, steps=20, output=output).success
            assert attack.apgd(model, x, y, eps, norm=norm, steps=20, output=output).success.sum() >= plain.sum()
            assert 0 < plain.sum() < 60
        found = attack.robust_accuracy(model, x, y, eps, norm=norm, steps=20, candidates=2, squares=50)
        assert (~found.robust >= plain).all()


@pytest.mark.ci
def test_carlini_and_wagner_go_no_further_than_deepfool() -> None:
    model, x, y = trained()
    near, far = attack.carlini_wagner(model, x[:20], y[:20], steps=60, lr=0.05), attack.deepfool(model, x[:20], y[:20])
    ratio = near.norms["l2"] / far.norms["l2"]
    assert near.success.all() and ratio.mean() < 1 and ratio.max() < 1.06


# ---- nets that hide their gradients


class Rounded(Op):
    """y = round(8 x) / 8, whose derivative is 0"""

    def forward(self, x: Array) -> Array:
        return (8 * x).round() / 8

    def backward(self, gy: Array) -> tuple[Array]:
        return (0 * gy,)


class Hidden(nn.Module):
    def __init__(self, net: nn.Module, how: str) -> None:
        self.net, self.how = net, how

    def forward(self, x: Tensor) -> Tensor:
        return self.net(Rounded()(x)) if self.how == "rounded" else 3000 * self.net(x)


def test_a_saturated_softmax_hides_the_cross_entropy_but_not_the_ratio() -> None:
    model, x, y = trained()
    hidden = Hidden(model, "saturated")
    sure = margin(predict(hidden, x), y) > 200
    x, y = x[sure], y[sure]
    ce, dlr, squares = (
        attack.apgd(hidden, x, y, 0.1, steps=20, output="logprob", random_start=False),
        attack.apgd(hidden, x, y, 0.1, steps=20, random_start=False),
        attack.square(hidden, x, y, 0.1, steps=300),
    )
    assert len(x) > 40 and not ce.delta.any()
    plain = attack.apgd(model, x, y, 0.1, steps=20, random_start=False).success
    np.testing.assert_array_equal(dlr.success, plain)
    assert dlr.success.mean() > 0.8 and squares.success.mean() > 0.7
    found = attack.robust_accuracy(hidden, x, y, 0.1, steps=20, candidates=2, squares=0)
    assert found.counts["apgd, dlr to a class"] > 0 and found.accuracy.mean < 0.2


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.ci)])
def test_squares_need_no_gradient(norm: str) -> None:
    model, x, y = trained()
    hidden = Hidden(model, "rounded")
    right = predict(hidden, x).argmax(1) == y
    x, y, eps = x[right], y[right], 0.15 if norm == "linf" else 0.8
    gradient = attack.apgd(hidden, x, y, eps, norm=norm, steps=10, random_start=False)
    assert not gradient.delta.any()
    squares = attack.square(hidden, x, y, eps, norm=norm, steps=300)
    assert squares.success.mean() > 0.6
    found = attack.robust_accuracy(hidden, x, y, eps, norm=norm, steps=5, candidates=2, squares=300)
    assert found.counts["square"] > 0 and found.accuracy.mean < 0.4


# ---- few classes


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("norm", NORMS)
def test_few_classes(K: int, norm: str) -> None:
    model, x = convolutional(2, K), images(6, 2)
    y = predict(model.eval(), x).argmax(1)
    eps = 0.3 if norm == "linf" else 2.0
    for call in attack.apgd, partial(attack.apgd, candidates=9):
        assert call(model, x, y, eps, norm=norm).success.all()
    squares = attack.square(model, x, y, eps, norm=norm, steps=100)
    assert (margin(squares.logits, y) < 0.7 * margin(squares.before, y)).all()
    assert attack.robust_accuracy(model, x, y, eps, norm=norm, steps=20, squares=20).accuracy.mean < 0.2


# ---- the worst case of all


def test_robust_accuracy_counts_each_image_once() -> None:
    model, x, y = trained()
    y = y.copy()
    y[:5] = (y[:5] + 1) % 3
    found = attack.robust_accuracy(model, x, y, 0.04, steps=10, candidates=2, squares=100, level=0.9)
    fresh = predict(model, found.x)
    np.testing.assert_allclose(found.logits, fresh, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.robust, fresh.argmax(1) == y)
    assert found.attacks == ("no attack", "apgd, logprob", "apgd, dlr to a class", "square")
    np.testing.assert_array_equal(found.broken_by[:5], 0)
    np.testing.assert_array_equal(found.broken_by == -1, found.robust)
    assert sum(found.counts.values()) + found.robust.sum() == 60 and found.counts["no attack"] == 5
    assert found.accuracy == bootstrap(found.robust, level=0.9) and found.clean == bootstrap(
        predict(model, x).argmax(1) == y, level=0.9
    )
    assert (sizes(found.x - x, "linf") <= 0.04).all() and 0 <= found.x.min() <= found.x.max() <= 1
    np.testing.assert_array_equal(found.x[:5], x[:5])
    first = attack.apgd(model, x, y, 0.04, steps=10, output="logprob")
    np.testing.assert_array_equal(found.broken_by == 1, first.success & (found.broken_by != 0))
    assert str(found).splitlines()[0].startswith(f"right under attack {found.accuracy}, without {found.clean}; 60 images")
    assert [line.split()[-1] for line in str(found).splitlines()[1:]] == [
        str(n) for n in (*found.counts.values(), found.robust.sum())
    ]


def test_the_worst_case_in_l2_holds_only_what_is_in_the_ball() -> None:
    """Carlini and Wagner's images of this net are all wrong, and most are further away."""
    model, x, y = trained()
    found = attack.robust_accuracy(model, x[:12], y[:12], 0.1, norm="l2", steps=20, candidates=2, squares=20)
    assert found.attacks[3] == "carlini_wagner" and found.robust.sum() > 3
    assert (sizes(found.x - x[:12], "l2") <= 0.1).all()
    assert (margin(found.logits, y[:12]) < margin(predict(model, x[:12]), y[:12])).all()


def test_robust_accuracy_in_batches_again_and_in_a_ball_of_no_size() -> None:
    model, x, y = trained()
    more = {"steps": 5, "candidates": 2, "squares": 10}
    told: list[tuple[int, int]] = []
    a = attack.robust_accuracy(model, x, y, 0.03, progress=lambda *done: told.append(done), **more)
    b = attack.robust_accuracy(model, x, y, 0.03, batch_size=32, **more)
    for name in "x", "robust", "broken_by", "logits":
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert told[-1] == (60 * (5 + 10 + 10),) * 2 and told == sorted(told)
    assert (attack.robust_accuracy(model, x, y, 0.03, seed=1, **more).x != a.x).any()
    nothing = attack.robust_accuracy(model, x, y, 0.0, **more)
    np.testing.assert_array_equal(nothing.x, x)
    assert nothing.accuracy == nothing.clean and nothing.robust.all()


def test_no_batch_is_larger_than_it_may_be() -> None:
    seen: list[int] = []

    class Watched(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x.data))
            return self.net(x)

    model, x, y = trained()
    for norm in NORMS:
        attack.robust_accuracy(Watched(model), x[:15], y[:15], 0.05, norm=norm, steps=3, candidates=2, squares=5, batch_size=7)
    assert max(seen) == 7


def test_robust_accuracy_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = convolutional(3, 4), images(6, 3)
    y = predict(model.eval(), x).argmax(1)
    call = partial(attack.robust_accuracy, eps=0.3, norm="l2", steps=4, candidates=2, squares=8, mean=[0.1] * 3, std=[1.1] * 3)
    on_cpu = call(model, x, y)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    on_gpu = call(convolutional(3, 4).to("gpu"), to_gpu(x), to_gpu(y)).to("cpu")
    for name in "x", "robust", "broken_by", "logits", "y":
        np.testing.assert_allclose(getattr(on_gpu, name), getattr(on_cpu, name), rtol=1e-9, atol=1e-12)
    assert on_gpu.counts == on_cpu.counts and on_gpu.accuracy == on_cpu.accuracy


# ---- what cannot be

X = images(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: attack.pgd(m, X, restarts=0), ValueError, "restarts: expected an integer of at least 1, got 0"),
        (lambda m: attack.pgd(m, X, restarts=2, random_start=False), ValueError, "restarts: expected 1 where random_start"),
        (lambda m: attack.apgd(m, X, restarts=2, random_start=False), ValueError, "restarts: expected 1 where random_start"),
        (lambda m: attack.apgd(m, X, 1, targeted=True, candidates=2), ValueError, "candidates: expected 0 of a targeted"),
        (lambda m: attack.apgd(m, X, output="ce"), ValueError, r"output: expected one of .*'dlr'.*, got 'ce'"),
        (lambda m: attack.apgd(m, X, norm="l1"), ValueError, "norm: expected one of"),
        (lambda m: attack.apgd(m, X, targeted=True), ValueError, "y: a targeted attack needs the class"),
        (lambda m: attack.square(m, X, p=0), ValueError, r"p: expected a number in \(0, 1\], got 0"),
        (lambda m: attack.square(m, X, steps=-1), ValueError, "steps: expected an integer of at least 0"),
        (lambda m: attack.carlini_wagner(m, X, kappa=-1), ValueError, r"kappa: expected a number in \[0, inf\)"),
        (lambda m: attack.carlini_wagner(m, X, searches=0), ValueError, "searches: expected an integer of at least 1"),
        (lambda m: attack.robust_accuracy(m, X, None), TypeError, r"y: expected the labels, \(N,\) or one for all, got None"),
        (lambda m: attack.robust_accuracy(m, X, 4), ValueError, "y: expected one of the classes 0 to 3, got 4"),
        (lambda m: attack.robust_accuracy(m, X, 1, level=1), ValueError, r"level: expected a number in \(0, 1\), got 1"),
        (lambda m: attack.robust_accuracy(m, X, 1, candidates=0), ValueError, "candidates: expected an integer of at least 1"),
        (lambda m: attack.robust_accuracy(m, X - 1, 1), ValueError, r"x: expected values in the bounds \[0, 1\]"),
        (lambda m: attack.robust_accuracy(m, X, 1, batch_size=0), ValueError, "batch_size: expected an integer of at least 1"),
    ],
)  # fmt: skip
def test_bad_input(call: Callable[[nn.Module], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(convolutional(3, 4))


def test_singles_of_restarts() -> None:
    """The start of image i in each run depends on (seed, i, run) alone, not on which others stand."""
    model, x, y = trained()
    whole = attack.pgd(model, x, y, 0.05, steps=2, restarts=3)
    same(attack.pgd(model, x, y, 0.05, steps=2, restarts=3, batch_size=7), whole, rtol=1e-5, atol=1e-6)

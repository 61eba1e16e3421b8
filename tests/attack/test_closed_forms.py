"""Attacks on linear models, where the best that any attack can do is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from minidl import attack
from minidl.array import Array
from minidl.inference import predict
from tests.attack.nets import SIZE, images, linear

MEAN, STD = [0.4, 0.5, 0.6, 0.3], [0.2, 0.3, 0.25, 0.5]
WIDE = (-1000.0, 1000.0)  # bounds that are in nobody's way


def margin(logits: Array, y: Array) -> Array:
    """S_y - max of the others"""
    at = np.arange(len(y))
    others = logits.copy()
    others[at, y] = -np.inf
    return logits[at, y] - others.max(1)


@pytest.mark.parametrize("C", [1, 2, 3, 4])
@pytest.mark.parametrize("output", ["logprob", "margin", "prob"])
def test_fgsm_and_pgd_reach_the_optimum_in_the_box(C: int, output: str) -> None:
    """Each pixel goes to that end of [x - eps, x + eps], cut at the bounds, to which the margin's weight points."""
    model, w = linear(C, 2)
    x, y, eps = images(7, C), np.array([0, 1, 0, 1, 1, 0, 0]), 0.1
    normal = {"mean": MEAN[:C], "std": STD[:C]}
    low, high = np.maximum(x - eps, 0), np.minimum(x + eps, 1)
    for targeted in False, True:
        up = (w[y] - w[1 - y]) * (1 if targeted else -1)
        best = np.where(up > 0, high, low)
        found = attack.fgsm(model, x, y, eps, targeted=targeted, output=output, **normal)
        np.testing.assert_allclose(found.x, best, rtol=1e-12)
        found = attack.pgd(model, x, y, eps, targeted=targeted, output=output, **normal)
        np.testing.assert_allclose(found.x, best, rtol=1e-12)


@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_lowers_the_margin_by_eps_times_the_l1_norm(targeted: bool) -> None:
    model, w = linear(3, 2)
    x, y = images(5, 3), np.array([0, 1, 1, 0, 1])
    found = attack.fgsm(model, x, y, 0.1, WIDE, targeted)
    change = 0.1 * np.abs(w[0] - w[1]).sum() * (1 if targeted else -1)
    np.testing.assert_allclose(margin(found.logits, y), margin(found.before, y) + change, rtol=1e-10)
    np.testing.assert_allclose(found.norms["linf"], 0.1, rtol=1e-12)


def test_fgsm_of_a_score_that_is_sure() -> None:
    """With p = 1 to all digits of float32 the cross-entropy loses part of its gradient; the margin does not."""
    model, w = linear(1, 2, dtype="float32")
    model.parameters()[0].data *= 1000
    x = images(4, 1, dtype="float32")
    y = predict(model, x).argmax(1)
    best = (x - 0.1 * np.sign(w[y] - w[1 - y])).clip(0, 1)
    np.testing.assert_allclose(attack.fgsm(model, x, y, 0.1, output="margin").x, best, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_pgd_reaches_the_optimum_in_the_l2_ball(seed: int) -> None:
    """The margin falls by eps ||w_y - w_k||_2, from whatever start."""
    model, w = linear(3, 2)
    x, y = images(5, 3), np.array([0, 1, 1, 0, 1])
    found = attack.pgd(model, x, y, 0.7, WIDE, norm="l2", seed=seed, output="margin")
    best = margin(found.before, y) - 0.7 * np.sqrt(((w[0] - w[1]) ** 2).sum())
    np.testing.assert_allclose(margin(found.logits, y), best, rtol=1e-6)
    np.testing.assert_allclose(found.norms["l2"], 0.7, rtol=1e-12)


@pytest.mark.parametrize("C", [1, 2, 3, 4])
@pytest.mark.parametrize("K", [2, 5])
@pytest.mark.parametrize("overshoot", [0.02, 0.5])
def test_deepfool_goes_to_the_nearest_border(C: int, K: int, overshoot: float) -> None:
    """|r| = (1 + overshoot) min_k (S_y - S_k) / ||w_y - w_k||_2, in one step"""
    model, w = linear(C, K)
    w = w / np.array(STD[:C])[:, None, None]  # d S / d image
    x = images(6, C)
    found = attack.deepfool(model, x, bounds=WIDE, overshoot=overshoot, mean=MEAN[:C], std=STD[:C])
    assert found.success.all() and (found.steps == 1).all()
    y = found.before.argmax(1)
    length = np.sqrt(((w[y][:, None] - w) ** 2).sum((2, 3, 4)))  # (N,K)
    length[np.arange(6), y] = np.nan
    distance = np.nanmin((found.before.max(1, keepdims=True) - found.before) / length, axis=1)
    np.testing.assert_allclose(found.norms["l2"], (1 + overshoot) * distance, rtol=1e-9)


def test_deepfool_without_overshoot_ends_on_the_border() -> None:
    model, w = linear(2, 2)
    found = attack.deepfool(model, images(6, 2), bounds=WIDE, overshoot=0, steps=1)
    distance = np.abs(found.before[:, 0] - found.before[:, 1]) / np.sqrt(((w[0] - w[1]) ** 2).sum())
    np.testing.assert_allclose(found.norms["l2"], distance, rtol=1e-12)
    np.testing.assert_allclose(found.logits[:, 0], found.logits[:, 1], rtol=1e-12)


def test_deepfool_to_a_class() -> None:
    """In two classes the border of the other one is the only one; of five, the steps end in the class asked for."""
    model, w = linear(1, 2)
    x = images(4, 1)
    other = 1 - predict(model, x).argmax(1)
    found = attack.deepfool(model, x, other, WIDE, targeted=True)
    distance = np.abs(found.before[:, 0] - found.before[:, 1]) / np.sqrt(((w[0] - w[1]) ** 2).sum())
    assert found.success.all()
    np.testing.assert_allclose(found.norms["l2"], 1.02 * distance, rtol=1e-9)
    model, _ = linear(1, 5)
    found = attack.deepfool(model, x, 3, WIDE, targeted=True)
    assert (found.logits.argmax(1) == 3).all() and found.success.all()


def test_deepfool_moves_away_from_a_tie() -> None:
    """Whatever the logits, the image and the gradient: also where 16 eps of the logits are none, or less than x can tell."""
    signs = np.indices((SIZE, SIZE)).sum(0) % 2 * 2 - 1  # as many of each, so that S_0 = S_1 = bias on any level
    for dtype, bias, level, steep in itertools.product(("float32", "float64"), (0, 3), (0, 0.5), (2.0**-10, 1, 2.0**10)):
        model, w = linear(1, 2, dtype=dtype)
        w[0], w[1], model.parameters()[1].data[:] = steep * signs, -steep * signs, bias
        x = np.full((1, 1, SIZE, SIZE), level, dtype)
        for targeted, y in (False, None), (True, 1):
            found = attack.deepfool(model, x, y, (-1, 1), targeted=targeted)
            assert found.before[0, 0] == found.before[0, 1] == bias
            assert found.success.all() and found.steps[0] >= 1, (dtype, bias, level, steep)
            assert 0 < found.norms["l2"][0] < 0.01


def test_fool_takes_the_steps_that_a_linear_model_needs() -> None:
    """S_y - S_k grows by step <w_y - w_k, w_y> / ||w_y||_2 in each step."""
    model, w = linear(3, 2)
    x = images(6, 3)
    y = 1 - predict(model, x).argmax(1)
    found = attack.fool(model, x, y, WIDE, step_size=0.05)
    gain = [0.05 * (w[t] * (w[t] - w[1 - t])).sum() / np.sqrt((w[t] ** 2).sum()) for t in y]
    assert found.success.all()
    np.testing.assert_array_equal(found.steps, np.ceil(-margin(found.before, y) / gain))
    np.testing.assert_allclose(found.norms["l2"], 0.05 * found.steps, rtol=1e-10)


def test_a_class_image_of_a_linear_model() -> None:
    """z = x - grey: z_T = (1 - decay)^T z_0 + step w / ||w||_2 sum_{t<T} (1 - decay)^t"""
    model, w = linear(2, 3)
    w = w / np.array(STD[:2])[:, None, None]
    given = {"mean": MEAN[:2], "std": STD[:2], "bounds": WIDE}
    found = attack.class_image(model, (2, SIZE, SIZE), np.array([0, 2]), steps=20, blur_every=0, jitter=0, **given)
    grey = np.array(MEAN[:2])[:, None, None]
    start = found.x - found.delta
    assert 0.05 < np.abs(start - grey).max() <= 0.1
    unit = w[[0, 2]] / np.sqrt((w[[0, 2]] ** 2).sum((1, 2, 3), keepdims=True))
    expected = 0.98**20 * (start - grey) + 0.5 * unit * (1 - 0.98**20) / 0.02 + grey
    np.testing.assert_allclose(found.x, expected, rtol=1e-10)


def test_a_class_image_is_smoother_where_it_is_blurred_or_shifted() -> None:
    model, _ = linear(2, 3)
    rough = {}
    for name, jitter, blur in ("plain", 0, 0), ("shifted", 2, 0), ("blurred", 0, 2):
        x = attack.class_image(model, (2, SIZE, SIZE), 1, jitter=jitter, blur_every=blur, steps=50, bounds=WIDE).x
        rough[name] = (np.diff(x, axis=3) ** 2).mean() / x.var()
    assert rough["blurred"] < 0.8 * rough["plain"] and rough["shifted"] < 0.8 * rough["plain"]


def test_a_universal_perturbation_of_a_linear_model() -> None:
    """Where all images are of class 0, v = eps (w_1 - w_0) / ||w_1 - w_0||_2 does as much as any v, and the furthest
    image tells how large eps must be."""
    model, w = linear(3, 2)
    x, bias = images(20, 3), model.parameters()[1].data
    gap = predict(model, x) @ [1, -1]
    bias[1] += gap.min() - 0.5  # S_0 - S_1 >= 0.5 now
    needed = (predict(model, x) @ [1, -1]).max() / np.sqrt(((w[0] - w[1]) ** 2).sum())
    found = attack.universal(model, x, eps=1.001 * needed, norm="l2", fooling_rate=1, bounds=WIDE)
    assert found.success.all() and found.delta.shape == (1, 3, SIZE, SIZE)
    assert found.norms["l2"][0] <= 1.001 * needed * (1 + 1e-12)
    np.testing.assert_allclose(found.x, x + found.delta, rtol=1e-12)
    found = attack.universal(model, x, eps=0.999 * needed, norm="l2", fooling_rate=1, bounds=WIDE)
    assert found.success.sum() == 19

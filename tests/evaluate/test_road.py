"""ROAD: its imputation against the equations solved directly, and curves of models of which the answer is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidl import Tensor, nn, ops
from minidl.array import Array
from minidl.evaluate import road
from minidl.evaluate.imputation import imputed
from minidl.explain import grad_times_input
from minidl.inference import predict
from tests.explain.nets import Net, images, linear


def solved(x: Array, missing: Array) -> Array:
    """The equations of one image (C,H,W) written out as a matrix, one row for each pixel of missing (H,W)"""
    C, H, W = x.shape
    A, b = np.zeros((H * W, H * W)), np.zeros((H * W, C))
    for i, j in np.ndindex(H, W):
        row = i * W + j
        if not missing[i, j]:
            A[row, row], b[row] = 1, x[:, i, j]
            continue
        for di, dj in (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1):
            if 0 <= i + di < H and 0 <= j + dj < W:
                weight = 1 / 12 if di and dj else 1 / 6
                A[row, row] += weight
                A[row, row + di * W + dj] -= weight
    return np.linalg.solve(A, b).T.reshape(C, H, W)


@pytest.mark.parametrize("size", [(7, 9), (1, 8), (6, 1)])
def test_imputation_solves_its_equations(size: tuple[int, int]) -> None:
    """Of some, most and all but one of the pixels, each image on its own."""
    rng = np.random.default_rng(0)
    x, missing = rng.normal(size=(4, 2, *size)), rng.random((4, 1, *size)) < [[[[0.0]]], [[[0.3]]], [[[0.9]]], [[[1.1]]]]
    missing[:, :, 0, 0] = False
    u = imputed(x, missing)
    np.testing.assert_array_equal(np.where(missing, 0, u), np.where(missing, 0, x))
    for i in range(4):
        np.testing.assert_allclose(u[i], solved(x[i], missing[i, 0]), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(imputed(x[i : i + 1], missing[i : i + 1])[0], u[i], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(u[3], np.broadcast_to(x[3, :, :1, :1], u[3].shape), atol=1e-5)  # one pixel is all that is known


@pytest.mark.parametrize("factor", [1e-200, 1e-30, 1e30, 1e200])
def test_imputation_does_not_depend_on_units(factor: float) -> None:
    x, missing = images(2, 1, 8, 8), np.random.default_rng(1).random((2, 1, 8, 8)) < 0.8
    np.testing.assert_allclose(imputed(factor * x, missing) / factor, imputed(x, missing), rtol=1e-9)


def test_a_plane_stays_a_plane_inside() -> None:
    """It is the mean of its neighbours, with as many on one side as on the other."""
    i, j = np.mgrid[:9, :9]
    x = (2.0 * i - 3 * j + 1)[None, None]
    missing = np.zeros((1, 1, 9, 9), bool)
    missing[:, :, 2:7, 1:8] = True
    np.testing.assert_allclose(imputed(x, missing), x, atol=1e-5)


@pytest.mark.parametrize("order", ["morf", "lerf"])
def test_curve_by_hand(order: str) -> None:
    model, w, b = linear()
    x, maps, target = images(3, 2, 6, 6), np.random.default_rng(3).normal(size=(3, 6, 6)), np.array([2, 0, 1])
    found = road(model, x, maps, target, order, shares=(0.25, 0.5, 0.99), noise=0.0, output="logit")
    np.testing.assert_allclose(found.share, [0, 9 / 36, 18 / 36, 35 / 36])
    for i in range(3):
        ranked = np.argsort(maps[i].ravel() if order == "lerf" else -maps[i].ravel())
        for t, n in enumerate((0, 9, 18, 35)):
            missing = np.zeros(36, bool)
            missing[ranked[:n]] = True
            u = solved(x[i], missing.reshape(6, 6)) if n else x[i]
            assert found.score[i, t] == pytest.approx((w[target[i]] * u).sum() + b[target[i]], abs=1e-4)


def test_noise_is_on_missing_pixels_alone_and_the_same_for_all_images() -> None:
    seen: list[Array] = []

    class Sees(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.data)
            return ops.mean(x, (2, 3))

    x, maps = images(3, 2, 20, 20), np.random.default_rng(1).random((3, 20, 20))
    road(Sees(), x, maps, shares=[0.5], noise=0.25, seed=2, batch_size=100)
    noisy = seen[-1][1::2]
    road(Sees(), x, maps, shares=[0.5], noise=0.0, batch_size=100)
    e = noisy - seen[-1][1::2]
    missing = maps >= np.median(maps, (1, 2), keepdims=True)
    assert (e[~np.repeat(missing[:, None], 2, 1)] == 0).all()
    assert e.std(where=missing[:, None]) == pytest.approx(0.25, rel=0.1)
    both = missing[0] & missing[1]
    np.testing.assert_allclose(e[0][:, both], e[1][:, both], atol=1e-12)
    road(Sees(), x, maps, shares=[0.5], noise=0.25, seed=3, batch_size=100)
    assert np.abs(seen[-1][1::2] - noisy).max() > 0.1


def test_most_relevant_first_falls_faster() -> None:
    """The score is the mean of a square; a map of the square, its opposite, and none."""

    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            s = x[:, 0, 4:9, 4:9]
            mean = ops.reshape(ops.mean(s, (1, 2)), (-1, 1))
            return ops.concat([mean, 0 * mean])

    x, maps = np.full((2, 1, 16, 16), -1.0), np.zeros((2, 16, 16))
    x[:, :, 4:9, 4:9] = maps[:, 4:9, 4:9] = 1
    settings: dict[str, Any] = {"target": 0, "output": "logit", "shares": (0.1, 0.2, 0.3)}
    good = road(Square(), x, maps, **settings).score, road(Square(), x, maps, order="lerf", **settings).score
    assert (good[0][:, 1:] < -0.9).all() and (good[1] > 0.9).all()
    wrong = road(Square(), x, -maps, **settings).score
    np.testing.assert_allclose(wrong, good[1], atol=0.05)


def test_batches_and_seeds() -> None:
    model, x, flat = Net().to(dtype="float64"), images(3, 3, 8, 8), np.zeros((3, 8, 8))
    whole = road(model, x, flat, shares=(0.2, 0.6), batch_size=4)
    for i in range(3):  # equal pixels go in the same order in all images
        alone = road(model, x[i : i + 1], flat[i : i + 1], shares=(0.2, 0.6), batch_size=1)
        np.testing.assert_allclose(alone.score[0], whole.score[i], rtol=1e-9)
    assert np.array_equal(whole.score, road(model, x, flat, shares=(0.2, 0.6), batch_size=4).score)
    assert not np.allclose(whole.score[:, 1:], road(model, x, flat, shares=(0.2, 0.6), seed=1).score[:, 1:])
    np.testing.assert_allclose(whole.score[:, 0], _prob(predict(model, x)), rtol=1e-9)


def _prob(logits: Array) -> Array:
    p = np.exp(logits - logits.max(1, keepdims=True))
    return (p / p.sum(1, keepdims=True)).max(1)


@pytest.mark.parametrize("output", ["logit", "prob", "logprob", "margin"])
def test_every_score_and_any_channels(output: str) -> None:
    for channels in 1, 4:
        model, x = Net(channels).to(dtype="float64"), images(2, channels, 8, 8)
        found = road(model, x, grad_times_input(model, x).map, output=output)
        assert found.score.shape == (2, 10) and np.isfinite(found.score).all() and found.auc.shape == (2,)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"maps": np.zeros((2, 8, 9))}, ValueError, r"maps: expected \(2, 8, 8\), one map an image"),
    ({"maps": np.full((2, 8, 8), np.nan)}, ValueError, "maps: hold NaN"),
    ({"order": "most"}, ValueError, r"order: expected one of \('morf', 'lerf'\), got 'most'"),
    ({"shares": (0.5, 1.0)}, ValueError, r"shares\[1\]: expected a number in \(0, 1\), got 1.0"),
    ({"shares": ()}, ValueError, "shares: expected at least one, each larger than that before"),
    ({"shares": (0.5, 0.2)}, ValueError, "shares: expected at least one, each larger than that before"),
    ({"shares": 0.5}, TypeError, r"shares: expected numbers in \(0, 1\), got 0.5"),
    ({"noise": -1.0}, ValueError, r"noise: expected a number in \[0, inf\), got -1.0"),
    ({"x": np.zeros((8, 8))}, ValueError, "x: expected images"),
    ({"target": 3}, ValueError, "target: expected one of the classes 0 to 2"),
    ({"output": "odds"}, ValueError, "output: expected one of"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD)
def test_bad_arguments(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    good = {"model": Net().to(dtype="float64"), "x": images(2, 3, 8, 8), "maps": np.zeros((2, 8, 8))}
    with pytest.raises(error, match=message):
        road(**good | bad)

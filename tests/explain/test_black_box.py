"""Occlusion and RISE, which take the model as a black box, against their definitions written out for a linear model."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import nn
from minidl.array import Array
from minidl.explain import kernel_shap, lime, occlusion, rise
from minidl.explain.rise import random_mask

from .nets import Net, images, linear

pytestmark = pytest.mark.filterwarnings("ignore:.*the map is 0 everywhere")  # as it has to be


def occlusion_is_right(window: tuple[int, int], stride: tuple[int, int]) -> None:
    """Raises AssertionError unless each pixel has the mean over its windows of sum_window w (x - baseline)."""
    model, w, _ = linear()
    x, baseline, target = images(2, 2, 6, 6), images(2, 6, 6, seed=1), np.array([0, 2])
    gain = (w[target] * (x - baseline)).sum(1)  # (2,6,6)
    total, count = np.zeros((2, 6, 6)), np.zeros((6, 6))
    tops, lefts = ({*range(0, 6 - n, s), 6 - n} for n, s in zip(window, stride, strict=True))
    for i, j in itertools.product(tops, lefts):
        part = slice(i, i + window[0]), slice(j, j + window[1])
        total[:, *part] += gain[:, *part].sum((1, 2))[:, None, None]
        count[part] += 1
    e = occlusion(model, x, target, window=window, stride=stride, baseline=baseline)
    np.testing.assert_allclose(e.map, total / count, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(e.raw[:, 0], e.map)


WINDOWS = [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((3, 2), (2, 2)), ((4, 5), (3, 4)), ((6, 6), (6, 6)), ((5, 1), (5, 1))]


@pytest.mark.parametrize(("window", "stride"), WINDOWS)
def test_occlusion_of_a_linear_model(window: tuple[int, int], stride: tuple[int, int]) -> None:
    occlusion_is_right(window, stride)


def test_a_window_of_one_pixel_is_gradient_times_input() -> None:
    model, w, _ = linear()
    x = images(2, 2, 6, 6)
    np.testing.assert_allclose(occlusion(model, x, 1, window=1).map, (w[1] * x).sum(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "starts",
    [
        lambda size, window, stride: [*range(0, size - window + 1, stride)],  # the rest of the image is left out
        lambda size, window, stride: [*range(0, size - window, stride), size - window, size - window],
        lambda size, window, stride: [*range(1, size - window, stride), size - window],
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_wrong_windows_are_noticed(starts: Callable[[int, int, int], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["minidl.explain.occlusion"], "starts", starts)
    with pytest.raises(AssertionError):
        for window, stride in WINDOWS:
            occlusion_is_right(window, stride)


def test_default_window() -> None:
    e = occlusion(Net().to(dtype="float64"), images(1, 3, 24, 16))
    assert e.params["window"] == (3, 2) and e.params["stride"] == (1, 1)


@pytest.mark.parametrize(("window", "stride"), WINDOWS[1:])
def test_occlusion_by_the_mean_of_the_window(window: tuple[int, int], stride: tuple[int, int]) -> None:
    """A linear model loses sum_window w (x - mean of x in the window, of its channel)."""
    model, w, _ = linear()
    x, target = images(2, 2, 6, 6), np.array([0, 2])
    total, count = np.zeros((2, 6, 6)), np.zeros((6, 6))
    tops, lefts = ({*range(0, 6 - n, s), 6 - n} for n, s in zip(window, stride, strict=True))
    for i, j in itertools.product(tops, lefts):
        part = slice(i, i + window[0]), slice(j, j + window[1])
        inside = x[:, :, *part]
        lost = (w[target][:, :, *part] * (inside - inside.mean((2, 3), keepdims=True))).sum((1, 2, 3))
        total[:, *part] += lost[:, None, None]
        count[part] += 1
    e = occlusion(model, x, target, window=window, stride=stride, baseline="mean")
    np.testing.assert_allclose(e.map, total / count, rtol=1e-9, atol=1e-12)
    assert e.params["baseline"] == "mean"


def blurred(x: Array, sigma: float) -> Array:
    """Along the last axis, the image mirrored beyond its border"""
    size = x.shape[-1]
    reach = min(int(np.ceil(3 * sigma)), size - 1)
    t = np.arange(-reach, reach + 1)
    bell = np.exp(-0.5 * (t / sigma) ** 2)
    at = np.abs(np.arange(size)[:, None] + t)
    at = np.where(at > size - 1, 2 * (size - 1) - at, at)
    return (x[..., at] * bell / bell.sum()).sum(-1)


@pytest.mark.parametrize(("window", "stride"), WINDOWS)
def test_occlusion_by_blur(window: tuple[int, int], stride: tuple[int, int]) -> None:
    """The same as by the image that is blurred beforehand, by half a window."""
    model, x = linear()[0], images(2, 2, 6, 6)
    blur = blurred(blurred(x, window[1] / 2).swapaxes(2, 3), window[0] / 2).swapaxes(2, 3)
    e, beforehand = (occlusion(model, x, 1, window=window, stride=stride, baseline=baseline) for baseline in ("blur", blur))
    np.testing.assert_allclose(e.map, beforehand.map, rtol=1e-9, atol=1e-12)
    assert np.abs(e.map).max() > 1e-3


@pytest.mark.parametrize("baseline", ["mean", "blur"])
def test_an_image_of_one_color_loses_nothing_by_its_own_color(baseline: str) -> None:
    x = np.broadcast_to(images(2, 3, 1, 1), (2, 3, 9, 8)).copy()
    np.testing.assert_allclose(occlusion(Net().to(dtype="float64"), x, window=2, baseline=baseline).map, 0, atol=1e-12)
    assert np.abs(occlusion(Net().to(dtype="float64"), x).map).max() > 1e-3


def test_an_image_of_one_row_is_blurred_along_it() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, rng=np.random.default_rng(0))).to(dtype="float64")
    assert np.isfinite(occlusion(model, images(1, 2, 1, 8), window=(1, 3), baseline="blur").map).all()


def rise_is_right() -> None:
    model, w, bias = linear()
    x, baseline, target, n = images(2, 2, 6, 6), images(2, 6, 6, seed=1), np.array([0, 2]), 40
    m = np.stack([random_mask((6, 6), 3, 0.4, (7, k)) for k in range(n)])  # (n,6,6)
    seen = m[:, None, None] * x + (1 - m[:, None, None]) * baseline  # (n,2,C,6,6)
    s = (seen * w[target]).sum((2, 3, 4)) + bias[target]  # (n,2)
    e = rise(model, x, target, "logit", samples=n, grid=3, p=0.4, baseline=baseline, seed=7)
    np.testing.assert_allclose(e.raw[:, 0], np.einsum("kn,kij->nij", s, m) / (n * 0.4), rtol=1e-9)
    np.testing.assert_allclose(e.map, np.einsum("kn,kij->nij", s - s.mean(0), m) / (n * 0.4), rtol=1e-9, atol=1e-12)


def test_rise_of_a_linear_model() -> None:
    rise_is_right()


def test_masks() -> None:
    """In [0, 1], of mean p at every pixel, smooth, shifted, as large as the image, and the same for the same seed."""
    m = np.stack([random_mask((30, 20), 5, 0.3, k) for k in range(3000)])
    assert m.shape == (3000, 30, 20) and m.min() >= 0 and m.max() <= 1
    assert abs(m.mean() - 0.3) < 0.01 and np.abs(m.mean(0) - 0.3).max() < 0.05
    assert np.abs(np.diff(m, axis=1)).max() <= 1 / 5 and np.abs(np.diff(m, axis=2)).max() <= 1 / 3 + 1e-9
    assert (m[0] == random_mask((30, 20), 5, 0.3, 0)).all() and (m[0] != m[1]).any()
    spread = m.var(0)[8:22, 6:14]  # of a grid that never moves, it is several times larger in the cells than between them
    assert spread.max() < 2 * spread.min()


def test_a_constant_score_has_no_map() -> None:
    """Which pixels were in sight more often than others does not show."""
    model, _, bias = linear()
    x = np.zeros((1, 2, 6, 6))  # the mask of a black image changes nothing
    with pytest.warns(UserWarning, match=r"RISE: the map is 0 everywhere for the images \[0\]: nothing was found"):
        e = rise(model, x, 1, "logit", samples=30, grid=3)
    np.testing.assert_allclose(e.map, 0, atol=1e-12)
    assert np.ptp(e.raw) > 1e-3 * abs(bias[1])


def sure(dtype: str, log_odds: float) -> nn.Module:
    layer = nn.Linear(72, 2, rng=np.random.default_rng(3))
    layer.weight.data *= 0.3
    assert layer.bias is not None
    layer.bias.data[1] = log_odds
    return nn.Sequential(nn.Flatten(), layer).to(dtype=dtype)


CELLS = {"samples": 70, "grid": 3}
OTHERS: list[Any] = [
    (kernel_shap, CELLS),
    (lime, CELLS),
    *((occlusion, {"baseline": baseline, "window": 3}) for baseline in ("mean", "blur")),
]


@pytest.mark.parametrize("log_odds", [0, 8, 12, 18, -12])
@pytest.mark.parametrize("output", ["prob", "logprob", "logit"])
def test_of_a_very_sure_net_float32_and_float64_give_the_same_map(log_odds: float, output: str) -> None:
    """The scores through all masks differ in their last digits alone, and a sum that holds their mean has no more."""
    x = np.random.default_rng(0).random((2, 2, 6, 6), np.float32)
    for method, settings in (rise, {"samples": 300, "grid": 3}), (occlusion, {"window": 2}), *OTHERS:
        found, want = (
            method(sure(dtype, log_odds), x.astype(dtype), 1, output, **settings) for dtype in ("float32", "float64")
        )
        assert found.map.dtype == found.raw.dtype == found.score.dtype == np.float32 and want.map.dtype == np.float64
        np.testing.assert_allclose(found.map, want.map, rtol=0, atol=1e-4 * np.abs(want.map).max())


def test_what_is_seen_through_the_masks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["minidl.explain.rise"]
    for broken in (lambda *a: 1 - random_mask(*a), lambda size, grid, p, seed: random_mask(size, grid, p, seed[1])):
        monkeypatch.setattr(module, "random_mask", broken)
        with pytest.raises(AssertionError):
            rise_is_right()

"""Averages around any method: under noise, and over mirror images."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, inference, nn, ops
from minidl.array import Array
from minidl.explain import Explanation, flipped, grad_cam, grad_times_input, rise, saliency, smooth, smoothgrad
from minidl.explain.flipped import AXES

from .nets import Net, images, linear

pytestmark = pytest.mark.filterwarnings("ignore:.*the map is 0 everywhere")  # of small nets


def net() -> Net:
    return Net().to(dtype="float64")


def test_smooth_around_the_gradient_is_smoothgrad() -> None:
    model, x, target = net(), images(3, 3, 8, 8), np.array([2, 0, 1])
    e = smooth(model, x, target, partial(saliency, reduce="sum"), samples=7, noise=0.3, seed=5, batch_size=2)
    published = smoothgrad(model, x, target, reduce="sum", samples=7, noise=0.3, seed=5)
    np.testing.assert_allclose(e.raw, published.raw, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(e.map, published.map, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(e.score, published.score, rtol=1e-12)


def test_smooth_by_hand() -> None:
    """The mean of what the method says of each noisy image, for the class of the one without noise."""
    model, x = net(), images(2, 3, 8, 8)
    seen = []

    def noting(model: nn.Module, x: Array, target: Any, batch_size: int) -> Explanation:
        assert len(x) <= batch_size
        seen.append((x, target))
        return grad_cam(model, x, target, "bn2")

    e = smooth(model, x, None, noting, samples=3, batch_size=2)
    plain, *noisy = seen
    assert plain[1] is None and len(noisy) == 3 and all((target == e.target).all() for _, target in noisy)
    maps = [grad_cam(model, x, e.target, "bn2") for x, _ in noisy]
    np.testing.assert_allclose(e.map, np.mean([m.map for m in maps], 0), rtol=1e-12)
    np.testing.assert_allclose(e.raw, np.mean([m.raw for m in maps], 0), rtol=1e-12)
    for i, sigma in enumerate(0.15 * np.ptp(x, (1, 2, 3))):
        e0 = np.random.default_rng((0, 0)).standard_normal((3, 8, 8))
        np.testing.assert_allclose(noisy[0][0][i], x[i] + sigma * e0, rtol=1e-12)
    assert e.params["method"] == "smooth" and e.params["of"] == maps[0].params and e.params["output"] == "logit"
    assert e.name == "smoothed Grad-CAM"


def test_smooth_without_noise_is_the_method() -> None:
    model, x = net(), images(2, 3, 8, 8)
    e, plain = smooth(model, x, method=grad_times_input, samples=4, noise=0.0), grad_times_input(model, x)
    np.testing.assert_allclose(e.raw, plain.raw, rtol=1e-12)
    np.testing.assert_allclose(e.map, plain.map, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("flips", AXES)
def test_flips_of_a_linear_model(flips: str) -> None:
    """Its gradient w is the same everywhere: the mean of w and its mirror images."""
    model, w, _ = linear()
    e = flipped(model, images(3, 2, 6, 6), np.array([0, 1, 2]), partial(saliency, reduce="sum"), flips)
    shown = [w, w[..., ::-1], w[..., ::-1, :], w[..., ::-1, ::-1]]
    chosen = {"horizontal": shown[:2], "vertical": shown[::2], "both": shown}[flips]
    np.testing.assert_allclose(e.raw, np.mean(chosen, 0), rtol=1e-12)
    np.testing.assert_allclose(e.map, np.mean(chosen, 0).sum(1), rtol=1e-12)
    assert e.name == "flipped saliency" and e.params["flips"] == flips


def test_flips_of_a_model_that_knows_no_left_from_right() -> None:
    """A net whose kernels are symmetric says the same of the mirror image: the mean is the map itself."""
    model = net()
    for conv in model.conv1, model.conv2, model.conv3, model.conv4:
        conv.weight.data = conv.weight.data + conv.weight.data[..., ::-1]
    x = images(2, 3, 8, 8)
    for method in saliency, grad_cam:
        e, plain = flipped(model, x, method=method, batch_size=1), method(model, x)
        np.testing.assert_allclose(e.raw, plain.raw, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(e.map, plain.map, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(e.score, plain.score, rtol=1e-12)


def test_the_class_is_that_of_the_image_as_it_is() -> None:
    class Left(nn.Module):
        """Whether the left half is brighter than the right one"""

        def forward(self, x: Tensor) -> Tensor:
            halves = [ops.mean(x[:, :, :, half], axis=(1, 2, 3), keepdims=True) for half in (slice(0, 4), slice(4, 8))]
            return ops.reshape(ops.concat(halves), (-1, 2))

    x = np.zeros((1, 1, 8, 8))
    x[..., :4] = 1
    e = flipped(Left(), x, method=grad_times_input)
    assert e.target == [0] and e.score == [1] and e.map[0, :, :4].sum() == pytest.approx(0.5) and not e.map[0, :, 4:].any()


def test_around_each_other_and_around_what_draws() -> None:
    model, x = net(), images(2, 3, 8, 8)
    masks = partial(rise, samples=6, grid=3, seed=2)
    e = flipped(model, x, method=partial(smooth, method=masks, samples=3))
    assert e.map.shape == (2, 8, 8) and e.name == "flipped smoothed RISE" and e.params["output"] == "prob"
    assert e.params["of"]["samples"] == 3 and e.params["of"]["of"]["samples"] == 6
    assert (e.map == flipped(model, x, method=partial(smooth, method=masks, samples=3)).map).all()


@pytest.mark.parametrize("around", [smooth, flipped])
def test_what_is_no_method(around: Any) -> None:
    with pytest.raises(TypeError, match=r"method: expected a function \(model, x, target=, batch_size=\) .*, got 'saliency'"):
        around(net(), images(1, 3, 8, 8), method="saliency")
    with pytest.raises(TypeError, match=r"method: expected .* that returns an Explanation, .*; this one returned ndarray"):
        around(net(), images(1, 3, 8, 8), method=lambda model, x, target, batch_size: inference.predict(model, x))


def test_other_flips() -> None:
    with pytest.raises(ValueError, match=r"flips: expected one of \('horizontal', 'vertical', 'both'\), got 'diagonal'"):
        flipped(net(), images(1, 3, 8, 8), flips="diagonal")

"""Grad-CAM's relatives: closed forms where a linear layer follows the mean, their formulas elsewhere, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from minidl import Tensor, explain, gradients, nn, ops
from minidl.array import Array
from minidl.explain import Explanation, grad_cam, grad_cam_plus_plus, guided_grad_cam, hires_cam, layer_cam, score_cam
from minidl.inference import predict

from .nets import Net, images

pytestmark = pytest.mark.filterwarnings("ignore:.*the map is 0 everywhere")  # of small nets

Method = Callable[..., Explanation]
SIZE = (12, 8)


def gap_linear(relu: bool = True) -> tuple[nn.Sequential, Array, Array, Array, Array]:
    """A net, images (3,3,12,8) and classes; its features A (3,5,6,4) and the weights w (3,5) of those classes."""
    rng = np.random.default_rng(0)
    last = nn.ReLU() if relu else nn.Tanh()
    body = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1, rng=rng), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, 1, 1, rng=rng), last)
    model = nn.Sequential(body, nn.GlobalAvgPool2d(), nn.Linear(5, 3, rng=rng)).to(dtype="float64")
    x, target = images(3, 3, *SIZE), np.array([0, 1, 2])
    return model, x, target, body(x).data, model[2].weight.data[target]


def drawn(raw: Array) -> Array:
    return ops.resize(Tensor(np.maximum(raw, 0)), SIZE).data[:, 0]


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layer", [None, "0", "0.4"])
def test_hires_cam_is_cam_where_there_is_one(relu: bool, layer: str | None) -> None:
    model, x, target, A, w = gap_linear(relu)
    e = hires_cam(model, x, target, layer)
    np.testing.assert_allclose(e.raw[:, 0], np.einsum("nk,nkij->nij", w, A) / 24, rtol=1e-12)
    np.testing.assert_allclose(e.raw, grad_cam(model, x, target, layer).raw, rtol=1e-12)
    np.testing.assert_array_equal(e.map, drawn(e.raw))
    np.testing.assert_allclose(e.raw.sum((1, 2, 3)) + model[2].bias.data[target], e.score, rtol=1e-9)


@pytest.mark.parametrize("relu", [True, False])
def test_layer_cam_is_cam_of_the_positive_weights(relu: bool) -> None:
    model, x, target, A, w = gap_linear(relu)
    e = layer_cam(model, x, target)
    np.testing.assert_allclose(e.raw[:, 0], np.einsum("nk,nkij->nij", np.maximum(w, 0), A) / 24, rtol=1e-12)
    np.testing.assert_array_equal(e.map, drawn(e.raw))
    assert (w < 0).any()


def test_grad_cam_plus_plus_where_there_is_cam() -> None:
    """g = w/24 everywhere, so that w_k = max(w, 0) / (2 + w mean A)"""
    model, x, target, A, w = gap_linear()
    e = grad_cam_plus_plus(model, x, target)
    weight = np.maximum(w, 0) / (2 + w * A.mean((2, 3)))
    np.testing.assert_allclose(e.raw[:, 0], np.einsum("nk,nkij->nij", weight, A), rtol=1e-12)
    np.testing.assert_array_equal(e.map, drawn(e.raw))


def features(model: nn.Module, body: nn.Module, head: nn.Module, x: Array, target: Array) -> tuple[Array, Array]:
    A = Tensor(body(x).data, requires_grad=True)
    logits = head(A)
    return A.data, gradients(logits[np.arange(len(x)), target], [A], np.ones(len(x)))[0]


def test_the_published_formulas_where_the_gradient_differs_from_place_to_place() -> None:
    rng = np.random.default_rng(1)
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, rng=rng), nn.ReLU())
    head = nn.Sequential(nn.Conv2d(4, 5, 3, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 60, 3, rng=rng))
    model = nn.Sequential(body, head).to(dtype="float64")
    x, target = images(2, 3, *SIZE), np.array([0, 2])
    with model.frozen():
        A, g = features(model, body, head, x, target)
    np.testing.assert_allclose(hires_cam(model, x, target, "0").raw[:, 0], (g * A).sum(1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer_cam(model, x, target, "0").raw[:, 0], (np.maximum(g, 0) * A).sum(1), rtol=1e-9, atol=1e-12)
    below = 2 * g**2 + A.sum((2, 3), keepdims=True) * g**3  # Chattopadhyay et al., equation 19
    alpha = np.divide(g**2, below, out=np.zeros_like(g), where=below != 0)
    weight = (alpha * np.maximum(g, 0)).sum((2, 3))
    raw = grad_cam_plus_plus(model, x, target, "0").raw[:, 0]
    np.testing.assert_allclose(raw, np.einsum("nk,nkij->nij", weight, A), rtol=1e-9, atol=1e-12)
    assert (g < 0).any() and (g == 0).any()


def test_grad_cam_plus_plus_refuses_features_far_below_0() -> None:
    model, x, target, _, _ = gap_linear(relu=False)
    with model.frozen():
        model[0][3].bias.data -= 50  # then Tanh is -1
    model[2].weight.data[:] = 9
    with pytest.raises(ValueError, match=r"layer: Grad-CAM\+\+ is defined for features that are not below 0"):
        grad_cam_plus_plus(model, x, target)


def test_score_cam_by_its_formula() -> None:
    model, x, target, A, _ = gap_linear()
    A[:, 1] = 0  # a feature that is the same everywhere
    model[0].append(Silenced())
    scores = np.zeros((3, 5))
    for n in range(3):
        for k in range(5):
            H = ops.resize(Tensor(A[n : n + 1, k : k + 1]), SIZE).data
            H = (H - H.min()) / (H.max() - H.min()) if k != 1 else 0 * H
            scores[n, k] = predict(model, x[n : n + 1] * H)[0, target[n]]
    scores[:, 1] = -np.inf
    alpha = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    e = score_cam(model, x, target)
    np.testing.assert_allclose(e.raw[:, 0], np.einsum("nk,nkij->nij", alpha, A), rtol=1e-9)
    np.testing.assert_array_equal(e.map, drawn(e.raw))


class Silenced(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * Tensor(np.array([1.0, 0, 1, 1, 1])[:, None, None])


def test_score_cam_of_features_that_are_all_the_same_is_0() -> None:
    model, x, _, _, _ = gap_linear()
    model[0][3].weight.data[:] = 0
    e = score_cam(model, x)
    assert not e.raw.any() and not e.map.any()


def test_score_cam_of_scores_too_large_for_an_exponential() -> None:
    model, x, target, _, _ = gap_linear()
    model[2].weight.data *= 1e5
    e = score_cam(model, x, target)
    assert np.isfinite(e.raw).all() and e.raw.any()


def test_guided_grad_cam_is_their_product() -> None:
    model, x, target = Net().to(dtype="float64"), images(3, 3, *SIZE), np.array([2, 0, 1])
    for layer in None, "bn2":
        e = guided_grad_cam(model, x, target, layer, batch_size=2)
        cam, guided = grad_cam(model, x, target, layer), explain.guided_backprop(model, x, target)
        np.testing.assert_allclose(e.raw, guided.raw * cam.map[:, None], rtol=1e-9, atol=1e-15)
        np.testing.assert_array_equal(e.map, np.abs(e.raw).max(1))
        assert e.params["layer"] == cam.params["layer"]


@pytest.mark.parametrize("method", [grad_cam_plus_plus, hires_cam, layer_cam, score_cam, guided_grad_cam])
def test_a_layer_that_is_not_there(method: Method) -> None:
    with pytest.raises(ValueError, match=r"layer: 'linear' is none of those with spatial extent, which are conv1 \(6, 12, 8\)"):
        method(Net().to(dtype="float64"), images(1, 3, *SIZE), layer="linear")


@pytest.mark.parametrize("layer", ["conv1", "bn1", "bn2", "pool", "conv3", "relu"])
def test_every_layer(layer: str) -> None:
    model, x = Net().to(dtype="float64"), images(2, 3, *SIZE)
    for method in hires_cam, layer_cam, score_cam, partial(guided_grad_cam, reduce="sum"):
        e = method(model, x, layer=layer)
        assert e.params["layer"] == layer and e.map.shape == (2, *SIZE) and np.isfinite(e.map).all()


def test_hires_cam_accounts_for_the_score() -> None:
    """Without biases behind a layer raw sums to the score, which the mean of Grad-CAM does not."""
    rng = np.random.default_rng(1)
    head = [nn.Conv2d(4, 5, 3, bias=False, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 60, 3, bias=False, rng=rng)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, rng=rng), *head).to(dtype="float64")
    x = images(2, 3, *SIZE)
    e = hires_cam(model, x, layer="0")
    np.testing.assert_allclose(e.raw.sum((1, 2, 3)), e.score, rtol=1e-9)
    assert np.abs(grad_cam(model, x, layer="0").raw.sum((1, 2, 3)) - e.score).max() > 0.01

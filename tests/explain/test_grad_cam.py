"""Grad-CAM against CAM, differences of the score, and versions of it that are wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

import models
from minidl import Tensor, gradients, nn, ops
from minidl.array import Array
from minidl.explain import grad_cam, saliency
from minidl.inference import predict

from .nets import Net, images, linear


def gap_linear() -> tuple[nn.Sequential, nn.Module]:
    """Features, which may be negative, the mean over the image, one linear layer; and the features."""
    rng = np.random.default_rng(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, rng=rng), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, 1, 1, rng=rng))
    model = nn.Sequential(body, nn.GlobalAvgPool2d(), nn.Linear(5, 3, rng=rng)).to(dtype="float64")
    return model, body


def is_cam() -> None:
    """Raises AssertionError where Grad-CAM is not sum_k w_ck A_k / (h w), cut at 0 and resized."""
    model, body = gap_linear()
    x, target = images(3, 3, 12, 8), np.array([0, 1, 2])
    A = body(x).data  # (N,5,6,4)
    w = model[2].weight.data[target]  # (N,5)
    cam = np.einsum("nk,nkij->nij", w, A)[:, None] / 24
    for layer in None, "0", "0.3":
        e = grad_cam(model, x, target, layer)
        np.testing.assert_allclose(e.raw, cam, rtol=1e-12)
        np.testing.assert_array_equal(e.map, ops.resize(Tensor(np.maximum(e.raw, 0)), (12, 8)).data[:, 0])
        assert (e.raw < 0).any() and (e.map >= 0).all()
    np.testing.assert_allclose(cam.sum((1, 2, 3)) + model[2].bias.data[target], e.score, rtol=1e-9)


def test_it_is_cam_where_there_is_one() -> None:
    is_cam()


class Mutant:
    """Stands for the gradient of the layer, and takes its means wrongly."""

    def __init__(self, alpha: Callable[[Array], Array]) -> None:
        self.alpha = alpha

    def mean(self, axis: tuple[int, int], keepdims: bool) -> Array:
        return self.alpha(self.g)

    def __call__(self, *arguments: object) -> list[Mutant]:
        (self.g,) = gradients(*arguments)  # type: ignore[arg-type]
        return [self]


@pytest.mark.parametrize(
    "alpha",
    [
        lambda g: g.sum((2, 3), keepdims=True),
        lambda g: g.max((2, 3), keepdims=True) + 1e-3,
        lambda g: np.maximum(g, 0).mean((2, 3), keepdims=True),
        lambda g: g.mean((2, 3), keepdims=True)[::-1],
    ],
)
def test_wrong_weights_are_noticed(alpha: Callable[[Array], Array], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["minidl.explain.grad_cam"], "gradients", Mutant(alpha))
    with pytest.raises(AssertionError):
        is_cam()


class Nudged(nn.Module):
    """Adds `by` (N,C,1,1) to what passes through."""

    by: Array | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        return x + self.by


@pytest.mark.parametrize("output", ["logit", "prob", "margin"])
def test_differences_of_the_score(output: str) -> None:
    """h w alpha_k is the derivative of the score when all of channel k grows alike."""
    rng, nudge, h = np.random.default_rng(1), Nudged(), 1e-6
    head = nn.Sequential(nn.Conv2d(4, 5, 3, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 3, rng=rng))
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, rng=rng), nudge, head).to(dtype="float64")
    x, target = images(2, 3, 8, 8), np.array([0, 2])
    A, alpha = model[0](x).data, np.empty((2, 4, 1, 1))
    for k in range(4):
        ends = []
        for sign in 1, -1:
            nudge.by = sign * h * np.eye(4)[k][None, :, None, None]
            ends.append(saliency(model, x, target, output).score)
        alpha[:, k, 0, 0] = (ends[0] - ends[1]) / (2 * h) / 64
    nudge.by = 0.0
    e = grad_cam(model, x, target, "0", output)
    np.testing.assert_allclose(e.raw, (alpha * A).sum(1, keepdims=True), rtol=1e-6, atol=1e-9)


def test_every_layer_of_a_fused_net() -> None:
    """Names that are only called where ops run one by one count too, and what comes out is the same within rounding."""
    model, x = Net().to(dtype="float64"), images(2, 3, 8, 8)
    for layer in "conv1", "bn1", "conv2", "bn2", "pool", "conv3", "relu", "conv4":
        e = grad_cam(model, x, layer=layer)
        assert (
            e.params["layer"] == layer
            and e.map.shape == (2, 8, 8)
            and e.raw.shape[2:] == ((8, 8) if layer[-1] in "12" else (4, 4))
        )
    assert grad_cam(model, x).params["layer"] == "relu"  # of the three calls, the last
    with ops.unfused():
        np.testing.assert_array_equal(
            grad_cam(model, x).raw, e.raw if layer == "relu" else grad_cam(model, x, layer="relu").raw
        )


@pytest.mark.parametrize(("name", "layer"), [("resnet8", "layer3"), ("densenet40_12", "features")])
def test_the_last_layer_of_the_models(name: str, layer: str) -> None:
    model = getattr(models, name)(num_classes=2)
    x = images(1, 3, 16, 16).astype(np.float32)
    e = grad_cam(model, x)
    assert e.params["layer"] == layer
    np.testing.assert_allclose(predict(model, x)[0, e.target], e.score, rtol=1e-4)


def test_a_model_without_spatial_layers() -> None:
    model, _, _ = linear()
    with pytest.raises(ValueError, match="layer: no layer of this model has an output with spatial extent"):
        grad_cam(model, images(1, 2, 6, 6))
    small = nn.Sequential(nn.GlobalAvgPool2d(), nn.Linear(2, 3)).to(dtype="float64")
    with pytest.raises(ValueError, match="no layer of this model"):
        grad_cam(small, images(1, 2, 6, 6))


def test_a_layer_that_the_score_does_not_use() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            self.used, self.idle = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.idle(x)
            return ops.global_avg_pool2d(self.used(x))

    e = grad_cam(Idle().to(dtype="float64"), images(1, 2, 6, 6), layer="idle")
    assert not e.raw.any() and not e.map.any()

"""The gradient of the largest logit, against differences of the logit and against a model whose gradient is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import models
from minidl import kernels, nn
from minidl.array import Array, to_cpu, to_gpu
from minidl.explain import saliency
from minidl.inference import predict
from tests.gpu import strict_cupy

RNG = np.random.default_rng(0)


def logit_gradients(model: nn.Module, x: Array) -> tuple[Array, Array]:
    return predict(model, x), saliency(model, x).raw


def test_a_linear_model_has_its_weights_as_gradient() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 3, 4, rng=np.random.default_rng(1)))
    x = RNG.normal(size=(5, 2, 3, 3)).astype(np.float32)
    logits, gx = logit_gradients(model, x)
    weight = dict(model.named_parameters())["1.weight"].data
    np.testing.assert_allclose(logits, x.reshape(5, -1) @ weight.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(gx.reshape(5, -1), weight[logits.argmax(1)])


def test_differences_of_the_logit() -> None:
    """(logit(x + h v) - logit(x - h v)) / 2h = <gx, v>, each image with its own prediction, in float64."""
    model = models.resnet8(3).to(dtype="float64")
    for _ in range(3):  # running statistics that are not those of the beginning
        model(RNG.normal(size=(8, 3, 16, 16)))
    x, v, h = RNG.normal(size=(4, 3, 16, 16)), RNG.normal(size=(4, 3, 16, 16)), 1e-6
    logits, gx = logit_gradients(model, x)
    best = np.arange(4), logits.argmax(1)
    model.eval()
    difference = (model(x + h * v).data[best] - model(x - h * v).data[best]) / (2 * h)
    np.testing.assert_allclose((gx * v).sum((1, 2, 3)), difference, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(training: bool) -> None:
    model = models.resnet8(2).train(training)
    before = model.state_dict()
    x = RNG.normal(size=(4, 3, 16, 16)).astype(np.float32)
    together, alone = logit_gradients(model, x)[1], logit_gradients(model, x[:1])[1]
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-6)  # no image changes another one's gradient
    assert model.training == training and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all((before[name] == a).all() for name, a in model.state_dict().items())


def test_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.normal(size=(4, 3, 16, 16)).astype(np.float32)
    with kernels.use("reference"):
        on_cpu = logit_gradients(models.resnet8(2), x)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        on_gpu = logit_gradients(models.resnet8(2).to("gpu"), to_gpu(x))
    for a, b in zip(on_cpu, on_gpu, strict=True):
        np.testing.assert_allclose(to_cpu(b), a, rtol=1e-4, atol=1e-6)

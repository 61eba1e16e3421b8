"""The same maps as Captum's on the same weights, to 1e-5, where it is installed beside PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, nn, ops
from minidl.array import Array
from minidl.explain import deconvnet, grad_cam, guided_backprop, integrated_gradients, saliency
from minidl.inference import predict

from .nets import images

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
attr = pytest.importorskip("captum.attr", reason="Captum is not installed: pip install captum")
pytestmark = pytest.mark.oracle


class Mine(nn.Module):
    """Two batch norms fused with their ReLUs, a residual, max pooling, a functional ReLU."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, rng=rng), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 10, 3, padding=1, rng=rng)
        self.fc = nn.Linear(10, 4, rng=rng)
        for norm in self.bn1, self.bn2:
            norm.running_mean = rng.normal(0, 0.3, 8).astype(np.float32)
            norm.running_var = rng.uniform(0.5, 2, 8).astype(np.float32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1.relu(self.conv1(x))
        x = self.bn2.relu(self.conv2(x), x)
        x = ops.relu(self.conv3(ops.max_pool2d(x, 2)))
        return self.fc(ops.global_avg_pool2d(x))


class Theirs(torch.nn.Module):  # type: ignore[name-defined, misc]
    """The same; every ReLU a module of its own, without which Captum's rules do not see it."""

    def __init__(self) -> None:
        super().__init__()
        t = torch.nn
        self.conv1, self.bn1, self.relu1 = t.Conv2d(3, 8, 3, padding=1), t.BatchNorm2d(8), t.ReLU()
        self.conv2, self.bn2, self.relu2 = t.Conv2d(8, 8, 3, padding=1, bias=False), t.BatchNorm2d(8), t.ReLU()
        self.pool, self.conv3, self.relu3 = t.MaxPool2d(2), t.Conv2d(8, 10, 3, padding=1), t.ReLU()
        self.fc = t.Linear(10, 4)

    def forward(self, x: Any) -> Any:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)) + x)
        x = self.relu3(self.conv3(self.pool(x)))
        return self.fc(x.mean((2, 3)))


Pair = tuple[Mine, Any, Array, Array]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both nets with the same weights in float64, images, and a class for each."""
    mine, theirs = Mine().to(dtype="float64"), Theirs().double().eval()
    theirs.load_state_dict({name: torch.tensor(a) for name, a in mine.state_dict().items()})
    x = images(4, 3, 16, 12)
    np.testing.assert_allclose(predict(mine, x), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum tells that it sets hooks
        yield mine, theirs, x, np.array([0, 1, 2, 3])


def close(mine: Array, theirs: Any) -> None:
    np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-5, atol=1e-5 * np.abs(mine).max())
    assert np.abs(mine).max() > 1e-3


def test_saliency(pair: Pair) -> None:
    mine, theirs, x, target = pair
    close(saliency(mine, x, target).raw, attr.Saliency(theirs).attribute(torch.tensor(x), torch.tensor(target), abs=False))


def test_integrated_gradients(pair: Pair) -> None:
    mine, theirs, x, target = pair
    start = images(4, 3, 16, 12, seed=1)
    oracle = attr.IntegratedGradients(theirs)
    for steps in 5, 50:
        theirs_say, delta = oracle.attribute(
            torch.tensor(x),
            torch.tensor(start),
            torch.tensor(target),
            n_steps=steps,
            method="gausslegendre",
            return_convergence_delta=True,
        )
        e = integrated_gradients(mine, x, target, baseline=start, steps=steps)
        close(e.raw, theirs_say)
        np.testing.assert_allclose(e.delta, -delta.numpy(), rtol=1e-5, atol=1e-9)  # theirs is the sum less the change


def test_guided_backprop(pair: Pair) -> None:
    mine, theirs, x, target = pair
    close(guided_backprop(mine, x, target).raw, attr.GuidedBackprop(theirs).attribute(torch.tensor(x), torch.tensor(target)))


def test_deconvnet(pair: Pair) -> None:
    mine, theirs, x, target = pair
    close(deconvnet(mine, x, target).raw, attr.Deconvolution(theirs).attribute(torch.tensor(x), torch.tensor(target)))


@pytest.mark.parametrize("layer", ["conv1", "bn2", "conv3"])
def test_grad_cam(pair: Pair, layer: str) -> None:
    mine, theirs, x, target = pair
    oracle = attr.LayerGradCam(theirs, getattr(theirs, layer))
    close(grad_cam(mine, x, target, layer).raw, oracle.attribute(torch.tensor(x), torch.tensor(target)))
    cut = oracle.attribute(torch.tensor(x), torch.tensor(target), relu_attributions=True)
    large = torch.nn.functional.interpolate(cut, (16, 12), mode="bilinear", align_corners=False)
    close(grad_cam(mine, x, target, layer).map, large[:, 0])

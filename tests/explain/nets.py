"""Small nets to explain, and the methods with settings that make them quick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl import Tensor, nn, ops
from minidl.array import Array
from minidl.explain import (
    Explanation,
    deconvnet,
    evidence_maps,
    expected_gradients,
    grad_cam,
    grad_times_input,
    guided_backprop,
    integrated_gradients,
    occlusion,
    rise,
    saliency,
    smoothgrad,
    vargrad,
)


class Net(nn.Module):
    """Batch norms, fused with what is beside them; a ReLU as a function, and one that is used three times; a residual."""

    def __init__(self, channels: int = 3, classes: int = 3, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.conv1 = nn.Conv2d(channels, 6, 3, padding=1, rng=rng)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=False, rng=rng)
        self.bn2 = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(6, 5, 3, padding=1, rng=rng)
        self.relu = nn.ReLU()
        self.conv4 = nn.Conv2d(5, 8, 3, padding=1, rng=rng)
        self.linear = nn.Linear(8, classes, rng=rng)
        for norm in (self.bn1, self.bn2):
            norm.running_mean = rng.normal(0, 0.3, 6).astype(np.float32)
            norm.running_var = rng.uniform(0.5, 2, 6).astype(np.float32)
            norm.weight.data = rng.uniform(0.5, 1.5, 6).astype(np.float32)
            norm.bias.data = rng.normal(0, 0.2, 6).astype(np.float32)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.conv_relu(x, self.conv1, self.bn1)
        x = self.pool(nn.conv_relu(x, self.conv2, self.bn2, x))
        x = ops.relu(self.conv3(x))
        x = self.relu(self.relu(x) - 0.1)
        x = self.relu(self.conv4(x))
        return self.linear(ops.global_avg_pool2d(x))


def linear(channels: int = 2, size: int = 6, classes: int = 3) -> tuple[nn.Module, Array, Array]:
    """A linear model in float64, its weights (classes,C,H,W), and its biases (classes,)."""
    rng = np.random.default_rng(5)
    layer = nn.Linear(channels * size * size, classes, rng=rng)
    model = nn.Sequential(nn.Flatten(), layer).to(dtype="float64")
    assert layer.bias is not None
    layer.bias.data = rng.normal(size=classes)
    return model, layer.weight.data.reshape(classes, channels, size, size), layer.bias.data


def images(*shape: int, seed: int = 0) -> Array:
    """(N,C,H,W) float64"""
    return np.random.default_rng(seed).normal(size=shape)


def _background(model: nn.Module, x: Array, **settings: Any) -> Explanation:
    return expected_gradients(model, x, 0.5 * x[:1] + 0.1, **settings)


def _only_head(model: nn.Module, x: Array, target: Any = None, **settings: Any) -> Explanation:
    (found,) = evidence_maps(model, x, None if target is None else {"": target}, **settings).values()
    return found


METHODS: dict[str, tuple[Callable[..., Explanation], dict[str, Any]]] = {
    "saliency": (saliency, {}),
    "grad_times_input": (grad_times_input, {}),
    "guided_backprop": (guided_backprop, {}),
    "deconvnet": (deconvnet, {}),
    "smoothgrad": (smoothgrad, {"samples": 5}),
    "vargrad": (vargrad, {"samples": 5}),
    "integrated_gradients": (integrated_gradients, {"steps": 5}),
    "expected_gradients": (_background, {"samples": 5}),
    "grad_cam": (grad_cam, {}),
    "occlusion": (occlusion, {"window": 4, "stride": 3}),
    "rise": (rise, {"samples": 9, "grid": 3}),
    "evidence_maps": (_only_head, {"sigma": 0.8}),
}

"""Small models and images to attack."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minidl import attack, nn
from minidl.array import Array

SIZE = 6


def linear(C: int, K: int, seed: int = 0, dtype: str = "float64") -> tuple[nn.Module, Array]:
    """S = w x + b, and w (K,C,SIZE,SIZE)"""
    rng = np.random.default_rng(seed)
    layer = nn.Linear(C * SIZE * SIZE, K, rng=rng)
    assert layer.bias is not None
    layer.bias.data[:] = rng.normal(size=K)
    model = nn.Sequential(nn.Flatten(), layer).to(dtype=dtype)
    return model, layer.weight.data.reshape(K, C, SIZE, SIZE)


def convolutional(C: int, K: int, seed: int = 0, dtype: str = "float64") -> nn.Module:
    rng = np.random.default_rng(seed)
    model = nn.Sequential(
        nn.Conv2d(C, 6, 3, padding=1, rng=rng),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(6),
        nn.Flatten(),
        nn.Dropout(0.3, rng=rng),
        nn.Linear(6 * 9, K, rng=rng),
    ).to(dtype=dtype)
    for _ in range(3):  # running statistics that are not those of the beginning
        model(rng.normal(size=(16, C, SIZE, SIZE)).astype(dtype))
    return model


def images(N: int, C: int, seed: int = 0, dtype: str = "float64") -> Array:
    """In [0, 1], some pixels black and some white."""
    x = np.random.default_rng(seed).uniform(-0.1, 1.1, (N, C, SIZE, SIZE))
    return x.clip(0, 1).astype(dtype)


Attack = Callable[..., attack.AttackResult]  # (model, x, y, **more)

# every attack on images, with few steps
ATTACKS: dict[str, Attack] = {
    "fgsm": attack.fgsm,
    "pgd": partial(attack.pgd, steps=5),
    "pgd l2": partial(attack.pgd, steps=5, norm="l2", eps=0.5),
    "deepfool": partial(attack.deepfool, steps=5),
    "fool": partial(attack.fool, steps=10),
    "universal": partial(attack.universal, epochs=2, steps=3, eps=0.2),
}


def same(a: attack.AttackResult, b: attack.AttackResult, **tolerance: Any) -> None:
    for name in "x", "delta", "success", "y", "before", "logits", "steps":
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), err_msg=name, **tolerance)

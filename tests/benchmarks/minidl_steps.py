"""minidl's side of the comparison: one training step (forward, loss, backward, update) per case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import models
from minidl import Tensor, ops, optim


def training_step(name: str, batch: int, size: int = 32, num_classes: int = 10) -> Callable[[], Any]:
    model = getattr(models, name)(num_classes=num_classes)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 3, size, size), dtype=np.float32)
    labels = rng.integers(0, num_classes, batch)
    optimizer = optim.SGD(optim.decay_groups(model, 5e-4), lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> float:
        loss = ops.cross_entropy(model(Tensor(x)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


MODELS = ("resnet8", "resnet20", "resnet56", "densenet40_12", "densenet_bc100_12")


def cases() -> dict[str, Callable[[], Callable[[], Any]]]:
    return {
        f"{name} {batch}": lambda name=name, batch=batch: training_step(name, batch)  # type: ignore[misc]
        for name in MODELS
        for batch in (16, 32, 64, 128, 256, 512)
    }

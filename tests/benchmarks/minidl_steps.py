"""minidl's side of the comparison: a training step, forward and backward alone, or the saliency maps of a batch."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

import models
from minidl import Tensor, gradients, ops, optim
from minidl.array import to_device


def setup(name: str, what: str, batch: int, size: int, device: str = "cpu") -> Callable[[], Any]:
    constructor = getattr(models, name)
    classes = signature(constructor).parameters["num_classes"].default
    model = constructor(dropout=0.0) if name.startswith("vgg") else constructor()
    model.to(device)
    rng = np.random.default_rng(0)
    x = to_device(rng.standard_normal((batch, 3, size, size), dtype=np.float32), device)
    if what == "saliency":
        model.eval()

        def saliency() -> float:
            with model.frozen():
                picture = Tensor(x, requires_grad=True)
                (gx,) = gradients(ops.sum(ops.max(model(picture), axis=1)), [picture], keep_graph=False)
            return float(abs(gx).max(axis=1).sum())

        return saliency
    labels = to_device(rng.integers(0, classes, batch), device)
    parameters = model.parameters()

    def forward_backward() -> float:
        loss = ops.cross_entropy(model(Tensor(x)), labels)
        for p in parameters:
            p.grad = None
        loss.backward()
        return loss.item()

    if what == "forward+backward":
        return forward_backward
    optimizer = optim.SGD(optim.decay_groups(model, 5e-4), lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> float:
        loss = forward_backward()
        optimizer.step()
        return loss

    return step


def device_memory() -> int:
    """Bytes that CuPy holds on the GPU, in use or kept for the next step; it gives none back by itself"""
    import cupy

    return int(cupy.get_default_memory_pool().total_bytes())

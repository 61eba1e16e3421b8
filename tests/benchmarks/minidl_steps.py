"""minidl's side of the comparison: a training step, forward and backward alone, or the saliency maps of a batch."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

import models
from minidl import LossScale, Tensor, gradients, mixed, ops, optim
from minidl.array import array_module, to_device, to_gpu
from minidl.train.cuda_graph import CapturedGradients

_captured: list[CapturedGradients] = []  # whose memory is not that of the common pool


def setup(
    name: str, what: str, batch: int, size: int, device: str = "cpu", precision: str = "float32", graph: bool = False
) -> Callable[[], Any]:
    if device == "gpu":
        _captured.clear()  # and what the common pool keeps of a case before
        array_module(to_gpu(np.zeros(1))).get_default_memory_pool().free_all_blocks()
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
                image = Tensor(x, requires_grad=True)
                (gx,) = gradients(ops.sum(ops.max(model(image), axis=1)), [image], keep_graph=False)
            return float(abs(gx).max(axis=1).sum())

        return saliency
    labels = to_device(rng.integers(0, classes, batch), device)
    parameters = model.parameters()
    optimizer = optim.SGD(optim.decay_groups(model, 5e-4), lr=1e-3, momentum=0.9, nesterov=True) if what == "step" else None
    scale = LossScale() if precision == "float16" else None
    captured = CapturedGradients(model, ops.cross_entropy, scale) if graph else None
    if captured is not None:
        _captured.append(captured)

    def step() -> float:
        for p in parameters:
            p.grad = None
        with mixed(precision):
            if captured is not None:
                loss, _ = map(Tensor, captured(x, labels))
            else:
                loss = ops.cross_entropy(model(Tensor(x)), labels)
        if captured is None and scale is None:
            loss.backward()
        good = scale is None or (scale.backward(loss) if captured is None else scale.unscale(parameters))
        if optimizer is not None and good:
            optimizer.step()
        return loss.item()

    return step


def device_memory() -> int:
    """Bytes that CuPy holds on the GPU, in use or kept for the next step; it gives none back by itself"""
    import cupy

    pools = [cupy.get_default_memory_pool(), *(graph.pool for captured in _captured for graph in captured.graphs.values())]
    return int(sum(pool.total_bytes() for pool in pools))

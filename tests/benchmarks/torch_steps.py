"""PyTorch's side of the comparison: the same nets, the same work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tests.benchmarks.torch_models import MODELS


def setup(name: str, what: str, batch: int, size: int, layout: str, compiled: str, device: str = "cpu") -> Callable[[], Any]:
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = os.environ.get("CUPY_TF32", "0") != "0"  # for both sides alike
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    model = MODELS[name]().to(device, memory_format=memory_format)  # type: ignore[no-untyped-call]
    call = torch.compile(model) if compiled == "compiled" else model
    x = torch.randn(batch, 3, size, size).to(device).contiguous(memory_format=memory_format)
    if what == "saliency":
        model.eval().requires_grad_(False)

        def saliency() -> float:
            picture = x.detach().requires_grad_()
            call(picture).amax(1).sum().backward()
            assert picture.grad is not None
            return float(picture.grad.abs().amax(1).sum())

        return saliency
    classes = 1000 if name in ("vgg16", "resnet18") else 10
    labels = torch.randint(0, classes, (batch,)).to(device)
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> float:
        loss = F.cross_entropy(call(x), labels)
        optimizer.zero_grad()
        loss.backward()
        if what == "step":
            optimizer.step()
        return loss.item()

    return step


def device_memory() -> int:
    """The most bytes that PyTorch has held on the GPU, in use or kept for the next step"""
    return torch.cuda.max_memory_reserved()

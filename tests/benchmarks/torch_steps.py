"""PyTorch's side of the comparison: the same nets, the same work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tests.benchmarks.torch_models import MODELS


def setup(
    name: str,
    what: str,
    batch: int,
    size: int,
    layout: str,
    compiled: str,
    device: str = "cpu",
    precision: str = "float32",
    graph: bool = False,
) -> Callable[[], Any]:
    torch.manual_seed(0)
    if device == "cuda":  # nothing of a case before counts
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
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
            image = x.detach().requires_grad_()
            call(image).amax(1).sum().backward()
            assert image.grad is not None
            return float(image.grad.abs().amax(1).sum())

        return saliency
    classes = 1000 if name in ("vgg16", "resnet18") else 10
    labels = torch.randint(0, classes, (batch,)).to(device)
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True)
    half = precision == "float16"
    scaler = torch.amp.GradScaler(device, enabled=half and not graph)  # what it decides from step to step, a graph cannot

    def step() -> torch.Tensor:
        with torch.autocast(device, torch.float16, enabled=half):
            loss = F.cross_entropy(call(x), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if what == "step":
            scaler.step(optimizer)
            scaler.update()
        return loss.detach()

    if not graph:
        return lambda: step().item()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # PyTorch's documentation asks for some steps before the capture
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        loss = step()

    def launch() -> float:
        captured.replay()
        return loss.item()

    return launch


def device_memory() -> int:
    """The most bytes that PyTorch has held on the GPU, in use or kept for the next step"""
    return torch.cuda.max_memory_reserved()

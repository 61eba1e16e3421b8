"""PyTorch's side of the comparison: the same nets, the same step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tests.benchmarks.cifar_peer import ResNet


def training_step(depth: int, batch: int, channels_last: bool = False) -> Callable[[], Any]:
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = ResNet((depth - 2) // 6).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (batch,))
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, nesterov=True)

    def step() -> float:
        loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def cases() -> dict[str, Callable[[], Callable[[], Any]]]:
    return {
        f"resnet{depth} {batch}{suffix}": lambda d=depth, b=batch, last=suffix != "": training_step(d, b, last)  # type: ignore[misc]
        for depth in (8, 20, 56)
        for batch in (16, 32, 64, 128, 256, 512)
        for suffix in ("", " channels_last")
    }

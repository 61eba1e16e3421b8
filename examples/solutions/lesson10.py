"""Solution 10: the learning rates of body and head, and a step."""

from typing import Any

import numpy as np

from minidl.nn import Module


def groups(model: Module, head: Module, lr: float, factor: float) -> list[dict[str, Any]]:
    """The parameters of the head learn at lr, all others at factor lr."""
    of_head = {id(p) for p in head.parameters()}
    body = [p for p in model.parameters() if id(p) not in of_head]
    return [{"params": body, "lr": factor * lr}, {"params": head.parameters(), "lr": lr}]


def step(p: np.ndarray, g: np.ndarray, v: np.ndarray, lr: float, momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """v <- momentum v + g;  p <- p - lr v"""
    v = momentum * v + g
    return p - lr * v, v

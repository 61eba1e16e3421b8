"""Solution 10: the learning rates of body and head."""

from typing import Any

from minidl.nn import Module


def groups(model: Module, head: Module, lr: float, factor: float) -> list[dict[str, Any]]:
    """The parameters of the head learn at lr, all others at factor lr."""
    of_head = {id(p) for p in head.parameters()}
    body = [p for p in model.parameters() if id(p) not in of_head]
    return [{"params": body, "lr": factor * lr}, {"params": head.parameters(), "lr": lr}]

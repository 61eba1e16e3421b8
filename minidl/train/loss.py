"""The loss of a training: cross-entropy, of classes that may weigh differently, and of auxiliary heads."""

from __future__ import annotations

from typing import Any

from minidl import ops
from minidl.array import Array
from minidl.core import Tensor
from minidl.nn import Module


class Loss:
    """Callable: f(output, labels) -> scalar, cross_entropy(logits) + w sum_a cross_entropy(auxiliary logits a).

    output: logits (N,K), or a tuple of those of the net and those of its auxiliary heads, whose weight w the net has as its
    attribute `auxiliary_weight`. class_weights: (K,) float32 where the model is, or None.
    """

    def __init__(self, model: Module, class_weights: Array | None = None) -> None:
        self.model, self.class_weights = model, class_weights

    def __call__(self, output: Any, labels: Array) -> Tensor:
        """Raises ValueError for several heads of a net that does not say what its auxiliary ones weigh."""
        loss = ops.cross_entropy(main_logits(output), labels, self.class_weights)
        if isinstance(output, tuple):
            if (weight := getattr(self.model, "auxiliary_weight", None)) is None:
                name = type(self.model).__name__
                raise ValueError(f"model: {name} returns {len(output)} heads, expected it to have an auxiliary_weight")
            for logits in output[1:]:
                loss = loss + ops.cross_entropy(logits, labels, self.class_weights) * weight
        return loss


def main_logits(output: Any) -> Tensor:
    """Those of the net itself, which come before those of its auxiliary heads."""
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits

"""The loss of a training: cross-entropy, of classes that may weigh differently, of several heads, and of auxiliary ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minidl import ops
from minidl.array import Array
from minidl.core import Tensor
from minidl.inference.heads import known_losses
from minidl.nn import Module
from minidl.parallel import ALONE


class Loss:
    """Callable: f(output, labels) -> scalar, cross_entropy(logits) + w sum_a cross_entropy(auxiliary logits a).

    output: logits (N,K), or a tuple of those of the net and those of its auxiliary heads, whose weight w the net has as its
    attribute `auxiliary_weight`. class_weights: (K,) float32 where the model is, or None.

    classes: those of the images. Where they are of several heads, name -> classes, the logits (N,K1+K2+...) hold these heads
    side by side, the labels are (N,H), a column for each, and class_weights name -> (K_h,). Each cross-entropy is then the sum
    over the heads of the mean over the images whose label is known, which is not -1; a batch in which a head has none adds 0.
    """

    world = ALONE  # whose batch it is of

    def __init__(self, model: Module, class_weights: Any = None, classes: Any = None) -> None:
        self.model, self.class_weights = model, class_weights
        self.heads: Mapping[str, Sequence[str]] = classes if isinstance(classes, Mapping) else {}

    def __call__(self, output: Any, labels: Array) -> Tensor:
        """Raises ValueError for auxiliary heads of a net that does not say what they weigh, and for logits of another width
        than that of the classes."""
        loss = self._of(main_logits(output), labels)
        if isinstance(output, tuple):
            if (weight := getattr(self.model, "auxiliary_weight", None)) is None:
                name = type(self.model).__name__
                raise ValueError(f"model: {name} returns {len(output)} heads, expected it to have an auxiliary_weight")
            for logits in output[1:]:
                loss = loss + self._of(logits, labels) * weight
        return loss

    def _of(self, logits: Tensor, labels: Array) -> Tensor:
        if not self.heads:
            return self._total([ops.cross_entropy(logits, labels, self.class_weights)])
        columns = dict(zip(self.heads, labels.T, strict=True))
        return self._total(list(known_losses(logits, columns, self.heads, self.class_weights).values()))

    def _total(self, of_heads: Sequence[Tensor]) -> Tensor:
        total, *others = of_heads
        for other in others:
            total = total + other
        return total


def main_logits(output: Any) -> Tensor:
    """Those of the net itself, which come before those of its auxiliary heads."""
    logits: Tensor = output[0] if isinstance(output, tuple) else output
    return logits

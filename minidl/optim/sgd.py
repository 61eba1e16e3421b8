"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minidl import kernels
from minidl.arguments import flag, number
from minidl.array import Array
from minidl.optim.optimizer import Optimizer


class SGD(Optimizer):
    """g' = g + weight_decay p;  v <- momentum v + g';  p <- p - lr v, or p - lr (g' + momentum v) with `nesterov`

    Gradient descent with momentum, in PyTorch's form.

    Raises TypeError or ValueError for a momentum below 0, or 0 with `nesterov`, and as `Optimizer` does.

    Sutskever, Martens, Dahl and Hinton 2013, "On the importance of initialization and momentum in deep learning", section 2.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        self.momentum, self.nesterov = number(momentum, "momentum", "[0, inf)"), flag(nesterov, "nesterov")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: needs a momentum above 0, got 0")
        super().__init__(params, lr, weight_decay, ["momentum"])

    def update(self, p: Array, g: Array, state: Sequence[Array], t: int, lr: float, weight_decay: float) -> None:
        """One step of the formula above, in place: p, g and `state`, (v,), of the same shape."""
        (v,) = state
        kernels.of(p).sgd_update(p, g, v, lr, self.momentum, self.nesterov, weight_decay)

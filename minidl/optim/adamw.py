"""Adam, the weight decay apart from the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from minidl import kernels
from minidl.arguments import number, numbers
from minidl.array import Array
from minidl.optim.optimizer import Optimizer


class AdamW(Optimizer):
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  p <- p - lr (weight_decay p + m_hat / (sqrt(v_hat) + eps)),
    m_hat = m / (1 - b1^t), v_hat = v / (1 - b2^t), t the number of updates of p

    Adam with decoupled weight decay.

    Raises TypeError or ValueError for betas that are not two numbers in [0, 1), an eps below 0, and as `Optimizer` does.

    Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1; Loshchilov and Hutter 2019, "Decoupled weight
    decay regularization", algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        self.betas, self.eps = numbers(betas, "betas", "[0, 1)", 2), number(eps, "eps", "[0, inf)")
        super().__init__(params, lr, weight_decay, ["m", "v"])

    def update(self, p: Array, g: Array, state: Sequence[Array], t: int, lr: float, weight_decay: float) -> None:
        """One step of the formula above, in place: p, g and `state`, (m, v), of the same shape."""
        m, v = state
        kernels.of(p).adamw_update(p, g, m, v, t, lr, self.betas, self.eps, weight_decay)

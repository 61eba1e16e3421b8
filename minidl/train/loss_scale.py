"""Loss scaling: gradients too small for a float16 are multiplied, on their way, by a number that keeps them in its range.

The number is a power of two, which rounds nothing. It is as large as it can be: halved whenever a gradient overflows, and
doubled when none has for a while. Micikevicius et al. 2018, "Mixed precision training", section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from minidl.analysis.nonfinite import count_nonfinite
from minidl.arguments import count, number, wrong
from minidl.array import Array, array_module
from minidl.core import Parameter, Step, Tensor, walk


class LossScale:
    """`if scale.backward(loss): optimizer.step()` in the place of `loss.backward(); optimizer.step()`.

    scale: the factor at first, a power of two; patience: after so many steps without an overflow in a row it is doubled. Raises
    TypeError or ValueError where scale is no power of two from 1 on, or patience no integer of at least 1.

    Micikevicius et al. 2018, "Mixed precision training", section 3.2; halving and doubling came later, with the frameworks.
    """

    def __init__(self, scale: float = 2.0**15, patience: int = 2000) -> None:
        self.scale, self.patience = _power_of_two(scale), count(patience, "patience")
        self.good = 0  # steps since the scale changed

    def backward(self, loss: Tensor, walk: Callable[..., Iterator[Step]] = walk) -> bool:
        """Add d loss / d leaf to `leaf.grad`, as `loss.backward()` does; or False, and every `.grad` as before: one overflows.

        loss: a scalar, float32. walk: what goes back, such as `minidl.walk`. Raises FloatingPointError where a gradient is not
        finite without scaling either.
        """
        xp, leaves = array_module(loss.data), dict[Tensor, Array]()
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
            for step in walk(loss, xp.full(loss.shape, self.scale, loss.dtype), leaves=leaves, keep_graph=False, apart=False):
                del step  # or its arrays would live on through the next step
        return self._take(leaves)

    def unscale(self, parameters: Iterable[Parameter]) -> bool:
        """The same for gradients of scale * loss that are in `.grad` already, or None: `train.cuda_graph` puts them so.

        Raises FloatingPointError as `backward` does.
        """
        leaves: dict[Tensor, Array] = {p: p.grad for p in parameters if p.grad is not None}
        for leaf in leaves:
            leaf.grad = None
        return self._take(leaves)

    def _take(self, leaves: Mapping[Tensor, Array]) -> bool:
        """Add each gradient, divided by the scale, to that of its leaf, if all are finite; and choose the next scale."""
        alike: dict[tuple[ModuleType, Any], list[Tensor]] = {}  # by module and type
        for leaf, g in leaves.items():
            alike.setdefault((array_module(g), g.dtype), []).append(leaf)
        # all gradients in one vector: on a GPU a handful of kernels, not a handful for each
        vectors = [(xp.concatenate([leaves[leaf].reshape(-1) for leaf in group]), group) for (xp, _), group in alike.items()]
        if any(count_nonfinite(vector) for vector, _ in vectors):
            if self.scale == 1:
                raise FloatingPointError("a gradient is not finite, and the loss is not scaled any more: no overflow of a half")
            self.scale, self.good = self.scale / 2, 0
            return False
        for vector, group in vectors:
            vector *= 1 / self.scale
            start = 0
            for leaf in group:
                g = vector[start : start + leaf.size].reshape(leaf.shape)
                leaf.grad = g if leaf.grad is None else array_module(g).asarray(leaf.grad + g)  # of a 0-d sum, too
                start += leaf.size
        self.good += 1
        if self.good == self.patience:
            self.scale, self.good = self.scale * 2, 0
        return True

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint needs to go on with the same bits."""
        return {"scale": self.scale, "good": self.good}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a `state_dict()`. Raises TypeError or ValueError for what is none, and changes nothing."""
        if not isinstance(state, Mapping) or state.keys() != {"scale", "good"}:
            wrong(ValueError, "state of LossScale", "scale and good", state)
        scale, good = _power_of_two(state["scale"]), count(state["good"], "good", 0)
        if good >= self.patience:
            wrong(ValueError, "good", f"fewer steps than the patience, {self.patience}", good)
        self.scale, self.good = scale, good


def _power_of_two(scale: float) -> float:
    x = number(scale, "scale", "[1, inf)")
    if math.frexp(x)[0] != 0.5:
        wrong(ValueError, "scale", "a power of two", scale)
    return x

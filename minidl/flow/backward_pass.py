"""A backward pass that is kept, so that it can be looked at from both ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minidl.array import Array, array_like, array_module
from minidl.core import Op, Parameter, Tensor, walk
from minidl.flow.relu_rules import Rule, plain


@dataclass(frozen=True)
class Wire:
    """One use of a tensor, of any shape: `source` goes into op `to` as its input number `input`.

    to is None where it is read by us.
    """

    source: Tensor
    to: Op | None
    input: int = 0


class BackwardPass:
    """The walk from y back to the leaves, with every gradient.

    y, gy: the score and its gradient, 1 for a scalar. rule: what acts on each step first, see `relu_rules`. ops: newest first,
    as the walk meets them. outputs: of each op its tensor. uses: of each tensor its wires. gy_of: of each op the gradient of
    its output. gx: of each wire the gradient that came back along it; those of all uses of a tensor add up to the gradient of
    the tensor.

    cuts: what separates the steps already taken from those to come. cuts[0] is y itself; cuts[k] holds the wires from what is
    still in front to the first k ops of the walk. A tensor that is used on both sides (a shortcut) lies in the cut with one of
    its wires, so that joins need no special case.

    Raises ValueError where a parameter requires a gradient: it would be a second image.
    """

    def __init__(self, y: Tensor, gy: Array | None = None, rule: Rule = plain) -> None:
        self.y, self.ops = y, list[Op]()
        self.gy_of: dict[Op, Array] = {}
        self.gx: dict[Wire, Array] = {}
        self.uses: dict[Tensor, list[Wire]] = {}
        self.outputs: dict[Op, Tensor] = {} if y.op is None else {y.op: y}
        self._unread: dict[Op, list[Array | None]] = {}
        cut = [Wire(y, None)]
        self.cuts = [cut]
        leaves: dict[Tensor, Array] = {}
        for step in walk(y, gy, leaves=leaves, apart=False):
            rule(step)
            op = step.op
            self.ops.append(op)
            self.gy_of[op] = step.gy
            cut = [wire for wire in cut if wire.source.op is not op]
            for i, (x, need, gx) in enumerate(zip(op.inputs, op.needs, step.gxs, strict=True)):
                if need and x is not None:
                    if isinstance(x, Parameter):
                        raise ValueError(f"{x!r} requires a gradient; freeze the parameters, as in `with model.frozen():`")
                    if x.op is not None:
                        self.outputs[x.op] = x
                    wire = Wire(x, op, i)
                    self.gx[wire] = array_module(x.data).zeros_like(x.data) if gx is None else gx
                    self.uses.setdefault(x, []).append(wire)
                    cut = [*cut, wire]
            self.cuts.append(cut)
        self.gx[Wire(y, None)] = self.gy_of[y.op] if y.op is not None else leaves[y]

    def gradient(self, x: Tensor) -> Array:
        """dy/dx, of the shape of x. Raises ValueError where y does not depend on x."""
        self.check(x)
        if x.op is not None:
            return self.gy_of[x.op]
        first, *rest = (self.gx[wire] for wire in self.uses[x])
        return sum(rest, first)

    def unread(self, wire: Wire) -> Array:
        """Of the cells that the wire carries into its op, those of which it makes nothing: their column of J is 0.

        Bools, of the shape of the wire's source. J^T r is 0 there for any r; where it is 0 for two draws of r, the column is 0.
        """
        op = wire.to
        assert op is not None
        if op not in self._unread:
            like, rng = self.gy_of[op], np.random.default_rng(0)
            draws = [op.backward(array_like(rng.uniform(1, 2, like.shape), like, like.dtype)) for _ in range(2)]
            self._unread[op] = [None if a is None or b is None else (a == 0) & (b == 0) for a, b in zip(*draws, strict=True)]
        found = self._unread[op][wire.input]
        return array_module(wire.source.data).ones(wire.source.shape, bool) if found is None else found

    def check(self, x: Tensor) -> None:
        """x may have any shape. Raises ValueError where y does not depend on it."""
        if x is not self.y and not self.uses.get(x):
            raise ValueError(
                f"x: y does not depend on this tensor of shape {x.shape}; take the one that went in, with requires_grad=True"
            )

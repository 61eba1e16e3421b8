"""One pixel's influence on its way forward: where it passes, where it counts, and where it dies.

Raise pixel j by a little, e_j: behind every op the activations then change by t = J ... J e_j, with gates and switches as they
are. Whatever counts for the score S has to cross every cut of the graph, so that at each of them

    sum over the wires of the cut of <t, g> = dS/dx_j

exactly: t came forward, g came back, and where they meet does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from minidl.arguments import counts, wrong
from minidl.array import Array, array_module
from minidl.core import Op, Tensor
from minidl.flow.linear import dot, push
from minidl.flow.passed import Passed, Wire
from minidl.ops.activation import ReLU
from minidl.ops.elementwise import Clip
from minidl.ops.pool import MaxPool2d

Index = tuple[int, ...]


@dataclass(frozen=True)
class Pushed:
    """One step forward: the op, the changes ts of its inputs (None: does not change), and t, that of its output."""

    op: Op
    ts: list[Array | None]
    t: Array


def pushed(passed: Passed, x: Tensor, t: Array) -> Iterator[Pushed]:
    """Push a small change t of x forward through all that depends on it, oldest op first."""
    arrived: dict[Op | Tensor, Array] = {x: t}
    for op in reversed(passed.ops):
        ts = [None if x is None else arrived.get(x.op or x) for x in op.inputs]
        if any(t is not None for t in ts):
            step = Pushed(op, ts, push(op, ts))
            yield step
            arrived[op] = step.t


@dataclass(frozen=True)
class PixelFlow:
    """What one pixel does, where `index` is its place in x.

    derivative: dS/dx_j, as backward says. sums: <t, g> over each of `passed.cuts`, from the score to the picture; all are the
    derivative. counts: of each wire its <t, g>. stopped: of each op with gates or switches the share of all |t| that arrives
    and goes no further.
    """

    index: Index
    derivative: float
    sums: list[float]
    counts: dict[Wire, float] = field(repr=False)
    stopped: dict[Op, float] = field(repr=False)


def place(x: Tensor, index: Index, name: str = "index") -> Index:
    """The index, checked. Raises ValueError where x has no such element."""
    index = counts(index, name, 0)
    if len(index) != x.ndim or not all(i < n for i, n in zip(index, x.shape, strict=True)):
        wrong(ValueError, name, f"one of each axis of {x.shape}", index)
    return index


def unit(x: Tensor, index: Index) -> Array:
    """e_j: 1 at the pixel, 0 elsewhere."""
    t = array_module(x.data).zeros_like(x.data)
    t[index] = 1
    return t


def pixel_flow(passed: Passed, x: Tensor, index: Index) -> PixelFlow:
    """Follow the pixel x[index] forward. Raises ValueError where x has no such element, or the score does not depend on x."""
    if x not in passed.uses:
        raise ValueError(f"x: the score does not depend on {x!r}")
    index = place(x, index)
    t = unit(x, index)
    return collect(passed, x, index, pushed(passed, x, t))


def collect(passed: Passed, x: Tensor, index: Index, steps: Iterator[Pushed]) -> PixelFlow:
    """The sums over the steps of a pixel, as they are looked at one by one."""
    counts, stopped_shares = dict.fromkeys(passed.gx, 0.0), dict[Op, float]()
    for step in steps:
        for i, t in enumerate(step.ts):
            tensor = step.op.inputs[i]
            if t is not None and tensor is not None:
                wire = Wire(tensor, step.op, i)
                counts[wire] = dot(t, passed.gx[wire])
        lost = stopped(step)
        if lost is not None and step.ts[0] is not None:
            arrived = float(abs(step.ts[0]).sum(dtype="float64"))
            stopped_shares[step.op] = float(lost.sum(dtype="float64")) / arrived if arrived else 0.0
        if step.op is passed.y.op:
            counts[Wire(passed.y, None)] = dot(step.t, passed.gy_of[step.op])
    sums = [sum(counts[wire] for wire in cut) for cut in passed.cuts]
    return PixelFlow(index, float(passed.gradient(x)[index]), sums, counts, stopped_shares)


def stopped(step: Pushed) -> Array | None:
    """|t| of the inputs that go no further: at a closed gate, or beside the winner of every window. None for other ops."""
    op, t = step.op, step.ts[0]
    if t is None:
        return None
    if isinstance(op, ReLU | Clip):
        return abs(t) * ~op.gate()
    if isinstance(op, MaxPool2d):
        ones = array_module(t).ones_like(step.t)
        (selected,) = op.backward(ones)
        return abs(t) * (selected == 0)
    return None

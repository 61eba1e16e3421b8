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
from minidl.array import Array, array_module, dot
from minidl.core import Op, Tensor, pushes
from minidl.flow.backward_pass import BackwardPass, Wire
from minidl.ops.pool import MaxPool2d

Index = tuple[int, ...]


# a step of `core.pushes`: the op, the tangents of its inputs, that of its output
PushStep = tuple[Op, list[Array | None], Array]


@dataclass(frozen=True)
class PixelFlow:
    """What one pixel does, where `index` is its place in x.

    derivative: dS/dx_j, as backward says. sums: <t, g> over each of `backward_pass.cuts`, from the score to the image; all are
    the derivative. counts: of each wire its <t, g>. stopped: of each op with gates or switches the share of all |t| that
    arrives and goes no further.
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


def one_hot(x: Tensor, index: Index) -> Array:
    """e_j: 1 at the pixel, 0 elsewhere."""
    t = array_module(x.data).zeros_like(x.data)
    t[index] = 1
    return t


def pixel_flow(backward_pass: BackwardPass, x: Tensor, index: Index) -> PixelFlow:
    """Follow the pixel x[index] forward: x of any shape, index one integer of each axis, from 0.

    Raises ValueError where x has no such element, or the score does not depend on x, TypeError for an index of no integers.
    """
    if x not in backward_pass.uses:
        raise ValueError(f"x: the score does not depend on {x!r}")
    index = place(x, index)
    t = one_hot(x, index)
    return collect(backward_pass, x, index, pushes(backward_pass.y, {x: t}))


def collect(backward_pass: BackwardPass, x: Tensor, index: Index, steps: Iterator[PushStep]) -> PixelFlow:
    """The sums over the steps of a pixel, as they are looked at one by one."""
    counts, stopped_shares = dict.fromkeys(backward_pass.gx, 0.0), dict[Op, float]()
    for op, txs, ty in steps:
        for i, (tensor, tx) in enumerate(zip(op.inputs, txs, strict=True)):
            if tx is not None and tensor is not None:
                wire = Wire(tensor, op, i)
                counts[wire] = dot(tx, backward_pass.gx[wire])
        lost = stopped(op, txs, ty)
        if lost is not None:
            arrived = sum(float(abs(tx).sum(dtype="float64")) for tx in txs if tx is not None)
            stopped_shares[op] = float(lost.sum(dtype="float64")) / arrived if arrived else 0.0
        if op is backward_pass.y.op:
            counts[Wire(backward_pass.y, None)] = dot(ty, backward_pass.gy_of[op])
    sums = [sum(counts[wire] for wire in cut) for cut in backward_pass.cuts]
    return PixelFlow(index, float(backward_pass.gradient(x)[index]), sums, counts, stopped_shares)


def stopped(op: Op, txs: list[Array | None], ty: Array) -> Array | None:
    """|tx| of what goes no further: at a closed gate, or beside the maximum of every window. None for other ops, and of several
    inputs that change."""
    there = [tx for tx in txs if tx is not None]
    if len(there) != 1:
        return None
    (tx,) = there
    if isinstance(op, MaxPool2d):
        (selected,) = op.backward(array_module(ty).ones_like(ty))
        return abs(tx) * (selected == 0)
    return None if gates(op, tx.shape) is None else abs(tx) * (ty == 0)


def gates(op: Op, shape: tuple[int, ...]) -> Array | None:
    """Those of an op with one for each entry of an input of that shape, None of another one."""
    gate = None if op.parts() else op.gate()
    return gate if gate is not None and gate.shape == shape else None

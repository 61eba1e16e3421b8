"""One pixel's influence on its way forward: where it passes, where it counts, and where it dies.

Raise pixel j by a little, e_j: behind every op the activations then change by t = J ... J e_j, with gates and switches as they
are. Whatever counts for the score S has to cross every cut of the graph, so that at each of them

    sum over the wires of the cut of <t, g> = dS/dx_j

exactly: t came forward, g came back, and where they meet does not matter. On the way most of it is lost. Each step
loses three shares:

    gated    sum |t| at closed gates, or beside the maxima of a pooling,     as a share of sum |t| on the cut below the step
    zero     sum |t| that meets a factor of 0: what a stride leaves out,     likewise
             what is not picked, a weight of 0
    summed   by how much sum |t g| falls from the cut below to the cut       as a share of that below
             above: what counts for and what counts against have met
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from minidl.arguments import counts, wrong
from minidl.array import Array, array_module, dot
from minidl.core import GetItem, Op, Tensor, pushes
from minidl.flow.backward_pass import BackwardPass, Wire
from minidl.ops.pool import MaxPool2d

Index = tuple[int, ...]


# a step of `core.pushes`: the op, the tangents of its inputs, that of its output
PushStep = tuple[Op, list[Array | None], Array]


class Loss(NamedTuple):
    """What a step loses of a pixel's influence: three shares in [0, 1], see above."""

    gated: float
    zero: float
    summed: float

    @property
    def total(self) -> float:
        """The share that is lost one way or another."""
        return 1 - max(0.0, 1 - self.gated - self.zero) * (1 - self.summed)


@dataclass(frozen=True)
class PixelFlow:
    """What one pixel does, where `index` is its place in x.

    derivative: dS/dx_j, as backward says. sums: <t, g> over each of `backward_pass.cuts`, from the score to the image; all are
    the derivative. counts: of each wire its <t, g>. stopped: of each op with gates or switches the share of all |t| that
    arrives and goes no further. losses: of each step, the score's first, what it loses. dies: the step that nothing leaves any
    more, where nothing reaches the score; else None. worst: the step where it dies, or that loses most; None where none loses
    anything. What the score's own step leaves out because it picks one class of several does not count there.
    """

    index: Index
    derivative: float
    sums: list[float]
    counts: dict[Wire, float] = field(repr=False)
    stopped: dict[Op, float] = field(repr=False)
    losses: list[Loss] = field(repr=False)
    dies: int | None
    worst: int | None


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
    counts, sizes, weighed = ({wire: 0.0 for wire in backward_pass.gx} for _ in range(3))  # <t, g>, sum |t|, sum |t g|
    stopped_shares, lost, left = dict[Op, float](), dict[Op, tuple[float, float]](), dict[Op, float]()

    def note(wire: Wire, t: Array) -> None:
        g = backward_pass.gx[wire]
        counts[wire], sizes[wire], weighed[wire] = dot(t, g), _size(t), _size(t * g)

    for op, txs, ty in steps:
        wires = [
            (Wire(x, op, i), tx)
            for i, (x, tx) in enumerate(zip(op.inputs, txs, strict=True))
            if tx is not None and x is not None
        ]
        for wire, tx in wires:
            note(wire, tx)
        arrived, left[op], ends = sum(sizes[wire] for wire, _ in wires), _size(ty), stopped(op, txs, ty)
        if ends is not None:
            lost[op] = _size(ends), 0.0
            stopped_shares[op] = _share(lost[op][0], arrived)
        else:
            lost[op] = 0.0, sum(_size(tx * backward_pass.unread(wire)) for wire, tx in wires)
        if op is backward_pass.y.op:
            note(Wire(backward_pass.y, None), ty)
    dies = None
    if sizes[Wire(backward_pass.y, None)] == 0:
        came = {wire.to for wire, size in sizes.items() if size > 0}
        dies = next((k for k, op in enumerate(backward_pass.ops) if op in came and left[op] == 0), None)
    losses = []
    for op, above, below in zip(backward_pass.ops, backward_pass.cuts, backward_pass.cuts[1:], strict=False):
        gated, zero = (_share(part, _over(below, sizes)) for part in lost.get(op, (0.0, 0.0)))
        losses.append(Loss(gated, zero, _fall(below, above, weighed)))
    totals = [
        0.0 if op is backward_pass.y.op and isinstance(op, GetItem) else a.total
        for op, a in zip(backward_pass.ops, losses, strict=True)
    ]
    worst = dies if dies is not None else totals.index(max(totals)) if any(totals) else None
    sums = [_over(cut, counts) for cut in backward_pass.cuts]
    return PixelFlow(index, float(backward_pass.gradient(x)[index]), sums, counts, stopped_shares, losses, dies, worst)


def _over(cut: list[Wire], values: dict[Wire, float]) -> float:
    return sum(values[wire] for wire in cut)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _fall(below: list[Wire], above: list[Wire], values: dict[Wire, float]) -> float:
    """By which share the sum over a cut is less above than below, at least 0"""
    return max(0.0, _share(_over(below, values) - _over(above, values), _over(below, values)))


def _size(a: Array) -> float:
    """sum |a|"""
    return float(abs(a).sum(dtype="float64"))


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

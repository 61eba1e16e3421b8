"""The score, taken apart at every cut of the graph.

A piecewise linear op is y = J x + c around its input, and gx = J^T gy, so that

    <y, gy> = <x, gx> + <c, gy>

What an op gives out, weighed with how much it counts, is what it takes in plus what its own constants add. Step by step back
from the score S, and at every cut through the graph,

    S = sum over the wires of the cut of <a, g>  +  sum over the ops behind it of <c, gy>

to rounding: activation times gradient, and the biases. At the image it is S = <x, dS/dx> + all biases. An op that is not
piecewise linear (a sigmoid, a softmax, batch norm in training), or of which nobody has said that it is (`Facts.constant`),
keeps no such account; from there on the lines stay open.
"""

from __future__ import annotations

from dataclasses import dataclass

from minidl.analysis.facts import facts
from minidl.array import dot
from minidl.core import Op
from minidl.flow.backward_pass import BackwardPass, Wire


@dataclass(frozen=True)
class Line:
    """The account at one cut.

    op: the last op behind the cut, None at the score itself. counts: of each wire of the cut <a, g>. biases: <c, gy> of all ops
    behind the cut, of the piecewise linear ones. open: the first op behind that is not known to be piecewise linear: with one,
    `total` is a number and no account of the score. bias: <c, gy> of `op` alone, None where that is not known.
    """

    op: Op | None
    counts: dict[Wire, float]
    biases: float
    open: Op | None
    bias: float | None

    @property
    def total(self) -> float:
        """sum of <a, g> over the cut, plus the biases behind it"""
        return sum(self.counts.values()) + self.biases


def ledger(backward_pass: BackwardPass) -> list[Line]:
    """A line for each of `backward_pass.cuts`: with `open` None, `total` is the score, <y, gy>."""
    counts = {wire: dot(wire.source.data, gx) for wire, gx in backward_pass.gx.items()}
    lines: list[Line] = []
    biases, bent, op, bias = 0.0, None, None, None
    for k, cut in enumerate(backward_pass.cuts):
        if k > 0:
            op = backward_pass.ops[k - 1]
            bias = facts(op).constant(op, backward_pass.gy_of[op])
            biases, bent = biases + (bias or 0.0), bent or (op if bias is None else None)
        lines.append(Line(op, {wire: counts[wire] for wire in cut}, biases, bent, bias))
    return lines

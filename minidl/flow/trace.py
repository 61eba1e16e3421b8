"""What a walk back along the tape did, step by step: a table, a graph for Graphviz, and plain records.

    print(trace(loss))
    Path("loss.dot").write_text(trace(loss).dot())

and `dot -Tsvg loss.dot > loss.svg` in a shell draws the graph. Where the walk ends in an image, so does

    print(trace(score, pixel="strongest").arithmetic())

write out, op by op, the sum that a cell's gradient is, from the score down to the pixel with the largest one.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

import numpy as np

from minidl import notebook
from minidl.arguments import wrong
from minidl.array import Array, array_module, to_cpu
from minidl.core import Step, Tensor, walk
from minidl.flow.backward_pass import BackwardPass
from minidl.flow.cell_text import cell_text
from minidl.flow.cells import strongest_path
from minidl.flow.pixel import place
from minidl.inputs import layer_of

HEAD = "step", "op", "layer", "inputs -> output", "|gy|", "open", "made at"


@dataclass(frozen=True)
class Input:
    """One input of an op: the number of the op that made it, or, for a leaf, a number below 0 that is the leaf's own."""

    source: int
    name: str  # of a leaf: its name, or what it is
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Record:
    """One step of the walk.

    step: counted from 0, the op that made the loss, as on the stepper's page; number: of the op in the order of creation, which
    identifies it; layer: the name of the layer, where its parameters tell it; inputs and output: of the forward pass;
    gradient_norm: L2 norm of the gradient gy of the output; open_gates: share of the gates that let the gradient through, None
    for an op without gates; file, line: the user's code that made the op.
    """

    step: int
    op: str
    number: int
    layer: str
    inputs: tuple[Input, ...]
    output: tuple[int, ...]
    gradient_norm: float
    open_gates: float | None
    file: str
    line: int


@dataclass(frozen=True)
class Trace:
    """The records of a walk, newest op first. `str` makes the table, whose steps count from 0."""

    records: list[Record]
    sums: list[str] = field(default_factory=list, repr=False)  # of each op on the way to the pixel, the score first

    def arithmetic(self) -> str:
        """The sum in each op on the strongest path of the pixel that was asked for, written out."""
        return "\n\n".join(self.sums)

    def __str__(self) -> str:
        rows = [HEAD, *map(_cells, self.records)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        return notebook.table(HEAD, map(_cells, self.records), text=len(HEAD))

    def dot(self) -> str:
        """The graph in Graphviz's language: ops as ellipses, leaves as boxes, arrows in the direction of the computation."""
        lines = ["digraph {", "  rankdir=BT"]
        leaves = {x.source: x for r in self.records for x in r.inputs if x.source < 0}
        lines += [f"  leaf{-n} [shape=box, label={_quoted(x.name, str(x.shape))}]" for n, x in leaves.items()]
        for r in reversed(self.records):
            lines.append(f"  op{r.number} [label={_quoted(r.op, str(r.output), f'|gy| = {r.gradient_norm:.3g}')}]")
            lines += [f"  {f'leaf{-x.source}' if x.source < 0 else f'op{x.source}'} -> op{r.number}" for x in r.inputs]
        return "\n".join([*lines, "}"]) + "\n"


def trace(y: Tensor, gy: Array | None = None, *, pixel: tuple[int, ...] | str | None = None) -> Trace:
    """Walk back from y, a scalar or with its gradient gy given, and write down every step. Leaves every `.grad` alone.

    The graph stays usable: `y.backward()` may follow. The records hold numbers and names, no arrays.

    pixel: the place of an element of the input, of which `arithmetic()` then tells, or "strongest" for that of the largest
    gradient. It needs an input that requires a gradient, frozen parameters and single ops:

        with model.eval().frozen(), ops.unfused():
            print(trace(model(Tensor(x, requires_grad=True))[0, target], pixel="strongest").arithmetic())

    Raises ValueError where there is not one such input, or no such element, or gy does not fit y, TypeError for a pixel of what
    are no integers.
    """
    leaves: dict[Tensor, int] = {}
    records = [_record(i, step, leaves) for i, step in enumerate(walk(y, gy, leaves={}, apart=False))]
    return Trace(records, [] if pixel is None else _sums(y, gy, pixel))


def _sums(y: Tensor, gy: Array | None, pixel: tuple[int, ...] | str) -> list[str]:
    backward_pass = BackwardPass(y, gy)
    inputs = [x for x in backward_pass.uses if x.op is None]
    if len(inputs) != 1:
        raise ValueError(f"pixel: expected one input that requires a gradient, got {len(inputs)}")
    if isinstance(pixel, str):
        if pixel != "strongest":
            wrong(ValueError, "pixel", "a tuple of integers, or 'strongest'", pixel)
        size = np.abs(to_cpu(backward_pass.gradient(inputs[0])))
        pixel = tuple(int(i) for i in np.unravel_index(size.argmax(), size.shape))
    return [cell_text(cell) for cell in reversed(strongest_path(backward_pass, inputs[0], place(inputs[0], pixel, "pixel")))]


def _record(i: int, step: Step, leaves: dict[Tensor, int]) -> Record:
    op, gate = step.op, step.op.gate()
    inputs = tuple(
        Input(x.op.made, "", x.shape) if x.op is not None else Input(leaves.setdefault(x, -len(leaves) - 1), _leaf(x), x.shape)
        for x in op.inputs
        if x is not None
    )
    file, line = ("", 0) if op.where is None else (op.where[0].co_filename, op.where[1])
    norm = math.sqrt(float(array_module(step.gy).square(step.gy, dtype="float64").sum()))
    open_gates = None if gate is None else float(gate.mean())
    layer = layer_of(op.inputs)
    return Record(i, type(op).__name__, op.made, layer, inputs, step.gy.shape, norm, open_gates, file, line)


def _leaf(x: Tensor) -> str:
    return x.name or ("parameter" if x.is_parameter else "input" if x.requires_grad else "constant")


def _cells(r: Record) -> tuple[str, ...]:
    shapes = " ".join(_shape(x.shape) for x in r.inputs) + " -> " + _shape(r.output)
    open_gates = "" if r.open_gates is None else f"{r.open_gates:.1%}"
    return str(r.step), r.op, r.layer, shapes, f"{r.gradient_norm:.3e}", open_gates, f"{os.path.basename(r.file)}:{r.line}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"({','.join(map(str, shape))})"


def _quoted(*lines: str) -> str:
    r"""A label of several lines in Graphviz's quotes, in which " and \ are escaped and \n starts a new line."""
    return '"' + r"\n".join(line.replace("\\", r"\\").replace('"', r"\"") for line in lines) + '"'

"""What a model costs and sees, layer by layer, from one pass of a real input: `cost`, whose result prints as a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from minidl import arguments, notebook
from minidl.analysis import receptive
from minidl.analysis.calls import watch
from minidl.analysis.facts import Facts, facts
from minidl.analysis.receptive import Field
from minidl.array import array_module
from minidl.contexts import contained
from minidl.core import Op, Parameter, Tensor, tape
from minidl.nn.module import Module, check_model
from minidl.ops.fused import unfused

HEAD = ["name", "op", "output", "receptive field", "jump", "parameters", "multiply-adds", "activation bytes"]


class Call(NamedTuple):
    """One call of a module: its dotted name, its class, and which call of the pass it is."""

    name: str
    kind: str
    number: int


@dataclass(frozen=True)
class Row:
    """One op of the forward pass, or in a collapsed table one call of a module.

    calls: the modules that were running, outermost first; window: kernel, stride, dilation and groups, or the kind of resizing;
    shape: of the output; parameters: how many are used here first; multiply_adds: see `cost`; bytes: of the output, 0 for a
    view of the input; field: what an element of the output sees of the image's rows and columns, () of no image;
    inputs: the rows that made the inputs, -1 for the input of the model; ops: how many ops this is; at_least: among them is
    one whose multiply-adds nobody knows; kind, word: of its box, see `Facts`.
    """

    calls: tuple[Call, ...]
    op: str
    window: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    bytes: int
    field: Field
    inputs: tuple[int, ...]
    ops: int = 1
    at_least: bool = False
    kind: str = "other"
    word: str = ""

    @property
    def name(self) -> str:
        """The dotted name of the module that called the op, as in a state dict; "" for the model itself."""
        return self.calls[-1].name

    @property
    def receptive_field(self) -> tuple[float, float] | None:
        """(height, width) in pixels, infinite where all of it is seen, NaN where nobody knows; None of no image."""
        return (self.field[0].size, self.field[1].size) if self.field else None

    @property
    def jump(self) -> tuple[float, float] | None:
        """How many (rows, columns) of the image lie between neighbours of the output; None where nothing tells."""
        placed = self.field and all(sight.axis is not None for sight in self.field)
        return (abs(self.field[0].jump), abs(self.field[1].jump)) if placed else None


@dataclass(frozen=True)
class Cost:
    """The rows in the order of the computation, and their totals; `str` makes the table."""

    input_shape: tuple[int, ...]
    rows: list[Row]
    parameters: int  # of the model, used in this pass or not
    multiply_adds: int
    bytes: int  # of all activations that a training step keeps for its backward pass

    @property
    def at_least(self) -> bool:
        """Whether an op is among them whose multiply-adds nobody knows."""
        return any(row.at_least for row in self.rows)

    def collapsed(self, depth: int) -> Cost:
        """The same with one row for each call of a module whose name has `depth` parts, such as `layer1.0` for 2.

        The receptive field, shape and jump are those of the call's output. Raises ValueError for a depth below 1,
        TypeError for one that is no integer.
        """
        depth = arguments.count(depth, "depth")
        groups: dict[Call, list[int]] = {}  # the numbers of the rows in each, the groups in the order of their last
        for i, row in enumerate(self.rows):
            alone = Call("", row.op, -1 - i)
            call = next((call for call in row.calls if call.name and call.name.count(".") + 1 >= depth), alone)
            groups[call] = [*groups.pop(call, []), i]
        group_of = {i: n for n, numbers in enumerate(groups.values()) for i in numbers} | {-1: -1}
        rows = []
        for n, (call, numbers) in enumerate(groups.items()):
            members = [self.rows[i] for i in numbers]
            inputs = tuple(group_of[i] for row in members for i in row.inputs if group_of[i] != n)
            rows.append(replace(members[0], inputs=inputs) if len(members) == 1 else _sum(members, call, inputs))
        return replace(self, rows=rows)

    def __str__(self) -> str:
        lines, total = [_cells(row) for row in self.rows], self._total()
        widths = [max(map(len, column)) for column in zip(HEAD, *lines, total, strict=True)]

        def line(cells: list[str]) -> str:
            return "  ".join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True)))

        rule = "-" * len(line(HEAD))
        return "\n".join([line(HEAD), rule, *map(line, lines), rule, line(total)])

    def _repr_html_(self) -> str:
        return notebook.table(HEAD, map(_cells, self.rows), text=3, foot=self._total())

    def _total(self) -> list[str]:
        work = _at_least(self.multiply_adds, self.at_least)
        return ["total", "", "", "", "", _number(self.parameters), work, _number(self.bytes)]


def cost(model: Module, input_shape: Sequence[int]) -> Cost:
    """Run an input of zeros through `model`, in evaluation mode and every op by itself, and count on the graph that it leaves.

    input_shape: of one example, such as (3, 224, 224), or of a batch of images, (N,C,H,W).

    - A multiply-add is one multiplication and one addition to a running sum. Those of convolutions, linear layers and matrix
      products count. Biases, norms, activations, pooling and resizing count 0, as in published figures. What is called GFLOPS
      there is sometimes this number / 10^9 (torchvision) and sometimes twice that.
    - Activation memory is the sum of the outputs of all ops, in bytes of the model's type (4 an element in float32); a view of
      another output takes none. What a fused op or a dense block saves is not subtracted.
    - The receptive field is as large as the kernels make it: border and image are not in its way, so that it may be larger
      than the image. "all" is a layer that sees the whole image, by global pooling or a linear layer. A join sees what
      its inputs see together. The jump is the distance in pixels between the fields of neighbours.
    - Of an op that `analysis.facts` does not list, one of your own, nobody knows the multiply-adds: they are `?`, and sums "at
      least" so many. Its receptive field is `?` too where its output has another shape; where it has the same, the field is
      that of the input with a `?` behind it, as if the op computed value by value.

    The model comes back as it was. Raises TypeError or ValueError for what is no model or no shape.
    """
    check_model(model)
    shape = arguments.counts(input_shape, "input_shape")
    if not shape:
        raise ValueError("input_shape: expected sizes, such as (3, 224, 224), got none")
    shape = shape if len(shape) == 4 else (1, *shape)
    parameters = model.parameters()
    like = parameters[0].data if parameters else np.zeros(1, np.float32)
    x = Tensor(array_module(like).zeros(shape, like.dtype), requires_grad=True)  # so that every op is recorded
    y, calls = forward_calls(model, x)
    ops = tape(y)[::-1]
    outputs = {t.op: t for op in ops for t in op.inputs if t is not None and t.op is not None} | {y.op: y}
    number = {op: i for i, op in enumerate(ops)} | {None: -1}
    fields: dict[Op | None, Field] = {None: receptive.of_image(shape)}
    seen: set[Parameter] = set()
    rows = []
    for op in ops:
        inputs = [t for t in op.inputs if t is not None]
        new = {t for t in inputs if isinstance(t, Parameter)} - seen
        seen |= new
        out = outputs[op]
        made = [fields[t.op] if t is x or t.op is not None else () for t in inputs]
        known = facts(op)
        fields[op] = known.field(op, made, [t.shape for t in inputs], out.shape) if any(made) else ()
        sources = tuple(number[t.op] for t in inputs if t is x or t.op is not None)
        work = None if known.multiply_adds is None else known.multiply_adds(op, out.shape)
        counts = sum(p.size for p in new), work or 0, _bytes(op, out)
        rows.append(
            Row(
                calls[op], type(op).__name__, _window(op, known), out.shape, *counts, fields[op], sources,
                at_least=work is None, kind=known.kind, word=known.word,
            )
        )  # fmt: skip
    total = sum(p.size for p in parameters)
    return Cost(shape, rows, total, sum(r.multiply_adds for r in rows), sum(r.bytes for r in rows))


@contained
def forward_calls(model: Module, x: Tensor) -> tuple[Tensor, dict[Op, tuple[Call, ...]]]:
    """The output for x, and for each op the calls of modules that were running when it was made, outermost first.

    In evaluation mode and every op by itself; the model comes back as it was.
    """
    calls: dict[Op, tuple[Call, ...]] = {}
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    running: list[Call] = []
    numbers = itertools.count()

    def enter(name: str, x: Any) -> None:
        claim(x)
        running.append(Call(name, kinds[name], next(numbers)))

    def leave(name: str, y: Any) -> None:
        claim(y)
        running.pop()

    def claim(x: Any) -> None:
        """What led to x, of several heads to any, and is nobody's yet was made by the module that is running now."""
        heads = x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple | list) else (x,)
        todo = [head.op for head in heads if isinstance(head, Tensor)]
        while todo:
            op = todo.pop()
            if op is not None and op not in calls:
                calls[op] = tuple(running)
                todo += [t.op for t in op.inputs if t is not None]

    with model.evaluating(), unfused(), watch(model, enter, leave):
        y = model(x)
    if not isinstance(y, Tensor):
        heads = "; of several heads ask one, explain.Head(model, name)" if isinstance(y, tuple | list | Mapping) else ""
        raise ValueError(f"model: expected it to return a Tensor, got {type(y).__name__}{heads}")
    return y, calls


def _sum(rows: list[Row], call: Call, inputs: tuple[int, ...]) -> Row:
    """One row for a call of a module, which gives out what the last of its rows makes."""
    last = rows[-1]
    return Row(
        last.calls[: last.calls.index(call) + 1],
        call.kind,
        "",
        last.shape,
        sum(r.parameters for r in rows),
        sum(r.multiply_adds for r in rows),
        sum(r.bytes for r in rows),
        last.field,
        tuple(dict.fromkeys(inputs)),
        sum(r.ops for r in rows),
        any(r.at_least for r in rows),
    )


def _bytes(op: Op, y: Tensor) -> int:
    shared = any(x is not None and array_module(y.data).may_share_memory(x.data, y.data) for x in op.inputs)
    return 0 if shared else int(y.data.nbytes)


def _window(op: Op, known: Facts) -> str:
    if known.windows is None:
        return "" if known.setting is None else known.setting(op)
    kernel, stride, _, dilation, groups = known.windows(op)
    text = _by(kernel)
    if stride != (1, 1):
        text += f" /{_by(stride) if stride[0] != stride[1] else stride[0]}"
    text += f", dilation {_by(dilation)}" if dilation != (1, 1) else ""
    return text + (f", {groups} groups" if groups != 1 else "")


def _cells(row: Row) -> list[str]:
    op, work = f"{row.op} {row.window}".strip(), _at_least(row.multiply_adds, row.at_least)
    field = _by(row.receptive_field) + ("?" if any(s.guessed for s in row.field) else "")
    shape = str(row.shape).replace(" ", "").replace(",)", ")")
    return [row.name, op, shape, field, _by(row.jump), _number(row.parameters), work, _number(row.bytes)]


def _by(pair: tuple[float, float] | None) -> str:
    """Height x width; with digits behind the point in resized images, where only averages are known."""
    if pair is None:
        return ""
    texts = ["all" if math.isinf(n) else "?" if math.isnan(n) else f"{n:.2f}".rstrip("0").rstrip(".") for n in pair]
    return texts[0] if texts in (["all", "all"], ["?", "?"]) else "x".join(texts)


def _at_least(n: int, at_least: bool) -> str:
    return _number(n) if not at_least else f"at least {_number(n)}" if n else "?"


def _number(n: int) -> str:
    return f"{n:,}"

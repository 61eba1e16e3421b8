"""What a model costs, layer by layer, from one pass of a real input; and `watch`, which sees every call of a module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from minidl.array import array_module
from minidl.core import MatMul, Op, Parameter, Tensor, tape
from minidl.nn.module import Module
from minidl.ops.conv import Conv2d
from minidl.ops.fused import unfused
from minidl.ops.linear import Linear


@contextmanager
def watch(
    model: Module,
    before: Callable[[str, Tensor], None] | None = None,
    after: Callable[[str, Tensor], None] | None = None,
) -> Iterator[None]:
    """Inside, every call of a module in `model` calls `before(name, x)` and, when it is done, `after(name, y)`.

    `name` is the dotted one, "" for the model itself. Calls nest as the modules do, and so may `with watch(...)`.
    """

    def watched(name: str, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def call(x: Tensor) -> Tensor:
            if before is not None:
                before(name, x)
            y = forward(x)
            if after is not None:
                after(name, y)
            return y

        return call

    found = [(name, module, vars(module).get("forward")) for name, module in model.named_modules()]
    for name, module, _ in found:
        vars(module)["forward"] = watched(name, module.forward)  # stands before the method of the class
    try:
        yield
    finally:
        for _, module, outer in found:
            del vars(module)["forward"]
            if outer is not None:  # somebody watches already
                vars(module)["forward"] = outer


@dataclass(frozen=True)
class Row:
    """One op of the forward pass.

    name: of the module that called it; shape: of its output, with the batch of 1; parameters: how many it is the first to
    use; multiply_adds: of convolutions and matrix products, 0 for other ops; bytes: of its output, 0 for a view of its input.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    bytes: int


@dataclass(frozen=True)
class Summary:
    """The rows in the order of the computation, and their totals; `str` makes the table."""

    rows: list[Row]
    parameters: int  # of the model, used in this pass or not
    multiply_adds: int
    bytes: int  # what a training step keeps for its backward pass, per picture

    def __str__(self) -> str:
        head = ["name", "op", "output", "parameters", "multiply-adds", "activation bytes"]
        lines = [[r.name, r.op, str(r.shape), *map(_number, (r.parameters, r.multiply_adds, r.bytes))] for r in self.rows]
        total = ["total", "", "", *map(_number, (self.parameters, self.multiply_adds, self.bytes))]
        widths = [max(map(len, column)) for column in zip(head, *lines, total, strict=True)]

        def line(cells: list[str]) -> str:
            text, numbers = cells[:3], cells[3:]
            left = [cell.ljust(width) for cell, width in zip(text, widths[:3], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(numbers, widths[3:], strict=True)]
            return "  ".join(left + right)

        rule = "-" * len(line(head))
        return "\n".join([line(head), rule, *map(line, lines), rule, line(total)])


def summary(model: Module, input_shape: tuple[int, ...]) -> Summary:
    """Run one input of zeros through `model`, in evaluation mode and every op by itself, and look at the graph that it leaves.

    input_shape: of one example, without the batch, such as (3, 32, 32). The model comes back as it was.
    """
    parameters = model.parameters()
    like = parameters[0].data if parameters else np.zeros(1, np.float32)
    modes = [(module, module.training) for module in model.modules()]
    owner: dict[Op, str] = {}  # of each op the name of the innermost module that was running when it was made
    running = [""]

    def enter(name: str, x: Tensor) -> None:
        claim(x)
        running.append(name)

    def leave(name: str, y: Tensor) -> None:
        claim(y)
        running.pop()

    def claim(x: Tensor) -> None:
        """What led to x and has no owner yet was made by the module that is running now."""
        for op in tape(x):
            owner.setdefault(op, running[-1])

    x = Tensor(array_module(like).zeros((1, *input_shape), like.dtype), requires_grad=True)  # so that every op is recorded
    try:
        with unfused(), watch(model.eval(), enter, leave):
            y = model(x)
    finally:
        for module, mode in modes:
            module.training = mode
    ops = tape(y)[::-1]
    outputs = {t.op: t for op in ops for t in op.inputs if t is not None and t.op is not None} | {y.op: y}
    seen: set[Parameter] = set()
    rows = [_row(owner[op], op, outputs[op], seen) for op in ops]
    total = sum(p.size for p in parameters)
    return Summary(rows, total, sum(r.multiply_adds for r in rows), sum(r.bytes for r in rows))


def _row(name: str, op: Op, y: Tensor, seen: set[Parameter]) -> Row:
    new = {x for x in op.inputs if isinstance(x, Parameter)} - seen
    seen |= new
    return Row(name, type(op).__name__, y.shape, sum(p.size for p in new), _multiply_adds(op, y), _bytes(op, y))


def _multiply_adds(op: Op, y: Tensor) -> int:
    """Each output of a convolution sums C/groups kh kw products, of a linear layer I, of a matrix product J."""
    if isinstance(op, Conv2d):
        return y.size * int(math.prod(op.w.shape[1:]))
    if isinstance(op, Linear):
        return y.size * int(op.w.shape[1])
    if isinstance(op, MatMul):
        return y.size * int(op.a.shape[-1])
    return 0


def _bytes(op: Op, y: Tensor) -> int:
    shared = any(x is not None and array_module(y.data).may_share_memory(x.data, y.data) for x in op.inputs)
    return 0 if shared else int(y.data.nbytes)


def _number(n: int) -> str:
    return f"{n:,}"

"""Where a NaN or an infinity came from: the first place in the forward pass that holds one."""

from __future__ import annotations

from minidl.array import Array, array_module
from minidl.core import Op, Tensor, tape
from minidl.inputs import layer_of


def first_nonfinite(y: Tensor) -> str | None:
    """A phrase that names the first leaf, or output of an op, on the way to y that is not finite; None if all are.

    y may be of any shape. Call it before `backward`, which gives the graph back. Nothing is computed again: the tape holds the
    inputs of every op, and each output but y is an input of a later op. Raises RuntimeError where the graph was given back.
    """
    forward = tape(y)[::-1]  # oldest first
    outputs: dict[Op, Tensor] = {x.op: x for op in forward for x in op.inputs if x is not None and x.op is not None}
    if y.op is not None:
        outputs[y.op] = y
    above = ""  # the last layer with parameters
    for op in forward:
        for x in op.inputs:
            if x is not None and x.op is None and (bad := count_nonfinite(x.data)):
                what = "the parameter" if x.is_parameter else "the input"
                return f"{what} {x.name} of {op!r}: {bad:,} of {x.size:,} values"
        layer = layer_of(op.inputs)
        y = outputs[op]
        if bad := count_nonfinite(y.data):
            place = f" in layer {layer}" if layer else f" after layer {above}" if above else ""
            return f"the output{place} of {op!r}: {bad:,} of {y.size:,} values"
        above = layer or above
    return None


def count_nonfinite(x: Array) -> int:
    """How many values of x, of any shape, are NaN or infinite."""
    return int((~array_module(x).isfinite(x)).sum())

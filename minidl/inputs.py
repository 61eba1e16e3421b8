"""What ops, walks and tangents are given: checked, and named in the errors about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn, Protocol

import numpy as np

from minidl.arguments import flag
from minidl.array import Array, array_module, device_of, is_array, is_float, plain_array
from minidl.conduct import Conduct
from minidl.mixed import half

Line = tuple[CodeType, int]

_PACKAGE = f"{Path(__file__).parent}{os.sep}"


class Named(Protocol):
    """An input: a Tensor, of which this is what the checks look at"""

    data: Array
    name: str
    is_parameter: bool

    @property
    def requires_grad(self) -> bool: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def device(self) -> str: ...


def numbers(data: Any, requires_grad: bool) -> Array:
    """The array of Tensor(data): an array as it is, in this machine's order of bytes; lists of floats become float32."""
    flag(requires_grad, "requires_grad")
    if isinstance(data, Conduct):
        raise TypeError("Tensor(data): data is a Tensor already; use t.detach() for a leaf that shares its array")
    if data is None:
        raise TypeError("Tensor(data): expected a Tensor, an array or numbers, got None")
    if not is_array(data):
        data = np.asarray(data)
        if data.dtype == np.float64:
            data = data.astype(np.float32)
    elif type(data) is not np.ndarray and isinstance(data, np.ndarray | np.generic):
        data = plain_array(data, "Tensor(data)")
    if not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    if data.dtype.kind not in "iub" and not is_float(data.dtype):
        raise TypeError(
            f"Tensor(data): expected numbers, got dtype {data.dtype}; floats may be float16, bfloat16, float32 or float64"
        )
    if requires_grad and not is_float(data.dtype):
        raise TypeError(f"Tensor(data, requires_grad=True): only float arrays have gradients, got dtype {data.dtype}")
    return data


def exponent(n: Any) -> float:
    """Python's float: a NumPy float64, which is one too, would turn float32 into float64."""
    if not isinstance(n, int | float | np.number) and not (is_array(n) and n.ndim == 0):
        came = type(n).__name__
        raise TypeError(f"x ** exponent: expected a number, got {came}; for a Tensor write ops.exp(exponent * ops.log(x))")
    return float(n)


def check_index(parts: tuple[Any, ...]) -> None:
    """No part of an index is a Tensor."""
    if any(isinstance(i, Conduct) for i in parts):
        raise TypeError("x[index]: an index must be an array or a number, got a Tensor; use its .data")


def check(xs: tuple[Named | None, ...], mix: bool) -> None:
    """All inputs float, of one type, on one device, and none of them empty; with `mix`, float32 may stand beside halves."""
    first: Named | None = None
    for i, x in enumerate(xs):
        if x is None:
            if i == 0:
                raise TypeError("input 0: expected a Tensor, an array or numbers, got None")
            continue
        if not is_float(x.dtype):
            raise TypeError(f"input {i}: expected floats, got {x.dtype}; write x.to(dtype='float32'), of pixels x / 255")
        if x.size == 0:
            raise ValueError(f"input {i}: empty, shape {x.shape}")
        if first is None:
            first = x
        elif x.dtype != first.dtype and not (mix and {x.dtype, first.dtype} == {half(), np.dtype(np.float32)}):
            hint = ", or compute inside `with minidl.mixed(...)`" if {x.dtype.itemsize, first.dtype.itemsize} == {2, 4} else ""
            which, kept, other, of = _odd_one(xs, i)
            raise TypeError(f"{which}: {other.dtype}, while {of} is {kept.dtype}; write x.to(dtype='{kept.dtype}'){hint}")
        elif array_module(x.data) is not array_module(first.data):
            which, kept, other, of = _odd_one(xs, i)
            raise ValueError(f"{which}: on the {other.device}, while {of} is on the {kept.device}; write x.to('{kept.device}')")


def _odd_one(xs: tuple[Named | None, ...], i: int) -> tuple[str, Named, Named, str]:
    """Of the first input and input i, which differ, the one to change and what it should be like: a parameter stays as it is

    -> "input 0", the tensor to be like, the tensor to change, what to call the first of these
    """
    j = next(k for k, x in enumerate(xs) if x is not None)
    first, x = xs[j], xs[i]
    assert first is not None and x is not None
    if x.is_parameter and not first.is_parameter:
        return f"input {j}", x, first, x.name or f"input {i}, a parameter,"
    return f"input {i}", first, x, (first.name if first.is_parameter else "") or f"input {j}"


def check_required(call: str, xs: Sequence[Named]) -> None:
    """A list of Tensors that require a gradient; `call` begins the error."""
    if isinstance(xs, Conduct):  # whose rows are tensors too, but new ones that nothing depends on
        raise TypeError(f"{call}: xs: expected a list of Tensors, got a Tensor; write [x]")
    for i, x in enumerate(xs):
        if not isinstance(x, Conduct):
            raise TypeError(f"{call}: xs[{i}]: expected a Tensor, got {type(x).__name__}")
        if not x.requires_grad:
            raise ValueError(f"{call}: xs[{i}] does not require a gradient: {x!r}")
        if getattr(getattr(x, "op", None), "freed", False):
            raise RuntimeError(
                f"{call}: the graph behind xs[{i}], {x!r}, was given back, by an earlier backward() or as inside of "
                "ops.recompute; run the forward pass again, with keep_graph=True, or inside `with ops.unfused():`"
            )


def like(name: str, g: Any, of: str, x: Named) -> Array:
    """g as an array of the shape, type and device of x."""
    if not is_array(g):
        raise TypeError(f"{name}: expected an array, got {type(g).__name__}")
    g = plain_array(g, name) if isinstance(g, np.ndarray | np.generic) else g
    if array_module(g) is not array_module(x.data) or g.shape != x.shape or g.dtype != x.dtype:
        raise ValueError(
            f"{name}: expected {x.shape} {x.dtype} on the {x.device}, as {of} is, got {g.shape} {g.dtype} on the {device_of(g)}"
        )
    return g


def tangents(xs: Sequence[Named], txs: Sequence[Any]) -> list[Array]:
    """One tangent for each of xs, which require a gradient."""
    check_required("jvp(y, xs, txs)", xs)
    if len(txs) != len(xs):
        raise ValueError(f"txs: expected one tangent for each of the {len(xs)} xs, got {len(txs)}")
    return [like(f"txs[{i}]", tx, f"xs[{i}]", x) for i, (x, tx) in enumerate(zip(xs, txs, strict=True))]


def first_gradient(y: Named, gy: Array | None) -> Array:
    """What a walk back from y begins with: a copy of gy, or 1 for a scalar."""
    if not y.requires_grad:
        raise ValueError(f"no gradient to compute: {y!r} depends on nothing that requires one")
    if gy is None:
        if y.data.size != 1:
            raise ValueError(f"gy: needed where the output is no scalar; y has shape {y.shape}, try sum(y) or mean(y)")
        return array_module(y.data).ones_like(y.data)
    return like("gy", gy, "y", y).copy()


def refuse_gradients(gxs: Any, expected: int) -> NoReturn:
    """Say what is wrong with that which a backward returned in place of a tuple with a gradient for each input"""
    gx = "gx," if expected == 1 else ", ".join(f"gx{i}" for i in range(expected))
    each = f"a tuple with one for each of its {expected} inputs" if expected != 1 else "a tuple with one for its input"
    if isinstance(gxs, tuple | list):
        s = "s" * (len(gxs) != 1)
        raise ValueError(
            f"backward returned {len(gxs)} gradient{s}, expected {each}; write `return ({gx})`, None where none is needed"
        )
    if gxs is None:
        came = "nothing"
    else:
        came = "a Tensor" if isinstance(gxs, Conduct) else "an array" if is_array(gxs) else _a(gxs)
    raise TypeError(f"backward returned {came} for gradients, expected {each}; write `return ({gx})`, of arrays")


def refuse_misfit(gx: Any, x: Named) -> NoReturn:
    """Say what is wrong with a gradient that is not of the shape and type of its input"""
    of = f"for an input of {x.shape} {x.dtype}"
    if isinstance(gx, Conduct):
        raise TypeError(f"backward returned a Tensor {of}, expected an array; write gx.data, and compute with arrays")
    if not is_array(gx):
        raise TypeError(f"backward returned {_a(gx)} {of}, expected an array; write np.asarray(gx, x.dtype)")
    if gx.shape == x.shape:
        write = "; write gx.astype(x.dtype)"
    elif axes := broadcast_axes(x.shape, gx.shape):
        write = f"; if it was broadcast, sum over {axes_in_words(axes)}: minidl.array.sum_to(gx, x.shape)"
    else:
        write = ", expected its shape"
    raise ValueError(f"backward returned {gx.shape} {gx.dtype} {of}{write}")


def _a(value: object) -> str:
    """The kind of a value with its article: a float, an int"""
    name = type(value).__name__
    return f"a{'n' * (name[0] in 'aeiou')} {name}"


def broadcast_axes(small: tuple[int, ...], large: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of `large` along which an array of the shape `small` is repeated to it; () where it cannot be"""
    new = len(large) - len(small)
    if new < 0 or any(n not in (1, m) for n, m in zip(small, large[new:], strict=True)):
        return ()
    return (*range(new), *(new + k for k, n in enumerate(small) if n != large[new + k]))


def axes_in_words(axes: tuple[int, ...]) -> str:
    """ "axis 0", "axes 0, 2\""""
    return f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, axes))}"


def users_line() -> Line | None:
    """The innermost line outside the package, as (code, line): unlike a frame, it keeps no variable alive."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return None if frame is None else (frame.f_code, frame.f_lineno)


def in_words(op: object, xs: Sequence[Named | None], where: Line | None) -> str:
    """ "Conv2d of input (2, 3, 8, 8) float32, ..., called at the user's line\""""
    return f"{type(op).__name__} of {_shapes(xs)}, called at {place(where)}"


def note(op: object, xs: Sequence[Named | None]) -> str:
    """What is added to an error of an op: its layer, inputs and line"""
    layer = layer_of(xs)
    return f"in {f'layer {layer}, ' if layer else ''}{in_words(op, xs, users_line())}"


def place(where: Line | None) -> str:
    """ "script.py:12 in train\""""
    return "an unknown line" if where is None else f"{where[0].co_filename}:{where[1]} in {where[0].co_name}"


def layer_of(xs: Sequence[Named | None]) -> str:
    """ "layer1.0.conv1", by the name of a parameter, or nothing"""
    names = (x.name.rpartition(".")[0] for x in xs if x is not None and x.is_parameter)
    return next((name for name in names if name), "")


def _shapes(xs: Sequence[Named | None]) -> str:
    return ", ".join("None" if x is None else f"{x.name or 'input'} {x.shape} {x.dtype}" for x in xs) or "no inputs"

"""What a Tensor does where Python or NumPy ask it something: compare, count, print, be a number, be an array.

Each answer is the one that an array would give, or one sentence that says what to write instead. Nothing here belongs to
differentiation; core.py does that.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minidl.array import Array, is_array

INSTEAD = {  # names of NumPy's and of PyTorch's, and what is written here
    "T": "ops.transpose(t)",
    "argmax": "t.data.argmax(...)",
    "astype": "t.to(dtype=...)",
    "clone": "Tensor(t.data.copy())",
    "copy": "Tensor(t.data.copy())",
    "cpu": 't.to("cpu")',
    "cuda": 't.to("gpu")',
    "dim": "t.ndim",
    "double": 't.to(dtype="float64")',
    "float": 't.to(dtype="float32")',
    "grad_fn": "t.op",
    "half": 't.to(dtype="float16")',
    "is_leaf": "t.op is None",
    "numpy": "t.data",
    "permute": "ops.transpose(t, axes)",
    "requires_grad_": "t.requires_grad = True",
    "squeeze": "ops.reshape(t, shape)",
    "tolist": "t.data.tolist()",
    "unsqueeze": "ops.reshape(t, shape)",
    "view": "ops.reshape(t, shape)",
    "zero_grad": "t.grad = None",
}
ARITHMETIC = {"add": "add", "subtract": "sub", "multiply": "mul", "divide": "truediv", "power": "pow", "matmul": "matmul"}
ORDER = {"less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge}
OPS_BY_UFUNC = {"absolute": "abs"}  # where the names differ


def _in_place(symbol: str, compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """t += other makes a new tensor, as t = t + other; for a leaf that is trained it would be a name alone that changes."""

    def method(self: Any, other: Any) -> Any:
        if self.op is None and self.requires_grad:
            raise TypeError(
                f"p {symbol}= ...: would make a new tensor and leave the {type(self).__name__} as it is; "
                f"write p.data {symbol}= ..., with arrays on the right"
            )
        return compute(self, other)

    return method


def _order(symbol: str, compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        return compare(self.data, other.data if isinstance(other, Conduct) else other)

    method.__doc__ = f"t.data {symbol} other: an array of bools, without a history"
    return method


class Conduct:
    """The base of Tensor, which has `data`, `op` and `requires_grad`."""

    data: Any
    op: Any
    requires_grad: bool

    # ---- comparing: identity, so that tensors are found in lists, sets and dictionaries; numbers are compared by their arrays

    def __eq__(self, other: object) -> bool:
        return self._is("==", other)

    def __ne__(self, other: object) -> bool:
        return not self._is("!=", other)

    __hash__ = object.__hash__
    __lt__, __le__ = _order("<", operator.lt), _order("<=", operator.le)
    __gt__, __ge__ = _order(">", operator.gt), _order(">=", operator.ge)

    def _is(self, symbol: str, other: object) -> bool:
        if isinstance(other, int | float) or is_array(other):
            raise TypeError(f"t {symbol} {_in_words(other)}: tensors are compared by identity; write t.data {symbol} ...")
        return self is other

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(
                f"the truth of a tensor of shape {self.data.shape}: write t.data.any() or t.data.all(), or `t is not None`"
            )
        return bool(self.data.item())

    # ---- as a number or as a row of numbers

    def __float__(self) -> float:
        return float(self._only("float(t)"))

    def __int__(self) -> int:
        return int(self._only("int(t)"))

    def __format__(self, form: str) -> str:
        return format(self._only(f"f'{{t:{form}}}'"), form) if form else str(self)

    def _only(self, call: str) -> Any:
        if self.data.size != 1:
            raise TypeError(f"{call}: expected one element, got shape {self.data.shape}; write t.data, or ops.mean(t)")
        return self.data.item()

    def __len__(self) -> int:
        if not self.data.shape:
            raise TypeError("len(t): a tensor of no axes has no length; write t.size, or t.item() for its number")
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        if not self.data.shape:
            raise TypeError("a tensor of no axes has nothing to loop over; write t.item() for its number")
        return (self[i] for i in range(len(self.data)))  # type: ignore[index]

    def __setitem__(self, index: object, value: object) -> None:
        raise TypeError(
            "t[...] = value: backward would not see it; write t.data[...] = value before the forward pass, or ops.where"
        )

    # ---- as an array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.requires_grad:
            raise TypeError("np.asarray(t): t has a history, which an array would lose; write t.data, or ops.* to keep it")
        if not isinstance(self.data, np.ndarray):
            raise TypeError('np.asarray(t): t is on the GPU; write t.to("cpu").data')
        return np.array(self.data, dtype=dtype, copy=copy)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name in INSTEAD:
            advice = f"write {INSTEAD[name]}"
        elif hasattr(sys.modules.get("minidl.ops"), name):
            advice = f"write ops.{name}(t)"
        elif name.endswith("_") or hasattr(np.ndarray, name):
            advice = "its array is t.data, what is differentiated is in minidl.ops"
        else:
            advice = "it has data, grad, op, requires_grad, name, shape, ndim, size, dtype, device, item, detach, to, backward"
        raise AttributeError(f"a {type(self).__name__} has no {name!r}: {advice}")

    # ---- t += ...

    __iadd__, __isub__ = _in_place("+", operator.add), _in_place("-", operator.sub)
    __imul__, __itruediv__ = _in_place("*", operator.mul), _in_place("/", operator.truediv)
    __ipow__, __imatmul__ = _in_place("**", operator.pow), _in_place("@", operator.matmul)


class _ForNumPy:
    """NumPy asks the class how to compute array * t and np.exp(t). CuPy asks t itself, and at None leaves array * t to t."""

    def __get__(self, tensor: object, kind: type) -> Any:
        return _ufunc if tensor is None else None


Conduct.__array_ufunc__ = _ForNumPy()  # type: ignore[attr-defined]


def _ufunc(tensor: Any, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
    """Arithmetic as the tensor's own operators do it; all else is an error"""
    name = ufunc.__name__
    if method == "__call__" and not more and len(inputs) == 2:
        a, b = inputs
        if name in ARITHMETIC:
            word = ARITHMETIC[name]
            return getattr(a, f"__{word}__")(b) if isinstance(a, Conduct) else getattr(b, f"__r{word}__")(a)
        if name in ORDER:
            return ORDER[name](*(x.data if isinstance(x, Conduct) else x for x in inputs))
        if name in ("equal", "not_equal"):
            return a == b if isinstance(a, Conduct) else b == a
    ours = OPS_BY_UFUNC.get(name, name)
    write = f"ops.{ours}(t), or " if hasattr(sys.modules.get("minidl.ops"), ours) else ""
    raise TypeError(f"np.{name}(t): NumPy would lose the history of a {type(tensor).__name__}; write {write}np.{name}(t.data)")


def _in_words(other: Any) -> str:
    return f"an array {other.shape}" if is_array(other) and other.shape else repr(other)

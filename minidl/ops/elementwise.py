"""Element-wise mathematics beyond the operators."""

from __future__ import annotations

from typing import Any

from minidl.arguments import number
from minidl.array import Array, array_module, is_array, sum_to
from minidl.core import Grads, Op, Tensor
from minidl.mixed import FLOAT32


class Exp(Op):
    """y = e^x"""

    precision = (FLOAT32,)

    def forward(self, x: Array) -> Array:
        self.y = array_module(x).exp(x)
        return self.y

    def push(self, tx: Array) -> Array:
        """ty = y tx"""
        return tx * self.y

    def backward(self, gy: Array) -> Grads:
        """gx = y gy"""
        return (gy * self.y,)


class Log(Op):
    """y = ln x"""

    precision = (FLOAT32,)

    def forward(self, x: Array) -> Array:
        self.x = x
        return array_module(x).log(x)

    def push(self, tx: Array) -> Array:
        """ty = tx / x"""
        return tx / self.x

    def backward(self, gy: Array) -> Grads:
        """gx = gy / x"""
        return (gy / self.x,)


class Sqrt(Op):
    """y = sqrt(x)"""

    precision = (FLOAT32,)

    def forward(self, x: Array) -> Array:
        self.y = array_module(x).sqrt(x)
        return self.y

    def push(self, tx: Array) -> Array:
        """ty = tx / (2 y)"""
        return tx / (2 * self.y)

    def backward(self, gy: Array) -> Grads:
        """gx = gy / (2 y)"""
        return (gy / (2 * self.y),)


class Abs(Op):
    """y = |x|"""

    def forward(self, x: Array) -> Array:
        self.sign = array_module(x).sign(x)
        return x * self.sign

    def push(self, tx: Array) -> Array:
        """ty = sign(x) tx"""
        return tx * self.sign

    def backward(self, gy: Array) -> Grads:
        """gx = sign(x) gy"""
        return (gy * self.sign,)


class Clip(Op):
    """y = min(max(x, low), high)"""

    def __init__(self, low: float | None, high: float | None) -> None:
        self.low, self.high = low, high

    def forward(self, x: Array) -> Array:
        y = array_module(x).clip(x, self.low, self.high)
        self.inside = y == x
        return y

    def push(self, tx: Array) -> Array:
        """ty = tx where low <= x <= high, else 0"""
        return tx * self.inside

    def backward(self, gy: Array) -> Grads:
        """gx = gy where low <= x <= high, else 0"""
        return (gy * self.inside,)

    def gate(self) -> Array:
        return self.inside


class Maximum(Op):
    """y = max(a, b), shapes broadcast; where they are equal each gets half of the gradient"""

    def forward(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        self.share = 0.5 * (a >= b) + 0.5 * (a > b)  # of a: 1, 1/2 or 0
        self.share = self.share.astype(a.dtype)
        return array_module(a).maximum(a, b)

    def push(self, ta: Array | None, tb: Array | None) -> Array:
        """ty = ta where a is larger, tb where b is, half of each where they are equal"""
        ta, tb = self.tangents(ta, tb)
        return ta * self.share + tb * (1 - self.share)

    def backward(self, gy: Array) -> Grads:
        """ga = gy where a is larger, gb = gy where b is, half of it each where they are equal"""
        ga = sum_to(gy * self.share, self.shapes[0]) if self.needs[0] else None
        gb = sum_to(gy * (1 - self.share), self.shapes[1]) if self.needs[1] else None
        return ga, gb

    def gate(self) -> Array | None:
        """Of maximum(x, 0), also as maximum(0, x)"""
        if _is_zero(self, 1):
            return self.share > 0.5
        return self.share < 0.5 if _is_zero(self, 0) else None


class Where(Op):
    """y = a where the condition holds, else b; shapes broadcast"""

    def __init__(self, condition: Array) -> None:
        self.condition = condition

    def forward(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        return array_module(a).where(self.condition, a, b)

    def push(self, ta: Array | None, tb: Array | None) -> Array:
        """ty = ta where the condition holds, else tb"""
        return array_module(self.condition).where(self.condition, *self.tangents(ta, tb))

    def backward(self, gy: Array) -> Grads:
        """ga = gy where the condition holds, gb = gy elsewhere"""
        xp, zero = array_module(gy), gy.dtype.type(0)
        ga = sum_to(xp.where(self.condition, gy, zero), self.shapes[0]) if self.needs[0] else None
        gb = sum_to(xp.where(self.condition, zero, gy), self.shapes[1]) if self.needs[1] else None
        return ga, gb

    def gate(self) -> Array | None:
        """Of where(x > 0, x, 0), also as where(x >= 0, x, 0) or where(x < 0, 0, x)"""
        for i, taken in (0, self.condition), (1, ~self.condition):
            x = self.inputs[i]
            if x is not None and _is_zero(self, 1 - i) and taken.shape == x.shape:
                if bool(((taken == (x.data > 0)) | (x.data == 0)).all()):
                    return taken
        return None


def _is_zero(op: Op, i: int) -> bool:
    """Whether input i is 0, and no more than that"""
    x = op.inputs[i]
    return x is not None and not op.needs[i] and not x.data.any()


def exp(x: Tensor) -> Tensor:
    """y = e^x, any shape."""
    return Exp()(x)


def log(x: Tensor) -> Tensor:
    """y = ln x, any shape; -inf at 0, NaN below."""
    return Log()(x)


def sqrt(x: Tensor) -> Tensor:
    """y = sqrt(x), any shape; NaN below 0."""
    return Sqrt()(x)


def abs(x: Tensor) -> Tensor:
    """y = |x|, any shape; the gradient at 0 is 0."""
    return Abs()(x)


def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """y = min(max(x, low), high), any shape; no gradient flows where x lies outside.

    Raises ValueError where both limits are None, or low > high, TypeError or ValueError for one that is no number.
    """
    if low is None and high is None:
        raise ValueError("low, high: expected at least one number, got None for both")
    low = None if low is None else number(low, "low", "[-inf, inf]")
    high = None if high is None else number(high, "high", "[-inf, inf]")
    if low is not None and high is not None and low > high:
        raise ValueError(f"low, high: expected low <= high, got {low} and {high}")
    return Clip(low, high)(x)


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """y = max(a, b), shapes broadcast; equal values share the gradient."""
    return Maximum()(a, b)


def where(condition: Any, a: Tensor, b: Tensor) -> Tensor:
    """y = a where `condition` (an array of bools, or a Tensor of them) holds, else b; shapes broadcast.

    Raises TypeError for another condition.
    """
    condition = condition.data if isinstance(condition, Tensor) else condition
    if not is_array(condition) or condition.dtype.kind != "b":
        raise TypeError(f"condition: expected an array of bools, got {getattr(condition, 'dtype', type(condition).__name__)}")
    return Where(condition)(a, b)

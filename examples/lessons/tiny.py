"""A tape in a hundred lines: reverse-mode differentiation, of numbers first, then of arrays. Lesson 2 reads it.

It is complete. Every value remembers how it was made: for each of its inputs, a function that takes a gradient back to that
input. To differentiate is to go through the values from the newest to the oldest, and to call these functions. minidl does the
same, in `minidl/core.py`, with a class for each operation in place of a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np

Pull = Callable[[np.ndarray], np.ndarray]  # from the gradient of a value to that of one of its inputs
numbers = count()


class Value:
    """A number or an array, the gradient of the end result with respect to it, and what it was made from."""

    def __init__(self, data: object, made_from: Sequence[tuple[Value, Pull]] = ()) -> None:
        self.data = np.asarray(data, np.float64)
        self.grad = np.zeros_like(self.data)
        self.made_from = made_from
        self.number = next(numbers)  # inputs are older than what is made from them

    def backward(self) -> None:
        """The gradient of this number in every value that led to it."""
        values = tape(self)
        for value in values:
            value.grad = np.zeros_like(value.data)
        self.grad = np.ones_like(self.data)  # d y / d y = 1
        for y in values:
            for x, pull in y.made_from:
                x.grad = x.grad + pull(y.grad)  # the chain rule; += for x may have gone into several values

    def __add__(self, other: Value | float) -> Value:
        a, b = self, value(other)
        return Value(a.data + b.data, [(a, lambda gy: fit(gy, a)), (b, lambda gy: fit(gy, b))])

    def __mul__(self, other: Value | float) -> Value:
        a, b = self, value(other)
        return Value(a.data * b.data, [(a, lambda gy: fit(gy * b.data, a)), (b, lambda gy: fit(gy * a.data, b))])

    def __sub__(self, other: Value | float) -> Value:
        return self + value(other) * -1

    __radd__, __rmul__ = __add__, __mul__

    # from here on arrays: a gradient has the shape of its value, and a pull is more than a factor

    def __matmul__(self, other: Value) -> Value:
        a, b = self, other
        return Value(a.data @ b.data, [(a, lambda gy: gy @ b.data.T), (b, lambda gy: a.data.T @ gy)])


def tape(y: Value) -> list[Value]:
    """All values that y was made from, and y, the newest first: each stands before its inputs."""
    found, todo = {y}, [y]
    while todo:
        for x, _ in todo.pop().made_from:
            if x not in found:
                found.add(x)
                todo.append(x)
    return sorted(found, key=lambda v: v.number, reverse=True)


def value(x: Value | float) -> Value:
    return x if isinstance(x, Value) else Value(x)


def fit(gy: np.ndarray, x: Value) -> np.ndarray:
    """Sum over what was broadcast: an element of x that was used several times gets the sum of those gradients."""
    gy = gy.sum(axis=tuple(range(gy.ndim - x.data.ndim)))
    return gy.sum(axis=tuple(k for k, n in enumerate(x.data.shape) if n == 1), keepdims=True)


def exp(x: Value) -> Value:
    y = np.exp(x.data)
    return Value(y, [(x, lambda gy: gy * y)])


def log(x: Value) -> Value:
    return Value(np.log(x.data), [(x, lambda gy: gy / x.data)])


def relu(x: Value) -> Value:
    return Value(np.maximum(x.data, 0), [(x, lambda gy: gy * (x.data > 0))])


def mean(x: Value) -> Value:
    return Value(x.data.mean(), [(x, lambda gy: np.full_like(x.data, gy / x.data.size))])

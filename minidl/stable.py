"""Formulas of exponentials, written so that nothing overflows and no digits are lost."""

from __future__ import annotations

from minidl.array import Array, array_module, wide


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) where x >= 0, else exp(x) / (1 + exp(x)): nothing overflows, and both tails keep their digits

    Of halves it is float32, as the two functions below are: whoever stores halves rounds once.
    """
    xp, x = array_module(x), wide(x)
    return xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-abs(x)))


def logistic_slope(x: Array) -> Array:
    """The derivative of `logistic`: y (1 - y) = e / (1 + e)^2 with e = exp(-|x|), since 1 - y has no digits near y = 1"""
    e = array_module(x).exp(-abs(wide(x)))
    return e / (1 + e * (2 + e))  # where e is small, so is the rounding of e (2 + e)


def log_one_plus_exp(x: Array) -> Array:
    """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))"""
    xp, x = array_module(x), wide(x)
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))


def log_softmax(z: Array, axis: int) -> Array:
    """z - log sum exp z, shifted by the maximum so that nothing overflows"""
    xp = array_module(z)
    z = z - z.max(axis=axis, keepdims=True)
    return z - xp.log(xp.exp(z).sum(axis=axis, keepdims=True))

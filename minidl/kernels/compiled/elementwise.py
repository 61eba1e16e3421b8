"""Sums, relu and the parameter updates in Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled.parallel import in_parallel

_compiled: Any = kept(njit(nogil=True, error_model="numpy", fastmath={"contract"}))
PIECE = 1 << 15  # elements that one thread takes at a time


def add(a: Array, b: Array) -> Array:
    """y = a + b, of one shape and type"""
    if a.size <= PIECE:
        y: Array = a + b
        return y
    y = np.empty(a.shape, a.dtype)
    in_parallel(
        _add, -(-a.size // PIECE), np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1), y.reshape(-1)
    )
    return y


def relu(x: Array) -> Array:
    """y = max(x, 0)"""
    y = np.empty(x.shape, x.dtype)
    in_parallel(_relu, -(-x.size // PIECE), np.ascontiguousarray(x).reshape(-1), y.reshape(-1))
    return y


def relu_grad(gy: Array, y: Array) -> Array:
    """gx = gy where y > 0, else 0"""
    gx = np.empty(gy.shape, gy.dtype)
    in_parallel(
        _relu_grad,
        -(-gy.size // PIECE),
        np.ascontiguousarray(gy).reshape(-1),
        np.ascontiguousarray(y).reshape(-1),
        gx.reshape(-1),
    )
    return gx


def rectify(y: Array, r: Array | None) -> None:
    """y <- max(y + r, 0), in place, r None for 0"""
    flat = _flat(y, "y")
    if r is None:
        in_parallel(_rectify, -(-y.size // PIECE), flat)
    else:
        in_parallel(_add_and_rectify, -(-y.size // PIECE), flat, np.ascontiguousarray(r).reshape(-1))


def sgd_update(p: Array, g: Array, v: Array, lr: float, momentum: float, nesterov: bool, weight_decay: float) -> None:
    """g' = g + weight_decay p;  v <- momentum v + g';  p <- p - lr (g' + momentum v if nesterov else v)"""
    lr, momentum, weight_decay = (p.dtype.type(a) for a in (lr, momentum, weight_decay))
    arrays = _flat(p, "p"), np.ascontiguousarray(g).reshape(-1), _flat(v, "v")
    in_parallel(_sgd_update, -(-p.size // PIECE), *arrays, lr, momentum, nesterov, weight_decay)


def adamw_update(
    p: Array, g: Array, m: Array, v: Array, t: int, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> None:
    """m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2;  p <- p - lr (weight_decay p + m_hat / (sqrt(v_hat) + eps))"""
    b1, b2 = betas
    numbers = (b1, 1 - b1, b2, 1 - b2, 1 - lr * weight_decay, lr / (1 - b1**t), 1 / (1 - b2**t), eps)
    numbers = tuple([p.dtype.type(a) for a in numbers])
    arrays = _flat(p, "p"), np.ascontiguousarray(g).reshape(-1), _flat(m, "m"), _flat(v, "v")
    in_parallel(_adamw_update, -(-p.size // PIECE), *arrays, numbers)


def _flat(p: Array, name: str) -> Array:
    """p as a vector that shares its memory, since p is changed in place"""
    if not p.flags.c_contiguous:
        raise ValueError(f"{name}: expected a contiguous array to update in place, got strides {p.strides} for shape {p.shape}")
    return p.reshape(-1)


@njit(inline="always")
def _piece(k, x):
    """elements of one piece; as an array of its own, so that the compiler sees that no index counts from the end"""
    return x[k * PIECE : (k + 1) * PIECE]


@_compiled
def _add(k, a, b, y):
    u, v, target = _piece(k, a), _piece(k, b), _piece(k, y)
    for i in range(len(target)):
        target[i] = u[i] + v[i]


@_compiled
def _relu(k, x, y):
    zero = x.dtype.type(0)
    source, target = _piece(k, x), _piece(k, y)
    for i in range(len(source)):
        target[i] = zero if source[i] < zero else source[i]  # NaN stays NaN


@_compiled
def _relu_grad(k, gy, y, gx):
    zero = gy.dtype.type(0)
    g, value, target = _piece(k, gy), _piece(k, y), _piece(k, gx)
    for i in range(len(g)):
        target[i] = g[i] if value[i] > zero else zero


@_compiled
def _rectify(k, y):
    zero = y.dtype.type(0)
    value = _piece(k, y)
    for i in range(len(value)):
        value[i] = zero if value[i] < zero else value[i]


@_compiled
def _add_and_rectify(k, y, r):
    zero = y.dtype.type(0)
    value, more = _piece(k, y), _piece(k, r)
    for i in range(len(value)):
        total = value[i] + more[i]
        value[i] = zero if total < zero else total


@_compiled
def _sgd_update(k, p, g, v, lr, momentum, nesterov, weight_decay):
    p, g, v = _piece(k, p), _piece(k, g), _piece(k, v)
    for i in range(len(p)):
        d = g[i] + weight_decay * p[i]
        v[i] = momentum * v[i] + d
        p[i] -= lr * (d + momentum * v[i] if nesterov else v[i])


@_compiled
def _adamw_update(k, p, g, m, v, numbers):
    b1, c1, b2, c2, keep, rate, unbias, eps = numbers
    p, g, m, v = _piece(k, p), _piece(k, g), _piece(k, m), _piece(k, v)
    for i in range(len(p)):
        m[i] = b1 * m[i] + c1 * g[i]
        v[i] = b2 * v[i] + c2 * g[i] * g[i]
        p[i] = keep * p[i] - rate * m[i] / (np.sqrt(v[i] * unbias) + eps)

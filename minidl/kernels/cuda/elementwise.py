"""Relu in place, its gate, and the parameter updates: one pass over memory, where array code makes one an operation.

`add` and `relu` are not here: CuPy computes each in one pass already.
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import launch


def relu_grad(gy: Array, y: Array) -> Array:
    """gx = gy where y > 0, else 0"""
    xp = array_module(gy)
    gx = xp.empty(gy.shape, gy.dtype)
    launch(_relu_grad, (gy.size,), *(xp.ascontiguousarray(a).reshape(-1) for a in (gy, y)), gx.reshape(-1))
    return gx


def rectify(y: Array, r: Array | None) -> None:
    """y <- max(y + r, 0), in place, r None for 0"""
    flat = _flat(y, "y")
    more = flat if r is None else array_module(r).ascontiguousarray(r).reshape(-1)
    launch(_rectify, (y.size,), more, r is not None, flat)


def sgd_update(p: Array, g: Array, v: Array, lr: float, momentum: float, nesterov: bool, weight_decay: float) -> None:
    """g' = g + weight_decay p;  v <- momentum v + g';  p <- p - lr (g' + momentum v if nesterov else v)"""
    lr, momentum, weight_decay = (p.dtype.type(a) for a in (lr, momentum, weight_decay))
    gradient = array_module(g).ascontiguousarray(g).reshape(-1)
    launch(_sgd_update, (p.size,), gradient, lr, momentum, nesterov, weight_decay, _flat(p, "p"), _flat(v, "v"))


def adamw_update(
    p: Array, g: Array, m: Array, v: Array, t: int, lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> None:
    """m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2;  p <- p - lr (weight_decay p + m_hat / (sqrt(v_hat) + eps))"""
    b1, b2 = betas
    numbers = (b1, 1 - b1, b2, 1 - b2, 1 - lr * weight_decay, lr / (1 - b1**t), 1 / (1 - b2**t), eps)
    gradient = array_module(g).ascontiguousarray(g).reshape(-1)
    state = _flat(p, "p"), _flat(m, "m"), _flat(v, "v")
    launch(_adamw_update, (p.size,), gradient, *(p.dtype.type(a) for a in numbers), *state)


def _flat(p: Array, name: str) -> Array:
    """p as a vector that shares its memory, since p is changed in place"""
    if not p.flags.c_contiguous:
        raise ValueError(f"{name}: expected a contiguous array to update in place, got strides {p.strides} for shape {p.shape}")
    return p.reshape(-1)


@kept(cuda.jit)
def _relu_grad(gy, y, gx):
    """gx[i] = gy[i] where y[i] > 0, else 0"""
    zero = np.float32(0)
    for i in range(cuda.grid(1), len(gx), cuda.gridsize(1)):
        gx[i] = gy[i] if y[i] > zero else zero


@kept(cuda.jit)
def _rectify(r, residual, y):
    """y[i] <- max(y[i] + r[i], 0), without r unless `residual`"""
    zero = np.float32(0)
    for i in range(cuda.grid(1), len(y), cuda.gridsize(1)):
        value = zero + y[i]
        if residual:
            value += r[i]
        y[i] = zero if value < zero else value  # NaN stays NaN


@kept(cuda.jit)
def _sgd_update(g, lr, momentum, nesterov, weight_decay, p, v):
    """g' = g + weight_decay p;  v <- momentum v + g';  p <- p - lr (g' + momentum v if nesterov else v)"""
    for i in range(cuda.grid(1), len(p), cuda.gridsize(1)):
        d = g[i] + weight_decay * p[i]
        v[i] = momentum * v[i] + d
        p[i] -= lr * (d + momentum * v[i] if nesterov else v[i])


@kept(cuda.jit)
def _adamw_update(g, b1, c1, b2, c2, keep, rate, unbias, eps, p, m, v):
    """m <- b1 m + c1 g;  v <- b2 v + c2 g^2;  p <- keep p - rate m / (sqrt(unbias v) + eps)"""
    for i in range(cuda.grid(1), len(p), cuda.gridsize(1)):
        m[i] = b1 * m[i] + c1 * g[i]
        v[i] = b2 * v[i] + c2 * g[i] * g[i]
        p[i] = keep * p[i] - rate * m[i] / (p.dtype.type(math.sqrt(unbias * v[i])) + eps)

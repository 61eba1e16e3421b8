"""Softmax cross-entropy in Numba, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled.parallel import in_parallel

_compiled: Any = kept(njit(nogil=True, error_model="numpy", fastmath={"contract"}))
PIECE = 1 << 12  # elements that one thread takes at a time, whole rows


def softmax_cross_entropy(z: Array, labels: Array, v: Array, smoothing: float) -> tuple[Array, Array]:
    """loss[n] = -sum_k t[n,k] log p[n,k] and its gradient g[n,k] = p[n,k] sum_j t[n,j] - t[n,k], p the softmax of z"""
    (N, K), number = z.shape, z.dtype.type
    z = np.ascontiguousarray(z - z.max(axis=1, keepdims=True))  # so that nothing overflows
    g, losses, rows = np.exp(z), np.empty(N, z.dtype), max(1, PIECE // K)  # NumPy computes several exponentials at a time
    arrays, scalars = [np.ascontiguousarray(a) for a in (labels, v)], (number(1 - smoothing), number(smoothing / K))
    in_parallel(_softmax_cross_entropy, -(-N // rows), rows, z, *arrays, *scalars, losses, g)
    return losses, g


@_compiled
def _softmax_cross_entropy(piece, rows, z, labels, v, keep, spread, losses, g):
    """g comes as exp z"""
    zero, never = z.dtype.type(0), -np.inf
    for n in range(piece * rows, min(len(z), (piece + 1) * rows)):
        total, sum_t, loss = zero, zero, zero
        for k in range(z.shape[1]):
            total += g[n, k]
            sum_t += v[k] * (keep + spread if k == labels[n] else spread)
        log_total, scale = np.log(total), sum_t / total
        for k in range(z.shape[1]):
            t = v[k] * (keep + spread if k == labels[n] else spread)
            log_p = z[n, k] - log_total
            if t != zero or log_p != never:  # 0 log 0 = 0
                loss -= t * log_p
            g[n, k] = g[n, k] * scale - t
        losses[n] = loss

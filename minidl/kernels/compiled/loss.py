"""Softmax cross-entropy in Numba, row by row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.compiled.parallel import in_parallel

_compiled: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
PIECE = 1 << 12  # elements that one thread takes at a time, whole rows


def softmax_cross_entropy(z: Array, labels: Array, v: Array, smoothing: float) -> tuple[Array, Array]:
    """loss[n] = -sum_k t[n,k] log p[n,k], p = softmax of z, t[n,k] = v[k] ((1 - s) [k = label n] + s/K); and log p"""
    (N, K), number = z.shape, z.dtype.type
    losses, log_p, rows = np.empty(N, z.dtype), np.empty((N, K), z.dtype), max(1, PIECE // K)
    arrays = (np.ascontiguousarray(a) for a in (z, labels, v))
    in_parallel(
        _softmax_cross_entropy, -(-N // rows), rows, *arrays, number(1 - smoothing), number(smoothing / K), losses, log_p
    )
    return losses, log_p


def softmax_cross_entropy_grad(g: Array, log_p: Array, labels: Array, v: Array, smoothing: float) -> Array:
    """gz[n,k] = g (p[n,k] sum_j t[n,j] - t[n,k])"""
    (N, K), number = log_p.shape, log_p.dtype.type
    gz, rows = np.empty((N, K), log_p.dtype), max(1, PIECE // K)
    arrays = (np.ascontiguousarray(a) for a in (log_p, labels, v))
    scalars = number(1 - smoothing), number(smoothing / K), number(v.sum())
    in_parallel(_softmax_cross_entropy_grad, -(-N // rows), rows, number(g), *arrays, *scalars, gz)
    return gz


@_compiled
def _softmax_cross_entropy(piece, rows, z, labels, v, keep, spread, losses, log_p):
    zero = z.dtype.type(0)
    for n in range(piece * rows, min(len(z), (piece + 1) * rows)):
        best, total, loss = z[n, 0], zero, zero
        for k in range(z.shape[1]):
            best = max(best, z[n, k])
        for k in range(z.shape[1]):
            total += np.exp(z[n, k] - best)
        log_total = np.log(total)
        for k in range(z.shape[1]):
            log_p[n, k] = z[n, k] - best - log_total
            loss -= v[k] * (keep * (k == labels[n]) + spread) * log_p[n, k]
        losses[n] = loss


@_compiled
def _softmax_cross_entropy_grad(piece, rows, g, log_p, labels, v, keep, spread, sum_v, gz):
    for n in range(piece * rows, min(len(gz), (piece + 1) * rows)):
        total = keep * v[labels[n]] + spread * sum_v
        for k in range(gz.shape[1]):
            gz[n, k] = g * (total * np.exp(log_p[n, k]) - v[k] * (keep * (k == labels[n]) + spread))

"""Pictures times a matrix for their rows and one for their columns, in Numba; most entries of the matrices are zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.compiled.parallel import in_parallel

_compiled: Any = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})


def rows_and_columns(x: Array, A: Array, B: Array) -> Array:
    """y[n,c] = A x[n,c] B^T"""
    y = np.empty((*x.shape[:2], len(A), len(B)), x.dtype)
    planes = np.ascontiguousarray(x).reshape(-1, *x.shape[2:])
    A, B = np.ascontiguousarray(A, x.dtype), np.ascontiguousarray(B, x.dtype)
    in_parallel(_rows_and_columns, len(planes), planes, A, B, y.reshape(-1, *y.shape[2:]))
    return y


@_compiled
def _rows_and_columns(plane, x, A, B, y):
    """y = (B (A x)^T)^T: both products add whole rows, which lie side by side in memory"""
    rows = np.zeros((len(A), x.shape[2]), x.dtype)
    _multiply(A, x[plane], rows)
    columns = np.zeros((len(B), len(A)), x.dtype)
    _multiply(B, np.ascontiguousarray(rows.T), columns)
    y[plane] = columns.T


@_compiled
def _multiply(A, x, y):
    """y[i] += A[i,j] x[j] for all entries that are not 0"""
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            a = A[i, j]
            if a != 0:
                for k in range(x.shape[1]):
                    y[i, k] += a * x[j, k]

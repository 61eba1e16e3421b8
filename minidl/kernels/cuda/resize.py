"""Images times a matrix for their rows and one for their columns: a thread a pixel, which gathers what is not times 0."""

from __future__ import annotations

import numpy as np
from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import launch


def rows_and_columns(x: Array, A: Array, B: Array) -> Array:
    """y[n,c] = A x[n,c] B^T"""
    xp = array_module(x)
    planes = xp.ascontiguousarray(x).reshape(-1, *x.shape[2:])
    rows = xp.empty((len(planes), len(A), planes.shape[2]), x.dtype)
    y = xp.empty((len(planes), len(A), len(B)), x.dtype)
    launch(_rows, rows.shape, planes, A, *_bands(A), rows)
    launch(_columns, y.shape, rows, B, *_bands(B), y)
    return y.reshape(*x.shape[:2], len(A), len(B))


def _bands(A: Array) -> tuple[Array, Array]:
    """Of each row, where the entries that are not 0 begin and end; of the rows of all these matrices they are neighbours"""
    low, high = (array_module(A).empty(len(A), "int64") for _ in range(2))
    launch(_find_bands, (len(A),), A, low, high)
    return low, high


@kept(cuda.jit)
def _find_bands(A, low, high):
    """A[i,j] = 0 unless low[i] <= j < high[i]"""
    for i in range(cuda.grid(1), A.shape[0], cuda.gridsize(1)):
        low[i], high[i] = A.shape[1], 0
        for j in range(A.shape[1]):
            if A[i, j] != A.dtype.type(0):
                low[i], high[i] = min(low[i], j), j + 1


@kept(cuda.jit)
def _rows(x, A, low, high, y):
    """y[plane,i,k] = sum_j A[i,j] x[plane,j,k], low[i] <= j < high[i]"""
    planes, rows, columns = y.shape
    first_k, first_i, first_plane = cuda.grid(3)
    dk, di, dplane = cuda.gridsize(3)
    for plane in range(first_plane, planes, dplane):
        for i in range(first_i, rows, di):
            for k in range(first_k, columns, dk):
                total = np.float32(0)
                for j in range(low[i], high[i]):
                    total += A[i, j] * x[plane, j, k]
                y[plane, i, k] = total


@kept(cuda.jit)
def _columns(x, B, low, high, y):
    """y[plane,i,k] = sum_j B[k,j] x[plane,i,j], low[k] <= j < high[k]"""
    planes, rows, columns = y.shape
    first_k, first_i, first_plane = cuda.grid(3)
    dk, di, dplane = cuda.gridsize(3)
    for plane in range(first_plane, planes, dplane):
        for i in range(first_i, rows, di):
            for k in range(first_k, columns, dk):
                total = np.float32(0)
                for j in range(low[k], high[k]):
                    total += B[k, j] * x[plane, i, j]
                y[plane, i, k] = total

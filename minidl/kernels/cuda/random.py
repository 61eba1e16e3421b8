"""Dropout: every thread computes its own random bits, from the seed and the place of its element."""

from __future__ import annotations

import numpy as np
from numba import cuda

from minidl.array import Array, array_module, sum_type
from minidl.kernels import reference
from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import launch

_philox = cuda.jit(device=True)(reference.philox)


def dropout(x: Array, p: float, seed: int) -> Array:
    """y[i] = x[i] / (1 - p) where u[i] >= p, else 0; u[i] in [0, 1) the i-th number of the generator Philox, keyed by `seed`"""
    xp = array_module(x)
    y, scale = xp.empty(x.shape, x.dtype), sum_type(x.dtype).type(1 / (1 - p))
    launch(_dropout, (x.size,), xp.ascontiguousarray(x).reshape(-1), reference.threshold(p), scale, seed, y.reshape(-1))
    return y


@kept(cuda.jit)
def _dropout(x, least, scale, seed, y):
    """y[i] = scale x[i] where the random bits of i are at least `least`, else 0"""
    for i in range(cuda.grid(1), len(y), cuda.gridsize(1)):
        y[i] = x[i] * scale if _philox(i, seed) >= least else np.float32(0)

"""Dropout in Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled.parallel import in_parallel
from minidl.kernels.reference import philox, threshold

_compiled: Any = kept(njit(nogil=True, error_model="numpy", fastmath={"contract"}))
_philox: Any = njit(inline="always")(philox)
PIECE = 1 << 15  # elements that one thread takes at a time


def dropout(x: Array, p: float, seed: int) -> Array:
    """y[i] = x[i] / (1 - p) where u[i] >= p, else 0; u[i] in [0, 1) the i-th number of the generator Philox, keyed by `seed`"""
    y = np.empty(x.shape, x.dtype)
    flat, scale = np.ascontiguousarray(x).reshape(-1), x.dtype.type(1 / (1 - p))
    in_parallel(_dropout, -(-x.size // PIECE), flat, threshold(p), scale, seed, y.reshape(-1))
    return y


@_compiled
def _dropout(k, x, least, scale, seed, y):
    first = k * PIECE
    source, target = x[first : first + PIECE], y[first : first + PIECE]
    for i in range(len(source)):
        target[i] = source[i] * scale if _philox(first + i, seed) >= least else x.dtype.type(0)

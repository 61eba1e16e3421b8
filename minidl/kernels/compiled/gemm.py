"""Matrix products by NumPy's BLAS, which do not disturb the kernels.

OpenBLAS shares a product among threads of its own, and these look for the next one for some 20 ms before they sleep. Whatever
runs then shares its processors with them: on two cores, the one product at the end of ResNet-18 doubled the time of all its
convolutions. So a product that one thread computes in a few milliseconds is left to one thread.
"""

from __future__ import annotations

import math
import threading
from functools import cache

from threadpoolctl import ThreadpoolController

from minidl.array import Array

SMALL = 2**27  # multiply-adds
_limited = threading.Lock()  # the limit is the whole process's


def matmul(a: Array, b: Array) -> Array:
    """y[..., i, k] = sum_j a[..., i, j] b[..., j, k]: (..., I, J) x (..., J, K) -> (..., I, K), leading axes broadcast"""
    if math.prod(a.shape) * b.shape[-1] > SMALL:
        return a @ b
    with _limited, _blas().limit(limits=1):
        return a @ b


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")

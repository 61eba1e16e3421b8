"""The kernels for arrays of 16 bits a number that have none of their own: on the CPU, and by CuPy alone.

Numbers are stored in 16 bits and computed with in 32. Arguments are copied to float32, the kernel for float32 does the work,
and its results are rounded once. What belongs to a channel (a mean, a scale, a sum: arrays of one axis) is float32 on both
sides. These are the functions of `reference`, by their names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minidl import kernels
from minidl.array import is_array
from minidl.kernels import reference
from minidl.kernels.reference import add, dropout, relu, relu_grad  # element by element: nothing is added up

__all__ = ["add", "dropout", "relu", "relu_grad"]

CHANGED = {  # the arguments that a kernel writes to
    "affine_relu_conv": [5],
    "affine_relu_conv_grad": [8],
    "subtract_line": [0],
    "rectify": [0],
    "sgd_update": [0, 2],
    "adamw_update": [0, 2, 3],
}


def __getattr__(name: str) -> Callable[..., Any]:
    """Any other kernel."""
    if not hasattr(reference, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_in_float32, name)


@np.errstate(over="ignore", invalid="ignore")  # what is too large for a half becomes an infinity, as on a GPU
def _in_float32(name: str, *args: Any) -> Any:
    half = next(a.dtype for a in args if _is_half(a))
    wide = [a.astype(np.float32) if _is_half(a) else a for a in args]
    results = getattr(kernels.of(next(a for a in wide if is_array(a))), name)(*wide)
    for i in CHANGED.get(name, ()):
        args[i][...] = wide[i]
    if not isinstance(results, tuple):
        return _rounded(results, half)
    return tuple(_rounded(y, half) for y in results)


def _is_half(a: Any) -> bool:
    return is_array(a) and a.dtype.itemsize == 2


def _rounded(y: Any, half: Any) -> Any:
    return y.astype(half) if is_array(y) and y.dtype == np.float32 and y.ndim > 1 else y

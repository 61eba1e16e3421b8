"""Matrix products on the GPU by cuBLAS: through CuPy and, while a CUDA graph is captured, past it.

cuBLAS may be captured, but CuPy refuses to call it on a stream that is (https://github.com/cupy/cupy/issues/6290). There the
same library is called with the same handle, by ctypes.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib import import_module
from typing import Any

from minidl.array import Array, array_module, capturing

WORKSPACE = 1 << 25  # bytes that cuBLAS may use; 32 MiB is what it takes on Hopper

# of library_types.h and cublas_api.h
TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
IN_FLOAT64, IN_FLOAT32, IN_TF32 = 70, 68, 77  # in what it multiplies and adds up
DEFAULT = -1  # the choice of algorithm


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """y[i,k] = sum_j a[i,j] b[j,k]: CuPy's (..., I, J) x (..., J, K) -> (..., I, K), into `out` where it is given

    Halves are added up in float32. Raises NotImplementedError for more than two axes while a graph is captured.
    """
    xp = array_module(a)
    if not capturing(a):
        return xp.matmul(a, b, out=out)
    if a.ndim != 2 or b.ndim != 2:
        raise NotImplementedError(f"in a CUDA graph only products of two axes are captured, got {a.shape} and {b.shape}")
    shape = len(a), b.shape[1]
    y = xp.empty(shape, a.dtype) if out is None else out
    if y.shape != shape or y.dtype != a.dtype or not y.flags.c_contiguous:
        raise ValueError(f"out: expected a contiguous array {shape} {a.dtype}, got {y.shape} {y.dtype}")
    _multiply(_library(), xp, a, b, y)
    return y


def _multiply(library: Any, xp: Any, a: Array, b: Array, y: Array) -> None:
    """y = a b, all (rows, columns). To cuBLAS, which counts down the columns, each is its transpose: y' = b' a'"""
    handle, stream = ctypes.c_void_p(xp.cuda.device.get_cublas_handle()), xp.cuda.get_current_stream()
    (a, a_turned, a_line), (b, b_turned, b_line) = _layout(xp, a), _layout(xp, b)
    (rows, inner), columns = a.shape, b.shape[1]
    wide, tf32 = a.dtype.name == "float64", a.dtype.name == "float32" and os.environ.get("CUPY_TF32", "0") != "0"
    one, zero = ((ctypes.c_double if wide else ctypes.c_float)(v) for v in (1, 0))
    workspace = xp.empty(WORKSPACE, "uint8")  # of the graph's memory: it serves other arrays as soon as this product is done
    _check(library.cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr)), "cublasSetStream")
    _check(library.cublasSetWorkspace_v2(handle, _pointer(workspace), ctypes.c_size_t(WORKSPACE)), "cublasSetWorkspace")
    kind = TYPES[a.dtype.name]
    status = library.cublasGemmEx(
        *(handle, b_turned, a_turned, columns, rows, inner, ctypes.byref(one)),
        *(_pointer(b), kind, b_line, _pointer(a), kind, a_line, ctypes.byref(zero)),
        *(_pointer(y), kind, columns, IN_FLOAT64 if wide else IN_TF32 if tf32 else IN_FLOAT32, DEFAULT),
    )
    _check(status, "cublasGemmEx")


def _layout(xp: Any, a: Array) -> tuple[Array, int, int]:
    """a or a copy; 0 where it lies row by row, 1 where column by column; and how many numbers apart these lines begin"""
    down, along = (stride // a.itemsize for stride in a.strides)
    if along == 1 and down >= a.shape[1]:
        return a, 0, down
    if down == 1 and along >= a.shape[0]:
        return a, 1, along
    return xp.ascontiguousarray(a), 0, a.shape[1]


def _pointer(a: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.data.ptr)


def _check(status: int, call: str) -> None:
    if status != 0:
        raise RuntimeError(f"{call} failed with status {status}, see cublasStatus_t in the documentation of cuBLAS")


@cache
def _library() -> Any:
    """The cuBLAS that CuPy has loaded"""
    pathfinder = import_module("cuda.pathfinder")  # by which CuPy finds it
    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)

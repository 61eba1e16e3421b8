"""Matrix products on the GPU by cuBLAS: through CuPy or, where that will not do, past it.

CuPy refuses to call cuBLAS on a stream that is captured into a CUDA graph (https://github.com/cupy/cupy/issues/6290), though
cuBLAS may be. And it copies the matrices of a batch that do not lie as it wants them. `product` calls the library itself, by
ctypes: one call for a batch, whose matrices lie anywhere at equal distances, or are one and the same for all.
"""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from importlib import import_module
from typing import Any

from minidl.array import Array, array_module, capturing, sum_type

WORKSPACE = 1 << 25  # bytes that cuBLAS may use; 32 MiB is what it takes on Hopper

# of library_types.h and cublas_api.h
TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
IN_FLOAT64, IN_FLOAT32, IN_TF32 = 70, 68, 77  # in what it multiplies and adds up
DEFAULT = -1  # the choice of algorithm


def matmul(a: Array, b: Array) -> Array:
    """y[..., i, k] = sum_j a[..., i, j] b[..., j, k]: CuPy's (..., I, J) x (..., J, K) -> (..., I, K), leading axes broadcast

    Halves are added up in float32. Raises NotImplementedError for more than three axes while a graph is captured.
    """
    if not capturing(a):
        return array_module(a).matmul(a, b)
    if max(a.ndim, b.ndim) > 3 or min(a.ndim, b.ndim) < 2:
        raise NotImplementedError(
            f"in a CUDA graph only products of two or three axes are captured, got {a.shape} and {b.shape}"
        )
    return gemm(a, b)


def gemm(a: Array, b: Array, out: Array | None = None) -> Array:
    """y[n,i,k] = sum_j a[n,i,j] b[n,j,k]: (N,I,J) x (N,J,K) -> (N,I,K); one of two axes serves all n, two of them give (I,K)

    a, b and `out` are CuPy arrays of one float type; the rows of `out` are contiguous. Halves are added up in float32, and
    stay what they are in an `out` of float32.
    """
    xp, batch = array_module(a), {len(m) for m in (a, b) if m.ndim == 3}
    if len(batch) > 1 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"b: expected (N, J, K) or (J, K) for a of (N, I, J) or (I, J), got a {a.shape} and b {b.shape}")
    shape = (*batch, a.shape[-2], b.shape[-1])
    y = xp.empty(shape, a.dtype) if out is None else out
    in_rows = y.size == 0 or _rows_or_columns(y)[0] == 0
    if y.shape != shape or y.dtype not in (a.dtype, sum_type(a.dtype)) or not in_rows:
        raise ValueError(f"out: expected rows of an array {shape} {a.dtype}, got {y.shape} {y.dtype} with strides {y.strides}")
    if y.size:
        _multiply(_library(), xp, a, b, y)
    return y


def _multiply(library: Any, xp: Any, a: Array, b: Array, y: Array) -> None:
    """y = a b, all (rows, columns). To cuBLAS, which counts down the columns, each is its transpose: y' = b' a'"""
    handle, stream = handle_of(xp), xp.cuda.get_current_stream()
    (a, a_turned, a_line, a_step), (b, b_turned, b_line, b_step) = _layout(xp, a), _layout(xp, b)
    _, _, y_line, y_step = _layout(xp, y)
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    wide, tf32 = a.dtype.name == "float64", a.dtype.name == "float32" and os.environ.get("CUPY_TF32", "0") != "0"
    one, zero = ((ctypes.c_double if wide else ctypes.c_float)(v) for v in (1, 0))
    _check(library.cublasSetStream_v2(handle, ctypes.c_void_p(stream.ptr)), "cublasSetStream")
    if stream.is_capturing():
        workspace = xp.empty(
            WORKSPACE, "uint8"
        )  # of the graph's memory: it serves other arrays as soon as this product is done
        _check(library.cublasSetWorkspace_v2(handle, _pointer(workspace), ctypes.c_size_t(WORKSPACE)), "cublasSetWorkspace")
    kind = TYPES[a.dtype.name]
    status = library.cublasGemmStridedBatchedEx(
        *(handle, b_turned, a_turned, columns, rows, inner, ctypes.byref(one)),
        *(_pointer(b), kind, b_line, b_step, _pointer(a), kind, a_line, a_step, ctypes.byref(zero)),
        *(_pointer(y), TYPES[y.dtype.name], y_line, y_step, len(y) if y.ndim == 3 else 1),
        *(IN_FLOAT64 if wide else IN_TF32 if tf32 else IN_FLOAT32, DEFAULT),
    )
    _check(status, "cublasGemmStridedBatchedEx")


def _layout(xp: Any, a: Array) -> tuple[Array, int, int, ctypes.c_longlong]:
    """a or a copy; 0 where it lies row by row, 1 where column by column; and how many numbers apart lines and matrices begin"""
    turned, line = _rows_or_columns(a)
    if turned is None:
        rows, columns = a.shape[-2:]
        return xp.ascontiguousarray(a), 0, columns, ctypes.c_longlong(rows * columns if a.ndim == 3 else 0)
    return a, turned, line, ctypes.c_longlong(a.strides[0] // a.itemsize if a.ndim == 3 else 0)


def _rows_or_columns(a: Array) -> tuple[int | None, int]:
    """0 where each matrix lies row by row, 1 where column by column, else None; and how many numbers apart its lines begin

    The stride of an axis of length 1 says nothing: nobody steps along it.
    """
    down, along = (stride // a.itemsize for stride in a.strides[-2:])
    rows, columns = a.shape[-2:]
    if (columns == 1 or along == 1) and (rows == 1 or down >= columns):
        return 0, columns if rows == 1 else down
    if (rows == 1 or down == 1) and (columns == 1 or along >= rows):
        return 1, rows if columns == 1 else along
    return None, 0


def _pointer(a: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.data.ptr)


def _check(status: int, call: str) -> None:
    if status != 0:
        raise RuntimeError(f"{call} failed with status {status}, see cublasStatus_t in the documentation of cuBLAS")


@cache
def _library() -> Any:
    """The cuBLAS that CuPy has loaded"""
    pathfinder = import_module("cuda.pathfinder")  # by which CuPy finds it
    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)


def handle_of(xp: Any) -> ctypes.c_void_p:
    """What the library wants to be called with, one for each thread and device. It cannot be made while a graph is captured."""
    return _handle(threading.get_ident(), xp.cuda.runtime.getDevice())


@cache
def _handle(thread: int, device: int) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    _check(_library().cublasCreate_v2(ctypes.byref(handle)), "cublasCreate")
    return handle

"""The array-module switch: the same text computes with NumPy on the CPU and with CuPy on the GPU.

Code that may meet either kind of array asks `array_module(x)` for the module that made it and calls that, never `np`.
CuPy is imported when somebody asks for the GPU, not before.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]  # or one of CuPy, which is used alike

DEVICES = ("cpu", "gpu")


def array_module(x: Array) -> ModuleType:
    """`numpy` or `cupy`: the module whose functions take `x`. Raises TypeError for anything that is no array."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy
    raise TypeError(f"expected a NumPy or CuPy array, got {type(x).__name__}")


def is_array(x: object) -> bool:
    cupy = sys.modules.get("cupy")
    return isinstance(x, np.ndarray | np.generic) or (cupy is not None and isinstance(x, cupy.ndarray))


def plain_array(x: Any, name: str) -> Array:
    """A NumPy number, or an array of a subclass (a matrix, a memory map), as an array of NumPy's own class, without a copy.

    Raises TypeError for a masked array, whose masked values would count as others do.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got a masked one; write a.filled(value)")
    return np.asarray(x)


def device_of(x: Array) -> str:
    """`"cpu"` or `"gpu"`."""
    return "cpu" if array_module(x) is np else "gpu"


def to_cpu(x: Array) -> Array:
    """`x` as a NumPy array; a CuPy array is copied from the GPU."""
    return x if array_module(x) is np else array_module(x).asnumpy(x)


def to_gpu(x: Array) -> Array:
    """`x` as a CuPy array. Raises RuntimeError where CuPy or a GPU is missing."""
    return _cupy().asarray(x)


def to_device(x: Array, device: str) -> Array:
    """`x` on `device`, `"cpu"` or `"gpu"`; `x` itself if it is there already."""
    if device not in DEVICES:
        raise ValueError(f"device: expected one of {DEVICES}, got {device!r}")
    return to_cpu(x) if device == "cpu" else to_gpu(x)


def array_like(value: Any, like: Array, dtype: Any = None) -> Array:
    """`value`, a number, numbers or an array from either device, as an array where `like` is."""
    if is_array(value):
        value = to_device(value, device_of(like))
    return array_module(like).asarray(value, dtype)


def shape_of(value: Any) -> tuple[int, ...]:
    """Of an array on either device, or of a number or numbers."""
    return tuple(value.shape) if is_array(value) else np.shape(value)


def move(value: Any, device: str) -> Any:
    """`value` with the arrays in it on `device`, those in dicts, lists and tuples too."""
    if isinstance(value, dict):
        return {key: move(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(move(item, device) for item in value)
    return to_device(value, device) if is_array(value) else value


def check_device(device: str) -> None:
    """Raises ValueError for a device of another name, RuntimeError where it is the GPU and CuPy or a GPU is missing."""
    to_device(np.zeros(0), device)


# ---- float types


def is_float(dtype: Any) -> bool:
    """Whether the engine computes with numbers of this dtype, and they have gradients: float16, bfloat16, float32, float64

    Not by NumPy's kind "f": bfloat16 is not of it, while long double and one of the types of 8 bits are.
    """
    return dtype.name in ("float16", "bfloat16", "float32", "float64")


def sum_type(dtype: Any) -> Any:
    """The dtype in which numbers of `dtype` are added up: float32 for those of 16 bits, for all others their own."""
    return np.dtype(np.float32) if dtype.itemsize < 4 else dtype


def wide(x: Array) -> Array:
    """x in the type of its sums, see `sum_type`; x itself if that is its type."""
    return x.astype(sum_type(x.dtype), copy=False)


def wide_sum(x: Array, axis: tuple[int, ...], keepdims: bool = False) -> Array:
    """sum x along the axes, in the type of x, but added up in that of its sums."""
    return x.sum(axis=axis, dtype=sum_type(x.dtype), keepdims=keepdims).astype(x.dtype, copy=False)


def sum_to(g: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of broadcasting: add up g over the axes along which `shape` was repeated."""
    if g.shape == shape:
        return g
    if g.ndim > len(shape):
        g = wide_sum(g, tuple(range(g.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return wide_sum(g, repeated, keepdims=True) if repeated else g


def dot(a: Array, b: Array) -> float:
    """<a, b> = sum_k a_k b_k, in float64"""
    return float(array_module(a).multiply(a, b, dtype="float64").sum())


def capturing(x: Array) -> bool:
    """Whether x is on a GPU where a CUDA graph is being captured, see `train.cuda_graph`: then nothing can be read back."""
    return array_module(x) is not np and bool(array_module(x).cuda.get_current_stream().is_capturing())


def _cupy() -> ModuleType:
    """CuPy, once it is certain that it can compute."""
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(
            "device 'gpu' needs CuPy, which is not installed: pip install -e '.[cuda12]', or '.[cuda13]' for a newer driver"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy's own errors live in modules that fail to import without a driver
        raise RuntimeError(f"device 'gpu' needs a CUDA device, and CuPy finds none: {error}") from error
    if count == 0:
        raise RuntimeError("device 'gpu' needs a CUDA device, and CuPy finds none")
    return cupy

"""The one door to speed: `kernels.of(x)` is the module whose functions serve the array x.

- `reference`: plain array code for NumPy and CuPy, the text to read;
- `compiled`: the same functions in Numba for NumPy arrays, compiled when first called and kept on disk;
- `cuda`: the same functions in numba.cuda for CuPy arrays, compiled when first called;
- `halves`: the others for arrays of 16 bits a number, on copies of 32.

All have the same functions with the same signatures and agree within rounding. `MINIDL_KERNELS=reference` in the
environment, or `with minidl.kernels.use("reference"):`, steps through the plain text everywhere; `minidl.plain()` leaves fused
ops out as well. A forked child of a process that has compiled kernels at work takes the plain text, too; a child that should be
fast is started with the "spawn" method. README.md tells how the others compute.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from minidl.array import Array
from minidl.contexts import Block, Setting
from minidl.kernels import reference
from minidl.kernels import sources as _sources  # noqa: F401 - reads the files now, of which one is loaded already

CHOICES = ("compiled", "reference")


_choice = Setting("kernels.use", os.environ.get("MINIDL_KERNELS", "compiled"))
if _choice.default not in CHOICES:
    raise ValueError(f"MINIDL_KERNELS: expected one of {CHOICES}, got {_choice.default!r}")


def of(x: Array) -> ModuleType:
    """The kernels for x, of any shape: `compiled` for NumPy's arrays, `cuda` for CuPy's, `reference` where it was chosen.

    For halves it is `halves`, but `cuda` for CuPy's of float16. Raises RuntimeError for a CuPy array where the kernels cannot
    reach a GPU, or where it holds bfloat16.
    """
    chosen = _choice.state()[0]  # as `.value`, without a frame more to step through
    if x.dtype.itemsize == 2 and (chosen == "reference" or isinstance(x, np.ndarray | np.generic)):
        return _module("halves")
    if chosen == "reference" or isinstance(x, np.generic):
        return reference
    if isinstance(x, np.ndarray):
        return _module("compiled")
    if x.dtype.name == "bfloat16":
        raise RuntimeError(
            "the kernels for CuPy arrays know float16 and no bfloat16, which numba-cuda does not take from CuPy so easily. "
            '`with minidl.kernels.use("reference"):`, or MINIDL_KERNELS=reference, computes with it by CuPy alone, slower'
        )
    return _cuda()


@functools.cache
def _module(name: str) -> ModuleType:
    """Imported when first asked for: Numba takes longer than all of minidl."""
    return import_module(f"minidl.kernels.{name}")


@functools.cache
def _cuda() -> ModuleType:
    """The kernels for the GPU. That they would be slow without numba-cuda should not go unnoticed, so it is an error."""
    missing = "numba-cuda, which is not installed"
    if find_spec("numba_cuda"):
        from numba import cuda

        if cuda.is_available():
            return import_module("minidl.kernels.cuda")
        missing = "a CUDA driver, a device and NVVM, of which Numba misses one (python -m numba -s says which)"
    raise RuntimeError(
        f"the kernels for CuPy arrays need {missing}: pip install -e '.[cuda12]', or '.[cuda13]' for a newer driver. "
        'Without them `with minidl.kernels.use("reference"):`, or MINIDL_KERNELS=reference, computes by CuPy alone, slower'
    )


def prepare_capture(xp: Any) -> None:
    """Make what products need and cannot make while this thread captures a CUDA graph: cuBLAS's handle."""
    _module("cublas").handle_of(xp)


def _after_fork() -> None:
    """A forked child has none of the threads of its parent, and OpenMP does not start them again: plain text serves it."""
    if "minidl.kernels.compiled" in sys.modules:
        _choice.reset("reference")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def use(name: str) -> Block[None]:
    """Inside `with kernels.use("reference"):` this thread's ops call the plain text, inside "compiled" those of x's device."""
    if name not in CHOICES:
        raise ValueError(f"kernels.use(name): expected one of {CHOICES}, got {name!r}")
    return Block(None, (_choice, name))

"""The one door to speed: `kernels.of(x)` is the module whose functions serve the array x.

- `reference`: plain array code for NumPy and CuPy, the text to read;
- `compiled`: the same functions in Numba for NumPy arrays, compiled when first called and kept on disk.

All have the same functions with the same signatures and agree within rounding. `MINIDL_KERNELS=reference` in the
environment, or `with minidl.kernels.use("reference"):`, steps through the plain text everywhere. So does a forked child of
a process that has compiled kernels at work; a child that should be fast is started with the "spawn" method.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import numpy as np

from minidl.array import Array
from minidl.kernels import reference

CHOICES = ("compiled", "reference")


class _Choice(threading.local):
    name = os.environ.get("MINIDL_KERNELS", "compiled")


_choice = _Choice()
if _choice.name not in CHOICES:
    raise ValueError(f"MINIDL_KERNELS: expected one of {CHOICES}, got {_choice.name!r}")


def of(x: Array) -> ModuleType:
    """The kernels for x: `compiled` for float32 and float64 NumPy arrays, unless "reference" was chosen, else `reference`."""
    if _choice.name == "reference" or not isinstance(x, np.ndarray) or x.dtype.itemsize < 4:
        return reference
    return import_module("minidl.kernels.compiled")  # Numba is imported when a kernel is first called for, not with minidl


def _after_fork() -> None:
    """A forked child has none of the threads of its parent, and OpenMP does not start them again: plain text serves it."""
    if "minidl.kernels.compiled" in sys.modules:
        _Choice.name = _choice.name = "reference"  # of threads that the child starts, and of this one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Inside `with kernels.use("reference"):`, or "compiled", this thread's ops call those kernels."""
    if name not in CHOICES:
        raise ValueError(f"kernels.use(name): expected one of {CHOICES}, got {name!r}")
    before, _choice.name = _choice.name, name
    try:
        yield
    finally:
        _choice.name = before

"""The learner's switch: the plain text of every kernel and op, to step through."""

from __future__ import annotations

import os

from minidl import kernels, ops
from minidl.contexts import Block


def plain() -> Block[None]:
    """Inside `with plain():` this thread computes with NumPy (or CuPy) alone, in single ops, a product of matrices as `a @ b`.

    That is `kernels.use("reference")` and `ops.unfused()` in one. MINIDL_PLAIN=1 in the environment is the same from the
    start and in every thread.
    """
    return Block(None, *kernels.use("reference").values, *ops.unfused().values, name="plain")


def _from_the_start() -> None:
    asked = os.environ.get("MINIDL_PLAIN", "0")
    if asked not in ("0", "1"):
        raise ValueError(f"MINIDL_PLAIN: expected 0 or 1, got {asked!r}")
    if asked == "1":
        for name, value in (("MINIDL_KERNELS", "reference"), ("MINIDL_FUSED", "0")):
            if os.environ.get(name, value) != value:
                raise ValueError(f"MINIDL_PLAIN=1: expected {name}={value} or none beside it, got {os.environ[name]!r}")
        for setting, value in plain().values:
            setting.reset(value)


_from_the_start()

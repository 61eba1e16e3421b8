"""Freed memory is kept for the next step.

A training step frees what the one before it asked for, array by array. By default glibc gives large arrays back to the
system at once, and the next one of the same size costs a page fault per 4 KiB: more time than many kernels take. So glibc is
told to keep what was freed, but for arrays of 64 MiB and more: of these a few are all the memory there is, and what was one of
128 MiB is no room for one of 256. The peak of the memory in use does not change; it is only not given back while the process
runs. MINIDL_KEEP_MEMORY=0 in the environment leaves glibc as it is.
"""

from __future__ import annotations

import ctypes
import os

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
LARGE = 64 * 2**20


def keep_freed_memory() -> None:
    """Only large arrays have a mapping of their own, and are given back; nothing where the C library has no `mallopt`."""
    if os.environ.get("MINIDL_KEEP_MEMORY", "1") == "0":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 * 2**20)

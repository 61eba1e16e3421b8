"""How a kernel starts: one thread an element, in blocks of THREADS, on CuPy's current stream.

A kernel is written once for one thread. It works through an index space of one to three axes in grid-stride loops,

    j, i, k = cuda.grid(3)  # this thread among all threads; the last axis is along x, where neighbours read neighbours
    dj, di, dk = cuda.gridsize(3)  # how many threads there are along each axis
    for k in range(k, K, dk):
        ...

so that every element has exactly one thread, however many threads there are, and no two write to one place. Where every
microsecond counts the loops are written with `while`: a `range` with a step divides, to know how many turns it will take.

Numba compiles a kernel, once for each combination of types, and CuPy's driver starts it: no array or stream has to be
wrapped into one of Numba's. `start` tells how the arguments reach the kernel.
"""

from __future__ import annotations

import ctypes
import math
import struct
import threading
from functools import cache
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba import cuda
from numba.core import config

from minidl.array import array_module
from minidl.kernels.cache import kept

THREADS = 256  # of a block; a power of two, for the reductions
BLOCKS = 65_535  # along an axis of the grid: what CUDA allows along y and z
ENOUGH = 1 << 12  # blocks keep a large device busy; of more, each thread takes several elements along the first axis
DEPTH = 64  # threads of a block along z: what CUDA allows

AHEAD = 4  # elements that a thread asks memory for before it needs the first, see channels.py
U = np.uint64  # for indices: Numba asks others whether they are below 0

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # a small grid for a small array is no news


def jit(threads: int, blocks: int) -> Any:
    """`cuda.jit` for a kernel that takes many registers: so few that `blocks` blocks of `threads` fit on a multiprocessor"""
    return cuda.jit if config.ENABLE_CUDASIM else kept(cuda.jit(launch_bounds=(threads, blocks)))


@cuda.jit(device=True)
def quotient(a, b):
    """a // b of numbers from 0 to 2^32 - 1, several times as fast as by 64 bits"""
    return np.int64(np.uint32(a) // np.uint32(b))


def launch(kernel: Any, shape: tuple[int, ...], *args: Any, ahead: int = 1) -> None:
    """Run `kernel` for each index of `shape`, which has one to three axes; the first of `args` is an array.

    ahead: so many indices along the first axis a thread takes at a time: it waits for memory once, not for each.
    """
    launch_blocks(kernel, *_grid_and_block(shape, ahead), *args)


@cache
def _grid_and_block(shape: tuple[int, ...], ahead: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    block = block_for(shape)
    *grid, last = (min(-(-size // threads), BLOCKS) for size, threads in zip(shape[::-1], block, strict=True))
    return (*grid, min(-(-last // ahead), max(1, ENOUGH // max(1, math.prod(grid))))), block


def block_for(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The threads of a block, along x first: powers of two that cover the last axis, then the one before, up to THREADS"""
    block, left = list[int](), THREADS
    for size in shape[::-1]:
        cover = 1 << max(size - 1, 0).bit_length()
        block.append(min(cover, left, DEPTH if len(block) == 2 else left))
        left //= block[-1]
    return tuple(block)


def launch_blocks(kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], *args: Any) -> None:
    """Run `kernel` in a grid of so many blocks of so many threads; nothing to do is no error."""
    if 0 not in grid:
        start(kernel, grid, block, args)


def start(kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
    """On CuPy's current stream: what CuPy has queued there comes before the kernel, what it queues later after it.

    The driver takes all arguments as one row of bytes, each at a multiple of its own size, as C lays out a struct. To Numba an
    array is two pointers that only its own arrays have, how many elements, of how many bytes, where, its shape and its strides;
    a tuple of numbers is these numbers.
    """
    xp = array_module(args[0])
    kinds, numbers = list[Any](), list[Any]()
    for a in args:
        if isinstance(a, xp.ndarray):
            shape = a.shape
            kinds += a.dtype.char, len(shape), a.flags.c_contiguous
            numbers += 0, 0, a.size, a.itemsize, a.data.ptr, *shape, *a.strides
        elif isinstance(a, tuple):
            kinds += type(a), *map(type, a)
            numbers += a
        else:
            kinds.append(type(a))
            numbers.append(a)
    key = kernel, threading.get_ident(), xp.cuda.runtime.getDevice(), *kinds
    if key not in _ready:
        _ready[key] = _Ready(xp, kernel, args)
    ready, stream, shared = _ready[key], xp.cuda.get_current_stream().ptr, 0
    ready.layout.pack_into(ready.row, 0, *numbers)
    place = *(*grid, 1, 1)[:3], *(*block, 1, 1)[:3]
    xp.cuda.driver.launchKernel(ready.function.ptr, *place, shared, stream, 0, ctypes.addressof(ready.extra))


class _Ready:
    """A kernel compiled for arguments like these and loaded on the current device, and the row of bytes that they go into"""

    def __init__(self, xp: ModuleType, kernel: Any, args: tuple[Any, ...]) -> None:
        compiled = kernel.compile(tuple(_type(xp, a) for a in args))
        code, module = compiled.library.get_cubin(), xp.cuda.function.Module()
        module.load(getattr(code, "code", code))
        self.function = module.get_function(compiled.entry_name)
        self.layout = struct.Struct("".join(_letters(xp, a) for a in args))
        self.row, self.size = ctypes.create_string_buffer(self.layout.size), ctypes.c_size_t(self.layout.size)
        # CU_LAUNCH_PARAM_BUFFER_POINTER, CU_LAUNCH_PARAM_BUFFER_SIZE and CU_LAUNCH_PARAM_END of cuda.h
        self.extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(self.row), 2, ctypes.addressof(self.size), 0)


_ready: dict[tuple[Any, ...], _Ready] = {}  # by kernel, thread, device and types of the arguments


def _type(xp: ModuleType, a: Any) -> Any:
    """Numba's name for the type of an argument"""
    if not isinstance(a, xp.ndarray):
        return numba.typeof(a)
    return numba.types.Array(numba.from_dtype(a.dtype), a.ndim, "C" if a.flags.c_contiguous else "A")


def _letters(xp: ModuleType, a: Any) -> str:
    """An argument in the language of `struct`, whose default is C's layout"""
    if isinstance(a, tuple):
        return "".join(_letters(xp, number) for number in a)
    return f"4qQ{2 * a.ndim}q" if isinstance(a, xp.ndarray) else np.asarray(a).dtype.char

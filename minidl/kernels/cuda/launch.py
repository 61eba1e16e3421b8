"""How a kernel starts: one thread an element, in blocks of THREADS, on CuPy's current stream.

A kernel is written once for one thread. It works through an index space of one to three axes in grid-stride loops,

    j, i, k = cuda.grid(3)  # this thread among all threads; the last axis is along x, where neighbours read neighbours
    dj, di, dk = cuda.gridsize(3)  # how many threads there are along each axis
    for k in range(k, K, dk):
        ...

so that every element has exactly one thread, however many threads there are, and no two write to one place.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from numba import cuda
from numba.core import config

from minidl.array import Array, array_module

THREADS = 256  # of a block; a power of two, for the reductions
BLOCKS = 65_535  # along an axis of the grid: what CUDA allows along y and z
DEPTH = 64  # threads of a block along z: what CUDA allows

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # a small grid for a small array is no news


def launch(kernel: Any, shape: tuple[int, ...], *args: Any) -> None:
    """Run `kernel` for each index of `shape`, which has one to three axes; the first of `args` is an array."""
    block = block_for(shape)
    grid = tuple(min(-(-size // threads), BLOCKS) for size, threads in zip(shape[::-1], block, strict=True))
    launch_blocks(kernel, grid, block, *args)


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
        xp = array_module(args[0])
        kernel[grid, block, stream(xp)](*(view(a) if isinstance(a, xp.ndarray) else a for a in args))


def stream(xp: ModuleType) -> Any:
    """CuPy's current stream: what CuPy has queued there comes before the kernel, what it queues later after it."""
    return cuda.external_stream(xp.cuda.get_current_stream().ptr)


def view(x: Array) -> Any:
    """The same memory for Numba, without waiting for the stream that it is used on anyway"""
    return cuda.as_cuda_array(x, sync=False)

"""Convolution of any kind as one matrix product: im2col without the copy.

Lay a zero-padded image out row by row with a row stride of S pixels. The pixel that tap (u, v) of the kernel meets at
output position q = i S + j then lies at q + u S + v: the column of im2col for that tap is the image itself, shifted by a
constant. A convolution is a sum of shifted images, which is a matrix product without a matrix of columns:

    def example(x, w):  # x (C,H,W), w (F,C,3,3), stride 1, padding 1 -> y (F,H,W)
        (C, H, W), F = x.shape, len(w)
        S = W + 1
        planes = np.zeros((C, (H + 3) * S))
        for i in range(H):
            planes[:, (i + 1) * S + 1 :][:, :W] = x[:, i]
        y = np.zeros((F, H * S))
        for c, u, v in np.ndindex(C, 3, 3):
            y += w[:, c, u, v, None] * planes[c, u * S + v :][: H * S]
        return y.reshape(F, H, S)[:, :, :W]

The plane of an image of 4x4 pixels a ... p. One zero is the right border of a row and the left border of the next:

    . . . . .
    . a b c d       in memory:  . . . . . . a b c d . e f g h . i j k l . m n o p . . . . . .
    . e f g h
    . i j k l       S = 5; the window of a, q = 0, is at 0 1 2, 5 6 7, 10 11 12,
    . m n o p                        that of b, q = 1, is at 1 2 3, 6 7 8, 11 12 13, and so on
    . . . . .
    .               q = 4, 9, 14 and 19 belong to no pixel: they are left out when y is copied to its place

So y[f, q] = sum_k w[f, k] planes[offset[k] + q], k over channels and taps, with a table of offsets. The same product serves
everything:

- a stride s splits the image into s x s planes, one for each phase of a pixel's row and column; dilation only changes
  offsets;
- the gradient of the image is the product of gy's plane with the transposed kernel, where the taps of one phase make the
  pixels of one phase;
- the gradient of the kernel, gw[f, k] = sum_q gy[f, q] planes[offset[k] + q], meets the same planes and offsets.

The work is cut into tasks (a few images, or a band of rows of one; and some of the output channels) that fit the second-level
cache; the cut depends on shapes alone, so the bits of a result do not depend on the number of threads.

Where all lies is in direct_plan.py, the loops are in direct_loops.py, the products in registers in tiles.py.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numba import get_num_threads

from minidl.array import Array
from minidl.kernels.compiled import direct_loops as loops
from minidl.kernels.compiled.direct_plan import TASKS, Plan
from minidl.kernels.compiled.operands import Gates, Source, Target
from minidl.kernels.compiled.parallel import in_parallel
from minidl.kernels.compiled.tiles import ROWS
from minidl.kernels.shapes import Pair, Shape


class _Scratch(threading.local):
    """Memory that a thread's convolutions use one after the other"""

    def __init__(self) -> None:
        self.held: dict[str, Array] = {}

    def take(self, dtype: Any, **sizes: Pair) -> list[Array]:
        """An array (slots, size) for each name, every row on a cache line"""
        found = []
        for name, (slots, size) in sizes.items():
            size = -(-size // 16) * 16
            needed = slots * size * dtype.itemsize
            if name not in self.held or self.held[name].nbytes < needed:
                memory = np.empty(needed + 64, np.uint8)
                self.held[name] = memory[-memory.ctypes.data % 64 :]
            found.append(self.held[name][:needed].view(dtype).reshape(slots, size))
        return found


scratch = _Scratch()


def convolve(source: Source, w: Array, p: Plan, target: Target, transposed: bool = False) -> None:
    """y = bias + w (groups, rows, channels, taps) times the planes of x; `transposed`: w is (groups, channels, rows, taps)."""
    slots = get_num_threads()
    packed, planes, out = _prepare(source.x.dtype, w, p, slots, transposed)
    in_parallel(loops.convolve, slots, slots, source, packed, p, planes, out, target)


def convolve_gated(source: Source, w: Array, p: Plan, gates: Gates) -> Array:
    """The product of gy and the transposed w (1, channels, rows, taps), through `gates`

    -> (slots, 2, C): parts of sum g and of sum g (x - mean)
    """
    tasks = -(-len(source.x) // p.images) * p.bands * p.chunks
    slots = min(tasks, TASKS)  # by shape alone, so that every sum has its order
    packed, planes, out = _prepare(source.x.dtype, w, p, slots, True)
    sums = np.zeros((slots, 2, p.rows))
    in_parallel(loops.convolve_gated, slots, slots, source, packed, p, planes, out, gates, sums)
    return sums


def _prepare(dtype: Any, w: Array, p: Plan, slots: int, transposed: bool) -> list[Array]:
    """The weights as the tiles read them, and scratch memory of the slots: planes and results"""
    packed, planes, out = scratch.take(
        dtype,
        weights=(1, p.groups * p.padded * p.channels * w.shape[3]),
        planes=(slots, p.channels * len(p.phases) * p.plane),
        out=(slots, p.chunk * p.length),
    )
    in_parallel(loops.pack_tile, p.groups * -(-p.rows // ROWS), np.ascontiguousarray(w), transposed, p, packed[0])
    return [packed[0], planes, out]


def correlate(gy: Source, source: Source, w_shape: Shape, p: Plan) -> Array:
    """gw (F,C/groups,kh,kw) from gy and the planes of x"""
    F, C, kh, kw = w_shape
    rows, K, columns = F // p.groups, C * kh * kw, len(p.offsets)
    sums, dtype = p.groups * p.padded * columns, gy.x.dtype
    items, most = -(-len(gy.x) // p.images) * p.bands, 2**26 // (sums * dtype.itemsize)
    slots = min(items, max(1, TASKS // p.chunks), max(2, most))  # by shape alone, so that every sum has its order
    units = slots * p.chunks
    planes, out, gw = scratch.take(
        dtype, planes=(units, C * len(p.phases) * p.plane), out=(units, p.chunk * p.length), sums=(slots, sums)
    )
    in_parallel(loops.correlate, units, units, gy, source, p, planes, out, gw)
    return gw[:, :sums].sum(axis=0).reshape(p.groups, p.padded, columns)[:, :rows, :K].reshape(w_shape)

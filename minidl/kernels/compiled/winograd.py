"""Convolution with a 3x3 kernel and stride 1 in 16 instead of 36 products for every four pixels, after Winograd.

Take a tile of 2x2 pixels of y, the 4x4 pixels d of the image that their windows see, and the kernel g. Then

    y = A^T [ (G g G^T) * (B^T d B) ] A          with * element by element

for matrices that hold hardly anything but 0, 1 and -1 (Lavin and Gray 2016, "Fast algorithms for convolutional neural
networks", section 4.1). With the sum over the channels, tile by tile:

    def example(x, w):  # x (C,H,W), H and W even, w (F,C,3,3), padding 1 -> y (F,H,W)
        A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
        B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
        G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
        planes, y = np.pad(x, ((0, 0), (1, 1), (1, 1))), np.empty((len(w), *x.shape[1:]))
        U = G @ w @ G.T  # (F,C,4,4)
        for i in range(0, x.shape[1], 2):
            for j in range(0, x.shape[2], 2):
                V = B.T @ planes[:, i : i + 4, j : j + 4] @ B  # (C,4,4)
                y[:, i : i + 2, j : j + 2] = A.T @ (U * V).sum(axis=1) @ A
        return y

For all tiles q at once, the product element by element is a matrix product for each of the 16 places t of a tile,

    Y[t][q, f] = sum_c V[t][q, c] U[t][c, f],    U = G g G^T, V = B^T d B,

and so is the gradient of the kernel, the adjoint of the same steps: gw = G^T [ sum_q (A gy A^T) * (B^T d B) ] G. The gradient
of the image is a convolution of gy with the turned kernel.

Images are packed with their channels side by side, so that a vector holds one pixel of as many channels: then B^T d B is a
sum of whole vectors. An image of 4x4 pixels a ... p has four tiles of 2x2, each of which sees 4x4, two of them shared:

    . . . . . .                                          the tile of a b e f sees  . . . .
    . a b c d .     in memory, with two channels:                                  . a b c
    . e f g h .     ..............a0 a1 b0 b1 c0 c1 ...                            . e f g
    . i j k l .                                                                    . i j k
    . m n o p .
    . . . . . .     V: [t][q][channel]   U: [t][feature div width][channel][feature mod width]   Y: [t][q][feature]

The work is cut into bands, of one image each, and a task takes a few of them: winograd_plan.py. The loops are in
winograd_loops.py, what they do with vectors in winograd_transforms.py, the products in registers in tiles.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import get_num_threads

from minidl.array import Array
from minidl.kernels.compiled import winograd_loops as loops
from minidl.kernels.compiled.direct import scratch
from minidl.kernels.compiled.direct_plan import TASKS
from minidl.kernels.compiled.operands import Gates, Source, Target
from minidl.kernels.compiled.parallel import in_parallel
from minidl.kernels.compiled.vectors import VECTOR
from minidl.kernels.compiled.winograd_plan import Plan, T, filled_up, plan
from minidl.kernels.shapes import Pair, Shape

APART = 16  # numbers between two places: a whole number of pages apart, all would compete for a few cache lines
CHANNELS, CHANNELS_CORRELATION = (24, 512), (16, 128)  # fewer do not pay for the transforms, more outgrow the cache
CHANNELS_DENSE = (8, 512)  # in dense blocks, which write few channels
SMALLEST, FEWEST = 7, 4096  # height and width; pixels of all images, which pay for U


@lru_cache(1024)
def pays(x: Shape, w: Shape, y: Shape, stride: Pair, dilation: Pair, channels: Pair) -> bool:
    """Whether the convolution from x to y, of these shapes, can be computed here and, as measured, takes less time so."""
    kind = w[2:] == (3, 3) and stride == dilation == (1, 1) and w[0] * w[1] == x[1] * y[1]  # one group
    enough = channels[0] <= min(x[1], y[1]) and max(x[1], y[1]) <= channels[1]
    return kind and enough and min(y[2:]) >= SMALLEST and y[0] * y[2] * y[3] >= FEWEST


def convolve(source: Source, w: Array, padding: Pair, target: Target, turned: bool = False) -> None:
    """y = bias + w (F,C,3,3) over x; `turned`: with the turned kernel, whose channels in and out change places"""
    p, slots = _plan(source, target.channels, target.y.shape, padding), get_num_threads()
    u, memory, _ = _prepare(source, w, p, slots, turned)
    in_parallel(loops.convolve, slots, slots, source, u, p, memory, target)


def convolve_gated(source: Source, w: Array, padding: Pair, gates: Gates) -> Array:
    """With g the gradient of scale x + shift, from that of the output of w (F,C,3,3): gx[:, :C] += scale g, or =

    `padding` is that of the convolution. -> (slots, 2, C): parts of sum g and of sum g (x - mean)
    """
    C, x = w.shape[1], gates.x
    p = _plan(source, C, x.shape, (2 - padding[0], 2 - padding[1]))
    slots = _slots(p, len(x))
    u, memory, lines = _prepare(source, w, p, slots, True)
    sums = np.zeros((slots, 2, C))
    in_parallel(loops.convolve_gated, slots, slots, source, u, p, memory, lines, gates, sums)
    return sums


def correlate(gy: Source, source: Source, padding: Pair) -> Array:
    """gw (F,C,3,3)"""
    x, F, C = source.x, gy.channels, source.channels
    p = _plan(source, F, gy.x.shape, padding)
    slots, rows, channels = _slots(p, len(x)), p.made.channels, p.seen.channels
    *memory, sums = scratch.take(
        x.dtype,
        planes=(slots, p.together * p.seen.size * channels),
        out=(slots, p.together * p.made.size * rows),
        places=(slots, T * (p.block * channels + APART)),
        products=(slots, T * (p.block * rows + APART)),
        sums=(slots, T * rows * channels),
    )
    in_parallel(loops.correlate, slots, slots, gy, source, p, tuple(memory), sums)
    gw = np.empty((F, C, 3, 3), x.dtype)
    in_parallel(loops.kernel_gradient, F, sums, rows, channels, x.dtype.type(0.5), gw)
    return gw


def _plan(source: Source, F: int, y_shape: Shape, padding: Pair) -> Plan:
    x, itemsize = source.x, source.x.itemsize
    channels = filled_up(source.channels, itemsize), filled_up(F, itemsize)
    return plan(len(x), x.shape[3], (y_shape[2], y_shape[3]), padding, channels, itemsize)


def _slots(p: Plan, N: int) -> int:
    """By shape alone, so that every sum has its order"""
    return min(TASKS, -(-N * p.bands // p.together))


def _prepare(source: Source, w: Array, p: Plan, slots: int, turned: bool) -> tuple[Array, tuple[Array, ...], Array]:
    """U; scratch memory: planes, places, products, pixels; and that for lines of pixels on their way through the gates"""
    dtype: Any = source.x.dtype
    C, lanes, channels, rows = source.channels, VECTOR // dtype.itemsize, p.seen.channels, p.made.channels
    u, *memory, lines = scratch.take(
        dtype,
        weights=(1, T * rows * C),
        planes=(slots, p.together * p.seen.size * channels),
        places=(slots, T * (p.block * channels + APART)),
        products=(slots, T * (p.block * rows + APART)),
        out=(slots, p.together * p.made.size * rows),
        lines=(slots, lanes * (len(p.made.pixels) + APART)),
    )
    w = np.ascontiguousarray(w).reshape(*w.shape[:2], 9)
    in_parallel(loops.kernel_places, C, w, turned, dtype.type(0.5), min(rows, 2 * lanes), rows, u[0])
    return u[0], tuple(memory), lines

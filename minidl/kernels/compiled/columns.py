"""Convolution of few pixels between many channels: im2col with the copy, after which nothing moves but the weights.

Behind the last stages of a net come images of 2x2 or 4x4 pixels and kernels of millions of weights. What takes time is to
bring the weights, so they are read once and where they lie, a row w[f] of K = C kh kw numbers behind the other. The pixels
under the window of position q are copied into a row of their own, columns[q, k], and the three products are those of the
textbook:

    y[f, q]        = sum_k w[f, k] columns[q, k]
    gcolumns[q, k] = sum_f gy[f, q] w[f, k],     which is then added up to gx (col2im)
    gw[f, k]       = sum_q gy[f, q] columns[q, k]

With a table of pixels in place of the geometry:

    def example(x, w):  # x (C,H,W), w (F,C,3,3), padding 1 -> y (F,H,W)
        (C, H, W), F = x.shape, len(w)
        i, j, u, v = np.indices((H, W, 3, 3)).reshape(4, H * W, 9)
        row, column = i + u - 1, j + v - 1
        inside = (0 <= row) & (row < H) & (0 <= column) & (column < W)
        pixels = np.where(inside, row * W + column, -1)  # (Q, 9)
        padded = np.append(x.reshape(C, H * W), np.zeros((C, 1)), axis=1)  # pixel -1 is 0
        columns = padded[:, pixels].swapaxes(0, 1).reshape(H * W, C * 9)
        return (w.reshape(F, C * 9) @ columns.T).reshape(F, H, W)

Of an image of 4x4 pixels the first window sees -1 -1 -1, -1 0 1, -1 4 5, the second -1 -1 -1, 0 1 2, 4 5 6.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, njit

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled.direct import scratch
from minidl.kernels.compiled.direct_loops import DEPTH
from minidl.kernels.compiled.parallel import in_parallel
from minidl.kernels.compiled.tiles import COLUMNS, ROWS, dot_tile, tile
from minidl.kernels.compiled.vectors import VECTOR, address
from minidl.kernels.shapes import Pair, Shape

MOST, MOST_CORRELATION = 512, 2048  # positions of windows, beyond which `direct` is faster
LEAST = 1 << 16  # weights
APART = 16  # numbers between two rows: a whole number of pages apart, all rows would compete for a few cache lines
_compiled: Any = kept(njit(nogil=True, error_model="numpy"))


@lru_cache(1024)
def pays(w: Shape, y: Shape, groups: int, itemsize: int, most: int) -> bool:
    """Whether the convolution by w to y, of these shapes, can be computed here and, as measured, takes less time so."""
    F, C, kh, kw = w
    weights = groups == 1 and F % ROWS == 0 and C % _channels(kh * kw, itemsize) == 0 and F * C * kh * kw >= LEAST
    return weights and y[0] * y[2] * y[3] <= most


@lru_cache(64)  # unlike a plan, a table of up to a few hundred KiB
def _pixels(N: int, C: int, size: Pair, out: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """(Q, kh kw): where in x, as a vector, channel 0 of the pixel under tap (u, v) at position q = (n, i, j) lies; else -1"""
    (H, W), (OH, OW) = size, out
    n, i, j, u, v = np.indices((N, OH, OW, *kernel_size)).reshape(5, N * OH * OW, -1)
    row, column = i * stride[0] + u * dilation[0] - padding[0], j * stride[1] + v * dilation[1] - padding[1]
    inside = (0 <= row) & (row < H) & (0 <= column) & (column < W)
    return np.where(inside, n * C * H * W + row * W + column, -1)


@lru_cache(1024)
def _starts(count: int, apart: int) -> Array:
    """Where rows begin that lie `apart`; the last of them also for those that fill up the last tile"""
    return np.minimum(np.arange(-(-count // COLUMNS) * COLUMNS), count - 1) * apart


def _channels(taps: int, itemsize: int) -> int:
    """The least number of channels whose weights fill whole tiles"""
    width = COLUMNS * VECTOR // itemsize
    return width // gcd(width, taps)


class Windows(NamedTuple):
    """Which pixels stand in the columns, and how the columns lie"""

    pixels: Array  # (Q, kh kw), see `_pixels`
    plane: int  # numbers from channel to channel of x
    block: int  # channels whose columns are in memory at a time
    apart: int  # numbers from row to row of the columns


@_compiled
def _gather(x, c0, p, first, last, columns):
    """columns[q - first, c taps + t] = x[pixels[q, t]] in channel c0 + c, 0 outside, first <= q < last"""
    taps, zero = p.pixels.shape[1], x.dtype.type(0)
    for q in range(first, last):
        for t in range(taps):
            at, pixel = (q - first) * p.apart + t, p.pixels[q, t]
            if pixel < 0:
                for c in range(p.block):
                    columns[np.uintp(at + c * taps)] = zero
            else:
                pixel += c0 * p.plane
                for c in range(p.block):
                    columns[np.uintp(at + c * taps)] = x[np.uintp(pixel + c * p.plane)]


@_compiled
def _scatter(columns, c0, p, gx):
    """gx[pixels[q, t]] in channel c0 + c += columns[q, c taps + t]"""
    Q, taps = p.pixels.shape
    for q in range(Q):
        for t in range(taps):
            at, pixel = q * p.apart + t, p.pixels[q, t]
            if pixel >= 0:
                pixel += c0 * p.plane
                for c in range(p.block):
                    gx[np.uintp(pixel + c * p.plane)] += columns[np.uintp(at + c * taps)]


@_compiled
def _gather_all(slot, slots, x, p, columns):
    Q = len(p.pixels)
    first, last = slot * Q // slots, (slot + 1) * Q // slots
    _gather(x, 0, p, first, last, columns[first * p.apart :])


@_compiled
def _forward(slot, slots, w, columns, starts, bias, sums, y):
    """y[n, f, p] = bias[f] + sum_k w[f, k] columns[n P + p, k]"""
    (N, F, P), Q, lanes = y.shape, len(starts), VECTOR // w.itemsize
    K = len(w) // F
    first, last = slot * (F // ROWS) // slots * ROWS, (slot + 1) * (F // ROWS) // slots * ROWS
    sums[first * Q : last * Q] = 0
    for k in range(0, K, DEPTH):  # so much of ROWS rows of w stays in the first-level cache, all columns in the second
        deep = min(DEPTH, K - k)
        for f in range(first, last, ROWS):
            for q in range(0, Q, COLUMNS):
                rows, found = address(w, f * K + k), address(sums, f * Q + q)
                dot_tile(rows, K, address(columns, k), address(starts, q), deep // lanes, found, Q)
    for n in range(N):
        for f in range(first, last):
            for p in range(P):
                total = sums[np.uintp(f * Q + n * P + p)]
                y[n, f, p] = total + bias[f] if len(bias) else total


@_compiled
def _pack(slot, slots, gy, by_position, out):
    """gy in the order in which `tile` reads it: [q0][f][q] or, `by_position`, [f0][q][f]; 0 beyond the last position"""
    (N, F, P), zero = gy.shape, gy.dtype.type(0)
    Q = N * P
    if by_position:
        for f in range(slot * F // slots, (slot + 1) * F // slots):
            f0, m = divmod(f, ROWS)
            for q in range(Q):
                out[(f0 * Q + q) * ROWS + m] = gy[q // P, f, q % P]
    else:
        for f in range(slot * F // slots, (slot + 1) * F // slots):
            for q in range(-(-Q // ROWS) * ROWS):
                q0, m = divmod(q, ROWS)
                out[(q0 * F + f) * ROWS + m] = gy[q // P, f, q % P] if q < Q else zero


@_compiled
def _grad_x(slot, slots, g, w, starts, p, sums, gx):
    """gx = col2im of sum_f gy[f, q] w[f, k], block by block of the channels"""
    (Q, taps), lanes, F = p.pixels.shape, VECTOR // w.itemsize, len(starts)
    mine, blocks = sums[slot], len(w) // F // taps // p.block
    for b in range(slot * blocks // slots, (slot + 1) * blocks // slots):
        c0 = b * p.block
        for k in range(0, p.block * taps, COLUMNS * lanes):
            for q in range(0, Q, ROWS):
                weights, found = address(w, c0 * taps + k), address(mine, q * p.apart + k)
                tile(address(g, q * F), ROWS, 1, weights, address(starts, 0), F, found, p.apart, False)
        for n in range(len(gx)):
            gx[n, c0 * p.plane : (c0 + p.block) * p.plane] = 0
        _scatter(mine, c0, p, gx.reshape(gx.size))


@_compiled
def _grad_w(slot, slots, g, x, F, starts, p, columns, gw):
    """gw[f, k] = sum_q gy[f, q] columns[q, k], block by block of the channels"""
    (Q, taps), lanes, K = p.pixels.shape, VECTOR // x.itemsize, len(gw) // F
    mine, blocks = columns[slot], K // taps // p.block
    for b in range(slot * blocks // slots, (slot + 1) * blocks // slots):
        _gather(x, b * p.block, p, 0, Q, mine)
        for k in range(0, p.block * taps, COLUMNS * lanes):
            for f in range(0, F, ROWS):
                seen, found = address(mine, k), address(gw, f * K + b * p.block * taps + k)
                tile(address(g, f * Q), ROWS, 1, seen, address(starts, 0), Q, found, K, False)


# ---- calling them


def conv2d(x: Array, w: Array, bias: Array, y: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """y = bias + w (F,C,kh,kw) over x"""
    (N, C, H, W), (F, _, *kernel_size), (OH, OW) = x.shape, w.shape, y.shape[2:]
    pixels = _pixels(N, C, (H, W), (OH, OW), tuple(kernel_size), stride, padding, dilation)
    Q, slots = len(pixels), get_num_threads()
    p = Windows(pixels, H * W, C, w.size // F + APART)
    starts = _starts(Q, p.apart)
    columns, sums = scratch.take(x.dtype, planes=(1, Q * p.apart), out=(1, F * len(starts)))
    in_parallel(_gather_all, slots, slots, x.reshape(-1), p, columns[0])
    w = np.ascontiguousarray(w).reshape(-1)
    in_parallel(_forward, slots, slots, w, columns[0], starts, bias, sums[0], y.reshape(N, F, OH * OW))


def conv2d_grad_x(gy: Array, w: Array, gx: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """gx from gy (N,F,OH,OW) and w (F,C,kh,kw)"""
    (N, C, H, W), (F, _, *kernel_size), (OH, OW) = gx.shape, w.shape, gy.shape[2:]
    pixels = _pixels(N, C, (H, W), (OH, OW), tuple(kernel_size), stride, padding, dilation)
    (Q, taps), slots = pixels.shape, get_num_threads()
    block, rows = _channels(taps, gy.itemsize), -(-Q // ROWS) * ROWS
    p = Windows(pixels, H * W, block, block * taps + APART)
    g, sums = scratch.take(gy.dtype, weights=(1, rows * F), out=(slots, rows * p.apart))
    in_parallel(_pack, slots, slots, gy.reshape(N, F, OH * OW), False, g[0])
    w = np.ascontiguousarray(w).reshape(-1)
    starts = np.arange(F) * (len(w) // F)
    in_parallel(_grad_x, slots, slots, g[0], w, starts, p, sums, gx.reshape(N, -1))


def conv2d_grad_w(gy: Array, x: Array, gw: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """gw (F,C,kh,kw) from gy (N,F,OH,OW) and x (N,C,H,W)"""
    (N, C, H, W), (F, _, *kernel_size), (OH, OW) = x.shape, gw.shape, gy.shape[2:]
    pixels = _pixels(N, C, (H, W), (OH, OW), tuple(kernel_size), stride, padding, dilation)
    (Q, taps), slots = pixels.shape, get_num_threads()
    block = _channels(taps, x.itemsize)
    p = Windows(pixels, H * W, block, block * taps + APART)
    g, columns = scratch.take(x.dtype, weights=(1, Q * F), planes=(slots, Q * p.apart))
    in_parallel(_pack, slots, slots, gy.reshape(N, F, OH * OW), True, g[0])
    starts = _starts(Q, p.apart)
    in_parallel(_grad_w, slots, slots, g[0], x.reshape(-1), F, starts, p, columns, gw.reshape(-1))

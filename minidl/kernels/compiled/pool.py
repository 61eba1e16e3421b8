"""Pooling in Numba: one plane (picture and channel) at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.compiled.parallel import SLOTS, in_parallel
from minidl.kernels.compiled.vectors import copy, copy_every_second
from minidl.kernels.reference import Pair, Shape

_compiled: Any = njit(cache=True, nogil=True, error_model="numpy")


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair, out: Pair) -> tuple[Array, Array]:
    """y[n,c,i,j] = max_{u,v} x[n,c, i*s + u - p, j*s + v - p], padded with -inf; winner: the u*kw + v of the first maximum"""
    y = np.empty((*x.shape[:2], *out), x.dtype)
    winner = np.empty(y.shape, np.int32)
    in_parallel(_max_pool2d, SLOTS, np.ascontiguousarray(x), *kernel, *stride, *padding, y, winner)
    return y, winner


def max_pool2d_grad(gy: Array, winner: Array, x_shape: Shape, kernel: Pair, stride: Pair, padding: Pair) -> Array:
    """gx at the winner of each window += gy of that window"""
    gx = np.empty(x_shape, gy.dtype)
    gy, winner = np.ascontiguousarray(gy), np.ascontiguousarray(winner)
    in_parallel(_max_pool2d_grad, SLOTS, gy, winner, kernel[1], *stride, *padding, gx)
    return gx


def avg_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Pair, out: Pair, count_include_pad: bool) -> Array:
    """y[n,c,i,j] = sum_{u,v} x[n,c, i*s + u - p, j*s + v - p] / count[i,j]"""
    y = np.empty((*x.shape[:2], *out), x.dtype)
    in_parallel(_avg_pool2d, SLOTS, np.ascontiguousarray(x), *kernel, *stride, *padding, count_include_pad, y)
    return y


def avg_pool2d_grad(gy: Array, x_shape: Shape, kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Array:
    """gx[n,c, i*s + u - p, j*s + v - p] += gy[n,c,i,j] / count[i,j]"""
    gx = np.empty(x_shape, gy.dtype)
    in_parallel(_avg_pool2d_grad, SLOTS, np.ascontiguousarray(gy), *kernel, *stride, *padding, count_include_pad, gx)
    return gx


@_compiled
def _max_pool2d(slot, x, kh, kw, sh, sw, ph, pw, y, winner):
    """Row by row and tap by tap, since a slice, or a row of y, would cost more than its few dozen numbers"""
    (N, C, H, W), (OH, OW) = x.shape, y.shape[2:]
    flat, pixels, most, taps = x.reshape(x.size), np.empty(OW, x.dtype), np.empty(OW, x.dtype), np.empty(OW, np.int32)
    for row in range(slot * N * C * OH // SLOTS, (slot + 1) * N * C * OH // SLOTS):
        nc, i = divmod(row, OH)
        most[:], taps[:] = -np.inf, 0
        for u in range(max(0, ph - i * sh), min(kh, H + ph - i * sh)):
            for v in range(kw):
                first = max(0, -((v - pw) // sw))  # of the windows whose tap v is inside the picture
                end = max(first, min(OW, (W - 1 - v + pw) // sw + 1))
                at = (nc * H + i * sh + u - ph) * W + first * sw + v - pw
                pixels[:] = -np.inf
                if sw == 1:
                    copy(pixels, first, x, at, end - first)
                elif sw == 2:
                    copy_every_second(pixels, first, x, at, end - first)
                else:
                    for j in range(end - first):
                        pixels[first + j] = flat[np.uintp(at + j * sw)]
                tap = np.int32(u * kw + v)
                for j in range(len(most)):
                    value, best = pixels[j], most[j]
                    more = (value > best) | ((value != value) & (best == best))  # the first NaN wins, as in NumPy
                    most[j] = value if more else best
                    taps[j] = tap if more else taps[j]
        copy(y, row * OW, most, 0, OW)
        copy(winner, row * OW, taps, 0, OW)


@_compiled
def _max_pool2d_grad(slot, gy, winner, kw, sh, sw, ph, pw, gx):
    (N, C, H, W), (OH, OW) = gx.shape, gy.shape[2:]
    for nc in range(slot * N * C // SLOTS, (slot + 1) * N * C // SLOTS):
        n, c = divmod(nc, C)
        source, place, target = gy[n, c], winner[n, c], gx[n, c]
        target[:] = 0
        for i in range(OH):
            for j in range(OW):
                y, x = i * sh - ph + place[i, j] // kw, j * sw - pw + place[i, j] % kw
                if 0 <= y < H and 0 <= x < W:  # a window of -inf alone may have its winner in the padding
                    target[y, x] += source[i, j]


@njit(cache=True, nogil=True)
def _count(i, size, k, s, p, with_pad):
    """how many pixels of an axis window i averages"""
    low, high = (-p, size + p) if with_pad else (0, size)
    return min(i * s - p + k, high) - max(i * s - p, low)


@_compiled
def _avg_pool2d(slot, x, kh, kw, sh, sw, ph, pw, with_pad, y):
    (N, C, H, W), (OH, OW) = x.shape, y.shape[2:]
    for nc in range(slot * N * C // SLOTS, (slot + 1) * N * C // SLOTS):
        n, c = divmod(nc, C)
        source, target = x[n, c], y[n, c]
        for i in range(OH):
            top, rows = i * sh - ph, _count(i, H, kh, sh, ph, with_pad)
            for j in range(OW):
                left, total = j * sw - pw, x.dtype.type(0)
                for u in range(max(0, -top), min(kh, H - top)):
                    for v in range(max(0, -left), min(kw, W - left)):
                        total += source[top + u, left + v]
                target[i, j] = total / (rows * _count(j, W, kw, sw, pw, with_pad))


@_compiled
def _avg_pool2d_grad(slot, gy, kh, kw, sh, sw, ph, pw, with_pad, gx):
    (N, C, H, W), (OH, OW) = gx.shape, gy.shape[2:]
    for nc in range(slot * N * C // SLOTS, (slot + 1) * N * C // SLOTS):
        n, c = divmod(nc, C)
        source, target = gy[n, c], gx[n, c]
        target[:] = 0
        for i in range(OH):
            top, rows = i * sh - ph, _count(i, H, kh, sh, ph, with_pad)
            for j in range(OW):
                left = j * sw - pw
                share = gx.dtype.type(source[i, j] / (rows * _count(j, W, kw, sw, pw, with_pad)))
                for u in range(max(0, -top), min(kh, H - top)):
                    for v in range(max(0, -left), min(kw, W - left)):
                        target[top + u, left + v] += share

"""Pooling in Numba: one plane (image and channel) at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled.parallel import SLOTS, in_parallel
from minidl.kernels.compiled.vectors import address, copy, copy_strided
from minidl.kernels.shapes import Pair, Shape

_compiled: Any = kept(njit(nogil=True, error_model="numpy"))


def max_pool2d(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, out: Pair) -> tuple[Array, Array]:
    """y[n,c,i,j] = max_{u,v} x[n,c, i*s + u - p, j*s + v - p], padded with -inf; argmax: the u*kw + v of the first maximum"""
    y = np.empty((*x.shape[:2], *out), x.dtype)
    argmax = np.empty(y.shape, np.int32)
    lines, taps = np.empty((SLOTS, 2, out[1]), x.dtype), np.empty((SLOTS, out[1]), np.int32)  # a row of y for each slot
    in_parallel(_max_pool2d, SLOTS, np.ascontiguousarray(x), *kernel_size, *stride, *padding, lines, taps, y, argmax)
    return y, argmax


def max_pool2d_grad(gy: Array, argmax: Array, x_shape: Shape, kernel_size: Pair, stride: Pair, padding: Pair) -> Array:
    """gx at the maximum of each window += gy of that window"""
    gx = np.empty(x_shape, gy.dtype)
    gy, argmax = np.ascontiguousarray(gy), np.ascontiguousarray(argmax)
    in_parallel(_max_pool2d_grad, SLOTS, gy, argmax, kernel_size[1], *stride, *padding, gx)
    return gx


def avg_pool2d(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, out: Pair, count_include_pad: bool) -> Array:
    """y[n,c,i,j] = sum_{u,v} x[n,c, i*s + u - p, j*s + v - p] / count[i,j]"""
    y = np.empty((*x.shape[:2], *out), x.dtype)
    lines = np.empty((SLOTS, 2, out[1]), x.dtype)
    in_parallel(_avg_pool2d, SLOTS, np.ascontiguousarray(x), *kernel_size, *stride, *padding, count_include_pad, lines, y)
    return y


def avg_pool2d_grad(
    gy: Array, x_shape: Shape, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Array:
    """gx[n,c, i*s + u - p, j*s + v - p] += gy[n,c,i,j] / count[i,j]"""
    gx = np.empty(x_shape, gy.dtype)
    rows, shares = np.empty((SLOTS, x_shape[3]), gy.dtype), np.empty((SLOTS, gy.shape[3]), gy.dtype)
    geometry = *kernel_size, *stride, *padding, count_include_pad
    in_parallel(_avg_pool2d_grad, SLOTS, np.ascontiguousarray(gy), *geometry, rows, shares, gx)
    return gx


@_compiled
def _max_pool2d(slot, x, kh, kw, sh, sw, ph, pw, lines, all_taps, y, argmax):
    """Row by row and tap by tap, since a slice, or a row of y, would cost more than its few dozen numbers"""
    (N, C, H, W), (OH, OW) = x.shape, y.shape[2:]
    pixels, most, taps = lines[slot, 0], lines[slot, 1], all_taps[slot]
    for row in range(slot * N * C * OH // SLOTS, (slot + 1) * N * C * OH // SLOTS):
        nc, i = divmod(row, OH)
        most[:], taps[:] = -np.inf, max(0, ph - i * sh) * kw
        for j in range(min(OW, -(-pw // sw))):  # the first cell in the image, which wins if all are -inf
            taps[j] += pw - j * sw
        for u in range(max(0, ph - i * sh), min(kh, H + ph - i * sh)):
            for v in range(kw):
                first, n = _inside(v - pw, sw, W, OW)
                pixels[:] = -np.inf
                seen = address(x, (nc * H + i * sh + u - ph) * W + first * sw + v - pw)
                copy_strided(address(pixels, first), seen, sw, n)
                tap = np.int32(u * kw + v)
                for j in range(len(most)):
                    value, best = pixels[j], most[j]
                    more = (value > best) | ((value != value) & (best == best))  # the first NaN wins, as in NumPy
                    most[j] = value if more else best
                    taps[j] = tap if more else taps[j]
        copy(address(y, row * OW), address(most, 0), OW)
        copy(address(argmax, row * OW), address(taps, 0), OW)


@kept(njit(nogil=True, error_model="numpy"))
def _inside(v, step, W, windows):
    """the first window whose tap at j step + v is inside a row of W pixels, and how many there are"""
    first = max(0, -(v // step))
    return first, max(0, min(windows, (W - 1 - v) // step + 1) - first)


@_compiled
def _max_pool2d_grad(slot, gy, argmax, kw, sh, sw, ph, pw, gx):
    (N, C, H, W), (OH, OW) = gx.shape, gy.shape[2:]
    for nc in range(slot * N * C // SLOTS, (slot + 1) * N * C // SLOTS):
        n, c = divmod(nc, C)
        source, place, target = gy[n, c], argmax[n, c], gx[n, c]
        target[:] = 0
        for i in range(OH):
            for j in range(OW):
                y, x = i * sh - ph + place[i, j] // kw, j * sw - pw + place[i, j] % kw
                if 0 <= y < H and 0 <= x < W:  # as for every maximum that `max_pool2d` found
                    target[y, x] += source[i, j]


@kept(njit(nogil=True, error_model="numpy"))
def _counts(dtype, size, windows, k, s, p, with_pad):
    """how many pixels of an axis of `size` each of the windows averages"""
    counts = np.empty(windows, dtype)
    for i in range(windows):
        low, high = (-p, size + p) if with_pad else (0, size)
        counts[i] = min(i * s - p + k, high) - max(i * s - p, low)
    return counts


@_compiled
def _avg_pool2d(slot, x, kh, kw, sh, sw, ph, pw, with_pad, lines, y):
    (N, C, H, W), (OH, OW) = x.shape, y.shape[2:]
    pixels, total = lines[slot, 0], lines[slot, 1]
    rows, columns = _counts(x.dtype, H, OH, kh, sh, ph, with_pad), _counts(x.dtype, W, OW, kw, sw, pw, with_pad)
    for row in range(slot * N * C * OH // SLOTS, (slot + 1) * N * C * OH // SLOTS):
        nc, i = divmod(row, OH)
        total[:] = 0
        for u in range(max(0, ph - i * sh), min(kh, H + ph - i * sh)):
            for v in range(kw):
                first, n = _inside(v - pw, sw, W, OW)
                pixels[:] = 0
                seen = address(x, (nc * H + i * sh + u - ph) * W + first * sw + v - pw)
                copy_strided(address(pixels, first), seen, sw, n)
                for j in range(len(total)):
                    total[j] += pixels[j]
        for j in range(len(total)):
            total[j] /= rows[i] * columns[j]
        copy(address(y, row * OW), address(total, 0), OW)


@_compiled
def _avg_pool2d_grad(slot, gy, kh, kw, sh, sw, ph, pw, with_pad, all_rows, shares, gx):
    (N, C, H, W), (OH, OW) = gx.shape, gy.shape[2:]
    flat, total, share = gy.reshape(gy.size), all_rows[slot], shares[slot]
    rows, columns = _counts(gy.dtype, H, OH, kh, sh, ph, with_pad), _counts(gy.dtype, W, OW, kw, sw, pw, with_pad)
    for row in range(slot * N * C * H // SLOTS, (slot + 1) * N * C * H // SLOTS):
        nc, at = divmod(row, H)
        total[:], at = 0, at + ph
        for i in range(max(0, (at - kh) // sh + 1), min(OH, at // sh + 1)):  # the windows that see this row of gx
            for j in range(OW):
                share[j] = flat[np.uintp((nc * OH + i) * OW + j)] / (rows[i] * columns[j])
            for v in range(kw):
                first, n = _inside(v - pw, sw, W, OW)
                for j in range(first, first + n):
                    total[np.uintp(j * sw + v - pw)] += share[np.uintp(j)]
        copy(address(gx, row * W), address(total, 0), W)

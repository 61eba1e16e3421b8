"""Pooling: forward a thread a window, backward a thread a pixel, which gathers from the windows that hold it."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import launch
from minidl.kernels.cuda.windows import first_window, last_window
from minidl.kernels.shapes import Pair, Shape


def max_pool2d(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, out: Pair) -> tuple[Array, Array]:
    """y[n,c,i,j] = max_{u,v} x[n,c, i*s + u - p, j*s + v - p], padded with -inf; argmax: the u*kw + v of the first maximum"""
    xp = array_module(x)
    y = xp.empty((*x.shape[:2], *out), x.dtype)
    argmax = xp.empty(y.shape, xp.int32)
    _launch(_max_pool2d, _planes(x), *kernel_size, *stride, *padding, _planes(argmax), _planes(y))
    return y, argmax


def max_pool2d_grad(gy: Array, argmax: Array, x_shape: Shape, kernel_size: Pair, stride: Pair, padding: Pair) -> Array:
    """gx at the maximum of each window += gy of that window"""
    gx = array_module(gy).empty(x_shape, gy.dtype)
    _launch(_max_pool2d_grad, _planes(gy), _planes(argmax), *kernel_size, *stride, *padding, _planes(gx))
    return gx


def avg_pool2d(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, out: Pair, count_include_pad: bool) -> Array:
    """y[n,c,i,j] = sum_{u,v} x[n,c, i*s + u - p, j*s + v - p] / count[i,j]"""
    y = array_module(x).empty((*x.shape[:2], *out), x.dtype)
    _launch(_avg_pool2d, _planes(x), *kernel_size, *stride, *padding, count_include_pad, _planes(y))
    return y


def avg_pool2d_grad(
    gy: Array, x_shape: Shape, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Array:
    """gx[n,c, i*s + u - p, j*s + v - p] += gy[n,c,i,j] / count[i,j]"""
    gx = array_module(gy).empty(x_shape, gy.dtype)
    _launch(_avg_pool2d_grad, _planes(gy), *kernel_size, *stride, *padding, count_include_pad, _planes(gx))
    return gx


def _planes(x: Array) -> Array:
    """(N,C,H,W) as (N*C,H,W)"""
    return array_module(x).ascontiguousarray(x).reshape(-1, *x.shape[2:])


def _launch(kernel: object, *args: object) -> None:
    """A thread for each element of the last argument, which is the result"""
    launch(kernel, args[-1].shape, *args)  # type: ignore[attr-defined]


@kept(cuda.jit)
def _max_pool2d(x, kh, kw, sh, sw, ph, pw, argmax, y):
    """y[plane,i,j] = max_{u,v} x[plane, i*s + u - p, j*s + v - p], for a thread each"""
    planes, OH, OW = y.shape
    zero = np.float32(0)
    H, W = x.shape[1], x.shape[2]
    first_j, first_i, first_plane = cuda.grid(3)
    dj, di, dplane = cuda.gridsize(3)
    for plane in range(first_plane, planes, dplane):
        for i in range(first_i, OH, di):
            for j in range(first_j, OW, dj):
                top, left = i * sh - ph, j * sw - pw
                best, cell = np.float32(-math.inf), max(0, -top) * kw + max(0, -left)  # the first cell in the image
                for u in range(max(0, -top), min(kh, H - top)):
                    for v in range(max(0, -left), min(kw, W - left)):
                        value = zero + x[plane, top + u, left + v]  # of halves, float32
                        if value > best or (value != value and best == best):  # the first NaN wins, as in NumPy
                            best, cell = value, u * kw + v
                y[plane, i, j] = best
                argmax[plane, i, j] = cell


@kept(cuda.jit)
def _max_pool2d_grad(gy, argmax, kh, kw, sh, sw, ph, pw, gx):
    """gx[plane,y,z] = sum of gy[plane,i,j] over the windows i, j that pixel y, z has won"""
    planes, H, W = gx.shape
    OH, OW = gy.shape[1], gy.shape[2]
    first_z, first_y, first_plane = cuda.grid(3)
    dz, dy, dplane = cuda.gridsize(3)
    for plane in range(first_plane, planes, dplane):
        for y in range(first_y, H, dy):
            for z in range(first_z, W, dz):
                total = np.float32(0)
                for i in range(first_window(y + ph, kh, sh), last_window(y + ph, sh, OH)):
                    for j in range(first_window(z + pw, kw, sw), last_window(z + pw, sw, OW)):
                        if argmax[plane, i, j] == (y + ph - i * sh) * kw + z + pw - j * sw:
                            total += gy[plane, i, j]
                gx[plane, y, z] = total


@cuda.jit(device=True)
def _count(i, size, k, s, p, with_pad):
    """How many pixels of an axis window i averages"""
    low, high = (-p, size + p) if with_pad else (0, size)
    return min(i * s - p + k, high) - max(i * s - p, low)


@kept(cuda.jit)
def _avg_pool2d(x, kh, kw, sh, sw, ph, pw, with_pad, y):
    """y[plane,i,j] = sum_{u,v} x[plane, i*s + u - p, j*s + v - p] / count, for a thread each"""
    planes, OH, OW = y.shape
    H, W = x.shape[1], x.shape[2]
    first_j, first_i, first_plane = cuda.grid(3)
    dj, di, dplane = cuda.gridsize(3)
    for plane in range(first_plane, planes, dplane):
        for i in range(first_i, OH, di):
            for j in range(first_j, OW, dj):
                top, left, total = i * sh - ph, j * sw - pw, np.float32(0)
                for u in range(max(0, -top), min(kh, H - top)):
                    for v in range(max(0, -left), min(kw, W - left)):
                        total += x[plane, top + u, left + v]
                count = _count(i, H, kh, sh, ph, with_pad) * _count(j, W, kw, sw, pw, with_pad)
                y[plane, i, j] = total / np.float32(count)


@kept(cuda.jit)
def _avg_pool2d_grad(gy, kh, kw, sh, sw, ph, pw, with_pad, gx):
    """gx[plane,y,z] = sum of gy[plane,i,j] / count over the windows i, j that hold y, z"""
    planes, H, W = gx.shape
    OH, OW = gy.shape[1], gy.shape[2]
    first_z, first_y, first_plane = cuda.grid(3)
    dz, dy, dplane = cuda.gridsize(3)
    for plane in range(first_plane, planes, dplane):
        for y in range(first_y, H, dy):
            for z in range(first_z, W, dz):
                total = np.float32(0)
                for i in range(first_window(y + ph, kh, sh), last_window(y + ph, sh, OH)):
                    rows = _count(i, H, kh, sh, ph, with_pad)
                    for j in range(first_window(z + pw, kw, sw), last_window(z + pw, sw, OW)):
                        total += gy[plane, i, j] / np.float32(rows * _count(j, W, kw, sw, pw, with_pad))
                gx[plane, y, z] = total

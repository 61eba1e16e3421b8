"""Images to columns (im2col) and back: what makes a convolution one product of matrices.

The columns of all images lie side by side, one matrix (K, N*OH*OW) a group, since cuBLAS takes one large product better than
many small ones, and CuPy hands it a transposed matrix as it is, but would copy a transposed batch of them.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cache import kept
from minidl.kernels.cuda.channels import contiguous
from minidl.kernels.cuda.launch import U, launch, quotient
from minidl.kernels.shapes import Pair


def columns(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> Array:
    """cols[c,u,v,n,i,j] = x[n,c, i*s + u*d - p, j*s + v*d - p], 0 outside the image: (N,C,H,W) -> (C,kh,kw,N,OH,OW)"""
    xp, (N, C, H, W) = array_module(x), x.shape
    cols = xp.empty((C, *kernel_size, N, *out), x.dtype)
    planes, lines = contiguous(x).reshape(N, C, H * W), cols.reshape(C * kernel_size[0] * kernel_size[1], -1)
    launch(_columns, (C * N, *out), planes, (H, W), kernel_size, stride, padding, dilation, out, lines)
    return cols


def fold(cols: Array, stride: Pair, padding: Pair, dilation: Pair, x: Array) -> None:
    """x[n,c, i*s + u*d - p, j*s + v*d - p] = the sum of what cols[c,u,v,n,i,j] has for it: (C,kh,kw,N,OH,OW) -> (N,C,H,W)

    As a gather, so that nothing is added to one place by two threads: each pixel adds up the windows that hold it.
    """
    N, C, H, W = x.shape
    launch(_fold, (C * N, H, W), cols, stride, padding, dilation, x)


@kept(cuda.jit)
def _columns(x, size, kernel_size, stride, padding, dilation, out, cols):
    """A thread copies all pixels of one window, for one channel: cols[c,u,v,n,i,j] for all u, v, as cols[cuv, nij]"""
    (H, W), (kh, kw), (sh, sw), (ph, pw), (dh, dw), (OH, OW) = size, kernel_size, stride, padding, dilation, out
    N, C = x.shape[0], x.shape[1]
    zero = x.dtype.type(0)
    first_j, first_i, first_plane = cuda.grid(3)
    dj, di, dplane = cuda.gridsize(3)
    for plane in range(first_plane, C * N, dplane):
        c = quotient(plane, N)
        n = plane - c * N
        for i in range(first_i, OH, di):
            for j in range(first_j, OW, dj):
                at = (n * OH + i) * OW + j
                for u in range(kh):
                    y = i * sh + u * dh - ph
                    for v in range(kw):
                        z = j * sw + v * dw - pw
                        inside = 0 <= y and y < H and 0 <= z and z < W
                        cols[U((c * kh + u) * kw + v), U(at)] = x[U(n), U(c), U(y * W + z)] if inside else zero


@kept(cuda.jit)
def _fold(cols, stride, padding, dilation, x):
    """x[n,c,y,z] = sum of cols[c,u,v,n,i,j] over the windows i, j that hold y, z: u*d = y + p - i*s and v*d = z + p - j*s"""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    C, kh, kw, N, OH, OW = cols.shape
    H, W = x.shape[2], x.shape[3]
    first_z, first_y, first_plane = cuda.grid(3)
    dz, dy, dplane = cuda.gridsize(3)
    for plane in range(first_plane, C * N, dplane):
        c = quotient(plane, N)
        n = plane - c * N
        for y in range(first_y, H, dy):
            for z in range(first_z, W, dz):
                total = np.float32(0)
                for i in range(first_window(y + ph, dh * (kh - 1) + 1, sh), last_window(y + ph, sh, OH)):
                    for j in range(first_window(z + pw, dw * (kw - 1) + 1, sw), last_window(z + pw, sw, OW)):
                        row, column = y + ph - i * sh, z + pw - j * sw
                        u, v = quotient(row, dh), quotient(column, dw)
                        if u * dh == row and v * dw == column:  # a dilated window has holes
                            total += cols[c, u, v, n, i, j]
                x[n, c, y, z] = total


@cuda.jit(device=True)
def first_window(y, k, s):
    """The first window of length k, one every s, that reaches place y: max(0, ceil((y - k + 1) / s))"""
    return quotient(y - k + s, s) if y >= k else 0


@cuda.jit(device=True)
def last_window(y, s, count):
    """One past the last of `count` windows, one every s, that begins at or before place y: min(count, floor(y / s) + 1)"""
    return min(count, quotient(y, s) + 1)

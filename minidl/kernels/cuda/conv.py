"""Convolution: of 3x3 pixels by direct.py, of 1x1 as a product of matrices, by cuBLAS, and else so over columns (windows.py).

Where there are columns the images go through in parts, so that their columns, kh*kw times as large as they are, never take
more than COLUMNS bytes.
Products of float32 are computed in float32; CUPY_TF32=1 in the environment lets cuBLAS round their factors to 10 bits (TF32).
Those of halves are added up in float32 (CUBLAS_COMPUTE_32F, CuPy's only choice) on tensor cores, and rounded to halves once.
"""

from __future__ import annotations

from collections.abc import Iterator

from minidl.array import Array, array_module, sum_type
from minidl.kernels.cublas import gemm
from minidl.kernels.cuda import direct
from minidl.kernels.cuda.direct import flat
from minidl.kernels.cuda.windows import columns, fold
from minidl.kernels.shapes import Pair, Shape, conv_size

COLUMNS = 1 << 28  # bytes


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """y[n,f,i,j] = b[f] + sum_{c,u,v} w[f,c,u,v] x[n,c, i*s + u*d - p, j*s + v*d - p], c over the channels of f's group"""
    y = convolve(x, w, stride, padding, dilation, groups)
    if b is not None:
        y += b[:, None, None]
    return y


def convolve(x: Array, w: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int, out: Array | None = None) -> Array:
    """`conv2d` without b, into `out` where it is given. x and out may be some of the channels of a contiguous array."""
    N, F, K = len(x), len(w), w[0].size
    OH, OW = (conv_size(*a) for a in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True))
    y = array_module(x).empty((N, F, OH, OW), x.dtype) if out is None else out
    if _is_matmul(w.shape, stride, padding, groups):
        gemm(w.reshape(F, K), flat(x), out=flat(y))
    elif direct.serves(x, w.shape, stride, padding, dilation, groups):
        direct.conv3x3(x, w, padding, y)
    else:
        for part in _parts(N, groups * K * OH * OW * x.itemsize):
            cols = columns(x[part], w.shape[2:], stride, padding, dilation, (OH, OW)).reshape(groups, K, -1)
            for g, features in enumerate(_of_groups(F, groups)):
                found = gemm(w[features].reshape(-1, K), cols[g])  # (F/groups, K) (K, n*OH*OW)
                y[part, features] = found.reshape(F // groups, -1, OH, OW).swapaxes(0, 1)
    return y


def conv2d_grad_x(gy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gx[n,c, i*s + u*d - p, j*s + v*d - p] += sum_f w[f,c,u,v] gy[n,f,i,j]"""
    xp, F, K, (OH, OW) = array_module(gy), len(w), w[0].size, gy.shape[2:]
    gx = xp.empty(x_shape, gy.dtype)
    if _is_matmul(w.shape, stride, padding, groups):
        gemm(w.reshape(F, K).T, flat(gy), out=flat(gx))
        return gx
    rest = tuple(d * (k - 1) - p for k, d, p in zip(w.shape[2:], dilation, padding, strict=True))
    if stride == (1, 1) and min(rest) >= 0:
        return convolve(gy, _turned(w, groups), stride, rest, dilation, groups, out=gx)
    for part in _parts(len(gy), groups * K * OH * OW * gy.itemsize):
        n = len(gy[part])
        cols = xp.empty((groups, K, n * OH * OW), gy.dtype)
        for g, features in enumerate(_of_groups(F, groups)):
            gemm(w[features].reshape(-1, K).T, _side_by_side(gy[part, features]), out=cols[g])
        fold(cols.reshape(x_shape[1], *w.shape[2:], n, OH, OW), stride, padding, dilation, gx[part])
    return gx


def conv2d_grad_w(gy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gw[f,c,u,v] = sum_{n,i,j} gy[n,f,i,j] x[n,c, i*s + u*d - p, j*s + v*d - p]"""
    xp, (F, C, kh, kw), (OH, OW) = array_module(gy), w_shape, gy.shape[2:]
    if _is_matmul(w_shape, stride, padding, groups):
        parts = xp.empty((len(gy), F, C), sum_type(gy.dtype))  # of each image
        gw = xp.empty(w_shape, parts.dtype)
        gemm(flat(gy), flat(x).swapaxes(1, 2), out=parts).sum(0, out=gw.reshape(F, C))
    elif direct.serves(x, w_shape, stride, padding, dilation, groups):
        gw = direct.conv3x3_grad_w(gy, x, padding)
    else:
        K = C * kh * kw
        gw = xp.zeros((F, K), sum_type(gy.dtype))
        for part in _parts(len(gy), groups * K * OH * OW * gy.itemsize):
            cols = columns(x[part], (kh, kw), stride, padding, dilation, (OH, OW)).reshape(groups, K, -1)
            for g, features in enumerate(_of_groups(F, groups)):
                gw[features] += gemm(_side_by_side(gy[part, features]), cols[g].T)  # (F/groups, n*OH*OW) (n*OH*OW, K)
        gw = gw.reshape(w_shape)
    return gw.astype(gy.dtype, copy=False)


def _turned(w: Array, groups: int) -> Array:
    """With w'[c,f,u,v] = w[f,c,kh-1-u,kw-1-v] in each group, gx is the convolution of gy with w', where the stride is 1"""
    F, C, kh, kw = w.shape
    turned = w[:, :, ::-1, ::-1].reshape(groups, F // groups, C, kh, kw).swapaxes(1, 2)
    return array_module(w).ascontiguousarray(turned).reshape(groups * C, F // groups, kh, kw)


def _is_matmul(w_shape: Shape, stride: Pair, padding: Pair, groups: int) -> bool:
    """Of 1x1 pixels: then each image is one matrix (C,HW), as it lies"""
    return w_shape[2:] == (1, 1) and stride == (1, 1) and padding == (0, 0) and groups == 1


def _parts(N: int, size: int) -> Iterator[slice]:
    """Slices of N images whose columns, of `size` bytes an image, fit into COLUMNS, or of one image"""
    step = max(1, COLUMNS // max(1, size))
    return (slice(start, start + step) for start in range(0, N, step))


def _of_groups(F: int, groups: int) -> Iterator[slice]:
    """The features of each group"""
    return (slice(g * (F // groups), (g + 1) * (F // groups)) for g in range(groups))


def _side_by_side(y: Array) -> Array:
    """(N,F,OH,OW) -> (F, N*OH*OW)"""
    return y.swapaxes(0, 1).reshape(y.shape[1], -1)

"""Convolution as a product of matrices, by cuBLAS, over the columns of windows.py.

The pictures go through in parts, so that their columns, kh*kw times as large as they are, never take more than COLUMNS bytes.
Products of float32 are computed in float32; CUPY_TF32=1 in the environment lets cuBLAS round their factors to 10 bits (TF32).
Those of halves are added up in float32 (CUBLAS_COMPUTE_32F, CuPy's only choice) on tensor cores, and rounded to halves once.
"""

from __future__ import annotations

from collections.abc import Iterator

from minidl.array import Array, array_module, sum_type
from minidl.kernels.cublas import matmul
from minidl.kernels.cuda.windows import columns, fold
from minidl.kernels.reference import Pair, Shape, conv_size

COLUMNS = 1 << 28  # bytes


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """y[n,f,i,j] = b[f] + sum_{c,u,v} w[f,c,u,v] x[n,c, i*s + u*d - p, j*s + v*d - p], c over the channels of f's group"""
    N, F, K = len(x), len(w), w[0].size
    OH, OW = (conv_size(*a) for a in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True))
    y = array_module(x).empty((N, F, OH, OW), x.dtype)
    for part in _parts(N, groups * K * OH * OW * x.itemsize):
        cols = columns(x[part], w.shape[2:], stride, padding, dilation, (OH, OW)).reshape(groups, K, -1)
        for g, features in enumerate(_of_groups(F, groups)):
            product = matmul(w[features].reshape(-1, K), cols[g])  # (F/groups, K) (K, n*OH*OW)
            y[part, features] = product.reshape(F // groups, -1, OH, OW).swapaxes(0, 1)
    if b is not None:
        y += b[:, None, None]
    return y


def conv2d_grad_x(gy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gx[n,c, i*s + u*d - p, j*s + v*d - p] += sum_f w[f,c,u,v] gy[n,f,i,j]"""
    xp, F, K, (OH, OW) = array_module(gy), len(w), w[0].size, gy.shape[2:]
    gx = xp.empty(x_shape, gy.dtype)
    for part in _parts(len(gy), groups * K * OH * OW * gy.itemsize):
        n = len(gy[part])
        cols = xp.empty((groups, K, n * OH * OW), gy.dtype)
        for g, features in enumerate(_of_groups(F, groups)):
            matmul(w[features].reshape(-1, K).T, _side_by_side(gy[part, features]), out=cols[g])
        fold(cols.reshape(x_shape[1], *w.shape[2:], n, OH, OW), stride, padding, dilation, gx[part])
    return gx


def conv2d_grad_w(gy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gw[f,c,u,v] = sum_{n,i,j} gy[n,f,i,j] x[n,c, i*s + u*d - p, j*s + v*d - p]"""
    (F, C, kh, kw), (OH, OW) = w_shape, gy.shape[2:]
    K = C * kh * kw
    gw = array_module(gy).zeros((F, K), sum_type(gy.dtype))
    for part in _parts(len(gy), groups * K * OH * OW * gy.itemsize):
        cols = columns(x[part], (kh, kw), stride, padding, dilation, (OH, OW)).reshape(groups, K, -1)
        for g, features in enumerate(_of_groups(F, groups)):
            gw[features] += matmul(_side_by_side(gy[part, features]), cols[g].T)  # (F/groups, n*OH*OW) (n*OH*OW, K)
    return gw.reshape(w_shape).astype(gy.dtype, copy=False)


def _parts(N: int, size: int) -> Iterator[slice]:
    """Slices of N pictures whose columns, of `size` bytes a picture, fit into COLUMNS, or of one picture"""
    step = max(1, COLUMNS // max(1, size))
    return (slice(start, start + step) for start in range(0, N, step))


def _of_groups(F: int, groups: int) -> Iterator[slice]:
    """The features of each group"""
    return (slice(g * (F // groups), (g + 1) * (F // groups)) for g in range(groups))


def _side_by_side(y: Array) -> Array:
    """(N,F,OH,OW) -> (F, N*OH*OW)"""
    return y.swapaxes(0, 1).reshape(y.shape[1], -1)

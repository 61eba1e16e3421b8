"""Dense blocks: the kernels of the other files, on some of the channels of an array, which lie at strides of their own."""

from __future__ import annotations

import numpy as np
from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cache import kept
from minidl.kernels.cuda.channels import affine_relu, vectors
from minidl.kernels.cuda.conv import conv2d_grad_w, conv2d_grad_x, convolve
from minidl.kernels.cuda.launch import AHEAD, U, launch
from minidl.kernels.cuda.moments import moments, put_together, sums_by
from minidl.kernels.shapes import Pair


def channel_statistics(X: Array, first: int, count: int) -> tuple[Array, Array]:
    """mean = sum x / m and var = sum (x - mean)^2 / m of each of the channels first, ..., first + count - 1"""
    return moments(_channels(X, first, count))


def channel_moments(X: Array, first: int, mean: Array) -> tuple[Array, Array]:
    """sum (x - mean[c]) and sum (x - mean[c])^2 of each of the channels first, ..., first + len(mean) - 1, in float64"""
    own, var = (a.astype(np.float64) for a in moments(_channels(X, first, len(mean))))
    m, d = X.size // X.shape[1], own - mean
    return m * d, m * (var + d * d)


def affine_relu_conv(X: Array, scale: Array, shift: Array, w: Array, padding: Pair, Y: Array, first: int) -> None:
    """Y[:, first : first + F] = conv2d(max(scale x + shift, 0), w) with x = X[:, :C]"""
    convolve(_rectified(X, scale, shift), w, (1, 1), padding, (1, 1), 1, out=Y[:, first : first + len(w)])


def affine_relu_conv_grad(
    GY: Array,
    first: int,
    X: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    w: Array,
    padding: Pair,
    GX: Array,
    add: bool,
    need_w: bool,
) -> tuple[Array | None, Array, Array]:
    """With g the gradient of scale x + shift: GX[:, :C] += scale g, or =; -> gw or None, sum g, sum g (x - mean)"""
    C, z, gy = w.shape[1], _rectified(X, scale, shift), GY[:, first : first + len(w)]
    gw = conv2d_grad_w(gy, z, w.shape, (1, 1), padding, (1, 1), 1) if need_w else None
    gz, x = conv2d_grad_x(gy, w, z.shape, (1, 1), padding, (1, 1), 1), _channels(X, 0, C)
    found = sums_by(_gated, x, gz.reshape(x.shape), x, *vectors(scale, shift, mean), add, _channels(GX, 0, C))
    return gw, *found


def subtract_line(GX: Array, X: Array, first: int, mean: Array, a: Array, b: Array) -> None:
    """GX[:, first + c] -= a[c] + b[c] (X[:, first + c] - mean[c])"""
    x = _channels(X, first, len(mean))
    launch(_subtract_line, x.shape, x, *vectors(mean, a, b), _channels(GX, first, len(mean)), ahead=AHEAD)


def _rectified(X: Array, scale: Array, shift: Array) -> Array:
    """max(scale x + shift, 0) with x as many of the first channels of X as there are scales"""
    C = len(scale)
    z = array_module(X).empty((len(X), C, *X.shape[2:]), X.dtype)
    x = _channels(X, 0, C)
    launch(affine_relu, x.shape, x, x, False, *vectors(scale, shift), z.reshape(x.shape), ahead=AHEAD)
    return z


def _channels(X: Array, first: int, count: int) -> Array:
    """Some channels of X (N,C,H,W), which is contiguous, as (N,count,HW) in the same memory"""
    if not X.flags.c_contiguous:
        raise ValueError(f"X: expected a contiguous array, got strides {X.strides} for shape {X.shape}")
    return X.reshape(*X.shape[:2], -1)[:, first : first + count]


@kept(cuda.jit)
def _gated(gz, x, scale, shift, mean, add, gx, firsts, seconds):
    """g[n,c,i] = gz[n,c,i] where scale[c] x[n,c,i] + shift[c] > 0, else 0; gx = scale g, added to what is there if `add`

    And of a block's share, sum g and sum g (x - mean[c]).
    """
    N, c = x.shape[0], cuda.blockIdx.x
    zero, mu, factor, offset = firsts.dtype.type(0), mean[c], scale[c], shift[c]
    first, second = zero, zero
    values = cuda.local.array(AHEAD, firsts.dtype)
    gradients = cuda.local.array(AHEAD, firsts.dtype)
    before = cuda.local.array(AHEAD, firsts.dtype)
    dn = cuda.gridDim.y * cuda.blockDim.y
    i = cuda.threadIdx.x
    while i < x.shape[2]:
        n = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
        while n < N:
            for k in range(AHEAD):
                at = U(min(n + k * dn, N - 1))
                values[k], gradients[k], before[k] = x[at, U(c), U(i)], gz[at, U(c), U(i)], zero
                if add:
                    before[k] = gx[at, U(c), U(i)]
            for k in range(AHEAD):
                if n + k * dn < N:
                    g = gradients[k] if factor * values[k] + offset > zero else zero
                    first += g
                    second += g * (values[k] - mu)
                    gx[U(n + k * dn), U(c), U(i)] = before[k] + factor * g
            n += AHEAD * dn
        i += cuda.blockDim.x
    put_together(first, second, firsts, seconds)


@kept(cuda.jit)
def _subtract_line(x, mean, a, b, gx):
    """gx[n,c,i] -= a[c] + b[c] (x[n,c,i] - mean[c])"""
    N, C, HW = gx.shape
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    values = cuda.local.array(AHEAD, mean.dtype)
    before = cuda.local.array(AHEAD, mean.dtype)
    c = first_c
    while c < C:
        level, slope, mu = a[c], b[c], mean[c]
        i = first_i
        while i < HW:
            n = first_n
            while n < N:
                for k in range(AHEAD):
                    at = U(min(n + k * dn, N - 1))
                    values[k], before[k] = x[at, U(c), U(i)], gx[at, U(c), U(i)]
                for k in range(AHEAD):
                    if n + k * dn < N:
                        gx[U(n + k * dn), U(c), U(i)] = before[k] - (level + slope * (values[k] - mu))
                n += AHEAD * dn
            i += di
        c += dc

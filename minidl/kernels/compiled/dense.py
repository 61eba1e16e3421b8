"""Dense blocks in Numba: normalisation and relu happen while the next convolution packs its input, and nothing is copied.

The gradient comes back the same way. Where the product of gy and the transposed kernel is copied to its place, the gate of
the relu is computed once more from x, the gradient is added to what later layers left there, and the sums that the gradients
of scale and shift need are taken: one sweep, and no array but the block's own.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled import direct, winograd
from minidl.kernels.compiled.direct_plan import forward_plan, grad_x_plan
from minidl.kernels.compiled.norm import mean_and_variance, moments_about, planes, vectors
from minidl.kernels.compiled.operands import Gates, Source, Target
from minidl.kernels.compiled.parallel import SLOTS, in_parallel
from minidl.kernels.shapes import Pair, whole

MANY, SMALL = 64, 256  # channels of x, or at most so many pixels, of which `winograd` takes the gradient sooner than `direct`


def channel_statistics(X: Array, first: int, count: int) -> tuple[Array, Array]:
    """mean = sum x / m and var = sum (x - mean)^2 / m of each of the channels first, ..., first + count - 1"""
    mean, var = np.empty(count, X.dtype), np.empty(count, X.dtype)
    in_parallel(_channel_statistics, count, *planes(X), first, mean, var)
    return mean, var


def channel_moments(X: Array, first: int, mean: Array) -> tuple[Array, Array]:
    """sum (x - mean[c]) and sum (x - mean[c])^2 of each of the channels first, ..., first + len(mean) - 1, in float64"""
    sums, squares = np.empty(len(mean)), np.empty(len(mean))
    in_parallel(_channel_moments, len(mean), *planes(X), first, *vectors(mean), sums, squares)
    return sums, squares


def affine_relu_conv(X: Array, scale: Array, shift: Array, w: Array, padding: Pair, Y: Array, first: int) -> None:
    """Y[:, first : first + F] = conv2d(max(scale x + shift, 0), w) with x = X[:, :C]"""
    F, C, kh, kw = w.shape
    _contiguous(X=X, Y=Y)
    source, target = Source(X, 0, C, *vectors(scale, shift)), Target(Y, first, F, np.empty(0, X.dtype))
    x_shape, y_shape = (len(X), C, *X.shape[2:]), (len(Y), F, *Y.shape[2:])
    if winograd.pays(x_shape, w.shape, whole(y_shape), (1, 1), (1, 1), winograd.CHANNELS_DENSE):
        winograd.convolve(source, w, padding, target)
    else:
        p = forward_plan(x_shape, w.shape, (1, 1), padding, (1, 1), 1, X.itemsize)
        direct.convolve(source, w.reshape(1, F, C, kh * kw), p, target)


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
    _contiguous(GY=GY, X=X, GX=GX)
    scale, shift, mean = vectors(scale, shift, mean)
    F, C, kh, kw = w.shape
    nothing = np.empty(0, X.dtype)
    gy, source = Source(GY, first, F, nothing, nothing), Source(X, 0, C, scale, shift)
    gates = Gates(X, scale, shift, mean, GX, add)
    x_shape, y_shape, gw = (len(X), C, *X.shape[2:]), (len(GY), F, *GY.shape[2:]), None
    pays = max(padding) <= 2 and winograd.pays(x_shape, w.shape, y_shape, (1, 1), (1, 1), winograd.CHANNELS_DENSE)
    if pays and (C >= MANY or y_shape[2] * y_shape[3] <= SMALL):
        if need_w:
            gw = winograd.correlate(gy, source, padding)
        sums = winograd.convolve_gated(gy, w, padding, gates)
    else:
        if need_w:
            p = forward_plan(x_shape, w.shape, (1, 1), padding, (1, 1), 1, X.itemsize)
            gw = direct.correlate(gy, source, w.shape, p)
        p = grad_x_plan(y_shape, w.shape, x_shape, (1, 1), padding, (1, 1), 1, X.itemsize)
        sums = direct.convolve_gated(gy, w.reshape(1, F, C, kh * kw), p, gates)
    total = sums.sum(axis=0).astype(X.dtype)
    return gw, total[0], total[1]


def subtract_line(GX: Array, X: Array, first: int, mean: Array, a: Array, b: Array) -> None:
    """GX[:, first + c] -= a[c] + b[c] (X[:, first + c] - mean[c])"""
    _contiguous(GX=GX)
    in_parallel(_subtract_line, SLOTS, *planes(GX, X), first, *vectors(mean, a, b))


def _contiguous(**arrays: Array) -> None:
    for name, a in arrays.items():
        if not a.flags.c_contiguous:
            raise ValueError(f"{name}: expected a contiguous array, got strides {a.strides} for shape {a.shape}")


@kept(njit(nogil=True, error_model="numpy"))
def _channel_statistics(c, x, first, mean, var):
    mean[c], var[c] = mean_and_variance(x, first + c)


@kept(njit(nogil=True, error_model="numpy"))
def _channel_moments(c, x, first, mean, sums, squares):
    sums[c], squares[c] = moments_about(x, first + c, mean[c])


@kept(njit(nogil=True, error_model="numpy"))
def _subtract_line(slot, gx, x, first, mean, a, b):
    HW = x.shape[2]
    for nc in range(slot * len(x) * len(mean) // SLOTS, (slot + 1) * len(x) * len(mean) // SLOTS):
        n, c = divmod(nc, len(mean))
        source, target = x[n, first + c], gx[n, first + c]
        for i in range(HW):
            target[i] -= a[c] + b[c] * (source[i] - mean[c])

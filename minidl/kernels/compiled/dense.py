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
from minidl.kernels.compiled.direct import AHEAD, TASKS, bounds, multiply, pack, packed_rows
from minidl.kernels.compiled.norm import mean_and_variance, planes, vectors
from minidl.kernels.compiled.parallel import SLOTS, in_parallel
from minidl.kernels.compiled.vectors import gate, prefetch
from minidl.kernels.shapes import Pair

MANY, SMALL = 64, 256  # channels of x, or at most so many pixels, of which `winograd` takes the gradient sooner than `direct`


def channel_statistics(X: Array, first: int, count: int) -> tuple[Array, Array]:
    """mean = sum x / m and var = sum (x - mean)^2 / m of each of the channels first, ..., first + count - 1"""
    mean, var = np.empty(count, X.dtype), np.empty(count, X.dtype)
    in_parallel(_channel_statistics, count, *planes(X), first, mean, var)
    return mean, var


def affine_relu_conv(X: Array, scale: Array, shift: Array, w: Array, padding: Pair, Y: Array, first: int) -> None:
    """Y[:, first : first + F] = conv2d(max(scale x + shift, 0), w) with x = X[:, :C]"""
    F, C, kh, kw = w.shape
    _contiguous(X=X, Y=Y)
    scale, shift = vectors(scale, shift)
    x_shape, y_shape, nothing = (len(X), C, *X.shape[2:]), (len(Y), F, *Y.shape[2:]), np.empty(0, X.dtype)
    if winograd.pays(x_shape, w.shape, y_shape, (1, 1), (1, 1), winograd.CHANNELS_DENSE):
        winograd.convolve(X, scale, shift, w, nothing, padding, Y, first)
    else:
        p = direct.forward_plan(x_shape, w.shape, (1, 1), padding, (1, 1), 1, X.itemsize)
        direct.convolve(X, scale, shift, w.reshape(1, F, C, kh * kw), nothing, p, Y, first)


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
    F, C = w.shape[:2]
    x_shape, y_shape, gw = (len(X), C, *X.shape[2:]), (len(GY), F, *GY.shape[2:]), None
    pays = max(padding) <= 2 and winograd.pays(x_shape, w.shape, y_shape, (1, 1), (1, 1), winograd.CHANNELS_DENSE)
    if pays and (C >= MANY or y_shape[2] * y_shape[3] <= SMALL):
        if need_w:
            gw = winograd.correlate(GY, first, F, X, scale, shift, C, padding)
        sums = winograd.convolve_gated(GY, first, w, padding, X, scale, shift, mean, GX, add)
    else:
        if need_w:
            p = direct.forward_plan(x_shape, w.shape, (1, 1), padding, (1, 1), 1, X.itemsize)
            gw = direct.correlate(GY, first, X, scale, shift, w.shape, p)
        sums = _convolve_gated(GY, first, w, padding, X, scale, shift, mean, GX, add)
    total = sums.sum(axis=0).astype(X.dtype)
    return gw, total[0], total[1]


def _convolve_gated(
    GY: Array, first: int, w: Array, padding: Pair, X: Array, scale: Array, shift: Array, mean: Array, GX: Array, add: bool
) -> Array:
    """With g the gradient of scale x + shift: GX[:, :C] += scale g, or = -> (slots, 2, C): parts of sum g, sum g (x - mean)"""
    F, C, kh, kw = w.shape
    x_shape, y_shape = (len(X), C, *X.shape[2:]), (len(GY), F, *GY.shape[2:])
    p = direct.grad_x_plan(y_shape, w.shape, x_shape, (1, 1), padding, (1, 1), 1, X.itemsize)
    tasks = -(-len(X) // p.pictures) * p.bands * p.chunks
    slots = min(tasks, TASKS)  # by shape alone, so that every sum has its order
    packed, packed_gy, out = direct.scratch.take(
        X.dtype, weights=(1, p.padded * F * kh * kw), planes=(slots, F * p.plane), out=(slots, p.chunk * p.length)
    )
    direct.pack_weights(w.reshape(1, F, C, kh * kw), True, p, packed[0])
    sums = np.zeros((slots, 2, C))
    gates = X, scale, shift, mean, GX, add, sums
    in_parallel(_convolve_slot, slots, slots, GY, first, F, packed[0], C, p, packed_gy, out, *gates)
    return sums


def subtract_line(GX: Array, X: Array, first: int, mean: Array, a: Array, b: Array) -> None:
    """GX[:, first + c] -= a[c] + b[c] (X[:, first + c] - mean[c])"""
    _contiguous(GX=GX)
    in_parallel(_subtract_line, SLOTS, *planes(GX, X), first, *vectors(mean, a, b))


def _contiguous(**arrays: Array) -> None:
    for name, a in arrays.items():
        if not a.flags.c_contiguous:
            raise ValueError(f"{name}: expected a contiguous array, got strides {a.strides} for shape {a.shape}")


@njit(inline="always", error_model="numpy")
def _unpack_gated(out, n, count, f0, channels, r0, rows, p, x, scale, shift, mean, gx, add, sums):
    """g = out where scale x + shift > 0, else 0; gx (+)= scale g, sums += (g, g (x - mean)), channel by channel"""
    (C, H, W), F = x.shape[1:], gx.shape[1]
    rows, length = (1, rows * W) if p.S == W else (rows, W)
    for f in range(f0, f0 + channels):
        for g in range(count):
            for i in range(rows):
                start = (f - f0) * p.length + g * p.image + i * p.S
                x_at, g_at = (((n + g) * C + f) * H + r0 + i) * W, (((n + g) * F + f) * H + r0 + i) * W
                prefetch(x, x_at + AHEAD * H * W, length * x.itemsize // 64)
                prefetch(gx, g_at + AHEAD * H * W, length * x.itemsize // 64)
                s, t = gate(out, start, x, x_at, gx, g_at, length, scale[f], shift[f], mean[f], add)
                sums[0, f] += s
                sums[1, f] += t


@kept(njit(nogil=True, error_model="numpy"))
def _convolve_slot(slot, slots, gy, gy_first, F, w, C, p, packed_gy, out, x, scale, shift, mean, gx, add, sums):
    """the gradient of the picture, as in `conv2d_grad_x`, through the gates of the relu that `pack` applied"""
    N, nothing = len(gy), np.empty(0, gy.dtype)
    tasks = -(-N // p.pictures) * p.bands * p.chunks
    mine, results = packed_gy[slot], out[slot]
    mine[:] = 0
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        n, count, r0, height, first, last = bounds(task, N, C, p)
        if p.bands > 1:
            mine[:] = 0
        pack(gy, nothing, nothing, n, count, gy_first, F, r0, packed_rows(height, p), p, mine)
        multiply(w, 0, mine, 0, len(p.taps) * F, C, first, last, p, results, gy, 0, 0)
        _unpack_gated(results, n, count, first, last - first, r0, height, p, x, scale, shift, mean, gx, add, sums[slot])


@kept(njit(nogil=True, error_model="numpy"))
def _channel_statistics(c, x, first, mean, var):
    mean[c], var[c] = mean_and_variance(x, first + c)


@kept(njit(nogil=True, error_model="numpy"))
def _subtract_line(slot, gx, x, first, mean, a, b):
    HW = x.shape[2]
    for nc in range(slot * len(x) * len(mean) // SLOTS, (slot + 1) * len(x) * len(mean) // SLOTS):
        n, c = divmod(nc, len(mean))
        source, target = x[n, first + c], gx[n, first + c]
        for i in range(HW):
            target[i] -= a[c] + b[c] * (source[i] - mean[c])

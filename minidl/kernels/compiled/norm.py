"""Batch normalisation in Numba: one channel at a time, so that its second and third sweep meet a warm cache.

Sums run over an image's plane in the array's type and over the images in float64, in an order of their own (`moments`); each
channel belongs to one thread. So the bits depend neither on the number of threads nor on the compiler's mood.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled.parallel import SLOTS, in_parallel
from minidl.kernels.compiled.vectors import address, moments

_compiled: Any = kept(njit(nogil=True, error_model="numpy", fastmath={"contract"}))


def batch_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = gamma (x - mean) / sqrt(var + eps) + beta; mean and (biased) var of each channel"""
    y = np.empty(x.shape, x.dtype)
    mean, var = np.empty_like(gamma), np.empty_like(gamma)
    gamma, beta = vectors(gamma, beta)
    x_planes, none, y_planes = planes(x, None, y)
    in_parallel(_batch_norm, x.shape[1], x_planes, none, gamma, beta, eps, False, y_planes, mean, var)
    return y, mean, var


def batch_norm_relu(x: Array, r: Array | None, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = max(batch_norm(x) + r, 0), r None for 0; and mean, var of each channel"""
    y = np.empty(x.shape, x.dtype)
    mean, var = np.empty_like(gamma), np.empty_like(gamma)
    gamma, beta = vectors(gamma, beta)
    x_planes, more, y_planes = planes(x, r, y)
    in_parallel(_batch_norm, x.shape[1], x_planes, more, gamma, beta, eps, True, y_planes, mean, var)
    return y, mean, var


def batch_norm_grad(gy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float) -> tuple[Array, Array, Array]:
    """gbeta = sum gy, ggamma = sum gy x_hat, gx = gamma / sqrt(var + eps) (gy - gbeta / m - x_hat ggamma / m)"""
    gx = np.empty(x.shape, x.dtype)
    ggamma, gbeta = np.empty_like(gamma), np.empty_like(gamma)
    g, none, x_planes, target = planes(gy, None, x, gx)
    norm = np.ascontiguousarray(gamma), np.ascontiguousarray(mean), np.ascontiguousarray(var), eps
    in_parallel(_batch_norm_grad, x.shape[1], g, none, x_planes, norm, target, none, True, ggamma, gbeta)
    return gx, ggamma, gbeta


def batch_norm_relu_grad(
    gy: Array, y: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float, residual: bool
) -> tuple[Array, Array | None, Array, Array]:
    """gr = gy where y > 0, else 0; gx, ggamma, gbeta as from `batch_norm_grad` of gr -> gx, gr or None, ggamma, gbeta"""
    gx = np.empty(x.shape, x.dtype)
    gr = np.empty(x.shape, x.dtype) if residual else gx  # which then takes the place of gr
    ggamma, gbeta = np.empty_like(gamma), np.empty_like(gamma)
    g, value, x_planes, target, gate = planes(gy, y, x, gx, gr)
    gate = gate if residual else target  # one name for one array, see below
    norm = np.ascontiguousarray(gamma), np.ascontiguousarray(mean), np.ascontiguousarray(var), eps
    in_parallel(_batch_norm_grad, x.shape[1], g, value, x_planes, norm, target, gate, residual, ggamma, gbeta)
    return gx, gr if residual else None, ggamma, gbeta


def channel_affine(x: Array, scale: Array, shift: Array) -> Array:
    """y[n,c,...] = scale[c] x[n,c,...] + shift[c]"""
    y = np.empty(x.shape, x.dtype)
    scale, shift = vectors(scale, shift)
    x_planes, y_planes = planes(x, y)
    in_parallel(_channel_affine, SLOTS, x_planes, scale, shift, y_planes)
    return y


def channel_affine_relu(x: Array, r: Array | None, scale: Array, shift: Array) -> Array:
    """y[n,c,...] = max(scale[c] x[n,c,...] + shift[c] + r[n,c,...], 0), r None for 0"""
    y = np.empty(x.shape, x.dtype)
    scale, shift = vectors(scale, shift)
    if r is None:
        x_planes, y_planes = planes(x, y)
        in_parallel(_channel_affine_relu, SLOTS, x_planes, scale, shift, y_planes)
    else:
        x_planes, more, y_planes = planes(x, r, y)
        in_parallel(_channel_affine_add_relu, SLOTS, x_planes, more, scale, shift, y_planes)
    return y


def channel_affine_relu_grad(gy: Array, y: Array, scale: Array) -> tuple[Array, Array]:
    """gr = gy where y > 0, else 0; gx[n,c,...] = scale[c] gr[n,c,...] -> gx, gr"""
    gx, gr = np.empty(y.shape, y.dtype), np.empty(y.shape, y.dtype)
    (scale,) = vectors(scale)
    g, value, target, gate = planes(gy, y, gx, gr)
    in_parallel(_channel_affine_relu_grad, SLOTS, g, value, scale, target, gate)
    return gx, gr


def channel_sums(gy: Array, x: Array, mean: Array) -> tuple[Array, Array]:
    """(sum gy, sum gy (x - mean[c])) over all but the channels"""
    first, second = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype)
    in_parallel(_channel_sums, x.shape[1], *planes(gy, x), *vectors(mean), first, second)
    return first, second


def planes(*arrays: Array | None) -> list[Array]:
    """(N,C,...) as (N,C,all the rest), and None as an empty array of the type of the one before it"""
    found: list[Array] = []
    for a in arrays:
        found.append(np.empty((0, 0, 0), found[-1].dtype) if a is None else np.ascontiguousarray(a).reshape(*a.shape[:2], -1))
    return found


def vectors(*arrays: Array) -> list[Array]:
    """One number a channel each, contiguous"""
    return [np.ascontiguousarray(a) for a in arrays]


@kept(njit(nogil=True, error_model="numpy"))
def moments_about(x, c, mean):
    """sum (x - mean) and sum (x - mean)^2 of channel c of x (N,C,HW), in float64"""
    N, C, HW = x.shape
    total, squares = 0.0, 0.0
    for n in range(N):
        plane = address(x, (n * C + c) * HW)
        of_plane = moments(plane, mean, plane, mean, HW)
        total += of_plane[0]
        squares += of_plane[1]
    return total, squares


@kept(njit(nogil=True, error_model="numpy"))
def mean_and_variance(x, c):
    """mean and (biased) var of channel c of x (N,C,HW), the first in the type of x, the second in float64"""
    values = len(x) * x.shape[2]
    mean = x.dtype.type(moments_about(x, c, x.dtype.type(0))[0] / values)
    return mean, moments_about(x, c, mean)[1] / values


@njit(inline="always", error_model="numpy")
def _std(var, eps):
    return np.sqrt(np.float64(var) + eps)


@_compiled
def _batch_norm(c, x, r, gamma, beta, eps, relu, y, mean, var):
    N, _, HW = x.shape
    zero = x.dtype.type(0)
    mu, variance = mean_and_variance(x, c)
    mean[c], var[c] = mu, variance
    scale = x.dtype.type(gamma[c] / _std(variance, eps))
    shift = x.dtype.type(beta[c] - np.float64(mu) * scale)
    for n in range(N):
        source, target = x[n, c], y[n, c]
        if len(r):
            more = r[n, c]
            for i in range(HW):
                value = source[i] * scale + shift + more[i]
                target[i] = zero if value < zero else value
        elif relu:
            for i in range(HW):
                value = source[i] * scale + shift
                target[i] = zero if value < zero else value
        else:
            for i in range(HW):
                target[i] = source[i] * scale + shift


@_compiled
def _batch_norm_grad(c, gy, y, x, norm, gx, gr, apart, ggamma, gbeta):
    gamma, mean, var, eps = norm
    N, C, HW = x.shape
    zero = x.dtype.type(0)
    mu, sum_g, sum_gd = mean[c], 0.0, 0.0
    for n in range(N):
        at = (n * C + c) * HW
        if len(y):
            g, value, gate = gy[n, c], y[n, c], gr[n, c]
            for i in range(HW):
                gate[i] = g[i] if value[i] > zero else zero
            s, t = moments(address(gr, at), zero, address(x, at), mu, HW)
        else:
            s, t = moments(address(gy, at), zero, address(x, at), mu, HW)
        sum_g += s
        sum_gd += t
    inv_std = 1 / _std(var[c], eps)
    gbeta[c], ggamma[c] = sum_g, sum_gd * inv_std
    # gx = a gy + b (x - mu) + d
    a = x.dtype.type(gamma[c] * inv_std)
    b = x.dtype.type(-gamma[c] * inv_std**3 * sum_gd / (N * HW))
    d = x.dtype.type(-gamma[c] * inv_std * sum_g / (N * HW))
    for n in range(N):
        plane, target = x[n, c], gx[n, c]
        if apart:
            g = gr[n, c] if len(y) else gy[n, c]
            for i in range(HW):
                target[i] = a * g[i] + b * (plane[i] - mu) + d
        else:  # gr is gx: as one name for one array, so that the compiler sees that nothing else overlaps
            for i in range(HW):
                target[i] = a * target[i] + b * (plane[i] - mu) + d


@_compiled
def _channel_affine(slot, x, scale, shift, y):
    C, HW = x.shape[1:]
    for nc in range(slot * len(x) * C // SLOTS, (slot + 1) * len(x) * C // SLOTS):
        n, c = divmod(nc, C)
        source, target = x[n, c], y[n, c]
        a, b = scale[c], shift[c]
        for i in range(HW):
            target[i] = source[i] * a + b


@_compiled
def _channel_affine_relu(slot, x, scale, shift, y):
    (C, HW), zero = x.shape[1:], x.dtype.type(0)
    for nc in range(slot * len(x) * C // SLOTS, (slot + 1) * len(x) * C // SLOTS):
        n, c = divmod(nc, C)
        source, target = x[n, c], y[n, c]
        a, b = scale[c], shift[c]
        for i in range(HW):
            value = source[i] * a + b
            target[i] = zero if value < zero else value


@_compiled
def _channel_affine_add_relu(slot, x, r, scale, shift, y):
    (C, HW), zero = x.shape[1:], x.dtype.type(0)
    for nc in range(slot * len(x) * C // SLOTS, (slot + 1) * len(x) * C // SLOTS):
        n, c = divmod(nc, C)
        source, more, target = x[n, c], r[n, c], y[n, c]
        a, b = scale[c], shift[c]
        for i in range(HW):
            value = source[i] * a + b + more[i]
            target[i] = zero if value < zero else value


@_compiled
def _channel_affine_relu_grad(slot, gy, y, scale, gx, gr):
    (C, HW), zero = y.shape[1:], y.dtype.type(0)
    for nc in range(slot * len(y) * C // SLOTS, (slot + 1) * len(y) * C // SLOTS):
        n, c = divmod(nc, C)
        g, value, target, gate = gy[n, c], y[n, c], gx[n, c], gr[n, c]
        a = scale[c]
        for i in range(HW):
            e = g[i] if value[i] > zero else zero
            gate[i] = e
            target[i] = a * e


@_compiled
def _channel_sums(c, gy, x, mean, first, second):
    N, C, HW = x.shape
    zero = x.dtype.type(0)
    sum_g, sum_gd = 0.0, 0.0
    for n in range(N):
        at = (n * C + c) * HW
        s, t = moments(address(gy, at), zero, address(x, at), mean[c], HW)
        sum_g += s
        sum_gd += t
    first[c], second[c] = sum_g, sum_gd

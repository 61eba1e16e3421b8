"""Group normalisation in Numba: one group of one image at a time, so that its second and third sweep meet a warm cache.

Sums run as in norm.py, over a plane in the array's type and over the planes of a group in float64. Each group belongs to one
thread, and those of an image are added to those of the next in their order: the number of threads changes no bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled.norm import planes, vectors
from minidl.kernels.compiled.parallel import in_parallel
from minidl.kernels.compiled.vectors import address, moments

_compiled: Any = kept(njit(nogil=True, error_model="numpy", fastmath={"contract"}))


def group_norm(x: Array, num_groups: int, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = gamma (x - mean) / sqrt(var + eps) + beta; mean and (biased) var of each group of each image"""
    y = np.empty(x.shape, x.dtype)
    mean, var = (np.empty(len(x) * num_groups, gamma.dtype) for _ in range(2))
    in_parallel(_group_norm, len(mean), *planes(x), *vectors(gamma, beta), eps, *planes(y), mean, var)
    return y, mean, var


def group_norm_grad(gy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float) -> tuple[Array, Array, Array]:
    """gbeta = sum gy, ggamma = sum gy x_hat, gx = (g - mean(g) - x_hat mean(g x_hat)) / sqrt(var + eps) with g = gamma gy"""
    gx, sums = np.empty(x.shape, x.dtype), np.empty((2, *x.shape[:2]))  # of each plane, gy x_hat and gy
    g, source, target = planes(gy, x, gx)
    gamma, mean, var = vectors(gamma, mean, var)
    in_parallel(_group_norm_grad, len(mean), g, source, gamma, mean, var, eps, target, sums.reshape(2, -1))
    ggamma, gbeta = sums.sum(axis=1).astype(gamma.dtype)
    return gx, ggamma, gbeta


@_compiled
def _group_norm(k, x, gamma, beta, eps, y, mean, var):
    N, C, HW = x.shape
    count = N * C // len(mean)  # planes of a group
    zero, total, squares = x.dtype.type(0), 0.0, 0.0
    for p in range(k * count, (k + 1) * count):
        plane = address(x, p * HW)
        total += moments(plane, zero, plane, zero, HW)[0]
    mu = x.dtype.type(total / (count * HW))
    for p in range(k * count, (k + 1) * count):
        plane = address(x, p * HW)
        squares += moments(plane, mu, plane, mu, HW)[1]
    mean[k], var[k] = mu, squares / (count * HW)
    std = np.sqrt(squares / (count * HW) + eps)
    for p in range(k * count, (k + 1) * count):
        n, c = divmod(p, C)
        source, target = x[n, c], y[n, c]
        scale, shift = x.dtype.type(gamma[c] / std), beta[c]
        for i in range(HW):
            target[i] = (source[i] - mu) * scale + shift


@_compiled
def _group_norm_grad(k, gy, x, gamma, mean, var, eps, gx, sums):
    N, C, HW = x.shape
    count = N * C // len(mean)
    zero, mu, inv_std, sum_g, sum_gd = x.dtype.type(0), mean[k], 1 / np.sqrt(np.float64(var[k]) + eps), 0.0, 0.0
    for p in range(k * count, (k + 1) * count):
        s, t = moments(address(gy, p * HW), zero, address(x, p * HW), mu, HW)
        sums[0, p], sums[1, p] = np.float64(t) * inv_std, s
        sum_g += np.float64(gamma[p % C]) * s
        sum_gd += np.float64(gamma[p % C]) * t
    # gx = a gy + b (x - mu) + d
    b = x.dtype.type(-(inv_std**3) * sum_gd / (count * HW))
    d = x.dtype.type(-inv_std * sum_g / (count * HW))
    for p in range(k * count, (k + 1) * count):
        n, c = divmod(p, C)
        g, plane, target = gy[n, c], x[n, c], gx[n, c]
        a = x.dtype.type(gamma[c] * inv_std)
        for i in range(HW):
            target[i] = a * g[i] + b * (plane[i] - mu) + d

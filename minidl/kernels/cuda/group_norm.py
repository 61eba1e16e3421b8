"""Group normalisation: first sums over each group and each plane (moments.py), then value by value.

To `moments` a group is a channel, and its channels are the images of that channel. A plane is a channel of a single image.
"""

from __future__ import annotations

from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cache import kept
from minidl.kernels.cuda.channels import planes, vectors
from minidl.kernels.cuda.launch import launch
from minidl.kernels.cuda.line import std_of
from minidl.kernels.cuda.moments import moments, sums


def group_norm(x: Array, num_groups: int, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = gamma (x - mean) / sqrt(var + eps) + beta; mean and (biased) var of each group of each image"""
    y, source = array_module(x).empty(x.shape, x.dtype), planes(x)
    N, C, HW = source.shape
    mean, var = moments(source.reshape(N * num_groups, C // num_groups, HW).swapaxes(0, 1))
    launch(_normalise, source.shape, source, mean, var, *vectors(gamma, beta), mean.dtype.type(eps), planes(y))
    return y, mean, var


def group_norm_grad(gy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float) -> tuple[Array, Array, Array]:
    """gbeta = sum gy, ggamma = sum gy x_hat, gx = (g - mean(g) - x_hat mean(g x_hat)) / sqrt(var + eps) with g = gamma gy"""
    xp, g, source = array_module(x), planes(gy), planes(x)
    (N, C, HW), (gamma, mean, var) = source.shape, vectors(gamma, mean, var)
    ggamma, gbeta = (xp.empty(C, mean.dtype) for _ in range(2))
    level, slope, gx = xp.empty(mean.shape, mean.dtype), xp.empty(mean.shape, mean.dtype), xp.empty(x.shape, x.dtype)
    of_planes = (a.reshape(1, N * C, HW) for a in (g, source))
    sum_g, sum_gd = sums(next(of_planes), None, next(of_planes), xp.repeat(mean, N * C // len(mean)))
    launch(_of_groups, mean.shape, sum_g, sum_gd, gamma, mean.dtype.type(N * C // len(mean) * HW), level, slope)
    launch(_of_channels, gamma.shape, sum_g, sum_gd, var, mean.dtype.type(eps), ggamma, gbeta)
    launch(_gradient, source.shape, g, source, gamma, mean, var, level, slope, mean.dtype.type(eps), planes(gx))
    return gx, ggamma, gbeta


@kept(cuda.jit)
def _normalise(x, mean, var, gamma, beta, eps, y):
    """y[n,c,i] = gamma[c] / sqrt(var[k] + eps) (x[n,c,i] - mean[k]) + beta[c], k the group of plane n C + c"""
    N, C, HW = y.shape
    count = N * C // mean.size  # planes of a group
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    n = first_n
    while n < N:
        c = first_c
        while c < C:
            k = (n * C + c) // count
            scale, mu, offset = gamma[c] / std_of(var, k, eps), mean[k], beta[c]
            i = first_i
            while i < HW:
                y[n, c, i] = scale * (x[n, c, i] - mu) + offset
                i += di
            c += dc
        n += dn


@kept(cuda.jit)
def _of_groups(sum_g, sum_gd, gamma, m, level, slope):
    """level[k] = sum gamma sum_g / m and slope[k] = sum gamma sum_gd / m over the planes of group k, which has m values"""
    count, k, dk = sum_g.size // level.size, cuda.grid(1), cuda.gridsize(1)
    while k < level.size:
        a, b = level.dtype.type(0), level.dtype.type(0)
        for p in range(k * count, (k + 1) * count):
            a += gamma[p % gamma.size] * sum_g[p]
            b += gamma[p % gamma.size] * sum_gd[p]
        level[k], slope[k] = a / m, b / m
        k += dk


@kept(cuda.jit)
def _of_channels(sum_g, sum_gd, var, eps, ggamma, gbeta):
    """ggamma[c] = sum_n sum_gd / sqrt(var + eps) and gbeta[c] = sum_n sum_g, over the planes of channel c"""
    C, count, c, dc = ggamma.size, sum_g.size // var.size, cuda.grid(1), cuda.gridsize(1)
    while c < C:
        a, b = ggamma.dtype.type(0), ggamma.dtype.type(0)
        for p in range(c, sum_g.size, C):
            a += sum_gd[p] / std_of(var, p // count, eps)
            b += sum_g[p]
        ggamma[c], gbeta[c] = a, b
        c += dc


@kept(cuda.jit)
def _gradient(gy, x, gamma, mean, var, level, slope, eps, gx):
    """gx = (gamma[c] gy - level[k] - (x - mean[k]) slope[k] / (var[k] + eps)) / sqrt(var[k] + eps), k the group of n C + c"""
    N, C, HW = gx.shape
    count = N * C // mean.size
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    n = first_n
    while n < N:
        c = first_c
        while c < C:
            k = (n * C + c) // count
            std, a, mu, b, d = std_of(var, k, eps), gamma[c], mean[k], slope[k] / (var[k] + eps), level[k]
            i = first_i
            while i < HW:
                gx[n, c, i] = (a * gy[n, c, i] - d - (x[n, c, i] - mu) * b) / std
                i += di
            c += dc
        n += dn

"""What batch normalisation computes of one number a channel, by one kernel, where array code starts one an operation."""

from __future__ import annotations

import math

from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import launch


def norm_line(mean: Array, var: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """inv_std = 1 / sqrt(var + eps), scale = gamma inv_std, shift = beta - mean scale: then y = scale x + shift"""
    inv_std, scale, shift = found = _three_like(var)
    launch(_norm_line, var.shape, mean, var, gamma, beta, var.dtype.type(eps), inv_std, scale, shift)
    return found


def norm_line_grad(sum_g: Array, sum_gd: Array, scale: Array, inv_std: Array, m: int) -> tuple[Array, Array, Array]:
    """ggamma = sum_gd inv_std, a = scale sum_g / m, b = scale inv_std^2 sum_gd / m: gx = scale g - a - b (x - mean)

    sum_g, sum_gd: the sums of g and of g (x - mean) over the m values of each channel, g the gradient of y.
    """
    ggamma, a, b = found = _three_like(scale)
    launch(_norm_line_grad, scale.shape, sum_g, sum_gd, scale, inv_std, scale.dtype.type(m), ggamma, a, b)
    return found


def weighted_sum(a: Array, p: float, b: Array, q: float) -> Array:
    """y = p a + q b"""
    y = array_module(a).empty(a.shape, a.dtype)
    launch(_weighted_sum, a.shape, a, a.dtype.type(p), b, a.dtype.type(q), y)
    return y


def _three_like(x: Array) -> tuple[Array, Array, Array]:
    xp = array_module(x)
    return xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype)


@cuda.jit(device=True)
def std_of(var, c, eps):
    """sqrt(var[c] + eps), of the type of var"""
    return var.dtype.type(math.sqrt(var[c] + eps))


@kept(cuda.jit)
def _norm_line(mean, var, gamma, beta, eps, inv_std, scale, shift):
    """inv_std[c] = 1 / sqrt(var[c] + eps), scale[c] = gamma[c] inv_std[c], shift[c] = beta[c] - mean[c] scale[c]"""
    one = var.dtype.type(1)
    for c in range(cuda.grid(1), len(var), cuda.gridsize(1)):
        inv_std[c] = one / std_of(var, c, eps)
        scale[c] = gamma[c] * inv_std[c]
        shift[c] = beta[c] - mean[c] * scale[c]


@kept(cuda.jit)
def _norm_line_grad(sum_g, sum_gd, scale, inv_std, m, ggamma, a, b):
    """ggamma[c] = sum_gd[c] inv_std[c], a[c] = scale[c] sum_g[c] / m, b[c] = scale[c] inv_std[c]^2 sum_gd[c] / m"""
    for c in range(cuda.grid(1), len(scale), cuda.gridsize(1)):
        ggamma[c] = sum_gd[c] * inv_std[c]
        a[c] = scale[c] * sum_g[c] / m
        b[c] = scale[c] * inv_std[c] * inv_std[c] * sum_gd[c] / m


@kept(cuda.jit)
def _weighted_sum(a, p, b, q, y):
    """y[c] = p a[c] + q b[c]"""
    for c in range(cuda.grid(1), len(y), cuda.gridsize(1)):
        y[c] = p * a[c] + q * b[c]

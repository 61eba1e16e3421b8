"""Batch normalisation, with the relu and the sum behind it: first sums over the channel (moments.py), then a thread a value."""

from __future__ import annotations

import math

from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cuda.channels import planes, vectors
from minidl.kernels.cuda.launch import launch
from minidl.kernels.cuda.moments import moments, sums


def batch_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = gamma (x - mean) / sqrt(var + eps) + beta; mean and (biased) var of each channel"""
    return _forward(x, None, gamma, beta, eps, False)


def batch_norm_relu(x: Array, r: Array | None, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = max(batch_norm(x) + r, 0), r None for 0; and mean, var of each channel"""
    return _forward(x, r, gamma, beta, eps, True)


def batch_norm_grad(gy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float) -> tuple[Array, Array, Array]:
    """gbeta = sum gy, ggamma = sum gy x_hat, gx = gamma / sqrt(var + eps) (gy - gbeta / m - x_hat ggamma / m)"""
    gx, _, ggamma, gbeta = _backward(gy, None, x, gamma, mean, var, eps, False)
    return gx, ggamma, gbeta


def batch_norm_relu_grad(
    gy: Array, y: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float, residual: bool
) -> tuple[Array, Array | None, Array, Array]:
    """gr = gy where y > 0, else 0; gx, ggamma, gbeta as from `batch_norm_grad` of gr -> gx, gr or None, ggamma, gbeta"""
    return _backward(gy, y, x, gamma, mean, var, eps, residual)


def _forward(x: Array, r: Array | None, gamma: Array, beta: Array, eps: float, relu: bool) -> tuple[Array, Array, Array]:
    """y, mean, var"""
    y, source = array_module(x).empty(x.shape, x.dtype), planes(x)
    mean, var = moments(source)
    more, scalars = source if r is None else planes(r), (mean.dtype.type(eps), relu)
    launch(_normalise, source.shape, source, more, r is not None, mean, var, *vectors(gamma, beta), *scalars, planes(y))
    return y, mean, var


def _backward(
    gy: Array, y: Array | None, x: Array, gamma: Array, mean: Array, var: Array, eps: float, residual: bool
) -> tuple[Array, Array | None, Array, Array]:
    """gx, gr, ggamma, gbeta, the gradient passing where y > 0, or everywhere without y"""
    xp, g, source = array_module(x), planes(gy), planes(x)
    gamma, mean, var = vectors(gamma, mean, var)
    value = None if y is None else planes(y)
    gbeta, sum_gd = sums(g, value, source, mean)
    gx, gr = xp.empty(x.shape, x.dtype), xp.empty(x.shape, x.dtype) if residual else None
    gate = (g if value is None else value, value is not None)
    kept = (g if gr is None else planes(gr), residual)  # g in the place of an array that is not wanted
    launch(_gradient, source.shape, g, *gate, source, gamma, mean, var, mean.dtype.type(eps), gbeta, sum_gd, *kept, planes(gx))
    return gx, gr, sum_gd / (var + eps) ** 0.5, gbeta


@cuda.jit
def _normalise(x, r, residual, mean, var, gamma, beta, eps, relu, y):
    """y = gamma[c] / sqrt(var[c] + eps) (x[n,c,i] - mean[c]) + beta[c] + (r[n,c,i] if residual), and max(y, 0) if relu"""
    N, C, HW = y.shape
    zero = mean.dtype.type(0)
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    for c in range(first_c, C, dc):
        scale = gamma[c] / mean.dtype.type(math.sqrt(var[c] + eps))
        for n in range(first_n, N, dn):
            for i in range(first_i, HW, di):
                value = scale * (x[n, c, i] - mean[c]) + beta[c]
                if residual:
                    value += r[n, c, i]
                y[n, c, i] = zero if relu and value < zero else value  # NaN stays NaN


@cuda.jit
def _gradient(gy, y, gated, x, gamma, mean, var, eps, sum_g, sum_gd, gr, keep, gx):
    """gx = gamma / sqrt(var + eps) (g - sum_g / m - (x - mean) sum_gd / (m (var + eps))), g = gr = gy where y > 0, else 0"""
    N, C, HW = gx.shape
    zero, m = mean.dtype.type(0), mean.dtype.type(N * HW)
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    for c in range(first_c, C, dc):
        scale = gamma[c] / mean.dtype.type(math.sqrt(var[c] + eps))
        level, slope = sum_g[c] / m, sum_gd[c] / (m * (var[c] + eps))
        for n in range(first_n, N, dn):
            for i in range(first_i, HW, di):
                g = gy[n, c, i] if not gated or y[n, c, i] > zero else zero
                if keep:
                    gr[n, c, i] = g
                gx[n, c, i] = scale * (g - level - (x[n, c, i] - mean[c]) * slope)

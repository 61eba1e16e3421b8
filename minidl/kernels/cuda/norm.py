"""Batch normalisation, with the relu and the sum behind it: first sums over the channel (moments.py), then value by value."""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cache import kept
from minidl.kernels.cuda.channels import planes, vectors
from minidl.kernels.cuda.launch import AHEAD, U, launch
from minidl.kernels.cuda.line import std_of
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
    given = source, more, r is not None, mean, var, *vectors(gamma, beta), *scalars
    launch(_normalise, source.shape, *given, planes(y), ahead=AHEAD)
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
    ggamma, how = xp.empty(gbeta.shape, gbeta.dtype), _How(mean.dtype.type(eps), value is not None, residual)
    gate, residue = g if value is None else value, g if gr is None else planes(gr)  # g in the place of what is not wanted
    given = g, gate, source, gamma, mean, var, gbeta, sum_gd
    launch(_gradient, source.shape, *given, how, ggamma, residue, planes(gx), ahead=AHEAD)
    return gx, gr, ggamma, gbeta


@kept(cuda.jit)
def _normalise(x, r, residual, mean, var, gamma, beta, eps, relu, y):
    """y = gamma[c] / sqrt(var[c] + eps) (x[n,c,i] - mean[c]) + beta[c] + (r[n,c,i] if residual), and max(y, 0) if relu"""
    N, C, HW = y.shape
    zero = mean.dtype.type(0)
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    values = cuda.local.array(AHEAD, mean.dtype)
    more = cuda.local.array(AHEAD, mean.dtype)
    c = first_c
    while c < C:
        scale, mu, offset = gamma[c] / std_of(var, c, eps), mean[c], beta[c]
        i = first_i
        while i < HW:
            n = first_n
            while n < N:
                for k in range(AHEAD):
                    at = U(min(n + k * dn, N - 1))
                    values[k], more[k] = x[at, U(c), U(i)], zero
                    if residual:
                        more[k] = r[at, U(c), U(i)]
                for k in range(AHEAD):
                    value = scale * (values[k] - mu) + offset + more[k]
                    if n + k * dn < N:
                        y[U(n + k * dn), U(c), U(i)] = zero if relu and value < zero else value  # NaN stays NaN
                n += AHEAD * dn
            i += di
        c += dc


class _How(NamedTuple):
    eps: Any  # a number of the type of the mean
    gated: bool  # the gradient passes where y > 0 alone
    keep: bool  # gr, too


@kept(cuda.jit)
def _gradient(gy, y, x, gamma, mean, var, sum_g, sum_gd, how, ggamma, gr, gx):
    """gx = gamma / sqrt(var + eps) (g - sum_g / m - (x - mean) sum_gd / (m (var + eps))), g = gr = gy where y > 0, else 0

    And ggamma = sum_gd / sqrt(var + eps).
    """
    (N, C, HW), eps = gx.shape, how.eps
    zero, m = mean.dtype.type(0), mean.dtype.type(N * HW)
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    values = cuda.local.array(AHEAD, mean.dtype)
    gradients = cuda.local.array(AHEAD, mean.dtype)
    c = first_c
    while c < C:
        std, mu = std_of(var, c, eps), mean[c]
        scale, level, slope = gamma[c] / std, sum_g[c] / m, sum_gd[c] / (m * (var[c] + eps))
        if first_n == 0 and first_i == 0:
            ggamma[c] = sum_gd[c] / std
        i = first_i
        while i < HW:
            n = first_n
            while n < N:
                for k in range(AHEAD):
                    at = U(min(n + k * dn, N - 1))
                    values[k], gradients[k] = x[at, U(c), U(i)], gy[at, U(c), U(i)]
                    if how.gated:
                        gradients[k] = gradients[k] if y[at, U(c), U(i)] > zero else zero
                for k in range(AHEAD):
                    if n + k * dn < N:
                        at = U(n + k * dn)
                        if how.keep:
                            gr[at, U(c), U(i)] = gradients[k]
                        gx[at, U(c), U(i)] = scale * (gradients[k] - level - (values[k] - mu) * slope)
                n += AHEAD * dn
            i += di
        c += dc

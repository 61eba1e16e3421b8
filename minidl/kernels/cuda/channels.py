"""One line a channel, and what is rectified after it: every element for itself.

Memory takes long to answer. So a thread asks for AHEAD elements, the same pixel of as many images, before it needs the first;
had it stored one result before it asked for the next value, it would have to wait, since that might be the one just stored.
"""

from __future__ import annotations

from numba import cuda

from minidl.array import Array, array_module
from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import AHEAD, U, launch
from minidl.kernels.cuda.moments import sums


def channel_affine(x: Array, scale: Array, shift: Array) -> Array:
    """y[n,c,...] = scale[c] x[n,c,...] + shift[c]"""
    y, source = array_module(x).empty(x.shape, x.dtype), planes(x)
    launch(_affine, source.shape, source, *vectors(scale, shift), planes(y), ahead=AHEAD)
    return y


def channel_affine_relu(x: Array, r: Array | None, scale: Array, shift: Array) -> Array:
    """y[n,c,...] = max(scale[c] x[n,c,...] + shift[c] + r[n,c,...], 0), r None for 0"""
    y, source = array_module(x).empty(x.shape, x.dtype), planes(x)
    more = source if r is None else planes(r)
    launch(affine_relu, more.shape, source, more, r is not None, *vectors(scale, shift), planes(y), ahead=AHEAD)
    return y


def channel_affine_relu_grad(gy: Array, y: Array, scale: Array) -> tuple[Array, Array]:
    """gr = gy where y > 0, else 0; gx[n,c,...] = scale[c] gr[n,c,...] -> gx, gr"""
    xp = array_module(y)
    gx, gr, source = xp.empty(y.shape, y.dtype), xp.empty(y.shape, y.dtype), planes(gy)
    launch(_affine_relu_grad, source.shape, source, planes(y), *vectors(scale), planes(gx), planes(gr))
    return gx, gr


def channel_sums(gy: Array, x: Array, mean: Array) -> tuple[Array, Array]:
    """(sum gy, sum gy (x - mean[c])) over all but the channels"""
    return sums(planes(gy), None, planes(x), *vectors(mean))


def planes(x: Array) -> Array:
    """(N,C,...) as (N,C,all the rest): the same memory where x is contiguous, as every result is"""
    return contiguous(x).reshape(x.shape[0], x.shape[1], -1)


def vectors(*arrays: Array) -> list[Array]:
    """One number a channel each, contiguous"""
    return [contiguous(a) for a in arrays]


def contiguous(x: Array) -> Array:
    """x, or a copy"""
    return x if x.flags.c_contiguous else array_module(x).ascontiguousarray(x)


@kept(cuda.jit)
def _affine(x, scale, shift, y):
    """y[n,c,i] = scale[c] x[n,c,i] + shift[c]"""
    N, C, HW = y.shape
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    values = cuda.local.array(AHEAD, scale.dtype)
    c = first_c
    while c < C:
        a, b = scale[c], shift[c]
        i = first_i
        while i < HW:
            n = first_n
            while n < N:
                for k in range(AHEAD):
                    values[k] = x[U(min(n + k * dn, N - 1)), U(c), U(i)]
                for k in range(AHEAD):
                    if n + k * dn < N:
                        y[U(n + k * dn), U(c), U(i)] = a * values[k] + b
                n += AHEAD * dn
            i += di
        c += dc


@kept(cuda.jit)
def affine_relu(x, r, residual, scale, shift, y):
    """y[n,c,i] = max(scale[c] x[n,c,i] + shift[c] + (r[n,c,i] if residual else 0), 0)"""
    N, C, HW = y.shape
    zero = scale.dtype.type(0)
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    values = cuda.local.array(AHEAD, scale.dtype)
    more = cuda.local.array(AHEAD, scale.dtype)
    c = first_c
    while c < C:
        a, b = scale[c], shift[c]
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
                    value = a * values[k] + b + more[k]
                    if n + k * dn < N:
                        y[U(n + k * dn), U(c), U(i)] = zero if value < zero else value  # NaN stays NaN
                n += AHEAD * dn
            i += di
        c += dc


@kept(cuda.jit)
def _affine_relu_grad(gy, y, scale, gx, gr):
    """gr[n,c,i] = gy[n,c,i] where y[n,c,i] > 0, else 0; gx[n,c,i] = scale[c] gr[n,c,i]"""
    N, C, HW = y.shape
    zero = scale.dtype.type(0)
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    n = first_n
    while n < N:
        c = first_c
        while c < C:
            i = first_i
            while i < HW:
                g = gy[n, c, i] if y[n, c, i] > zero else zero
                gr[n, c, i] = g
                gx[n, c, i] = scale[c] * g
                i += di
            c += dc
        n += dn

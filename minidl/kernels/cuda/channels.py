"""One line a channel, and what is rectified after it: every element for itself, a thread each."""

from __future__ import annotations

from numba import cuda

from minidl.array import Array, array_module, sum_type
from minidl.kernels.cuda.launch import launch
from minidl.kernels.cuda.moments import sums


def channel_affine(x: Array, scale: Array, shift: Array) -> Array:
    """y[n,c,...] = scale[c] x[n,c,...] + shift[c]"""
    y = array_module(x).empty(x.shape, x.dtype)
    launch(_affine, planes(x).shape, planes(x), *vectors(scale, shift), planes(y))
    return y


def channel_affine_relu(x: Array, r: Array | None, scale: Array, shift: Array) -> Array:
    """y[n,c,...] = max(scale[c] x[n,c,...] + shift[c] + r[n,c,...], 0), r None for 0"""
    y = array_module(x).empty(x.shape, x.dtype)
    more = planes(x if r is None else r)
    launch(_affine_relu, more.shape, planes(x), more, r is not None, *vectors(scale, shift), planes(y))
    return y


def channel_affine_relu_grad(gy: Array, y: Array, scale: Array) -> tuple[Array, Array]:
    """gr = gy where y > 0, else 0; gx[n,c,...] = scale[c] gr[n,c,...] -> gx, gr"""
    xp = array_module(y)
    gx, gr = xp.empty(y.shape, y.dtype), xp.empty(y.shape, y.dtype)
    launch(_affine_relu_grad, planes(gy).shape, planes(gy), planes(y), *vectors(scale), planes(gx), planes(gr))
    return gx, gr


def channel_sums(gy: Array, x: Array) -> tuple[Array, Array]:
    """(sum gy, sum gy x) over all but the channels"""
    return sums(planes(gy), None, planes(x), array_module(x).zeros(x.shape[1], sum_type(x.dtype)))


def planes(x: Array) -> Array:
    """(N,C,...) as (N,C,all the rest): the same memory where x is contiguous, as every result is"""
    return array_module(x).ascontiguousarray(x).reshape(x.shape[0], x.shape[1], -1)


def vectors(*arrays: Array) -> list[Array]:
    """One number a channel each, contiguous"""
    return [array_module(a).ascontiguousarray(a) for a in arrays]


@cuda.jit
def _affine(x, scale, shift, y):
    """y[n,c,i] = scale[c] x[n,c,i] + shift[c]"""
    N, C, HW = y.shape
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    for n in range(first_n, N, dn):
        for c in range(first_c, C, dc):
            for i in range(first_i, HW, di):
                y[n, c, i] = scale[c] * x[n, c, i] + shift[c]


@cuda.jit
def _affine_relu(x, r, residual, scale, shift, y):
    """y[n,c,i] = max(scale[c] x[n,c,i] + shift[c] + (r[n,c,i] if residual else 0), 0)"""
    N, C, HW = y.shape
    zero = scale.dtype.type(0)
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    for n in range(first_n, N, dn):
        for c in range(first_c, C, dc):
            for i in range(first_i, HW, di):
                value = scale[c] * x[n, c, i] + shift[c]
                if residual:
                    value += r[n, c, i]
                y[n, c, i] = zero if value < zero else value  # NaN stays NaN


@cuda.jit
def _affine_relu_grad(gy, y, scale, gx, gr):
    """gr[n,c,i] = gy[n,c,i] where y[n,c,i] > 0, else 0; gx[n,c,i] = scale[c] gr[n,c,i]"""
    N, C, HW = y.shape
    zero = scale.dtype.type(0)
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    for n in range(first_n, N, dn):
        for c in range(first_c, C, dc):
            for i in range(first_i, HW, di):
                g = gy[n, c, i] if y[n, c, i] > zero else zero
                gr[n, c, i] = g
                gx[n, c, i] = scale[c] * g

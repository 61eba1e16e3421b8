"""The convolution kernels: `direct` computes any, `winograd` some of the 3x3 ones and `columns` those of few pixels sooner."""

from __future__ import annotations

import numpy as np

from minidl.array import Array
from minidl.kernels.compiled import columns, direct, winograd
from minidl.kernels.compiled.direct_plan import forward_plan, grad_x_plan
from minidl.kernels.compiled.operands import Source, Target
from minidl.kernels.shapes import Pair, Shape, conv_size, whole


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """y[n,f,i,j] = b[f] + sum_{c,u,v} w[f,c,u,v] x[n,c, i*s + u*d - p, j*s + v*d - p]"""
    F, C, *kernel_size = w.shape
    size = [conv_size(*a) for a in zip(x.shape[2:], kernel_size, stride, padding, dilation, strict=True)]
    x, y, nothing = np.ascontiguousarray(x), np.empty((len(x), F, *size), x.dtype), np.empty(0, x.dtype)
    source = Source(x, 0, x.shape[1], nothing, nothing)
    target = Target(y, 0, F, nothing if b is None else np.ascontiguousarray(b))
    of_all = whole(y.shape)
    if columns.pays(w.shape, of_all, groups, x.itemsize, columns.MOST):
        columns.conv2d(x, w, target.bias, y, stride, padding, dilation)
    elif winograd.pays(x.shape, w.shape, of_all, stride, dilation, winograd.CHANNELS):
        winograd.convolve(source, w, padding, target)
    else:
        p = forward_plan(x.shape, w.shape, stride, padding, dilation, groups, x.itemsize)
        direct.convolve(source, w.reshape(groups, F // groups, C, -1), p, target)
    return y


def conv2d_grad_x(gy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gx[n,c, i*s + u*d - p, j*s + v*d - p] += sum_f w[f,c,u,v] gy[n,f,i,j]"""
    F, C = w.shape[:2]
    gy, gx, nothing = np.ascontiguousarray(gy), np.empty(x_shape, gy.dtype), np.empty(0, gy.dtype)
    source, target = Source(gy, 0, F, nothing, nothing), Target(gx, 0, x_shape[1], nothing)
    if columns.pays(w.shape, gy.shape, groups, gy.itemsize, columns.MOST):
        columns.conv2d_grad_x(gy, w, gx, stride, padding, dilation)
    elif max(padding) <= 2 and winograd.pays(gy.shape, w.shape, x_shape, stride, dilation, winograd.CHANNELS):
        winograd.convolve(source, w, (2 - padding[0], 2 - padding[1]), target, turned=True)
    else:
        p = grad_x_plan(gy.shape, w.shape, x_shape, stride, padding, dilation, groups, gy.itemsize)
        direct.convolve(source, w.reshape(groups, F // groups, C, -1), p, target, transposed=True)
    return gx


def conv2d_grad_w(gy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gw[f,c,u,v] = sum_{n,i,j} gy[n,f,i,j] x[n,c, i*s + u*d - p, j*s + v*d - p]"""
    gy, x, nothing = np.ascontiguousarray(gy), np.ascontiguousarray(x), np.empty(0, x.dtype)
    of_gy, of_x = Source(gy, 0, gy.shape[1], nothing, nothing), Source(x, 0, x.shape[1], nothing, nothing)
    if columns.pays(w_shape, gy.shape, groups, x.itemsize, columns.MOST_CORRELATION):
        gw = np.empty(w_shape, x.dtype)
        columns.conv2d_grad_w(gy, x, gw, stride, padding, dilation)
        return gw
    if winograd.pays(x.shape, w_shape, gy.shape, stride, dilation, winograd.CHANNELS_CORRELATION):
        return winograd.correlate(of_gy, of_x, padding)
    p = forward_plan(x.shape, w_shape, stride, padding, dilation, groups, x.itemsize)
    return direct.correlate(of_gy, of_x, w_shape, p)

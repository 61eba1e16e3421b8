"""The convolution kernels: `direct` computes any, `winograd` some of the 3x3 ones and `columns` those of few pixels sooner."""

from __future__ import annotations

import numpy as np

from minidl.array import Array
from minidl.kernels.compiled import columns, direct, winograd
from minidl.kernels.shapes import Pair, Shape, conv_size


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """y[n,f,i,j] = b[f] + sum_{c,u,v} w[f,c,u,v] x[n,c, i*s + u*d - p, j*s + v*d - p]"""
    F, C, *kernel = w.shape
    size = [conv_size(*a) for a in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)]
    x, y = np.ascontiguousarray(x), np.empty((len(x), F, *size), x.dtype)
    nothing = np.empty(0, x.dtype)
    bias = nothing if b is None else np.ascontiguousarray(b)
    if columns.pays(w.shape, y.shape, groups, x.itemsize, columns.MOST):
        columns.conv2d(x, w, bias, y, stride, padding, dilation)
    elif winograd.pays(x.shape, w.shape, y.shape, stride, dilation, winograd.CHANNELS):
        winograd.convolve(x, nothing, nothing, w, bias, padding, y, 0)
    else:
        p = direct.forward_plan(x.shape, w.shape, stride, padding, dilation, groups, x.itemsize)
        direct.convolve(x, nothing, nothing, w.reshape(groups, F // groups, C, -1), bias, p, y, 0)
    return y


def conv2d_grad_x(gy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gx[n,c, i*s + u*d - p, j*s + v*d - p] += sum_f w[f,c,u,v] gy[n,f,i,j]"""
    F, C = w.shape[:2]
    gy, gx, nothing = np.ascontiguousarray(gy), np.empty(x_shape, gy.dtype), np.empty(0, gy.dtype)
    if columns.pays(w.shape, gy.shape, groups, gy.itemsize, columns.MOST):
        columns.conv2d_grad_x(gy, w, gx, stride, padding, dilation)
    elif max(padding) <= 2 and winograd.pays(gy.shape, w.shape, x_shape, stride, dilation, winograd.CHANNELS):
        winograd.convolve(gy, nothing, nothing, w, nothing, (2 - padding[0], 2 - padding[1]), gx, 0, turned=True)
    else:
        p = direct.grad_x_plan(gy.shape, w.shape, x_shape, stride, padding, dilation, groups, gy.itemsize)
        direct.convolve(gy, nothing, nothing, w.reshape(groups, F // groups, C, -1), nothing, p, gx, 0, transposed=True)
    return gx


def conv2d_grad_w(gy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gw[f,c,u,v] = sum_{n,i,j} gy[n,f,i,j] x[n,c, i*s + u*d - p, j*s + v*d - p]"""
    gy, x, nothing = np.ascontiguousarray(gy), np.ascontiguousarray(x), np.empty(0, x.dtype)
    if columns.pays(w_shape, gy.shape, groups, x.itemsize, columns.MOST_CORRELATION):
        gw = np.empty(w_shape, x.dtype)
        columns.conv2d_grad_w(gy, x, gw, stride, padding, dilation)
        return gw
    if winograd.pays(x.shape, w_shape, gy.shape, stride, dilation, winograd.CHANNELS_CORRELATION):
        return winograd.correlate(gy, 0, w_shape[0], x, nothing, nothing, w_shape[1], padding)
    p = direct.forward_plan(x.shape, w_shape, stride, padding, dilation, groups, x.itemsize)
    return direct.correlate(gy, 0, x, nothing, nothing, w_shape, p)

"""The fully connected layer."""

from __future__ import annotations

from minidl import kernels
from minidl.array import Array, array_module
from minidl.core import Grads, Op, Tensor, sum_of
from minidl.mixed import FLOAT32, HALF


class Linear(Op):
    """y[n,o] = b[o] + sum_i x[n,i] w[o,i]"""

    precision = HALF, HALF, FLOAT32  # x, w, b

    def forward(self, x: Array, w: Array, b: Array | None) -> Array:  # (N,I) (O,I) (O,)
        if w.ndim != 2:
            raise ValueError(f"weight: expected (O, I), got shape {w.shape}")
        if x.ndim != 2 or x.shape[1] != w.shape[1]:
            hint = "; write ops.flatten(x) first" if x.ndim > 2 else ""
            raise ValueError(f"x: expected (N, {w.shape[1]}), for w of {w.shape}, got {x.shape}{hint}")
        if b is not None and b.shape != (len(w),):
            raise ValueError(f"bias: expected shape ({len(w)},), got {b.shape}")
        self.x, self.w = x, w
        self.b = b
        y: Array = kernels.of(x).matmul(x, w.T)
        if b is not None:
            y += b
        return y

    def push(self, tx: Array | None, tw: Array | None, tb: Array | None) -> Array:
        """ty[n,o] = tb[o] + sum_i tx[n,i] w[o,i] + x[n,i] tw[o,i]"""
        k = kernels.of(self.x)
        of_x = None if tx is None else k.matmul(tx, self.w.T)
        of_w = None if tw is None else k.matmul(self.x, tw.T)
        of_b = None if tb is None else array_module(tb).broadcast_to(tb.astype(self.x.dtype), (len(self.x), len(tb)))
        return sum_of(of_x, of_w, of_b)

    def backward(self, gy: Array) -> Grads:  # (N,O)
        """gx[n,i] = sum_o gy[n,o] w[o,i], gw[o,i] = sum_n gy[n,o] x[n,i], gb[o] = sum_n gy[n,o]"""
        k = kernels.of(gy)
        gx = k.matmul(gy, self.w) if self.needs[0] else None
        gw = k.matmul(gy.T, self.x) if self.needs[1] else None
        gb = gy.sum(axis=0, dtype=self.b.dtype) if self.b is not None and self.needs[2] else None
        return gx, gw, gb


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x weight^T + bias: x (N,I), weight (O,I), bias (O,) or None -> (N,O). Raises ValueError for a shape that is wrong."""
    return Linear()(x, weight, bias)
